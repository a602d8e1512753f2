//! Two nodes on one etcd, of which one goes: killed, or cut off from the store. Clients of the
//! library and of a gateway know both, and notice nothing but time.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/backend.rs"]
mod backend;
#[path = "support/support.rs"]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backend::Backend;
use mainstay_client::Client;
use mainstay_client::registry::Registration;
use mainstay_core::belief::Loss;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::etcd::Etcd;
use support::gateway::{Gateway, free_port};
use support::relay::Relay;
use support::wait::{pause, until};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_mins(1);

/// Of all nodes, also when they are started again.
const TOKEN: &str = "0123456789abcdef";

#[test]
fn a_backend() {
    backend::serve_if_asked();
}

/// The key that names a file with the token.
fn token(home: &Path) -> String {
    let file = home.join("token");
    fs::write(&file, TOKEN).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    format!("token_file = \"{}\"\n", file.display())
}

/// A node that keeps its port and its token, on the etcd at `endpoint`.
fn config(name: &str, home: &Path, endpoint: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:{}\"\nnode = \"{name}\"\n{}\
         [store]\nbackend = \"etcd\"\n[store.etcd]\nendpoints = [\"{endpoint}\"]\n\
         request_timeout_seconds = 2\n",
        free_port(),
        token(home)
    )
}

fn client(nodes: &[&Gateway]) -> Client {
    let servers = nodes.iter().map(|node| format!("http://{}", node.control));
    Client::builder(servers).token(TOKEN).name("test").build().unwrap()
}

/// What clients did, and what did not go well.
#[derive(Default)]
struct Seen {
    locks: AtomicU64,
    calls: AtomicU64,
    failed: Mutex<Vec<String>>,
    over: AtomicBool,
}

impl Seen {
    fn fails(&self, why: String) {
        self.failed.lock().unwrap().push(why);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Gets a lock and gives it back, again and again; both must always go well.
    async fn hold(&self, client: Client, name: String) {
        let mut last = 0;
        while !self.is_over() {
            match client.lock(&name).ttl(Duration::from_secs(20)).acquire().await {
                Ok(held) => {
                    if held.token() <= last {
                        self.fails(format!("token {} after {last}", held.token()));
                    }
                    last = held.token();
                    if let Err(error) = held.release().await {
                        self.fails(format!("release of {name}: {error}"));
                    }
                    self.locks.fetch_add(1, Ordering::SeqCst);
                }
                Err(error) => self.fails(format!("acquire of {name}: {error}")),
            }
        }
    }

    /// Calls through the gateway.
    fn call(&self, gateway: &Gateway) {
        while !self.is_over() {
            let status = gateway.status("/");
            if status != 200 {
                self.fails(format!("the gateway answers {status}"));
            }
            self.calls.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[track_caller]
    fn goes_on(&self, when: &str) {
        let counts = || (self.locks.load(Ordering::SeqCst), self.calls.load(Ordering::SeqCst));
        let before = counts();
        until(when, PATIENCE, || {
            let now = counts();
            before.0 + 20 < now.0 && before.1 + 20 < now.1
        });
        let failed = self.failed.lock().unwrap();
        assert!(failed.is_empty(), "{when}: {failed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn either_node_can_be_killed_and_no_call_of_a_client_fails() {
    let (etcd, home) = (Etcd::start(), TempDir::new().unwrap());
    let endpoint = etcd.endpoint();
    let first = Gateway::start_server("loss-a", &config("a", home.path(), &endpoint));
    let second = first.beside("loss-b", &config("b", home.path(), &endpoint));
    let gateway = Gateway::start(
        "loss-gateway",
        &format!(
            "[server]\nlisten = '127.0.0.1:0'\n[gateway]\nlisten = ['127.0.0.1:0']\n\
             drain_delay_seconds = 0\n[system]\ncpu_percent_max = 0\n[route.all]\npath = '/'\n\
             to = 'order'\n[upstream.order]\n[client]\nservers = ['http://{}', 'http://{}']\n{}",
            first.control,
            second.control,
            token(home.path())
        ),
    );
    let (one, other) = (Backend::start(), Backend::start());
    let owner = client(&[&first, &second]);
    let mut registered = Vec::new();
    for backend in [&one, &other] {
        let own = Registration::new("order", "127.0.0.1", backend.address.port());
        let own = owner.register(own.ttl(Duration::from_secs(5))).unwrap();
        own.ready().await.unwrap();
        registered.push(own);
    }
    until("the gateway serves", PATIENCE, || gateway.status("/") == 200);
    let (seen, gateway) = (Arc::new(Seen::default()), Arc::new(gateway));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..3 {
        // Each knows both; not all of them begin with the same one.
        let nodes = if number == 0 { [&second, &first] } else { [&first, &second] };
        let (holds, client) = (Arc::clone(&seen), client(&nodes));
        clients.spawn(async move { holds.hold(client, format!("lock-{number}")).await });
        let (calls, gateway) = (Arc::clone(&seen), Arc::clone(&gateway));
        clients.spawn_blocking(move || calls.call(&gateway));
    }
    let story = Arc::clone(&seen);
    let told = tokio::task::spawn_blocking(move || {
        let mut nodes = [first, second];
        story.goes_on("all is well");
        for at in [0, 1, 0] {
            nodes[at].signal(Signal::KILL);
            nodes[at].ended();
            story.goes_on("one node is enough");
            // Longer than an instance lives without a beat, which now go to the other node.
            pause(Duration::from_secs(6));
            story.goes_on("and stays so");
            nodes[at] = nodes[at].again("loss-again", &[]);
            story.goes_on("both are there again");
        }
        nodes
    });
    let told = told.await;
    seen.over.store(true, Ordering::SeqCst);
    clients.join_all().await;
    drop(told.unwrap());
    assert_eq!(*seen.failed.lock().unwrap(), Vec::<String>::new());
    assert!(registered.iter().all(mainstay_client::registry::Registered::is_known));
}

fn ask(node: &Gateway, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let (status, text) = node.call(method, &format!("/api/v1{path}"), &body.to_string());
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_node_that_is_cut_off_from_the_store_gives_up_what_it_cannot_keep_and_comes_back() {
    let (etcd, home) = (Etcd::start(), TempDir::new().unwrap());
    let endpoint = etcd.endpoint();
    let relay = Relay::to(endpoint.strip_prefix("http://").unwrap().parse().unwrap());
    let first = Gateway::start_server("cut-a", &config("a", home.path(), &endpoint));
    let through = format!("http://{}", relay.address);
    let second = first.beside("cut-b", &config("b", home.path(), &through));
    let order = "/registry/default/services/order";
    let instance = json!({ "address": "127.0.0.1", "port": 80, "kind": "persistent" });
    assert_eq!(ask(&first, "PUT", &format!("{order}/instances/a"), &instance).0, 201);
    until("both know it", PATIENCE, || {
        ask(&second, "GET", order, &Value::Null).1["instances"][0]["id"] == "a"
    });
    let ttl = Duration::from_secs(3);
    let held = client(&[&second]).lock("jobs/nightly").ttl(ttl).acquire().await.unwrap();

    relay.cut();
    // Its holder knows before anybody else can have it, and the other node then grants it.
    let lost = tokio::time::timeout(ttl, held.on_lost()).await;
    assert_eq!(lost.expect("within its ttl"), Loss::Expired);
    let next = client(&[&first]).lock("jobs/nightly").ttl(ttl).acquire().await.unwrap();
    assert!(held.token() < next.token());
    next.release().await.unwrap();
    // Whoever knows both is served by the one that can, though it asked the other one first.
    let both = client(&[&second, &first]);
    let held = both.lock("jobs/hourly").ttl(Duration::from_secs(20)).acquire().await.unwrap();
    held.check().unwrap();

    // Reads go on with the last state, which says how old it is; writes are refused, or said to be
    // of an unknown outcome.
    let weigh = |node: &Gateway, weight: u16| {
        let weight = json!({ "weight": weight });
        ask(node, "POST", &format!("{order}/instances/a/weight"), &weight)
    };
    for _ in 0..2 {
        let (status, problem) = weigh(&second, 9);
        let code = problem["code"].as_str().unwrap();
        assert!(
            matches!((status, code), (503, "store-unavailable") | (504, "outcome-unknown")),
            "{status} {problem}"
        );
    }
    until("it says that it is old", PATIENCE, || {
        let service = ask(&second, "GET", order, &Value::Null).1;
        service["stale"] == true && service["instances"].as_array().unwrap().len() == 1
    });
    assert_eq!(weigh(&first, 7).0, 200, "the other one goes on");

    relay.mend();
    until("it takes writes again", PATIENCE, || weigh(&second, 5).0 == 200);
    until("nothing is old any more", PATIENCE, || {
        let service = ask(&second, "GET", order, &Value::Null).1;
        service["stale"] != true && service["instances"][0]["weight"] == 5
    });
    let again = client(&[&second]).lock("jobs/nightly").ttl(ttl).acquire().await.unwrap();
    again.release().await.unwrap();
    held.release().await.unwrap();
}
