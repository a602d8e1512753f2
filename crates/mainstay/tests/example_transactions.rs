//! `examples/transactions/run`, played once: three services on real databases, every mode of
//! transaction, and deaths in between. It compares the books of all three, and so ends well only if
//! nothing was lost.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use support::gateway::{log_of, send};
use support::wait::{now, pause};

/// How long a busy machine may take to build one service, and to play.
const PATIENCE: Duration = Duration::from_mins(15);

#[test]
fn the_example_of_transactions_loses_no_money_and_no_article() {
    let log = log_of("example-transactions");
    let out = || File::options().create(true).append(true).open(&log).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    // The program under test; another build of it in its place would be that of other tests too.
    let mut child = Command::new(root.join("examples/transactions/run"))
        .args(["--debug", "--mainstay", env!("CARGO_BIN_EXE_mainstay")])
        .stdout(out())
        .stderr(out())
        .spawn()
        .unwrap();
    let began = now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if PATIENCE < began.elapsed() {
            // It ends its own children first.
            send(&child, Signal::TERM);
            child.wait().unwrap();
            break None;
        }
        pause(Duration::from_millis(100));
    };
    let said = fs::read_to_string(&log).unwrap();
    assert!(status.is_some_and(|status| status.success()), "{status:?}; {said}");
    assert!(said.contains("All 11 came out as they must."), "{said}");
}
