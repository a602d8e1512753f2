//! Services in the registry of the same process, called through its gateway.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/backend.rs"]
mod backend;
#[path = "support/support.rs"]
mod support;

use std::time::Duration;

use backend::Backend;
use rustix::process::Signal;
use serde_json::{Value, json};

use support::events::{Event, Events};
use support::gateway::Gateway;
use support::wait::until;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
[system]
cpu_percent_max = 0
[route.all]
path = "/"
to = "order"
[upstream.order]
"#;

/// Soon enough for a change to be "at once" on a busy machine.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_backend() {
    backend::serve_if_asked();
}

fn register(node: &Gateway, id: &str, backend: &Backend) -> (u16, Value) {
    let port = backend.address.port();
    let document = json!({ "address": "127.0.0.1", "port": port, "ttl_seconds": 60 });
    call(node, "PUT", &instance(id), &document)
}

fn instance(id: &str) -> String {
    format!("/api/v1/registry/default/services/order/instances/{id}")
}

fn call(node: &Gateway, method: &str, path: &str, document: &Value) -> (u16, Value) {
    let (status, body) = node.call(method, path, &document.to_string());
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

#[test]
fn who_registers_is_called_and_who_drains_dies_or_leaves_is_not() {
    let node = Gateway::start_dev("registry", CONFIG);
    assert_eq!(node.status("/"), 503);
    let (a, b) = (Backend::start(), Backend::start());
    let (status, registered) = register(&node, "a", &a);
    assert_eq!((status, registered["ttl_seconds"].as_u64()), (201, Some(60)));
    until("the instance is called", SOON, || node.status("/") == 200);
    assert_eq!(register(&node, "a", &a).0, 200);

    b.behave(201, Duration::from_millis(1));
    assert_eq!(register(&node, "b", &b).0, 201);
    until("both are called", SOON, || node.status("/") == 201);
    let seconds = json!({ "seconds": 60 });
    assert_eq!(call(&node, "POST", &format!("{}/drain", instance("a")), &seconds).0, 200);
    until("only the other one is called", SOON, || (0..20).all(|_| node.status("/") == 201));

    assert_eq!(call(&node, "DELETE", &instance("b"), &json!({})).0, 200);
    until("nobody is left", SOON, || node.status("/") == 503);
    assert_eq!(call(&node, "POST", &format!("{}/undrain", instance("a")), &json!({})).0, 200);
    until("it is back", SOON, || node.status("/") == 200);

    let (status, problem) =
        call(&node, "POST", &format!("{}/heartbeat", instance("b")), &json!({}));
    assert_eq!((status, problem["code"].as_str()), (404, Some("instance-not-found")));
    let (_, explained) =
        call(&node, "GET", "/api/v1/registry/default/services/order/explain", &json!({}));
    assert_eq!(explained["instances"][0]["answered"], true);

    let (_, checks) = call(&node, "GET", "/api/v1/checks", &json!({}));
    let state = |id: &str| {
        let all = checks["items"].as_array().unwrap();
        all.iter().find(|check| check["id"] == id).unwrap()["state"].clone()
    };
    for id in ["store-reachable", "store-size", "protection-active", "services-without-health"] {
        assert_eq!(state(id), "pass", "{id}: {checks}");
    }
    assert!(state("store-writable") != "unknown", "{checks}");
    let listed = node.cli_json(&["instance", "list", "order"]);
    assert_eq!(listed["instances"][0]["id"], "a", "{listed}");
    assert_eq!(node.cli_json(&["instance", "show", "order", "a"])["state"], "up");
    let (code, _, said) = node.cli(&["instance", "show", "order", "b"]);
    assert!(code == 3 && said.contains("instance-not-found"), "{code} {said}");
    let mut watch = std::process::Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(["service", "watch", "order"])
        .env("XDG_RUNTIME_DIR", node.home().join("run"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    let mut lines = std::io::BufReader::new(watch.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut lines, &mut first).unwrap();
    watch.kill().unwrap();
    watch.wait().unwrap();
    let first: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(first["event"], "snapshot", "{first}");
}

#[test]
fn what_was_registered_is_there_after_a_kill() {
    let mut node = Gateway::start_dev("registry-kill", CONFIG);
    let a = Backend::start();
    assert_eq!(register(&node, "a", &a).0, 201);
    node.signal(Signal::KILL);
    node.ended();
    let again = node.again("registry-killed", &[]);
    until("it is called as before", SOON, || again.status("/") == 200);
    let (_, list) = call(&again, "GET", "/api/v1/registry/services", &json!({}));
    assert_eq!(list["items"][0]["instances"], 1);
}

#[test]
fn a_stream_tells_of_changes_and_goes_on_where_it_was() {
    let node = Gateway::start_dev("registry-stream", CONFIG);
    let a = Backend::start();
    register(&node, "a", &a);
    let mut stream = follow(&node, "view", None);
    let Event { name, id, document } = stream.next();
    assert_eq!((&*name, document["instances"][0]["id"].as_str()), ("snapshot", Some("a")));
    call(&node, "POST", &format!("{}/weight", instance("a")), &json!({ "weight": 7 }));
    let Event { name, id: later, document } = stream.next();
    assert_eq!((&*name, document["instances"][0]["weight"].as_u64()), ("change", Some(7)));
    assert!(id < later);

    let mut resumed = follow(&node, "events", Some(id));
    let Event { name, id: at, document } = resumed.next();
    assert_eq!((&*name, at, document["put"]["weight"].as_u64()), ("change", later, Some(7)));
    call(&node, "DELETE", &instance("a"), &json!({}));
    assert_eq!(resumed.next().document["removed"], "a");
    let Event { name, document, .. } = stream.next();
    assert_eq!((&*name, document["empty_because"].as_str()), ("change", Some("deregistered")));
}

#[test]
fn whoever_knows_of_a_history_that_is_no_more_is_told_so_and_begins_anew() {
    let node = Gateway::start_dev("registry-regressed", CONFIG);
    let a = Backend::start();
    register(&node, "a", &a);
    for (mode, weight) in [("view", 7), ("events", 8)] {
        let mut stream = follow(&node, mode, Some(1_000_000));
        let Event { name, document, .. } = stream.next();
        assert_eq!((&*name, document["reason"].as_str()), ("resync", Some("store-regressed")));
        let Event { name, id, document } = stream.next();
        let listed = document["instances"][0]["id"].as_str();
        assert_eq!((&*name, listed, id < 1_000_000), ("snapshot", Some("a"), true), "{mode}");
        call(&node, "POST", &format!("{}/weight", instance("a")), &json!({ "weight": weight }));
        let Event { name, id: later, .. } = stream.next();
        assert!(name == "change" && id < later, "{mode}: {name} {later}");
    }
}

#[test]
fn whoever_follows_several_services_gets_each_whole_when_it_comes_back() {
    let node = Gateway::start_dev("registry-several", CONFIG);
    let a = Backend::start();
    register(&node, "a", &a);
    let port = a.address.port();
    let document = json!({ "address": "127.0.0.1", "port": port });
    let stock = "/api/v1/registry/default/services/stock/instances/s";
    assert_eq!(call(&node, "PUT", stock, &document).0, 201);
    for mode in ["view", "events"] {
        // The last id is that of the later one; of the other nothing was seen.
        let path = format!("/api/v1/registry/watch?services=order,stock&mode={mode}");
        let header = "last-event-id: 1000000\r\n";
        let mut events = Events::of(node.open("GET", &path, header, ""));
        let mut of = [events.next(), events.next()].map(|event| {
            assert_eq!(event.name, "snapshot");
            event.document["service"].as_str().unwrap().to_owned()
        });
        of.sort_unstable();
        assert_eq!(of, ["order", "stock"], "{mode}");
    }
}

#[test]
fn a_change_that_is_tried_or_based_on_what_has_moved_is_not_made() {
    let node = Gateway::start_dev("registry-tried", CONFIG);
    let a = Backend::start();
    register(&node, "a", &a);
    let tried = format!("{}?dry_run=true", instance("a"));
    let (status, gone) = call(&node, "DELETE", &tried, &json!({}));
    assert_eq!((status, &gone["dry_run"], &gone["after"]), (200, &json!(true), &Value::Null));
    let (status, _) = node.call_with("DELETE", &instance("a"), "if-match: \"1\"\r\n", "{}");
    assert_eq!(status, 412);
    assert_eq!(register(&node, "a", &a).0, 200, "it is there");
    let settings = "/api/v1/registry/default/services/order";
    let stale = "if-match: \"1\"\r\n";
    for query in ["", "?dry_run=true"] {
        let (status, body) = node.call_with(
            "PUT",
            &format!("{settings}{query}"),
            stale,
            "{\"protect_threshold\":0.4}",
        );
        assert_eq!(status, 412, "{query} {body}");
    }
    let other = format!("{}?dry_run=true", instance("b"));
    let document = json!({ "address": "127.0.0.1", "port": 1 });
    assert_eq!(call(&node, "PUT", &other, &document).1["dry_run"], true);
    assert_eq!(call(&node, "DELETE", &instance("b"), &json!({})).0, 404);
}

#[test]
fn an_open_stream_does_not_keep_a_process_that_is_told_to_end() {
    let mut node = Gateway::start_dev("registry-end", CONFIG);
    let a = Backend::start();
    register(&node, "a", &a);
    let mut events = follow(&node, "view", None);
    assert_eq!(events.next().name, "snapshot");
    let (_, metrics) = node.control("/metrics");
    for name in ["mainstay_registry_push_seconds", "mainstay_lock_wait_seconds"] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
    node.signal(Signal::TERM);
    node.ended();
    let again = node.again("registry-ended", &[]);
    assert!(again.log().contains("unclean=false"), "the store was closed");
}

/// What is told of the service `order`, after `last`.
fn follow(node: &Gateway, mode: &str, last: Option<u64>) -> Events {
    let path = format!("/api/v1/registry/watch?services=default/order&mode={mode}");
    let last = last.map(|last| format!("last-event-id: {last}\r\n")).unwrap_or_default();
    Events::of(node.open("GET", &path, &last, ""))
}
