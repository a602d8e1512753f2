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

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use child::{beside_no_proxy, ends_well, fetched};
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

/// A folder below the target directory with copies of `files` from `of`, and whether they were not
/// there like this before. Held by the caller as long as the lock lives.
#[track_caller]
fn copied(of: &Path, name: &str, files: &[&str]) -> (PathBuf, bool, File) {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name(name);
    fs::create_dir_all(&home).unwrap();
    let lock = File::create(home.join("lock")).unwrap();
    lock.lock().unwrap();
    let mut is_new = false;
    for file in files {
        let (wanted, at) = (fs::read(of.join(file)).unwrap(), home.join(file));
        if fs::read(&at).ok().as_ref() != Some(&wanted) {
            is_new = true;
            fs::write(at, wanted).unwrap();
        }
    }
    (home, is_new, lock)
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
    let files = ["go.mod", "go.sum", "main.go"];
    let (home, is_new, lock) = copied(&folder("go"), "test-go-consul", &files);
    let program = home.join("client");
    if is_new || !program.exists() {
        // The one before must not stand in for one that cannot be built.
        drop(fs::remove_file(&program));
        let mut build = Command::new("go");
        build.args(["build", "-mod=readonly", "-buildvcs=false", "-o"]).arg(&program);
        let build = build.current_dir(&home).env("CGO_ENABLED", "0");
        build.env("GOMODCACHE", home.join("modules")).env("GOCACHE", home.join("cache"));
        // What is read-only would stand in the way of `cargo clean`.
        fetched("modules of Go", build.env("GOFLAGS", "-modcacherw"));
    }
    drop(lock);
    check("go", Command::new(program));
}
