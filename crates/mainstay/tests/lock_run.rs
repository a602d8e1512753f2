//! `mainstay lock run` and `leader run`: the real binary holds, and the real binary serves.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, test_kill_process};
use serde_json::Value;
use support::gateway::{Gateway, send};
use support::wait::until;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
"#;

/// How long anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A command line of the real binary, which finds `node`.
fn mainstay(node: &Gateway, line: &str, script: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command
        .args(line.split(' '))
        .env("STATE_DIRECTORY", node.home().join("data"))
        .env("HOME", node.home())
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("XDG_DATA_HOME")
        .current_dir(node.home())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if !script.is_empty() {
        command.args(["--", "sh", "-c", script]);
    }
    command
}

/// Runs it to its end: exit code, output, errors.
#[track_caller]
fn run(node: &Gateway, line: &str, script: &str) -> (i32, String, String) {
    said(mainstay(node, line, script).spawn().unwrap())
}

#[track_caller]
fn said(child: Child) -> (i32, String, String) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Starts it, and waits until its script has made the file `here`.
#[track_caller]
fn started(node: &Gateway, line: &str, script: &str) -> Child {
    let here = node.home().join("here");
    drop(std::fs::remove_file(&here));
    let child = mainstay(node, line, &format!("echo $$ > there; mv there here; {script}"));
    let mut child = { child }.spawn().unwrap();
    until("the command runs", PATIENCE, || {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        here.exists()
    });
    child
}

/// The process that made the file `here`.
fn pid(node: &Gateway) -> Pid {
    let text = std::fs::read_to_string(node.home().join("here")).unwrap();
    Pid::from_raw(text.trim().parse().unwrap()).unwrap()
}

fn status(node: &Gateway, path: &str) -> Value {
    let (status, document) = node.control(&format!("/api/v1/{path}"));
    assert_eq!(status, 200, "{document}");
    serde_json::from_str(&document).unwrap()
}

#[test]
fn the_command_knows_its_token_and_its_exit_code_is_passed_on() {
    let node = Gateway::start_dev("lock-run", CONFIG);
    let tell = "echo $MAINSTAY_LOCK_NAME=$MAINSTAY_LOCK_TOKEN; exit 7";
    let (code, first, errors) = run(&node, "lock run jobs/nightly", tell);
    assert_eq!(code, 7, "{errors}");
    let token = |said: &str| said.trim().split_once('=').unwrap().1.parse::<u64>().unwrap();
    assert!(first.starts_with("default/jobs/nightly="), "{first}");
    assert_eq!(run(&node, "lock run jobs/nightly", "kill -9 $$").0, 128 + 9);
    let (code, second, _) = run(&node, "lock run jobs/nightly --try", tell);
    assert_eq!(code, 7, "it was given back, also by the one that was killed");
    assert!(token(&first) < token(&second));

    let program = |name: &str| {
        let mut command = mainstay(&node, "lock run jobs/nightly", "");
        said(command.args(["--", name]).spawn().unwrap())
    };
    let (code, _, errors) = program("no-such-program");
    assert_eq!(code, 127, "{errors}");
    assert!(errors.contains("`no-such-program` cannot be run"), "{errors}");
    assert_eq!(program("/etc/passwd").0, 126);
}

#[test]
fn what_is_not_acquired_is_75_and_no_control_plane_is_69() {
    let node = Gateway::start_dev("lock-run-busy", CONFIG);
    let holder = started(&node, "lock run a", "sleep 60");
    let (code, _, errors) = run(&node, "lock run a --try", "true");
    assert_eq!(code, 75, "{errors}");
    assert!(errors.contains("error[lock-busy]"), "{errors}");
    let (code, _, errors) = run(&node, "lock run a --wait 1", "true");
    assert_eq!(code, 75, "{errors}");
    assert!(errors.contains("error[lock-wait-timeout]"), "{errors}");
    assert_eq!(run(&node, "lock run a --ttl 1", "true").0, 2);
    let (code, _, errors) = run(&node, "lock run a --control http://127.0.0.1:1", "true");
    assert_eq!(code, 69, "{errors}");

    // Who is told to end while it waits runs nothing.
    let waits = mainstay(&node, "lock run a --wait 1h", "touch ran").spawn().unwrap();
    until("it waits", PATIENCE, || status(&node, "locks/default/a")["queue"][0].is_object());
    send(&waits, Signal::TERM);
    assert_eq!(said(waits).0, 128 + 15);
    assert!(!node.home().join("ran").exists());
    until("its place is free", PATIENCE, || {
        status(&node, "locks/default/a")["queue"].as_array().unwrap().is_empty()
    });

    // Signals reach the command, which says how it ends.
    send(&holder, Signal::INT);
    assert_eq!(said(holder).0, 128 + 2);
}

#[test]
fn readers_and_permits_share() {
    let node = Gateway::start_dev("lock-run-shared", CONFIG);
    let reader = started(&node, "lock run a --shared", "sleep 60");
    assert_eq!(run(&node, "lock run a --shared --try", "true").0, 0);
    assert_eq!(run(&node, "lock run a --try", "true").0, 75);
    send(&reader, Signal::TERM);
    assert_eq!(said(reader).0, 128 + 15);
    let one = started(&node, "lock run b --permits 2 --limit 3", "sleep 60");
    assert_eq!(run(&node, "lock run b --permits 1 --limit 3 --try", "true").0, 0);
    assert_eq!(run(&node, "lock run b --permits 2 --limit 3 --try", "true").0, 75);
    let (code, _, errors) = run(&node, "lock run b --permits 2 --limit 4 --try", "true");
    assert_eq!(code, 4, "{errors}");
    send(&one, Signal::TERM);
    said(one);
}

#[test]
fn a_command_whose_lock_is_taken_away_is_ended_with_all_it_has_started() {
    let node = Gateway::start_dev("lock-run-lost", CONFIG);
    let script =
        "trap 'echo told > told' TERM; (trap '' TERM; sleep 300) & while true; do sleep 0.1; done";
    let holder = started(&node, "lock run a --ttl 1h --grace 1", script);
    // The stream has to be there before it can tell.
    support::wait::pause(Duration::from_secs(1));
    let token = status(&node, "locks/default/a")["holders"][0]["token"].to_string();
    let line = format!("lock release a --yes --token {token} --reason drill");
    let began = support::wait::now();
    let (code, _, errors) = run(&node, &line, "");
    assert_eq!(code, 0, "{errors}");
    let group = pid(&node);
    let (code, _, errors) = said(holder);
    assert_eq!(code, 76, "{errors}");
    assert!(errors.contains("error[lock-lost]") && errors.contains("taken away"), "{errors}");
    assert!(began.elapsed() < PATIENCE, "told at once, and not after its ttl");
    assert!(node.home().join("told").exists(), "asked before it was killed");
    until("the whole group is gone", PATIENCE, || {
        rustix::process::test_kill_process_group(group).is_err()
    });
}

#[test]
fn a_holder_whose_server_stands_still_ends_its_command_in_time() {
    let node = Gateway::start_dev("lock-run-stopped", CONFIG);
    let holder = started(&node, "lock run a --ttl 3", "sleep 300");
    let script = "echo > held; sleep 6; exit 5";
    let ignores = mainstay(&node, "lock run b --ttl 3 --on-lost ignore", script).spawn().unwrap();
    // The server knows before the holder does, and must not stand still in between.
    until("it is held too", PATIENCE, || node.home().join("held").exists());
    node.signal(Signal::STOP);
    let began = support::wait::now();
    let (code, _, errors) = said(holder);
    let took = began.elapsed();
    let (other, _, told) = said(ignores);
    node.signal(Signal::CONT);
    assert_eq!(code, 76, "{errors}");
    // Its ttl, less a margin; and what giving back tries.
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(other, 5, "it asked to go on");
    assert!(told.contains("error[lock-lost]"), "{told}");
}

#[test]
fn one_killed_without_warning_leaves_no_command_behind_and_the_next_has_a_larger_token() {
    let node = Gateway::start_dev("lock-run-killed", CONFIG);
    let mut holder = started(&node, "lock run a --ttl 2", "sleep 300");
    let first = status(&node, "locks/default/a")["holders"][0]["token"].as_u64().unwrap();
    let command = pid(&node);
    test_kill_process(command).unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    let (code, second, errors) = run(&node, "lock run a", "echo $MAINSTAY_LOCK_TOKEN");
    assert_eq!(code, 0, "{errors}");
    assert!(first < second.trim().parse().unwrap());
    until("its command is gone", PATIENCE, || test_kill_process(command).is_err());
}

#[test]
fn a_leader_that_is_made_to_resign_is_followed_by_the_next() {
    let node = Gateway::start_dev("leader-run", CONFIG);
    let first = started(&node, "leader run boss --value one --ttl 1h", "sleep 300");
    let second =
        mainstay(&node, "leader run boss --value two --ttl 1h", "echo $MAINSTAY_LOCK_TOKEN");
    let second = { second }.spawn().unwrap();
    until("the second stands", PATIENCE, || {
        status(&node, "elections/default/boss")["queue"][0].is_object()
    });
    assert!(run(&node, "leader list", "").1.contains("boss"));
    let (code, shown, errors) = run(&node, "leader show boss -o json", "");
    assert_eq!(code, 0, "{errors}");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["holders"][0]["value"], "one");
    let term = shown["holders"][0]["token"].as_u64().unwrap();
    support::wait::pause(Duration::from_secs(1));
    let line = |term: u64| format!("leader resign boss --yes --term {term} --reason drill");
    assert_eq!(run(&node, &line(term + 1), "").0, 4, "nobody else is hit");
    assert_eq!(run(&node, &line(term), "").0, 0);
    assert_eq!(said(first).0, 76);
    let (code, next, errors) = said(second);
    assert_eq!(code, 0, "{errors}");
    assert!(term < next.trim().parse().unwrap());
}
