//! Backups of a real process: taken under load, checked, restored, started.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::gateway::Gateway;
use support::wait::until;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
"#;

/// `mainstay backup …` against `node`, or without a running process.
fn run(node: Option<&Gateway>, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.args(arguments).env_remove("XDG_RUNTIME_DIR").env("HOME", "/nonexistent");
    if let Some(node) = node {
        // Where a verb looks for the token of a running process.
        command.env("STATE_DIRECTORY", node.home().join("data"));
    }
    command.output().unwrap()
}

#[track_caller]
fn done(output: &Output) -> String {
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{err}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Ended with `code`, and said `why`.
#[track_caller]
fn refused(output: &Output, code: i32, why: &str) {
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{err}");
    assert!(err.contains(why), "no {why:?} in {err}");
}

fn document(node: &Gateway, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let (status, text) = node.call(method, path, &body.to_string());
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// Takes a lock in a session of its own; its token.
fn token(node: &Gateway, lock: &str) -> u64 {
    let owner = json!({ "ttl_seconds": 60, "owner": { "host": "h", "pid": 1, "name": "t" } });
    let (status, session) = document(node, "POST", "/api/v1/sessions", &owner);
    assert!(status < 300, "{session}");
    let (id, secret) = (session["session"].as_str().unwrap(), session["secret"].as_str().unwrap());
    let path = format!("/api/v1/locks/default/{lock}/acquire");
    let ask = json!({ "session": id, "request_id": "r-1", "wait_seconds": 0 });
    let header = format!("mainstay-session-secret: {secret}\r\n");
    let (status, granted) = node.call_with("POST", &path, &header, &ask.to_string());
    assert_eq!(status, 200, "{granted}");
    let granted: Value = serde_json::from_str(&granted).unwrap();
    granted["token"].as_u64().unwrap()
}

fn put(node: &Gateway, key: &str, value: &str) -> bool {
    node.call("PUT", &format!("/v1/kv/{key}"), value).0 == 200
}

fn value(node: &Gateway, key: &str) -> Option<String> {
    let (status, text) = node.control(&format!("/v1/kv/{key}?raw"));
    (status == 200).then_some(text)
}

fn secret(release: &str) -> Value {
    json!({ "items": { "a.json": { "format": "json", "content": release } } })
}

/// A backup of a store under load: its bytes, and how many writes were acknowledged before.
fn under_load(node: &Gateway, path: &Path, passphrase: &Path) -> u64 {
    let (acknowledged, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let before = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let number = acknowledged.load(Ordering::SeqCst);
                assert!(put(node, &format!("load/{number:06}"), "x"));
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
        });
        while acknowledged.load(Ordering::SeqCst) < 50 {
            std::thread::yield_now();
        }
        let before = acknowledged.load(Ordering::SeqCst);
        let (path, passphrase) = (path.to_str().unwrap(), passphrase.to_str().unwrap());
        let created = run(Some(node), &["backup", "create", path, "--passphrase-file", passphrase]);
        stop.store(true, Ordering::Relaxed);
        done(&created);
        before
    });
    assert!(before < acknowledged.load(Ordering::SeqCst), "writes went on meanwhile");
    before
}

#[test]
fn what_was_acknowledged_before_a_backup_is_there_after_its_restore() {
    let mut node = Gateway::start_dev("backup", CONFIG);
    let folder = tempfile::tempdir().unwrap();
    let (file, passphrase) = (folder.path().join("a.backup"), folder.path().join("pass.txt"));
    std::fs::write(&passphrase, "correct horse battery staple\n").unwrap();
    let release = secret("{\"limit\":1}");
    let publish = "/api/v1/config/default/payment/releases";
    assert_eq!(document(&node, "POST", publish, &release).0, 201);
    for (id, kind) in [("10.0.0.1:1", "ephemeral"), ("10.0.0.2:2", "persistent")] {
        let service = if kind == "persistent" { "db" } else { "web" };
        let path = format!("/api/v1/registry/default/services/{service}/instances/{id}");
        let (address, port) = id.split_once(':').unwrap();
        let port: u16 = port.parse().unwrap();
        let body = json!({ "address": address, "port": port, "kind": kind });
        let (status, answer) = document(&node, "PUT", &path, &body);
        assert_eq!(status, 201, "{answer}");
    }
    let first = token(&node, "nightly");
    let before = under_load(&node, &file, &passphrase);
    let later = token(&node, "other");
    assert!(put(&node, "after/backup", "lost"));

    let arguments = ["backup", "verify", file.to_str().unwrap(), "-o", "json"];
    let verified: Value = serde_json::from_str(&done(&run(None, &arguments))).unwrap();
    assert_eq!((&verified["valid"], &verified["keys"]), (&json!(true), &json!("sealed")));
    assert_eq!(verified["manifest"]["parts"][0]["name"], "config/mainstay.toml");

    // Into the directory of the running process: refused. Into another: there is nobody.
    let data = node.home().join("data");
    let data = data.to_str().unwrap().to_owned();
    let (file, pass) = (file.to_str().unwrap(), passphrase.to_str().unwrap());
    let restore = |data: &str, more: &[&str]| {
        let words = ["backup", "restore", file, "--data-dir", data, "--passphrase-file", pass];
        run(None, &[&words, more].concat())
    };
    refused(&restore(&data, &["--force", "--yes"]), 4, "data-dir-in-use");
    let fresh = Gateway::start_dev("backup-fresh", CONFIG);
    let other = fresh.home().join("restored");
    done(&restore(other.to_str().unwrap(), &[]));
    refused(&restore(other.to_str().unwrap(), &[]), 4, "there is something already");
    assert!(other.join("config.restored/mainstay.toml").exists());

    // In place, by force: what was written after the backup is gone, what was before is there.
    node.signal(Signal::TERM);
    assert!(node.ended().success());
    done(&restore(&data, &["--force", "--yes"]));
    assert!(node.home().join("data/store/mainstay.redb.aside").exists());
    let again = node.again("backup-again", &[]);
    for number in 0..before {
        let key = format!("load/{number:06}");
        assert_eq!(value(&again, &key).as_deref(), Some("x"), "{key} of {before}");
    }
    assert_eq!(value(&again, "after/backup"), None);
    let (status, group) = document(&again, "GET", "/api/v1/config/default/payment", &json!({}));
    assert_eq!((status, group["release"].as_u64()), (200, Some(1)), "{group}");
    // Clients come back by themselves; what stays by itself is there.
    let (_, web) = document(&again, "GET", "/api/v1/registry/default/services/web", &json!({}));
    assert_eq!(web["instances"], json!([]), "{web}");
    let (_, db) = document(&again, "GET", "/api/v1/registry/default/services/db", &json!({}));
    assert_eq!(db["instances"].as_array().map(Vec::len), Some(1), "{db}");
    // The lock is free, and its token larger than any before, those after the backup included.
    let next = token(&again, "nightly");
    assert!(first < later && later < next, "{first} {later} {next}");
    // Revisions leapt, and history begins there: an old watch is told.
    let (_, status) = document(&again, "GET", "/api/v1/store/status", &json!({}));
    let compacted = status["compacted"].as_u64().unwrap();
    assert!(1_000_000_000 < compacted, "{status}");
    let old = format!("/api/v1/store/range?at={}", compacted - 1);
    assert_eq!(document(&again, "GET", &old, &json!({})).1["code"], "compacted");
}

#[test]
fn a_directory_without_a_process_is_backed_up_and_hashes_the_same_elsewhere() {
    let mut node = Gateway::start_dev("backup-offline", CONFIG);
    for number in 0..20 {
        assert!(put(&node, &format!("k/{number}"), "v"));
    }
    let data = node.home().join("data");
    let (file, data) = (node.home().join("off.backup"), data.to_str().unwrap().to_owned());
    let file = file.to_str().unwrap();
    let create = ["backup", "create", file, "--data-dir", &data];
    refused(&run(None, &create), 4, "data-dir-in-use");
    assert!(!Path::new(file).exists(), "nothing is left of it");
    let pairs = |node: &Gateway| node.control("/v1/kv/?keys").1;
    let before = pairs(&node);
    node.signal(Signal::TERM);
    assert!(node.ended().success());
    done(&run(None, &create));
    refused(&run(None, &create), 2, "is there already");
    let mut taken = Vec::new();
    std::fs::File::open(file).unwrap().read_to_end(&mut taken).unwrap();
    let cut = node.home().join("cut.backup");
    std::fs::write(&cut, &taken[..taken.len() * 2 / 3]).unwrap();
    let cut = cut.to_str().unwrap();
    refused(&run(None, &["backup", "verify", cut]), 7, "backup-invalid");
    let target = node.home().join("other");
    let target = target.to_str().unwrap();
    refused(&run(None, &["backup", "restore", cut, "--data-dir", target]), 7, "backup-invalid");
    assert!(!Path::new(target).join("store/mainstay.redb").exists());
    done(&run(None, &["backup", "restore", file, "--data-dir", target]));
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(target, &data).unwrap();
    let again = node.again("backup-offline-again", &[]);
    assert_eq!(pairs(&again), before);
}

#[test]
fn a_node_takes_backups_by_itself_and_keeps_what_it_is_told_to() {
    let scheduled = "[backup]\nevery_seconds = 60\nkeep = 2\nfolder = \"kept\"\n";
    let home = tempfile::tempdir().unwrap();
    let kept = home.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    for second in [1, 2, 3] {
        std::fs::write(kept.join(format!("mainstay-{second}-1.backup")), "old").unwrap();
    }
    let config = scheduled.replace("kept", kept.to_str().unwrap());
    let node = Gateway::start_dev("backup-scheduled", &format!("{CONFIG}{config}"));
    let files = || {
        let names = std::fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<_> =
            names.filter(|path| path.extension().unwrap() == "backup").collect();
        names.sort();
        names
    };
    let newest = || files().into_iter().find(|path| !path.ends_with("mainstay-3-1.backup"));
    until("one is taken", std::time::Duration::from_secs(30), || {
        files().len() == 2 && newest().is_some()
    });
    let taken = newest().unwrap();
    done(&run(None, &["backup", "verify", taken.to_str().unwrap()]));
    assert_eq!(node.logged("backup taken"), 1);
    let (_, metrics) = node.control("/metrics");
    let age = metrics.lines().find_map(|line| line.strip_prefix("mainstay_backup_age_seconds "));
    let age: f64 = age.expect(&metrics).parse().unwrap();
    assert!((0.0..60.0).contains(&age), "{age}");
}

#[test]
fn a_command_takes_one_after_the_other_and_what_is_missing_is_named() {
    let node = Gateway::start_dev("backup-every", CONFIG);
    let folder = node.home().join("taken");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    let folder_text = folder.to_str().unwrap();
    command.args(["backup", "create", folder_text, "--every", "60s", "--keep", "2"]);
    let state = node.home().join("data");
    command.env_remove("XDG_RUNTIME_DIR").env("HOME", "/nonexistent").env("STATE_DIRECTORY", state);
    let mut taking = command.spawn().unwrap();
    let kept = || {
        std::fs::read_dir(&folder).map_or(0, |found| {
            found
                .flatten()
                .filter(|file| file.file_name().to_string_lossy().ends_with(".backup"))
                .count()
        })
    };
    until("one is taken at once", std::time::Duration::from_secs(20), || kept() == 1);
    assert!(taking.try_wait().unwrap().is_none(), "it waits for the next");
    taking.kill().unwrap();
    taking.wait().unwrap();
    let file = std::fs::read_dir(&folder).unwrap().flatten().next().unwrap().path();
    done(&run(None, &["backup", "verify", file.to_str().unwrap()]));
    refused(&run(Some(&node), &["backup", "create", folder_text, "--every", "1s"]), 2, "minute");

    let data = node.home().join("nowhere");
    let restore =
        ["backup", "restore", "/nonexistent/a.backup", "--data-dir", data.to_str().unwrap()];
    refused(&run(None, &restore), 3, "/nonexistent/a.backup");
    assert!(!data.exists(), "nothing was made");
}
