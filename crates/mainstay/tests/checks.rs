//! `GET /checks` and `mainstay check` of a process that keeps agreed state: what is wrong is found,
//! and asking costs the store next to nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

#[path = "support/support.rs"]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::etcd::Etcd;
use support::gateway::Gateway;
use support::wait::until;

const PATIENCE: Duration = Duration::from_secs(30);

fn get(node: &Gateway, path: &str) -> Value {
    let (status, text) = node.control(&format!("/api/v1{path}"));
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// How the check `id` came out, and the whole of it.
fn check(node: &Gateway, id: &str) -> (String, Value) {
    let checks = get(node, "/checks");
    let found = checks["items"].as_array().unwrap().iter().find(|check| check["id"] == id);
    let found = found.unwrap_or_else(|| panic!("no {id} in {checks}")).clone();
    (found["state"].as_str().unwrap().to_owned(), found)
}

fn stands(node: &Gateway, id: &str) -> String {
    check(node, id).0
}

#[test]
fn what_is_wrong_with_one_node_is_found() {
    let node = Gateway::start_server("checks", "[server]\nlisten = \"127.0.0.1:0\"\n");
    for id in ["store-compaction", "watch-lag", "keyring-mode", "instances-expiring"] {
        let (state, whole) = check(&node, id);
        assert_eq!(state, "pass", "{whole}");
    }
    assert_eq!(stands(&node, "store-quorum"), "skip", "nobody to agree with");

    let keyring = node.home().join("data/keyring");
    fs::set_permissions(&keyring, fs::Permissions::from_mode(0o644)).unwrap();
    let (state, whole) = check(&node, "keyring-mode");
    assert_eq!(state, "fail", "{whole}");
    assert!(whole["next"].as_str().unwrap().starts_with("chmod 0600 "), "{whole}");
    let (code, out, _) = node.cli(&["check", "--category", "security"]);
    assert!(code == 1 && out.contains("security/keyring-mode"), "{code} {out}");
    fs::set_permissions(&keyring, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(stands(&node, "keyring-mode"), "pass");

    let instance = json!({ "address": "127.0.0.1", "port": 80, "ttl_seconds": 5 });
    let path = "/api/v1/registry/default/services/order/instances/a";
    assert_eq!(node.call("PUT", path, &instance.to_string()).0, 201);
    assert_eq!(stands(&node, "instances-expiring"), "pass");
    until("its silence is noticed", PATIENCE, || stands(&node, "instances-expiring") == "warn");
    let (_, whole) = check(&node, "instances-expiring");
    assert!(whole["evidence"].as_str().unwrap().contains("default/order"), "{whole}");
}

#[test]
fn asking_again_and_again_writes_next_to_nothing() {
    let node = Gateway::start_server("checks-often", "[server]\nlisten = \"127.0.0.1:0\"\n");
    let revision = || get(&node, "/store/status")["revision"].as_u64().unwrap();
    let before = revision();
    for _ in 0..100 {
        assert_ne!(stands(&node, "store-writable"), "unknown");
    }
    let written = revision() - before;
    assert!(written < 20, "{written} revisions for 100 questions");
}

#[test]
fn a_store_that_has_no_majority_is_told_from_one_that_has() {
    let etcd = Etcd::start();
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[store]\nbackend = \"etcd\"\n[store.etcd]\n\
         endpoints = [\"{}\"]\n",
        etcd.endpoint()
    );
    let node = Gateway::start_server("checks-quorum", &config);
    for id in ["store-quorum", "watch-lag"] {
        let (state, whole) = check(&node, id);
        assert_eq!(state, "pass", "{whole}");
    }
    assert_eq!(stands(&node, "store-compaction"), "skip");
    etcd.signal(Signal::STOP);
    assert_eq!(stands(&node, "store-quorum"), "fail");
    assert_ne!(stands(&node, "watch-lag"), "pass");
    etcd.signal(Signal::CONT);
    until("it recovers", PATIENCE, || stands(&node, "store-quorum") == "pass");
}
