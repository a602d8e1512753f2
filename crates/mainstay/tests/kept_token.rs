//! The token of a control port that no configuration names.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;
use support::gateway::Gateway;

const CONFIG: &str = "[server]\nlisten = \"127.0.0.1:0\"\n";

/// The token of `node`, which ends before another one is started.
fn token_of(node: &mut Gateway) -> String {
    let token = node.door().1.to_owned();
    node.signal(Signal::TERM);
    let _ended = node.ended();
    token
}

#[test]
fn a_server_keeps_the_token_it_drew_until_its_file_is_gone() {
    let mut node = Gateway::start_server("token-first", CONFIG);
    let file = node.home().join("data/token");
    let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "nobody but its owner may read it");
    let drawn = token_of(&mut node);
    let mut node = node.again("token-second", &[]);
    assert_eq!(token_of(&mut node), drawn, "whoever was given it is let in again");
    fs::remove_file(&file).unwrap();
    let mut node = node.again("token-third", &[]);
    assert_ne!(token_of(&mut node), drawn, "another one is drawn");
}
