//! `mainstay run`: a program that is registered for as long as it runs and is well.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/backend.rs"]
mod backend;
#[path = "support/support.rs"]
mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use backend::Backend;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::gateway::{Gateway, free_port, send};
use support::wait::{pause, until};
use tempfile::TempDir;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
[system]
cpu_percent_max = 0
[route.all]
path = "/"
to = "order"
[upstream.order]
"#;

/// Soon enough for a change to be "at once" on a busy machine.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_backend() {
    backend::serve_if_asked();
}

/// `mainstay run` with `flags`, without a command yet.
fn wrap(flags: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command
        .arg("run")
        .args(flags.split_whitespace())
        .arg("--")
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("XDG_DATA_HOME")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The same around a server on `port`.
fn serving(port: u16, flags: &str) -> Command {
    let mut command = wrap(&format!("--service order --port {port} {flags}"));
    command
        .arg(std::env::current_exe().unwrap())
        .args(["a_backend", "--exact", "--nocapture"])
        .env("MAINSTAY_TEST_BACKEND", format!("127.0.0.1:{port}"));
    command
}

fn ended(child: Child) -> (i32, String) {
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    (status.code().unwrap(), String::from_utf8_lossy(&stderr).into_owned())
}

/// Instances of the service.
fn instances(node: &Gateway) -> Vec<Value> {
    let (_, list) = node.control("/api/v1/registry/default/services/order");
    let list: Value = serde_json::from_str(&list).unwrap();
    list["instances"].as_array().cloned().unwrap_or_default()
}

/// The program itself, and not who runs it.
fn own(program: &Child) -> Pid {
    let own = fs::read_to_string(format!("/proc/{0}/task/{0}/children", program.id())).unwrap();
    Pid::from_raw(own.split_whitespace().next().unwrap().parse().unwrap()).unwrap()
}

#[test]
fn a_program_is_registered_once_it_is_well_and_no_call_fails_when_it_is_told_to_end() {
    let node = Gateway::start_dev("run", CONFIG);
    let port = free_port();
    let flags = "--health /well --tag v2 --drain 2s";
    let home = node.home().join("data");
    let mut command = serving(port, flags);
    command.env("MAINSTAY_SIDECAR__ZONE", "a").env("STATE_DIRECTORY", &home);
    let program = command.spawn().unwrap();
    until("it is called", SOON, || node.status("/") == 200);
    let known = &instances(&node)[0];
    assert_eq!((&known["zone"], &known["tags"][0]), (&"a".into(), &"v2".into()));

    // Another one stays, so every call has somewhere to go.
    let stays = Backend::start();
    let other = serde_json::json!({
        "address": "127.0.0.1", "port": stays.address.port(), "ttl_seconds": 600
    });
    let path = "/api/v1/registry/default/services/order/instances/stays";
    assert_eq!(node.call("PUT", path, &other.to_string()).0, 201);
    std::thread::scope(|scope| {
        let calls = scope.spawn(|| {
            (0..400)
                .map(|_| {
                    pause(Duration::from_millis(5));
                    node.status("/")
                })
                .filter(|status| *status != 200)
                .count()
        });
        pause(Duration::from_millis(300));
        send(&program, Signal::TERM);
        until("it is deregistered first", SOON, || instances(&node).len() == 1);
        TcpStream::connect(("127.0.0.1", port)).expect("it still serves those who came before");
        let (code, said) = ended(program);
        assert_eq!(code, 128 + 15, "{said}");
        assert_eq!(calls.join().unwrap(), 0, "calls failed");
    });
}

#[test]
fn a_program_that_ends_by_itself_or_is_never_well_is_not_left_registered() {
    let node = Gateway::start_dev("run-ends", CONFIG);
    let home = node.home().join("data");
    let port = free_port();
    let mut early = wrap(&format!("--service order --port {port}"));
    let early = early.args(["sh", "-c", "exit 7"]).env("STATE_DIRECTORY", &home).spawn().unwrap();
    assert_eq!(ended(early).0, 7);

    let mut deaf = wrap(&format!("--service order --port {port} --start 1s"));
    deaf.args(["sh", "-c", "echo $OTEL_SERVICE_NAME $MAINSTAY_ADDR; exec sleep 300"]);
    let deaf = deaf.env("STATE_DIRECTORY", &home).spawn().unwrap();
    let Output { status, stdout, stderr } = deaf.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(6), "{said}");
    assert!(said.contains("error[app-not-healthy]") && said.contains("nobody listens"), "{said}");
    let out = String::from_utf8_lossy(&stdout);
    assert_eq!(out.trim(), format!("order http://{}", node.control));

    let program = serving(port, "").env("STATE_DIRECTORY", &home).spawn().unwrap();
    until("it is registered", SOON, || instances(&node).len() == 1);
    kill_process(own(&program), Signal::KILL).unwrap();
    assert_eq!(ended(program).0, 128 + 9);
    assert!(instances(&node).is_empty(), "it is deregistered, and not just expired");
}

#[test]
fn a_program_that_hangs_gets_no_calls_until_it_goes_on() {
    let node = Gateway::start_dev("run-hangs", CONFIG);
    let (home, port) = (node.home().join("data"), free_port());
    let program = serving(port, "--health /well").env("STATE_DIRECTORY", &home).spawn().unwrap();
    until("it is called", SOON, || node.status("/") == 200);
    let other = Backend::start();
    other.behave(201, Duration::ZERO);
    register(&node, "default", "order", &other);
    until("both are called", SOON, || node.status("/") == 201);
    kill_process(own(&program), Signal::STOP).unwrap();
    // After 15 s of silence, which begins with a look; they come every 5 s.
    let is = |health: &str| {
        let all = instances(&node);
        all.iter().any(|instance| instance["port"] == port && instance["health"] == health)
    };
    until("it is critical", SOON * 3, || is("critical"));
    // The gateway hears of it a moment later; a call before that waits for 15 s.
    until("it is not called", SOON * 3, || (0..20).all(|_| node.status("/") == 201));
    kill_process(own(&program), Signal::CONT).unwrap();
    until("it is well", SOON, || is("passing"));
    until("it is called again", SOON, || node.status("/") == 200);
    send(&program, Signal::TERM);
    assert_eq!(ended(program).0, 128 + 15);
}

#[test]
fn a_program_may_start_before_the_control_plane_does() {
    let home = TempDir::new().unwrap();
    let token = home.path().join("token");
    fs::write(&token, "0123456789abcdef").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let (control, port) = (free_port(), free_port());
    let flags = format!("--control http://127.0.0.1:{control}");
    let (program, proxy) = calling(
        port,
        &flags,
        &[
            ("HOME", home.path().to_str().unwrap()),
            ("MAINSTAY_CLIENT__TOKEN_FILE", token.to_str().unwrap()),
        ],
    );
    until("it runs alone", SOON, || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let config = CONFIG.replace(
        "listen = \"127.0.0.1:0\"\n[gateway]",
        &format!("listen = \"127.0.0.1:{control}\"\ntoken_file = '{}'\n[gateway]", token.display()),
    );
    let mut node = Gateway::start_dev("run-before", &config);
    until("it is called", SOON, || node.status("/") == 200);

    // Another one takes its place, with a token of its own.
    node.signal(Signal::KILL);
    node.ended();
    fs::write(&token, "fedcba9876543210").unwrap();
    let node = Gateway::start_dev("run-before-another", &config);
    until("it is called there", SOON * 2, || node.status("/") == 200);
    let stock = Backend::start();
    register(&node, "default", "stock", &stock);
    until("it finds others there", SOON, || by_proxy(&proxy, "http://stock/").0 == 200);
    send(&program, Signal::INT);
    assert_eq!(ended(program).0, 128 + 2, "other signals are the program's");
    until("it is gone", SOON, || instances(&node).is_empty());
}

/// Asks the proxy at `proxy` for `target`, an absolute one; the answer's status and the rest.
fn by_proxy(proxy: &str, target: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(proxy).unwrap();
    let host = target.trim_start_matches("http://").split('/').next().unwrap();
    let head = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

/// A program under `mainstay run`, which finds `variables`, that says where its calls are taken and
/// then serves on `port`.
fn calling(port: u16, flags: &str, variables: &[(&str, &str)]) -> (Child, String) {
    let mut command = wrap(&format!("--service order --port {port} {flags}"));
    command
        .args(["sh", "-c", "echo $HTTP_PROXY $http_proxy $NO_PROXY; exec \"$@\" >/dev/null", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["a_backend", "--exact", "--nocapture"])
        .env("MAINSTAY_TEST_BACKEND", format!("127.0.0.1:{port}"))
        .envs(variables.iter().copied());
    let mut program = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(program.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (large, rest) = line.trim().split_once(' ').unwrap();
    assert_eq!(rest, format!("{large} 127.0.0.1,localhost"));
    (program, large.trim_start_matches("http://").to_owned())
}

/// Where its proxy keeps what it knows, and whether it calls any host.
fn sidecar<'v>(home: &'v Path, any: &'v str) -> [(&'v str, &'v str); 2] {
    [("STATE_DIRECTORY", home.to_str().unwrap()), ("MAINSTAY_SIDECAR__OUTBOUND_ANY", any)]
}

/// Makes `backend` an instance of a service of a namespace.
#[track_caller]
fn register(node: &Gateway, namespace: &str, service: &str, backend: &Backend) {
    let own = serde_json::json!({
        "address": "127.0.0.1", "port": backend.address.port(), "ttl_seconds": 600
    });
    let path = format!("/api/v1/registry/{namespace}/services/{service}/instances/one");
    assert_eq!(node.call("PUT", &path, &own.to_string()).0, 201);
}

#[test]
fn a_program_calls_services_by_name_also_while_nobody_knows_them() {
    let node = Gateway::start_dev("run-calls", CONFIG);
    let home = node.home().join("data");
    let stock = Backend::start();
    register(&node, "default", "stock", &stock);
    register(&node, "shop", "stock", &stock);
    let port = free_port();
    let (program, proxy) = calling(port, "", &sidecar(&home, "true"));
    for host in ["stock", "stock:80", "stock.shop", "stock.default.svc.mainstay"] {
        let (status, answer) = by_proxy(&proxy, &format!("http://{host}/a"));
        assert_eq!(status, 200, "{host}: {answer}");
    }
    // Others are called where they are, at their ports.
    for other in [Backend::start(), Backend::start()] {
        assert_eq!(by_proxy(&proxy, &format!("http://{}/", other.address)).0, 200);
    }
    until("it is called", SOON, || node.status("/") == 200);
    send(&program, Signal::TERM);
    assert_eq!(ended(program).0, 128 + 15);

    // What was known is known to the next one, while nobody else can say.
    node.signal(Signal::KILL);
    let (program, proxy) = calling(port, "", &sidecar(&home, "false"));
    assert_eq!(by_proxy(&proxy, "http://stock/").0, 200);
    let (status, answer) = by_proxy(&proxy, "http://nobody/");
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("no-instance"), "{answer}");
    send(&program, Signal::TERM);
    assert_eq!(ended(program).0, 128 + 15);
}

#[test]
fn a_service_may_come_after_the_first_call_to_it() {
    let node = Gateway::start_dev("run-later", CONFIG);
    let home = node.home().join("data");
    let stock = Backend::start();
    let port = free_port();
    // Hosts that are no services are looked for elsewhere, until they are.
    let (program, proxy) = calling(port, "", &sidecar(&home, "true"));
    assert_ne!(by_proxy(&proxy, "http://later/").0, 200);
    register(&node, "default", "later", &stock);
    until("it is called", SOON, || by_proxy(&proxy, "http://later/").0 == 200);

    // That there was nobody is kept, and is no answer for the program that comes next.
    assert_ne!(by_proxy(&proxy, "http://soon/").0, 200);
    let kept = format!("sidecar/default.order.{port}/registry/default/soon.json");
    until("it is kept", SOON, || home.join(&kept).exists());
    send(&program, Signal::TERM);
    assert_eq!(ended(program).0, 128 + 15);
    register(&node, "default", "soon", &stock);
    let (program, proxy) = calling(port, "", &sidecar(&home, "false"));
    assert_eq!(by_proxy(&proxy, "http://soon/").0, 200);
    send(&program, Signal::TERM);
    assert_eq!(ended(program).0, 128 + 15);
}

#[test]
fn what_calls_of_a_program_meet_is_told_to_the_registry() {
    let node = Gateway::start_dev("run-meets", CONFIG);
    let home = node.home().join("data");
    let stock = Backend::start();
    register(&node, "shop", "stock", &stock);
    // Only the verdict that an instance times out and does nothing else.
    let config = "[upstream.\"stock.shop\".retry]\nattempts = 1\ntry_seconds = 0.2\n\
                  [circuit.default]\nconsecutive_failures = 0\nfailure_rate_percent = 0\n\
                  window_seconds = 20\n";
    let file = node.home().join("sidecar.toml");
    fs::write(&file, config).unwrap();
    let flags = format!("--config {}", file.display());
    let (program, proxy) = calling(free_port(), &flags, &sidecar(&home, "false"));
    let call = || by_proxy(&proxy, "http://stock.shop/").0;
    until("it is called", SOON, || call() == 200);
    stock.behave(200, Duration::from_secs(30));
    until("it is a warning to all", SOON, || {
        assert_ne!(call(), 200);
        let (_, text) = node.control("/api/v1/registry/shop/services/stock");
        let service: Value = serde_json::from_str(&text).unwrap();
        service["instances"][0]["health"] == "warning"
    });
    send(&program, Signal::TERM);
    assert_eq!(ended(program).0, 128 + 15);
}

#[test]
fn calls_to_a_program_pass_its_proxy_if_there_is_one() {
    let (port, inbound) = (free_port(), free_port());
    let config =
        "[upstream.order]\nlimits = [\"few\"]\n[limit.few]\nmax = 2\nwindow_seconds = 600\n";
    let config = format!("{config}[sidecar]\ninbound = \"127.0.0.1:{inbound}\"\n");
    let node = Gateway::start_dev("run-inbound", CONFIG);
    let home = node.home().join("data");
    let file = node.home().join("sidecar.toml");
    fs::write(&file, config).unwrap();
    let flags = format!("--config {}", file.display());
    let program = serving(port, &flags).env("STATE_DIRECTORY", &home).spawn().unwrap();
    until("it is registered", SOON, || instances(&node).len() == 1);
    assert_eq!(instances(&node)[0]["port"], inbound);
    let at = format!("127.0.0.1:{inbound}");
    let statuses = [0; 3].map(|_| by_proxy(&at, "http://order/").0);
    assert_eq!(statuses, [200, 200, 429]);
    send(&program, Signal::TERM);
    assert_eq!(ended(program).0, 128 + 15);
    assert!(TcpStream::connect(at).is_err(), "the proxy ends with the program");
}
