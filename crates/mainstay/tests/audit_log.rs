//! The tamper-evident log of a real process: what it has, what it proves, and that nothing can be
//! done to its files unseen.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

#[path = "support/support.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mainstay_security::audit::tree::{Hash, is_consistent, is_included};
use mainstay_security::audit::{Head, Note, PublicKey, Signer};
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
[audit]
head_seconds = 1
head_copies = ["heads.copy"]
"#;

/// How long a busy machine may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn get(node: &Gateway, path: &str) -> Value {
    let (status, text) = node.control(&format!("/api/v1{path}"));
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// Turns the switch `number`; every call is a change, and a record.
#[track_caller]
fn change(node: &Gateway, number: u64) {
    let path = format!("/api/v1/registry/default/services/s{number}");
    let body = json!({ "metadata": { "number": number.to_string() } }).to_string();
    let (status, text) = node.call("PUT", &path, &body);
    assert_eq!(status, 200, "{number}: {text}");
}

/// The targets of all records, newest first, page by page.
fn targets(node: &Gateway, limit: usize) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(node, &format!("/audit?action=service:*&limit={limit}{cursor}"));
        let items = page["items"].as_array().unwrap();
        all.extend(items.iter().map(|item| item["target"]["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

fn wanted(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.rev().map(|number| format!("default/s{number}")).collect()
}

/// The head of the log, once it has `size` records.
fn head(node: &Gateway, size: u64) -> Head {
    let mut found = None;
    until(&format!("{size} records are signed"), PATIENCE, || {
        let (status, text) = node.control("/api/v1/audit/checkpoint");
        let head = (status == 200).then(|| Note::parse(&text).unwrap().unproven().clone());
        found = head.filter(|head| size <= head.size);
        found.is_some()
    });
    found.unwrap()
}

/// The folder of the log with this number.
fn log(node: &Gateway, number: u32) -> PathBuf {
    let start = format!("{number:04}-");
    let all = fs::read_dir(node.home().join("data/audit")).unwrap();
    let mut all = all.map(|entry| entry.unwrap().path());
    let is_it = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&start);
    all.find(is_it).expect("there is a log")
}

/// Exit code and words of `mainstay audit verify` with these arguments, asked of a running server.
fn verify_served(node: &Gateway, arguments: &[&str]) -> (i32, String) {
    let (code, out, err) = node.cli(&[&["audit", "verify"], arguments].concat());
    (code, out + &err)
}

/// The same of a folder, without any server.
fn verify(folder: &str, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(["audit", "verify", "--dir", folder])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr))
}

fn stop(mut node: Gateway) -> Gateway {
    node.signal(Signal::TERM);
    node.ended();
    node
}

#[test]
fn records_go_into_the_log_and_are_found_as_if_they_had_stayed() {
    let node = Gateway::start_dev("audit-log", CONFIG);
    (0..300).for_each(|number| change(&node, number));
    assert_eq!(targets(&node, 1_000), wanted(0..300));
    assert_eq!(targets(&node, 7), wanted(0..300));
    let head = head(&node, 300);
    until("none waits", PATIENCE, || node.counted("mainstay_audit_outbox_records", "") == 0);
    assert!(head.size <= node.counted("mainstay_audit_log_entries", ""));
    let counted = node.counted("mainstay_audit_records_total", "action=\"service:settings\"");
    assert_eq!(counted, 300);
    let page = get(&node, "/audit?object=service/default/s7");
    let record = &page["items"][0];
    assert_eq!((&record["action"], &record["seq"]), (&json!("service:settings"), &json!(7)));
    let id = record["id"].as_str().unwrap();
    assert_eq!(get(&node, &format!("/audit/{id}")), *record);

    // A page that was begun is gone on with, whatever comes and goes meanwhile.
    let first = get(&node, "/audit?action=service:*&limit=10");
    change(&node, 300);
    let next = first["next"].as_str().unwrap();
    let second = get(&node, &format!("/audit?action=service:*&limit=10&cursor={next}"));
    assert_eq!(second["items"][0]["target"]["id"], "default/s289");

    // After a clean stop all is signed; nothing is lost, nothing comes twice.
    let node = stop(node).again("audit-log-again", &[]);
    assert_eq!(targets(&node, 100), wanted(0..301));
    let verified = node.cli_json(&["audit", "verify"]);
    assert!(301 <= verified["signed"].as_u64().unwrap(), "{verified}");
    // Who read was noted as well.
    assert_ne!(get(&node, "/audit?action=audit:search")["items"], json!([]));
}

#[test]
fn what_a_server_proves_holds_and_what_it_does_not_have_it_says() {
    let node = Gateway::start_dev("audit-proof", CONFIG);
    (0..20).for_each(|number| change(&node, number));
    let before = head(&node, 20);
    (20..300).for_each(|number| change(&node, number));
    let after = head(&node, 300);
    let hash = |value: &Value| {
        Hash::from_slice(&STANDARD.decode(value.as_str().unwrap()).unwrap()).unwrap()
    };
    let proof = |found: &Value| -> Vec<Hash> {
        found["proof"].as_array().unwrap().iter().map(hash).collect()
    };
    for seq in [0, 19, 255, 256, 299] {
        let found = get(&node, &format!("/audit/proof/inclusion?seq={seq}&size={}", after.size));
        assert!(
            is_included(hash(&found["leaf"]), seq, after.size, &proof(&found), after.root),
            "{found}"
        );
        // The leaf is the record as it lies in its bundle.
        let bundle = format!("tile/entries/{:03}", seq / 256);
        let width = (after.size - seq / 256 * 256).min(256);
        let part = if width < 256 { format!(".p/{width}") } else { String::new() };
        let (_, text) = node.control(&format!("/api/v1/audit/{bundle}{part}"));
        let line = text.lines().nth(usize::try_from(seq % 256).unwrap()).unwrap();
        assert_eq!(Hash::leaf(line.as_bytes()), hash(&found["leaf"]), "{line}");
    }
    let (from, to) = (before.size, after.size);
    let found = get(&node, &format!("/audit/proof/consistency?from={from}&to={to}"));
    assert!(is_consistent((from, before.root), (to, after.root), &proof(&found)), "{found}");
    for (path, code) in [
        ("proof/inclusion?seq=9000", "audit-proof-range"),
        ("proof/inclusion?seq=1&size=9000", "audit-proof-range"),
        ("proof/consistency?from=0", "audit-proof-range"),
        ("proof/consistency?from=9&to=8", "audit-proof-range"),
        ("tile/0/777", "not-found"),
        ("tile/entries/..%2f..%2fkeyring", "not-found"),
    ] {
        let (status, text) = node.control(&format!("/api/v1/audit/{path}"));
        assert!((400..500).contains(&status) && text.contains(code), "{path}: {status} {text}");
    }
    // Every head went into the file as well, and all are of one log.
    let copies = fs::read_to_string(node.home().join("data/heads.copy")).unwrap();
    let keys = node.control("/api/v1/audit/keys").1;
    let keys: Vec<PublicKey> = keys.lines().map(|line| PublicKey::parse(line).unwrap()).collect();
    let copies = Note::parse_all(&copies).unwrap();
    assert!(copies.iter().any(|note| note.opened_by(&keys) == Ok(&after)), "{copies:?}");
}

/// The log of a stopped server: 600 records, signed.
struct Stopped {
    node: Gateway,
    key: String,
}

impl Stopped {
    fn new(name: &str) -> Self {
        let node = Gateway::start_dev(name, CONFIG);
        (0..600).for_each(|number| change(&node, number));
        head(&node, 600);
        let key = node.control("/api/v1/audit/keys").1.trim().to_owned();
        Self { node: stop(node), key }
    }

    /// Runs the verifier on a copy of the log that was tampered with.
    #[track_caller]
    fn check(&self, tamper: impl FnOnce(&Path), want: &str) {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&log(&self.node, 1), copy.path());
        tamper(copy.path());
        let place = copy.path().display().to_string();
        let copies = self.node.home().join("data/heads.copy").display().to_string();
        let (code, said) = verify(&place, &["--key", &self.key, "--head", &copies]);
        assert_eq!(code, i32::from(!want.is_empty()), "{said}");
        assert!(said.contains(want), "{want}: {said}");
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &copy);
        } else {
            fs::copy(&path, copy).unwrap();
        }
    }
}

/// Changes the lines of a bundle.
fn lines(bundle: &'static str, change: fn(&mut Vec<String>)) -> impl FnOnce(&Path) {
    move |log| {
        let path = log.join("tile/entries").join(bundle);
        let text = fs::read_to_string(&path).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        change(&mut lines);
        fs::write(path, lines.concat_lines()).unwrap();
    }
}

trait ConcatLines {
    fn concat_lines(&self) -> String;
}

impl ConcatLines for Vec<String> {
    fn concat_lines(&self) -> String {
        self.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

#[test]
fn whatever_is_done_to_the_files_of_a_server_is_named() {
    let log = Stopped::new("audit-tampered");
    log.check(|_| {}, "");
    let flip = |at: &Path| {
        let path = at.join("tile/entries/001");
        let mut bytes = fs::read(&path).unwrap();
        let line = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(43).unwrap().0;
        bytes[line + 40] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    log.check(flip, "seq 300: changed");
    log.check(lines("000", |all| drop(all.remove(17))), "seq 17: missing");
    log.check(lines("001", |all| all.insert(4, all[9].replace("s265", "s1"))), "seq 260: inserted");
    log.check(lines("000", |all| all.swap(30, 31)), "seq 30: reordered");
    log.check(lines("002.p/tail", |all| drop(all.pop())), "missing");
    log.check(|at| fs::remove_file(at.join("tile/entries/000")).unwrap(), "seq 0: missing");
    // A head that someone with another key made, and one that was not signed so.
    let text = fs::read_to_string(self::log(&log.node, 1).join("checkpoint")).unwrap();
    let head = Note::parse(&text).unwrap().unproven().clone();
    let name = log.key.split('+').next().unwrap();
    let forked = Head { root: Hash::leaf(b"another story"), ..head.clone() };
    let forged = Signer::new(name, &[7; 32]).sign(&forked).to_string();
    log.check(|at| fs::write(at.join("checkpoint"), &forged).unwrap(), "head fork");
    let changed = text.replacen(&head.root.to_base64(), &forked.root.to_base64(), 1);
    log.check(|at| fs::write(at.join("checkpoint"), changed).unwrap(), "head fork");
    // Nothing that could be looked at is another answer.
    let (code, said) = verify("/nowhere", &[]);
    assert_eq!(code, 7, "{said}");
    assert!(said.contains("audit-unreadable"), "{said}");
    assert_eq!(verify("/nowhere", &["--key", "nonsense"]).0, 2);
}

#[test]
fn a_start_on_a_log_that_was_tampered_with_says_so_and_goes_on_in_another() {
    let stopped = Stopped::new("audit-broken");
    let tail = log(&stopped.node, 1).join("tile/entries/002.p/tail");
    let text = fs::read_to_string(&tail).unwrap();
    fs::write(&tail, text.replace("default/s599", "default/s598")).unwrap();
    let node = stopped.node.again("audit-broken-again", &[]);
    assert_eq!(node.logged("audit-tampered"), 1);
    let page = get(&node, "/audit?action=audit:broken");
    let record = &page["items"][0];
    assert_eq!(
        (&record["after"]["seq"], &record["after"]["what"]),
        (&json!(599), &json!("changed"))
    );
    assert_eq!(record["before"]["head"]["size"], 600);
    change(&node, 1_000);
    assert_eq!(targets(&node, 100), ["default/s1000"]);
    let node = stop(node).again("audit-broken-third", &[]);
    assert_eq!(node.logged("audit-tampered"), 0, "it is said once");
    assert_eq!(verify_served(&node, &[]).0, 0, "the new one is whole");
    let old = log(&node, 1).display().to_string();
    let (code, said) = verify(&old, &["--key", &stopped.key]);
    assert!(code == 1 && said.contains("seq 599: changed"), "the old one is kept: {said}");
}

#[test]
fn what_is_exported_is_verified_without_a_server_also_over_a_new_key() {
    let node = Gateway::start_dev("audit-export", CONFIG);
    (0..30).for_each(|number| change(&node, number));
    head(&node, 30);
    let first = node.control("/api/v1/audit/keys").1.trim().to_owned();
    let (code, _, said) = node.cli(&["keyring", "rotate", "--reason", "once a year"]);
    assert_eq!(code, 0, "{said}");
    change(&node, 30);
    let mut all = Vec::new();
    until("the new key is named", PATIENCE, || {
        all = get(&node, "/audit?action=audit:key")["items"].as_array().unwrap().clone();
        !all.is_empty()
    });
    assert_eq!(all[0]["before"]["key"], json!(first));
    let seq = all[0]["seq"].as_u64().unwrap();
    change(&node, 31);
    let size = head(&node, seq + 2).size;
    let folder = node.home().join("exported").display().to_string();
    let exported = node.cli_json(&["audit", "export", &folder]);
    assert!(size <= exported["records"].as_u64().unwrap(), "{exported}");
    let key = node.home().join("audit.key");
    fs::write(&key, &first).unwrap();
    let key = key.display().to_string();
    let (code, said) = verify(&folder, &["--key", &key]);
    assert_eq!(code, 0, "who trusts the first key trusts the one it names: {said}");
    let _stopped = stop(node);
    let (code, said) = verify(&folder, &["--key", &key]);
    assert_eq!(code, 0, "{said}");
}
