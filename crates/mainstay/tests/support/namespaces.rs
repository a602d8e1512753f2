//! Networks of the kernel's, so that members are cut off from each other as by a broken cable.
//!
//! A test runs itself again as the first process of namespaces of its own, where it may make what
//! it likes, and of which nothing is left when it ends. Three networks lie at one bridge:
//!
//! ```text
//!   this process, 10.77.0.254 ──┬── m0, 10.77.0.1
//!                               ├── m1, 10.77.0.2
//!                               └── m2, 10.77.0.3
//! ```

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::Command;

const INSIDE: &str = "MAINSTAY_TEST_NAMESPACES";

/// Whether this process is inside, and to play the test that asks. Outside it has been played, or
/// cannot be on this machine, which is said.
#[track_caller]
pub(crate) fn entered() -> bool {
    if std::env::var_os(INSIDE).is_some() {
        make();
        return true;
    }
    // A user, mounts, networks and processes of its own; all of them end with the first process.
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "--net", "--pid", "--fork", "--kill-child"]);
        command.args(["--mount-proc", "--"]);
        command
    };
    // Each test runs in a thread that is called like it.
    let thread = std::thread::current();
    let test = thread.name().unwrap();
    if !unshare().arg("true").status().is_ok_and(|status| status.success()) {
        // Past the harness, which keeps to itself what is printed by tests that pass.
        let why = "namespaces are not permitted here, nothing is cut off";
        let mut past = std::io::stderr();
        writeln!(past, "SKIPPED {test}: {why}").unwrap();
        return false;
    }
    let mut again = unshare();
    again.arg(std::env::current_exe().unwrap()).args([test, "--exact", "--nocapture"]);
    assert!(again.env(INSIDE, "1").status().unwrap().success(), "see above");
    false
}

/// Where a member is.
pub(crate) fn address(member: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, u8::try_from(member).unwrap() + 1)
}

/// A program in the network of a member.
pub(crate) fn command(member: usize, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &format!("m{member}"), program]);
    command
}

/// Pulls the cable of a member: nothing comes through, and nobody is told.
#[track_caller]
pub(crate) fn cut(member: usize) {
    ip(&format!("link set v{member} down"));
}

/// Puts it back.
#[track_caller]
pub(crate) fn mend(member: usize) {
    ip(&format!("link set v{member} up"));
}

#[track_caller]
fn make() {
    // Where `ip` keeps its names; our own mounts are seen by nobody else.
    let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]).status();
    assert!(mounted.unwrap().success());
    ip("link set lo up");
    ip("link add bridge type bridge");
    ip("address add 10.77.0.254/24 dev bridge");
    ip("link set bridge up");
    for member in 0..3 {
        ip(&format!("netns add m{member}"));
        ip(&format!("link add v{member} type veth peer name cable netns m{member}"));
        ip(&format!("link set v{member} master bridge up"));
        ip(&format!("-n m{member} address add {}/24 dev cable", address(member)));
        ip(&format!("-n m{member} link set cable up"));
        ip(&format!("-n m{member} link set lo up"));
    }
}

#[track_caller]
fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status();
    assert!(status.expect("scripts/test installs iproute2").success(), "ip {words}");
}
