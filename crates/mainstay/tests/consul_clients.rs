//! Clients of Consul, taken from their registries and unmodified, against the door for them.
//!
//! Each is pinned with checksums (`requirements.txt`, `package-lock.json`, `go.sum`), brought below
//! the target directory once, and used as its documents say: a service is registered and found by a
//! query that waits, pairs are compared and set, a lock is held and held back.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/child.rs"]
mod child;
#[path = "support/python.rs"]
mod python;
#[path = "support/support.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use child::{beside_no_proxy, copied, ends_well, fetched};
use support::gateway::Gateway;

const CONFIG: &str = r#"
server = { listen = "127.0.0.1:0" }
[gateway]
listen = ["127.0.0.1:0"]
"#;

/// Runs a client against a node of its own, whose port comes last.
#[track_caller]
fn check(name: &str, mut client: Command) {
    let dev = Gateway::start_dev(&format!("consul-client-{name}"), CONFIG);
    beside_no_proxy(&mut client);
    ends_well(client.arg(dev.control.port().to_string()));
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/consul-clients").join(name)
}

#[test]
fn py_consul_of_the_python_package_index_works() {
    let folder = folder("python");
    let mut client = Command::new(python::python_of(&folder, "test-python-consul"));
    client.arg(folder.join("client.py"));
    check("python", client);
}

#[test]
fn consul_of_npm_works() {
    let files = ["package.json", "package-lock.json", "client.mjs"];
    let (home, is_new, lock) = copied(&folder("node"), "test-node-consul", &files);
    let brought = home.join("node_modules/.package-lock.json");
    if is_new || !brought.exists() {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&home);
        fetched("packages of npm", &mut npm);
    }
    drop(lock);
    let mut client = Command::new("node");
    client.arg(home.join("client.mjs"));
    check("node", client);
}

#[test]
fn the_go_client_of_consuls_makers_works() {
    let program = child::go_program(&folder("go"), "test-go-consul");
    check("go", Command::new(program));
}
