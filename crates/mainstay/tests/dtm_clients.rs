//! Clients of DTM, taken from their registries and unmodified, against the door for them.
//!
//! Each is pinned with checksums (`requirements.txt`, `go.sum`) and used as its documents say, as
//! manager and as participants; the barrier of the one in Python lies in a `MariaDB` of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/child.rs"]
mod child;
#[path = "support/python.rs"]
mod python;
#[path = "support/support.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use child::{beside_no_proxy, ends_well};
use support::gateway::Gateway;

const CONFIG: &str = r#"
server = { listen = "127.0.0.1:0" }
[gateway]
listen = ["127.0.0.1:0"]
[transaction.dtm]
retry_interval_seconds = 1
"#;

/// Runs a client against a node of its own, whose port comes last.
#[track_caller]
fn check(name: &str, mut client: Command) {
    let dev = Gateway::start_dev(&format!("dtm-client-{name}"), CONFIG);
    beside_no_proxy(&mut client);
    ends_well(client.arg(dev.control.port().to_string()));
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dtm-clients").join(name)
}

#[test]
fn dtmcli_of_the_python_package_index_works() {
    let folder = folder("python");
    let mut client = Command::new(python::python_of(&folder, "test-python-dtm"));
    client.arg(folder.join("client.py"));
    check("python", client);
}

#[test]
fn the_go_client_of_dtms_makers_works() {
    check("go", Command::new(child::go_program(&folder("go"), "test-go-dtm")));
}
