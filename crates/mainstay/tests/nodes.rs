//! Several nodes of one store, and a store that moves: real processes on a real etcd.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::etcd::Etcd;
use support::gateway::Gateway;
use support::wait::{now, until};

const PATIENCE: Duration = Duration::from_secs(30);

/// A node called `name` on `etcd`.
fn on(etcd: &Etcd, name: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nnode = \"{name}\"\n\
         [gateway]\nlisten = [\"127.0.0.1:0\"]\ndrain_delay_seconds = 0\n\
         [store]\nbackend = \"etcd\"\n[store.etcd]\nendpoints = [\"{}\"]\n\
         prefix = \"/test/\"\n",
        etcd.endpoint()
    )
}

fn document(node: &Gateway, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let (status, text) = node.call(method, &format!("/api/v1{path}"), &body.to_string());
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

fn get(node: &Gateway, path: &str) -> Value {
    document(node, "GET", path, &Value::Null).1
}

const SERVICE: &str = "/registry/default/services/web";

fn keys(node: &Gateway, prefix: &str) -> Vec<String> {
    let page = get(node, &format!("/store/range?prefix={prefix}"));
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item["key"].as_str().unwrap().to_owned()).collect()
}

fn register(node: &Gateway, weight: u32) {
    let body = json!({ "address": "10.0.0.1", "port": 80, "ttl_seconds": 60, "weight": weight });
    let (status, answer) = document(node, "PUT", &format!("{SERVICE}/instances/i1"), &body);
    assert!(status < 300, "{answer}");
}

#[test]
fn a_node_that_stops_hands_over_what_it_has_within_ten_seconds() {
    let etcd = Etcd::start();
    let mut a = Gateway::start_server("nodes-a", &on(&etcd, "a"));
    register(&a, 1);
    let b = a.beside("nodes-b", &on(&etcd, "b"));
    let owner = |node: &Gateway| get(node, SERVICE)["instances"][0]["owner"].clone();
    until("b knows the instance", PATIENCE, || owner(&b) == "a");
    until("a has its duties", PATIENCE, || !keys(&b, "duty/").is_empty());
    until("both are known", PATIENCE, || keys(&b, "node/") == ["node/a", "node/b"]);
    let path = "/api/v1/registry/watch?services=default/web&mode=events";
    let mut stream = a.open("GET", path, "", "");
    let seen = get(&a, SERVICE)["revision"].as_u64().unwrap();

    let began = now();
    a.signal(Signal::TERM);
    assert!(a.ended().success());
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    let mut last = String::new();
    // A connection that was reset all the same has said what it had to before.
    drop(stream.read_to_string(&mut last));
    assert!(last.contains("\nretry: "), "no word of when to come back in {last}");

    until("b has the instance", Duration::from_secs(5), || owner(&b) == "b");
    assert_eq!(get(&b, SERVICE)["instances"][0]["health"], "passing");
    assert_eq!(keys(&b, "node/"), ["node/b"]);
    until("b has every duty by itself", Duration::from_secs(15), || {
        let places = keys(&b, "duty/");
        let mut duties: Vec<&str> =
            places.iter().map(|key| key.split("/q/").next().unwrap()).collect();
        duties.dedup();
        !places.is_empty() && duties.len() == places.len()
    });
    // Whoever comes from the other node with its revision misses nothing.
    register(&b, 2);
    register(&b, 3);
    let resumed = format!("last-event-id: {seen}\r\n");
    let mut stream = b.open("GET", path, &resumed, "");
    let mut text = String::new();
    let mut buffer = [0; 4_096];
    while !text.contains("\"weight\":3") {
        let read = stream.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "the stream ended: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    let places: Vec<usize> =
        ["\"weight\":2", "\"weight\":3"].iter().map(|weight| text.find(weight).unwrap()).collect();
    assert!(places[0] < places[1], "{text}");
}

/// `mainstay …` without a running process; one that should end, and does not, is ended.
fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_mainstay")]).args(arguments);
    command.env_remove("XDG_RUNTIME_DIR").env("HOME", "/nonexistent");
    command.output().unwrap()
}

#[track_caller]
fn done(output: &Output) -> Value {
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{err}");
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

#[track_caller]
fn refused(output: &Output, why: &str) {
    let err = String::from_utf8_lossy(&output.stderr);
    assert_ne!(output.status.code(), Some(0));
    assert!(err.contains(why), "no {why:?} in {err}");
}

/// Takes a lock in a session of its own; its token.
fn token(node: &Gateway) -> u64 {
    let owner = json!({ "ttl_seconds": 60, "owner": { "host": "h", "pid": 1, "name": "t" } });
    let (_, session) = document(node, "POST", "/sessions", &owner);
    let (id, secret) = (session["session"].as_str().unwrap(), session["secret"].as_str().unwrap());
    let ask = json!({ "session": id, "request_id": "r-1", "wait_seconds": 0 }).to_string();
    let header = format!("mainstay-session-secret: {secret}\r\n");
    let path = "/api/v1/locks/default/nightly/acquire";
    let (status, granted) = node.call_with("POST", path, &header, &ask);
    assert_eq!(status, 200, "{granted}");
    serde_json::from_str::<Value>(&granted).unwrap()["token"].as_u64().unwrap()
}

fn stop(mut node: Gateway) -> Gateway {
    node.signal(Signal::TERM);
    assert!(node.ended().success());
    node
}

fn put(node: &Gateway, number: u32) {
    assert_eq!(node.call("PUT", &format!("/v1/kv/k/{number}"), "v").0, 200);
}

#[test]
fn a_store_moves_to_etcd_and_back_with_all_it_has_and_growing_tokens() {
    let etcd = Etcd::start();
    let node =
        Gateway::start_dev("nodes-move", &on(&etcd, "a").replace("\"etcd\"", "\"embedded\""));
    for number in 0..200 {
        put(&node, number);
    }
    let first = token(&node);
    let node = stop(node);
    let home = node.home().to_owned();
    let (data, config) = (home.join("data"), home.join("mainstay.toml"));
    let (data, config) = (data.to_str().unwrap(), config.to_str().unwrap());
    let copy = |from: &str, to: &str, data: &str| {
        let words = ["store", "copy", "--from", from, "--to", to, "--data-dir", data];
        run(&[&words[..], &["--config", config, "-o", "json"]].concat())
    };
    // Somebody else's keys under the prefix: neither copied over, nor used by a node.
    assert!(etcd.run(&["put", "/test/k/ckv/a", "1"]));
    refused(&copy("embedded", "etcd", data), "keys");
    node.configure(&on(&etcd, "a"));
    let words = ["server", "--config", config, "--data-dir", data];
    refused(&run(&words), "store-incomplete");
    assert!(etcd.run(&["del", "--prefix", "/test/"]));

    node.configure(&on(&etcd, "a").replace("\"etcd\"", "\"embedded\""));
    let copied = done(&copy("embedded", "etcd", data));
    node.configure(&on(&etcd, "a"));
    let node = node.again("nodes-moved", &[]);
    assert_eq!(node.control("/v1/kv/k/199?raw").1, "v");
    let second = token(&node);
    assert!(first < second, "{first} {second}");
    put(&node, 500);
    let node = stop(node);

    let back = home.join("back");
    std::fs::create_dir(&back).unwrap();
    let returned = done(&copy("etcd", "embedded", back.to_str().unwrap()));
    assert_ne!(returned["sha256"], copied["sha256"], "a pair more");
    std::fs::rename(data, home.join("before")).unwrap();
    std::fs::rename(&back, data).unwrap();
    node.configure(&on(&etcd, "a").replace("\"etcd\"", "\"embedded\""));
    let node = node.again("nodes-back", &[]);
    assert_eq!(node.control("/v1/kv/k/500?raw").1, "v");
    let third = token(&node);
    assert!(second < third, "{second} {third}");
}

#[test]
fn another_history_is_refused_over_a_restart_until_it_is_accepted() {
    let etcd = Etcd::start();
    let node = Gateway::start_server("nodes-history", &on(&etcd, "a"));
    let first = token(&node);
    let node = stop(node);
    let home = node.home().to_owned();
    assert!(home.join("data/etcd.known").exists());
    let _etcd = etcd.replaced();
    let node = node.again("nodes-other-history", &[]);
    until("it is refused", PATIENCE, || get(&node, "/store/status")["state"] == "regressed");
    let node = stop(node);
    let (data, config) = (home.join("data"), home.join("mainstay.toml"));
    let accept = |more: &[&str]| {
        let data = data.to_str().unwrap();
        let words = ["store", "accept", "--data-dir", data, "--config", config.to_str().unwrap()];
        run(&[&words[..], more].concat())
    };
    refused(&accept(&["--yes"]), "reason-required");
    done(&accept(&["--yes", "--reason", "etcd was begun anew"]));
    let node = node.again("nodes-accepted", &[]);
    until("it serves", PATIENCE, || get(&node, "/store/status")["state"] == "ready");
    let second = token(&node);
    assert!(first < second, "{first} {second}");
    assert!(Path::new(&data).exists());
}

const GROUP: &str = "/config/default/pay";

fn publish_secret(node: &Gateway, content: &str) {
    let item = json!({ "format": "text", "content": content, "secret": true });
    let publication = json!({ "items": { "password": item }, "note": "n" });
    let (status, answer) = document(node, "POST", &format!("{GROUP}/releases"), &publication);
    assert_eq!(status, 201, "{answer}");
}

fn secret(node: &Gateway) -> Value {
    get(node, &format!("{GROUP}?secrets=true"))["items"]["password"]["content"].clone()
}

/// The key that seals, as `node` knows it, and how much the keys before it still wrap.
fn keyring(node: &Gateway) -> (String, u64) {
    let keys = get(node, "/keyring");
    let (current, before) = keys["items"].as_array().unwrap().split_last().unwrap();
    assert_eq!(current["state"], "current");
    let wraps = before.iter().map(|key| key["wraps"].as_u64().unwrap()).sum();
    (current["id"].as_str().unwrap().to_owned(), wraps)
}

#[test]
fn nodes_of_one_etcd_share_a_keyring_that_is_carried_over_and_rotated_while_they_run() {
    let etcd = Etcd::start();
    let a = Gateway::start_server("keyring-a", &on(&etcd, "a"));
    publish_secret(&a, "first");
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let (config, data, pass, parcel) =
        (path("mainstay.toml"), path("data"), path("pass"), path("keys.json"));
    std::fs::write(&config, on(&etcd, "b")).unwrap();
    std::fs::write(&pass, "correct horse battery\n").unwrap();
    // Without the keys of the other it does not start, and makes none of its own.
    let start = run(&["server", "--config", &config, "--data-dir", &data]);
    refused(&start, "error[keyring-differs]");
    refused(&start, "mainstay keyring import");
    assert_eq!(start.status.code(), Some(4));
    assert!(!Path::new(&data).join("keyring").exists());

    a.cli_json(&["keyring", "export", &parcel, "--passphrase-file", &pass, "--reason", "for b"]);
    let import = |pass: &str| {
        let to = ["--data-dir", &data, "--config", &config, "-o", "json"];
        run(&[&["keyring", "import", &parcel, "--passphrase-file", pass], &to[..]].concat())
    };
    let wrong = path("wrong");
    std::fs::write(&wrong, "incorrect horse battery").unwrap();
    refused(&import(&wrong), "passphrase");
    assert_eq!(done(&import(&pass))["current"], keyring(&a).0);
    let b = Gateway::start_server_in("keyring-b", home);
    until("b reads what a sealed", PATIENCE, || secret(&b) == "first");

    let rotated = a.cli_json(&["keyring", "rotate", "--reason", "once a year"]);
    assert_eq!(rotated["current"], keyring(&a).0);
    assert_ne!(rotated["current"], rotated["before"]);
    until("b seals with it", PATIENCE, || rotated["current"] == keyring(&b).0);
    until("all is wrapped anew", PATIENCE, || keyring(&b).1 == 0);
    publish_secret(&b, "second");
    until("a reads what b sealed", PATIENCE, || secret(&a) == "second");
    // Both have it on disk, for themselves alone.
    let (a, b) = (stop(a), stop(b));
    for node in [&a, &b] {
        let file = node.home().join("data/keyring");
        let mode = std::os::unix::fs::MetadataExt::mode(&file.metadata().unwrap());
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.contains(rotated["current"].as_str().unwrap()));
    }
    let b = b.again("keyring-b-again", &[]);
    until("it still opens", PATIENCE, || secret(&b) == "second");
    for action in ["keyring:export", "keyring:import", "keyring:rotate"] {
        let found = get(&b, &format!("/audit?action={action}"));
        assert_eq!(found["items"].as_array().unwrap().len(), 1, "{action}: {found}");
    }
}

/// The targets of settings that were recorded, newest first, as `node` finds them.
fn recorded(node: &Gateway) -> Vec<String> {
    let page = get(node, "/audit?action=service:settings&limit=1000");
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| item["target"]["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_node_finds_audit_records_and_one_at_a_time_logs_them() {
    let etcd = Etcd::start();
    let config = |name: &str| format!("{}[audit]\nhead_seconds = 1\n", on(&etcd, name));
    let a = Gateway::start_server("audited-a", &config("a"));
    let settings = |node: &Gateway, number: u32| {
        let path = format!("/registry/default/services/s{number}");
        let body = json!({ "metadata": { "number": number.to_string() } });
        assert_eq!(document(node, "PUT", &path, &body).0, 200);
    };
    let logged = |node: &Gateway| node.counted("mainstay_audit_records_total", "service:settings");
    settings(&a, 0);
    until("a has the duty", PATIENCE, || logged(&a) == 1);
    let b = a.beside("audited-b", &config("b"));
    (1..20).for_each(|number| settings(if number % 2 == 0 { &a } else { &b }, number));
    let want =
        |to: u32| (0..to).rev().map(|number| format!("default/s{number}")).collect::<Vec<_>>();
    until("a logs all of them", PATIENCE, || logged(&a) == 20 && keys(&b, "aud/out/").is_empty());
    assert_eq!(logged(&b), 0);
    for node in [&a, &b] {
        assert_eq!(recorded(node), want(20));
    }
    // The next one goes on, in a log of its own; all that is new is found all the same.
    let a = stop(a);
    settings(&b, 20);
    until("b has the duty", PATIENCE, || logged(&b) == 1);
    assert_eq!(recorded(&b), want(21));
    until("its head is in the store", PATIENCE, || {
        keys(&b, "aud/head/") == ["aud/head/a", "aud/head/b"]
    });
    let page = get(&b, "/audit?limit=1");
    assert_eq!(page["elsewhere"][0]["node"], "a", "{page}");
    assert_eq!(b.control("/api/v1/audit/checkpoint").0, 200);
    // Each of the logs is whole.
    for node in [&a, &b] {
        let logs = std::fs::read_dir(node.home().join("data/audit")).unwrap();
        let folder = logs.map(|log| log.unwrap().path()).next().expect("there is a log");
        done(&run(&["audit", "verify", "--dir", folder.to_str().unwrap()]));
    }
    let a = a.again("audited-a-again", &[]);
    assert_eq!(recorded(&a), want(21));
}

#[test]
fn a_lost_keyring_is_given_up_on_purpose() {
    let config = "[server]\nlisten = \"127.0.0.1:0\"\n";
    let a = Gateway::start_server("keyring-lost", config);
    publish_secret(&a, "gone");
    let a = stop(a);
    let home = a.home().to_owned();
    std::fs::remove_file(home.join("data/keyring")).unwrap();
    let (config, data) = (home.join("mainstay.toml"), home.join("data"));
    let place = ["--config", config.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
    refused(&run(&[&["server"], &place[..]].concat()), "error[keyring-differs]");
    let accept = [&["keyring", "accept"], &place[..]].concat();
    refused(&run(&[&accept[..], &["--yes"]].concat()), "reason-required");
    done(&run(&[&accept[..], &["--yes", "--reason", "the disk is gone"]].concat()));
    let a = a.again("keyring-accepted", &[]);
    let (status, problem) = document(&a, "GET", &format!("{GROUP}?secrets=true"), &Value::Null);
    assert_eq!((status, &problem["code"]), (500, &json!("secret-unreadable")), "{problem}");
    publish_secret(&a, "anew");
    assert_eq!(secret(&a), "anew");
    let found = get(&a, "/audit?action=keyring:accept");
    assert_eq!(found["items"][0]["reason"], "the disk is gone", "{found}");
}

#[test]
fn a_mistake_about_etcd_is_found_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mainstay.toml");
    let text = "[store]\nbackend = \"etcd\"\n[store.etcd]\nendpoints = [\"127.0.0.1:2379\"]\n\
                ca_file = \"/nowhere/ca.pem\"\n";
    std::fs::write(&file, text).unwrap();
    let output = run(&["settings", "validate", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(7));
    for place in ["mainstay.toml:4:", "mainstay.toml:5:"] {
        refused(&output, place);
    }
    std::fs::write(&file, "[store]\nbackend = \"etcd\"\n").unwrap();
    let output = run(&["settings", "validate", "--config", file.to_str().unwrap()]);
    refused(&output, "store.etcd.endpoints");
}
