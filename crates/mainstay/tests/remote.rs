//! A gateway that goes by others: finds instances in the registry of another process, or in DNS, and
//! serves by the rules and switches that another process keeps.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/backend.rs"]
mod backend;
#[path = "support/support.rs"]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backend::Backend;
use mainstay_client::Client;
use mainstay_client::registry::{Registered, Registration};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::gateway::{Gateway, free_port};
use support::wait::{now, until};
use tempfile::TempDir;

/// How soon a change of rules is in force.
const WITHIN: Duration = Duration::from_secs(1);

/// Soon enough for a change to be "at once" on a busy machine.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_backend() {
    backend::serve_if_asked();
}

/// A file with the token that server and gateway share, readable as `mode` says.
fn token_file(home: &Path, mode: u32) -> PathBuf {
    let file = home.join("token");
    fs::write(&file, "0123456789abcdef\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    file
}

/// A server that keeps its ports and its token when it is started again.
fn server(name: &str, home: &Path) -> (Gateway, u16) {
    let (control, dns) = (free_port(), free_port());
    let token = token_file(home, 0o600);
    let config = format!(
        "[server]\nlisten = '127.0.0.1:{control}'\ntoken_file = '{}'\n\
         [dns]\nlisten = '127.0.0.1:{dns}'\nttl_seconds = 1\n",
        token.display()
    );
    (Gateway::start_server(name, &config), dns)
}

/// A gateway for the service `order`, and who knows its instances.
fn gateway(name: &str, client: &str) -> Gateway {
    let config = format!(
        "[server]\nlisten = '127.0.0.1:0'\n[gateway]\nlisten = ['127.0.0.1:0']\n\
         drain_delay_seconds = 0\n[system]\ncpu_percent_max = 0\n\
         [route.all]\npath = '/'\nto = 'order'\n[upstream.order]\n[client]\n{client}"
    );
    Gateway::start(name, &config)
}

/// The keys by which a gateway asks `server`.
fn asking(server: &Gateway, home: &Path) -> String {
    let (address, _) = server.door();
    let file = home.join("token").display().to_string();
    format!("servers = ['http://127.0.0.1:1', 'http://{address}']\ntoken_file = '{file}'\n")
}

fn client(server: &Gateway) -> Client {
    let (address, token) = server.door();
    Client::builder([format!("http://{address}")]).token(token).build().unwrap()
}

async fn register(client: &Client, id: &str, backend: &Backend) -> Registered {
    let own = Registration::new("order", "127.0.0.1", backend.address.port()).id(id);
    let own = client.register(own.ttl(Duration::from_mins(1))).unwrap();
    own.ready().await.unwrap();
    own
}

/// The gateway's calls go on all the while, and none fails.
#[track_caller]
fn goes_on(node: &Gateway, status: u16) {
    for _ in 0..20 {
        assert_eq!(node.status("/"), status);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_times_out_for_two_gateways_is_shown_to_all_and_called_by_neither() {
    let home = TempDir::new().unwrap();
    let (server, _) = server("observed-server", home.path());
    // Only the verdict that an instance times out and does nothing else.
    let policy = "[upstream.order.retry]\ntry_seconds = 0.2\n\
                  [upstream.order.balance]\nkind = 'round_robin'\n\
                  [circuit.default]\nconsecutive_failures = 0\nfailure_rate_percent = 0\n\
                  window_seconds = 20\n";
    let start = |name| gateway(name, &format!("{}{policy}", asking(&server, home.path())));
    let (one, two) = (start("observed-one"), start("observed-two"));
    let (good, slow) = (Backend::start(), Backend::start());
    slow.behave(201, Duration::from_millis(1));
    let clients = client(&server);
    let _good = register(&clients, "good", &good).await;
    let _slow = register(&clients, "slow", &slow).await;
    for gateway in [&one, &two] {
        until("both are called", SOON, || gateway.status("/") == 200);
        until("both are called", SOON, || gateway.status("/") == 201);
    }
    slow.behave(201, Duration::from_secs(30));
    let health = || {
        let (_, text) = server.control("/api/v1/registry/default/services/order");
        let service: Value = serde_json::from_str(&text).unwrap();
        let all = service["instances"].as_array().unwrap();
        let slow = all.iter().find(|instance| instance["id"] == "slow").unwrap();
        slow["health"].as_str().unwrap().to_owned()
    };
    let told = |gateway: &Gateway| gateway.counted("mainstay_observations_total", "taken");
    until("one has told", SOON, || {
        // Another instance answers in the end.
        assert_eq!(one.status("/"), 200);
        0 < told(&one)
    });
    assert_eq!(health(), "passing", "two follow the service, and one alone has met it");
    goes_on(&one, 200);
    until("the other has told", SOON, || {
        assert_eq!(two.status("/"), 200);
        0 < told(&two)
    });
    until("all are told", SOON, || health() == "warning");
    let began = now();
    goes_on(&one, 200);
    goes_on(&two, 200);
    assert!(began.elapsed() < Duration::from_secs(8), "neither waits for the slow one any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_follows_the_registry_of_a_server_and_goes_on_without_it() {
    let home = TempDir::new().unwrap();
    let (mut server, _) = server("remote-server", home.path());
    let node = gateway("remote-gateway", &asking(&server, home.path()));
    assert_eq!(node.status("/"), 503);
    let (a, b) = (Backend::start(), Backend::start());
    b.behave(201, Duration::from_millis(1));
    let clients = client(&server);
    let first = register(&clients, "a", &a).await;
    until("it is called", SOON, || node.status("/") == 200);
    let second = register(&clients, "b", &b).await;
    until("the other one is called too", SOON, || node.status("/") == 201);
    first.drain(60).await.unwrap();
    until("only the other one is called", SOON, || (0..20).all(|_| node.status("/") == 201));

    // Time for the list to be kept: it is, once a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.signal(Signal::KILL);
    server.ended();
    goes_on(&node, 201);
    until("it says so", SOON, || node.logged("registry is away") == 1);

    // A gateway that starts alone begins with what the one before knew.
    let mut node = node;
    node.signal(Signal::KILL);
    node.ended();
    let node = node.again("remote-gateway-alone", &[]);
    goes_on(&node, 201);

    let server = server.again("remote-server-again", &[]);
    until("it says so", SOON, || node.logged("registry is back") == 1);
    goes_on(&node, 201);
    second.deregister().await.unwrap();
    until("what has changed is heard", SOON, || node.status("/") != 201);
    let third = register(&client(&server), "b", &b).await;
    until("and what is new", SOON, || node.status("/") == 201);
    drop(third);
    until("whoever leaves is not called any more", SOON, || node.status("/") == 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_whose_registry_was_lost_is_registered_with_the_next_one() {
    let home = TempDir::new().unwrap();
    let (mut old, _) = server("remote-lost", home.path());
    let node = gateway("remote-lost-gateway", &asking(&old, home.path()));
    let a = Backend::start();
    let own = Registration::new("order", "127.0.0.1", a.address.port());
    let clients = client(&old);
    let own = clients.register(own.ttl(Duration::from_secs(5))).unwrap();
    until("it is called", SOON, || node.status("/") == 200);
    old.signal(Signal::KILL);
    old.ended();
    // The same address and token, and a store without history.
    let data = old.home().join("data");
    fs::rename(data.join("store"), old.home().join("lost")).unwrap();
    let next = old.again("remote-lost-next", &[]);
    until("it is known there", SOON, || {
        let (status, list) = next.control("/api/v1/registry/default/services/order");
        status == 200 && list.contains("\"passing\"")
    });
    goes_on(&node, 200);
    drop(own);
    until("and leaves there", SOON, || node.status("/") == 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_follows_names_and_the_last_answer_stays() {
    let home = TempDir::new().unwrap();
    let (mut server, dns) = server("remote-dns", home.path());
    let asking = format!("resolve = 'dns'\nnameservers = ['127.0.0.1:1', '127.0.0.1:{dns}']\n");
    let node = gateway("remote-dns-gateway", &asking);
    assert_eq!(node.status("/"), 503);
    let a = Backend::start();
    let own = register(&client(&server), "a", &a).await;
    until("the name is asked for again", SOON, || node.status("/") == 200);
    server.signal(Signal::KILL);
    server.ended();
    until("nobody answers", SOON, || node.logged("a name is not answered") == 1);
    goes_on(&node, 200);
    drop(own);
}

const WHY: &str = "content-type: application/json\r\nmainstay-reason: sale\r\n";

/// A call of the API of a server.
#[track_caller]
fn put(server: &Gateway, path: &str, body: &Value) {
    let path = format!("/api/v1{path}");
    let (status, answer) = server.call_with("PUT", &path, WHY, &body.to_string());
    assert_eq!(status, 200, "{path}: {answer}");
}

/// A route to a service that a backend answers for, and that service.
fn serve(server: &Gateway, name: &str, backend: &Backend) {
    let upstream = format!("instances = ['{}']\ncircuits = []\n", backend.address);
    put(server, &format!("/upstreams/default/{name}"), &json!({ "content": upstream }));
    let route = format!("path = '/sale'\nswitch = 'shop-open'\nto = '{name}'\n");
    put(server, "/routes/default/sale", &json!({ "content": route }));
}

fn turned(on: bool) -> Value {
    json!({ "content": { "type": "boolean", "value": on } })
}

#[test]
fn a_gateway_serves_by_rules_and_switches_of_a_server_and_goes_on_without_it() {
    let home = TempDir::new().unwrap();
    let (mut server, _) = server("remote-rules-server", home.path());
    let (a, b) = (Backend::start(), Backend::start());
    a.behave(201, Duration::ZERO);
    b.behave(202, Duration::ZERO);
    serve(&server, "a", &a);
    let node = gateway("remote-rules", &asking(&server, home.path()));
    assert_eq!(node.status("/sale"), 201, "it is there from the beginning");

    // What changes is in force within a second.
    let began = now();
    serve(&server, "b", &b);
    until("the route is followed", WITHIN, || node.status("/sale") == 202);
    put(&server, "/switches/default/shop-open", &turned(false));
    until("the switch is followed", WITHIN, || node.status("/sale") == 503);
    put(&server, "/switches/default/shop-open", &turned(true));
    until("and turned again", WITHIN, || node.status("/sale") == 202);
    put(&server, "/switches/default/shop-open", &turned(false));
    until("and again", WITHIN, || node.status("/sale") == 503);
    assert!(began.elapsed() < WITHIN * 4, "four turns in {:?}", began.elapsed());
    let (status, shown) = node.control("/api/v1/routes/default/sale");
    assert!(status == 200 && shown.contains("\"in_force\""), "{shown}");
    let (status, refused) = node.call_with("DELETE", "/api/v1/routes/default/sale", WHY, "");
    assert!(status == 409 && refused.contains("[client]"), "{status} {refused}");

    let kept = node.home().join("data/cache/rules/_/all.json");
    until("the last state is kept", SOON, || {
        fs::read_to_string(&kept).is_ok_and(|kept| kept.contains("\"value\":false"))
    });
    server.signal(Signal::KILL);
    server.ended();
    until("it says so", SOON, || node.logged("rules are not followed") == 1);
    assert_eq!(node.status("/sale"), 503, "the switch is off");
    let mut node = node;
    node.signal(Signal::KILL);
    node.ended();
    let node = node.again("remote-rules-alone", &[]);
    assert_eq!(node.status("/sale"), 503, "what the one before knew");
    assert_eq!(node.status("/"), 503, "its own route is there, too");

    let mut server = server.again("remote-rules-again", &[]);
    until("it says so", SOON, || node.logged("rules are followed again") == 1);
    put(&server, "/switches/default/shop-open", &turned(true));
    until("what changes is heard", WITHIN, || node.status("/sale") == 202);

    // Another history behind the same address: what it does not have is no more.
    server.signal(Signal::KILL);
    server.ended();
    fs::rename(server.home().join("data/store"), server.home().join("lost")).unwrap();
    let server = server.again("remote-rules-next", &[]);
    serve(&server, "a", &a);
    until("the new history is believed", SOON, || node.status("/sale") == 201);
}

#[test]
fn a_token_others_may_read_is_refused() {
    let home = TempDir::new().unwrap();
    let file = token_file(home.path(), 0o644);
    let config = home.path().join("mainstay.toml");
    let text = format!(
        "[gateway]\nlisten = ['127.0.0.1:0']\n[client]\nservers = ['http://127.0.0.1:1']\n\
         token_file = '{}'\n",
        file.display()
    );
    fs::write(&config, text).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(["gateway", "--random-ports", "--ephemeral", "--config"])
        .arg(config)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{told}");
    assert!(told.contains("error[context-file-open]") && told.contains("mode 0644"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leaves_takes_nobody_along_who_came_by_the_same_name() {
    let home = TempDir::new().unwrap();
    let (server, _) = server("remote-same-name", home.path());
    let clients = client(&server);
    let own = clients.register(Registration::new("order", "127.0.0.1", 8_080).id("a")).unwrap();
    own.ready().await.unwrap();
    // The next process of that name is there before this one has left.
    let path = "/api/v1/registry/default/services/order/instances/a";
    let next = json!({ "address": "127.0.0.1", "port": 8_081, "weight": 7 }).to_string();
    let (status, registered) = server.call("PUT", path, &next);
    assert_eq!(status, 200, "{registered}");
    own.deregister().await.unwrap();
    let (_, list) = server.control("/api/v1/registry/default/services/order");
    assert!(list.contains("\"weight\":7"), "{list}");

    let (status, refused) = server.call("DELETE", &format!("{path}?registration=another"), "");
    assert_eq!(status, 404, "{refused}");
    assert!(refused.contains("instance-not-found"), "{refused}");
    let registered: Value = serde_json::from_str(&registered).unwrap();
    let made = registered["registration"].as_str().unwrap();
    assert_eq!(server.call("DELETE", &format!("{path}?registration={made}"), "").0, 200);
    let (_, list) = server.control("/api/v1/registry/default/services/order");
    assert!(list.contains("\"instances\":[]"), "{list}");
}
