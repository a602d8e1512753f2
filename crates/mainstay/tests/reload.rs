//! What a reload changes, and what it leaves alone.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/backend.rs"]
mod backend;
#[path = "support/support.rs"]
mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use backend::Backend;
use rustix::process::Signal;
use support::gateway::Gateway;
use support::wait::until;

const PATIENCE: Duration = Duration::from_secs(10);

/// Not a test: the child process that the tests here fail.
#[test]
fn a_backend() {
    backend::serve_if_asked();
}

const HEAD: &str = r#"
[server]
listen = "127.0.0.1:0"
[system]
cpu_percent_max = 0
memory_percent_max = 0
"#;

/// Sends `request` on a connection of its own; the answer.
fn ask(gateway: &Gateway, request: &str) -> String {
    let mut stream = TcpStream::connect(gateway.address(0)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(gateway: &Gateway) -> String {
    ask(gateway, "GET /item HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n")
}

/// Whether it is the failing service's own answer.
fn is_of_backend(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\r\n\r\nok\n")
}

/// Replaces the configuration and waits until the log says `words` once more.
#[track_caller]
fn reload(gateway: &Gateway, config: &str, words: &str) {
    let before = gateway.logged(words);
    gateway.configure(config);
    gateway.signal(Signal::HUP);
    until(words, PATIENCE, || gateway.logged(words) > before);
}

#[test]
fn a_circuit_that_a_reload_adds_guards_instances_that_stay() {
    let backend = Backend::start();
    let config = |circuits: &str| {
        format!(
            r#"{HEAD}
[gateway]
listen = ["127.0.0.1:0"]
access_log = {{ format = "off" }}
[route.item]
prefix = "/"
to = "item"
[upstream.item]
instances = ["{}"]
circuits = [{circuits}]
retry = {{ attempts = 1 }}
[circuit.strict]
consecutive_failures = 3
cooldown_seconds = 60
"#,
            backend.address
        )
    };
    let gateway = Gateway::start("reload-circuit", &config(""));
    backend.behave(503, Duration::ZERO);
    for _ in 0..10 {
        let answer = get(&gateway);
        assert!(is_of_backend(&answer), "nothing guards it yet: {answer}");
    }
    reload(&gateway, &config("\"strict\""), "configuration reloaded");
    let answers: Vec<String> = (0..4).map(|_| get(&gateway)).collect();
    assert!(is_of_backend(&answers[2]), "{}", answers[2]);
    assert!(answers[3].contains("circuit-open"), "{}\n{}", answers[3], gateway.log());
    reload(&gateway, &config(""), "configuration reloaded");
    assert!(is_of_backend(&get(&gateway)), "nothing guards it any more");
}

#[test]
fn a_reload_that_cannot_serve_its_certificates_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = ["c.pem", "c.key"].map(|name| folder.path().join(name));
    let made = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).unwrap();
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let config = |body: &str| {
        format!(
            r#"{HEAD}
[gateway]
listen = ["127.0.0.1:0"]
tls_listen = ["127.0.0.1:0"]
certificates = [{{ certificate_file = "{}", key_file = "{}" }}]
[route.item]
prefix = "/"
respond = {{ status = 200, body = "{body}" }}
"#,
            certificate.display(),
            key.display()
        )
    };
    let gateway = Gateway::start("reload-certificate", &config("one"));
    assert!(get(&gateway).ends_with("one"));
    fs::write(&certificate, "no certificate").unwrap();
    reload(&gateway, &config("two"), "configuration not reloaded");
    assert!(get(&gateway).ends_with("one"), "{}", gateway.log());
    let (_, settings) = gateway.control("/api/v1/settings");
    assert!(settings.contains(r#"\"one\""#) && !settings.contains("two"), "{settings}");
    let (_, checks) = gateway.control("/api/v1/checks");
    assert!(checks.contains("the last reload failed"), "{checks}");
    let (_, metrics) = gateway.control("/metrics");
    assert!(metrics.contains("mainstay_settings_reload_failed{"), "{metrics}");
    fs::write(&certificate, made.cert.pem()).unwrap();
    reload(&gateway, &config("three"), "configuration reloaded");
    assert!(get(&gateway).ends_with("three"), "{}", gateway.log());
    let (_, metrics) = gateway.control("/metrics");
    assert!(!metrics.contains("mainstay_settings_reload_failed{"), "{metrics}");
}

#[test]
fn limits_of_the_transport_and_the_log_follow_a_reload() {
    let backend = Backend::start();
    let config = |body: u64, fields: u32, log: &str| {
        format!(
            r#"{HEAD}
[gateway]
listen = ["127.0.0.1:0"]
access_log = {{ format = "{log}" }}
limits = {{ headers_max = {fields}, body_bytes_max = {body} }}
[route.item]
prefix = "/"
to = "item"
[upstream.item]
instances = ["{}"]
"#,
            backend.address
        )
    };
    let gateway = Gateway::start("reload-limits", &config(10, 10, "off"));
    let many = format!(
        "GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n{}\r\n",
        "x: y\r\n".repeat(120)
    );
    // The backend reads no bodies, so a length is announced that will not be sent.
    let long = "POST / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\ncontent-length: 50\r\n\r\n";
    assert!(ask(&gateway, long).starts_with("HTTP/1.1 413 "));
    assert!(ask(&gateway, &many).starts_with("HTTP/1.1 431 "));
    let lines = || {
        let out = gateway.log_path().with_extension("out");
        fs::read_to_string(out).unwrap().matches("http.request.method").count()
    };
    assert_eq!(lines(), 0, "the log is off");
    reload(&gateway, &config(100, 200, "json"), "configuration reloaded");
    assert!(ask(&gateway, long).starts_with("HTTP/1.1 200 "), "{}", gateway.log());
    assert!(ask(&gateway, &many).starts_with("HTTP/1.1 200 "), "{}", gateway.log());
    until("the lines are written", PATIENCE, || lines() == 2);
}
