//! The `OpenAPI` document that a node serves, judged by somebody else's validator.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/child.rs"]
mod child;
#[path = "support/python.rs"]
mod python;
#[path = "support/support.rs"]
mod support;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use support::gateway::Gateway;

const CONFIG: &str = "[server]\nlisten = \"127.0.0.1:0\"\n";

#[track_caller]
fn judge(document: &str) -> Result<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi");
    let mut command = Command::new(python::python_of(&folder, "test-openapi"));
    command.arg(folder.join("validate.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(document.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    if output.status.success() { Ok(said) } else { Err(said) }
}

#[test]
fn the_document_is_what_the_specification_of_openapi_allows() {
    let node = Gateway::start_server("openapi", CONFIG);
    let (status, document) = node.control("/api/v1/openapi.json");
    assert_eq!(status, 200);
    let said = judge(&document).unwrap();
    let operations: u32 = said.split(' ').next().unwrap().parse().unwrap();
    assert!(100 < operations, "{said}");
    // It finds what is wrong, or its word would be worth nothing.
    let mut wrong: serde_json::Value = serde_json::from_str(&document).unwrap();
    wrong["paths"]["/api/v1/ready"]["get"]["responses"]["0"] =
        serde_json::json!({ "description": "no such status" });
    judge(&wrong.to_string()).unwrap_err();
}
