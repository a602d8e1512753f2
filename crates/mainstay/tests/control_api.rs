//! The control API and the command line against a real process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};

/// A service that answers every request with 200 `hello`, one a connection.
struct Backend {
    address: String,
    gone: Arc<AtomicBool>,
}

impl Backend {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let gone = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&gone);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                std::thread::spawn(move || answer(stream));
            }
        });
        Self { address, gone }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(&self.address));
    }
}

fn answer(mut stream: TcpStream) {
    let mut lines = BufReader::new(stream.try_clone().expect("a handle")).lines();
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\n";
    drop(stream.write_all(format!("{head}hello").as_bytes()));
}

/// A running `mainstay dev`, and what it said when it was ready.
struct Node {
    child: Child,
    folder: tempfile::TempDir,
    control: String,
    gateway: String,
    token: String,
    _backend: Backend,
}

impl Node {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let backend = Backend::start();
        let config = folder.path().join("mainstay.toml");
        std::fs::write(&config, CONFIG.replace("BACKEND", &backend.address)).expect("written");
        let mut child = mainstay(folder.path())
            .args(["dev", "--ephemeral", "--random-ports", "-o", "json", "--config"])
            .arg(&config)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("log")).expect("a log"))
            .spawn()
            .expect("started");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let ready: Json = serde_json::from_str(&line).expect("the ready line");
        let text = |name: &str| ready[name].as_str().expect(name).to_owned();
        let file = PathBuf::from(text("data_dir")).join("control.toml");
        let file = std::fs::read_to_string(file).expect("the context file");
        let context: toml::Table = file.parse().expect("TOML");
        let bare = |name: &str| text(name).trim_start_matches("http://").to_owned();
        Self {
            control: bare("control"),
            gateway: bare("gateway"),
            token: context["token"].as_str().expect("a token").to_owned(),
            child,
            folder,
            _backend: backend,
        }
    }

    /// One request with the token, to the control port; its status and document.
    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Json) -> (u16, Json) {
        let bearer = format!("Bearer {}", self.token);
        let answer = self.send(method, path, &[("authorization", &bearer)], &body.to_string());
        (answer.status, serde_json::from_str(&answer.body).unwrap_or(Json::Null))
    }

    #[track_caller]
    fn get(&self, path: &str) -> Json {
        let (status, document) = self.ask("GET", path, &Json::Null);
        assert_eq!(status, 200, "{path}: {document}");
        document
    }

    fn send(&self, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Heard {
        send(&self.control, method, path, fields, body)
    }

    /// Asks the gateway for `/`; the status, and the code of a problem.
    fn call(&self) -> String {
        let heard = send(&self.gateway, "GET", "/", &[], "");
        let document: Json = serde_json::from_str(&heard.body).unwrap_or(Json::Null);
        format!("{} {}", heard.status, document["code"].as_str().unwrap_or(&heard.body))
    }

    /// Runs one command line; its exit code, stdout and stderr.
    fn run(&self, line: &[&str]) -> (i32, String, String) {
        let output = mainstay(self.folder.path()).args(line).output().expect("run");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code().expect("a code"), text(output.stdout), text(output.stderr))
    }

    /// Runs one command line that succeeds; what it wrote as JSON.
    #[track_caller]
    fn done(&self, line: &[&str]) -> Json {
        let (code, out, err) = self.run(&[line, &["-o", "json"]].concat());
        assert_eq!(code, 0, "{line:?}: {out}{err}");
        serde_json::from_str(&out).unwrap_or(Json::Null)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("the log")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The binary, with an environment of its own.
fn mainstay(folder: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.env_clear().current_dir(folder).env("XDG_RUNTIME_DIR", folder).env("HOME", folder);
    command
}

struct Heard {
    status: u16,
    /// Lower case.
    head: String,
    body: String,
}

/// One request on a connection of its own. A `host` among `fields` takes the place of the usual.
fn send(to: &str, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Heard {
    let mut stream = TcpStream::connect(to).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if fields.iter().all(|(name, _)| *name != "host") {
        head.extend(["host: ", to, "\r\n"]);
    }
    for (name, value) in fields {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.extend(["content-length: ", &body.len().to_string(), "\r\n\r\n", body]);
    stream.write_all(head.as_bytes()).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("heard");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let body = if head.to_lowercase().contains("transfer-encoding: chunked") {
        unchunked(body)
    } else {
        body.to_owned()
    };
    Heard { status, head: head.to_lowercase(), body }
}

fn unchunked(mut text: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        whole.push_str(rest.get(..size).expect("a chunk"));
        text = rest.get(size + 2..).unwrap_or("");
    }
    whole
}

const CONFIG: &str = r#"
[system] # these tests saturate two cores, which is what this would shed for
cpu_percent_max = 0
memory_percent_max = 0
[gateway]
access_log = { format = "off" }
[route.shop]
path = "/"
to = "order"
limits = ["api"]
circuits = ["all"]
[route.items]
path = "/items/{id}"
methods = ["GET"]
to = [{ service = "order", weight = 90 }, { service = "stock", weight = 10 }]
split_key = "header:x-user"
[route.closed]
path = "/closed"
respond = { status = 503 }
limits = ["api"]
[upstream.order]
instances = ["BACKEND"]
[upstream.stock]
instances = ["BACKEND", { address = "127.0.0.1:9", weight = 0 }]
circuits = []
[circuit.all]
scope = "service"
[limit.api]
max = 1000
[limit.idle]
max = 1
"#;

/// Every call there is.
const CALLS: [(&str, &str); 17] = [
    ("GET", "/metrics"),
    ("GET", "/api/v1/circuit-states"),
    ("PUT", "/api/v1/circuit-states/all%2Forder/mode"),
    ("POST", "/api/v1/circuit-states/all%2Forder/reset"),
    ("GET", "/api/v1/limits"),
    ("GET", "/api/v1/limits/default/api/usage"),
    ("GET", "/api/v1/upstreams"),
    ("GET", "/api/v1/balance/default/order"),
    ("POST", "/api/v1/routes/test"),
    ("GET", "/api/v1/faults"),
    ("POST", "/api/v1/faults"),
    ("DELETE", "/api/v1/faults/f-1"),
    ("GET", "/api/v1/explain/limited"),
    ("GET", "/api/v1/checks"),
    ("POST", "/api/v1/settings/reload"),
    ("GET", "/api/v1/settings"),
    ("GET", "/api/v1/no-such-thing"),
];

#[test]
fn nobody_without_the_token_and_a_host_of_ours_learns_anything() {
    let node = Node::start();
    let right = format!("Bearer {}", node.token);
    let cut = right.get(..right.len() - 1).expect("ASCII");
    let longer = format!("{right}0");
    for (method, path) in CALLS {
        let basic = right.replace("Bearer", "Basic");
        for wrong in [&[][..], &["Bearer "], &[cut], &[&longer], &[&basic], &[&right, &right]] {
            let fields: Vec<_> = wrong.iter().map(|value| ("authorization", *value)).collect();
            let heard = node.send(method, path, &fields, "");
            assert_eq!(heard.status, 401, "{method} {path} {wrong:?}: {}", heard.body);
            assert!(heard.body.contains("credential-missing"), "{}", heard.body);
            assert!(heard.head.contains("www-authenticate: bearer"), "{}", heard.head);
            assert!(!heard.body.contains(&node.token));
        }
        for host in ["evil.example", "10.0.0.1:7400", "localhost.evil.example", ""] {
            let fields = [("authorization", right.as_str()), ("host", host)];
            let heard = node.send(method, path, &fields, "");
            assert_eq!(heard.status, 421, "{method} {path} {host}: {}", heard.body);
            assert!(heard.body.contains("host-not-allowed"), "{}", heard.body);
        }
        let heard = node.send(method, path, &[("authorization", &right)], "");
        assert!(![401, 421].contains(&heard.status), "{method} {path}: {}", heard.status);
        for part in ["cache-control: no-store", "x-content-type-options: nosniff"] {
            assert!(heard.head.contains(part), "{method} {path}: {}", heard.head);
        }
        let problem = heard.head.contains("content-type: application/problem+json");
        assert_eq!(problem, 400 <= heard.status, "{method} {path}: {}", heard.head);
    }
    for path in ["/api/v1/live", "/api/v1/ready"] {
        assert_eq!(node.send("GET", path, &[("host", "probe.example")], "").status, 200, "{path}");
    }
}

#[test]
fn what_cannot_be_done_is_a_problem_document() {
    let node = Node::start();
    let long = "x".repeat(501);
    let big = json!({ "reason": "x".repeat(70_000) });
    let mode = "/api/v1/circuit-states/all%2Forder/mode";
    let fault = |more: Json| {
        let mut body = json!({ "match": { "service": "order" }, "fault": "reset" });
        body.as_object_mut().expect("one").extend(more.as_object().expect("one").clone());
        body
    };
    let cases = [
        ("GET", "/api/v1/nothing", Json::Null, 404, "not-found"),
        ("DELETE", "/api/v1/limits", Json::Null, 405, "method-not-allowed"),
        ("PUT", mode, json!({ "mode": "forced-open" }), 422, "reason-required"),
        ("PUT", mode, json!({ "mode": "forced-open", "reason": "no" }), 422, "reason-required"),
        ("PUT", mode, json!({ "mode": "forced-open", "reason": long }), 422, "reason-required"),
        ("PUT", mode, json!({ "mode": "ajar", "reason": "why not" }), 422, "invalid-request"),
        ("PUT", mode, json!({ "reason": "why not" }), 422, "invalid-request"),
        ("PUT", mode, big, 413, "body-too-large"),
        (
            "PUT",
            mode,
            json!({ "mode": "auto", "reason": "why", "expires_seconds": -1 }),
            422,
            "invalid-request",
        ),
        ("PUT", mode, json!({ "mode": "auto", "reason": "why", "x": 1 }), 422, "invalid-request"),
        ("POST", "/api/v1/circuit-states/no/reset", json!({}), 404, "not-found"),
        ("GET", "/api/v1/circuit-states?state=ajar", Json::Null, 422, "invalid-request"),
        ("GET", "/api/v1/circuit-states?colour=red", Json::Null, 422, "invalid-request"),
        ("GET", "/api/v1/limits/default/no/usage", Json::Null, 404, "not-found"),
        ("GET", "/api/v1/limits/other/api/usage", Json::Null, 404, "not-found"),
        ("GET", "/api/v1/limits/default/idle/usage", Json::Null, 404, "not-found"),
        ("GET", "/api/v1/limits/default/api/usage?top=9999", Json::Null, 422, "invalid-request"),
        ("GET", "/api/v1/balance/other/order", Json::Null, 404, "not-found"),
        ("POST", "/api/v1/routes/test", json!({ "url": "/a/%2e%2e/.." }), 400, "path-ambiguous"),
        ("POST", "/api/v1/routes/test", json!({ "url": "a b" }), 422, "invalid-request"),
        ("POST", "/api/v1/faults", fault(json!({})), 422, "reason-required"),
        (
            "POST",
            "/api/v1/faults",
            fault(json!({ "reason": "drill", "match": {} })),
            422,
            "invalid-request",
        ),
        ("DELETE", "/api/v1/faults/f-77", Json::Null, 404, "not-found"),
        ("DELETE", "/api/v1/faults/77", Json::Null, 404, "not-found"),
        ("GET", "/api/v1/explain/%ff", Json::Null, 422, "invalid-request"),
    ];
    for (method, path, body, status, code) in cases {
        let (got, document) = node.ask(method, path, &body);
        assert_eq!((got, document["code"].as_str()), (status, Some(code)), "{path}: {document}");
        for field in ["type", "title", "status", "detail"] {
            assert!(!document[field].is_null(), "{path}: no {field} in {document}");
        }
    }
}

#[test]
fn a_circuit_is_forced_open_and_given_back() {
    let node = Node::start();
    assert_eq!(node.call(), "200 hello");
    let (code, _, err) = node.run(&["circuit", "force-open", "all/order", "--yes"]);
    assert_eq!(code, 2, "{err}");
    assert_eq!(node.call(), "200 hello");
    let force = ["circuit", "force-open", "all/order", "--reason", "database move", "--yes"];
    let forced = node.done(&[&force[..], &["--expires", "10m"]].concat());
    let state = &forced["items"][0];
    assert_eq!((&state["state"], &state["mode"]), (&json!("open"), &json!("forced-open")));
    assert!(state["mode_until"].is_string(), "{state}");
    assert_eq!(node.call(), "503 circuit-open");
    let open = node.done(&["circuit", "list", "--state", "open", "--service", "order"]);
    assert_eq!(open["items"][0]["id"], "all/order");
    assert_eq!(open["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(node.done(&["circuit", "list", "--service", "stock"])["items"], json!([]));
    let (code, out, _) = node.run(&["check", "--fail-on", "warn"]);
    assert!(code == 1 && out.contains("all/order"), "{out}");
    let (_, out, _) = node.run(&["explain", "all"]);
    assert!(out.contains("mode forced-open"), "{out}");
    let closed = node.done(&["circuit", "reset", "all", "--reason", "moved"]);
    assert_eq!(closed["items"][0]["state"], "closed");
    assert_eq!(node.call(), "200 hello");
    let log = node.log();
    let changes: Vec<&str> = log.lines().filter(|l| l.contains("administrative change")).collect();
    assert_eq!(changes.len(), 2, "{log}");
    for (line, words) in changes.iter().zip([
        ["circuit.mode", "all/order", "forced-open", "database move"],
        ["circuit.reset", "all/order", "closed", "moved"],
    ]) {
        for word in words {
            assert!(line.contains(word), "no {word} in {line}");
        }
    }
}

#[test]
fn a_refused_request_is_explained_stage_by_stage() {
    let node = Node::start();
    let force = ["circuit", "force-open", "all", "--reason", "drill", "--yes"];
    assert_eq!(node.run(&force).0, 0);
    let heard = send(&node.gateway, "GET", "/", &[("x-request-id", "my-own-id")], "");
    let problem: Json = serde_json::from_str(&heard.body).expect("a problem document");
    let trace = problem["trace_id"].as_str().expect("a trace id");
    for id in [trace, "my-own-id"] {
        let (code, out, err) = node.run(&["explain", id]);
        assert_eq!(code, 0, "{id}: {out}{err}");
        assert!(out.starts_with("GET / → 503 circuit-open in "), "{out}");
        let rejects = |line: &str| line.starts_with("circuit") && line.contains("reject");
        assert!(out.lines().any(rejects), "{out}");
    }
    let (status, problem) = node.ask("GET", "/api/v1/explain/00000000000000000000", &Json::Null);
    assert_eq!((status, &problem["code"]), (404, &json!("not-recorded")), "{problem}");
    let (status, problem) = node.ask("GET", "/api/v1/explain/ordre", &Json::Null);
    assert_eq!((status, &problem["code"]), (404, &json!("not-found")), "{problem}");
}

#[test]
fn a_fault_is_set_listed_and_cleared() {
    let node = Node::start();
    let (code, _, err) = node.run(&["fault", "set", "abort=503", "--service", "order"]);
    assert_eq!(code, 2, "{err}");
    let set = ["fault", "set", "abort=418", "--service", "order", "--reason", "fire drill"];
    assert_eq!(node.run(&set).0, 0);
    assert_eq!(node.call(), "418 ");
    let all = node.done(&["fault", "list"]);
    let fault = &all["items"][0];
    assert_eq!(fault["fault"], json!({ "abort": { "status": 418 } }));
    assert_eq!(fault["match"], json!({ "service": "order" }));
    assert_eq!((&fault["percent"], &fault["reason"]), (&json!(100.0), &json!("fire drill")));
    assert!(fault["seconds_left"].as_f64().is_some_and(|left| left <= 60.0), "{fault}");
    node.done(&["fault", "clear", fault["id"].as_str().expect("an id")]);
    assert_eq!(node.done(&["fault", "list"])["items"], json!([]));
    assert_eq!(node.call(), "200 hello");
    for kind in ["delay=0.2", "reset", "slow_body=10", "truncate=3", "connect_timeout"] {
        let line = ["fault", "set", kind, "--route", "none", "--reason", "drill"];
        assert_eq!(node.run(&line).0, 0, "{kind}");
    }
    node.done(&["fault", "clear", "--all"]);
    assert_eq!(node.get("/api/v1/faults")["items"], json!([]));
}

#[test]
fn a_route_test_says_where_a_request_would_go() {
    let node = Node::start();
    let test = |body: Json| node.ask("POST", "/api/v1/routes/test", &body).1;
    let found = test(json!({ "method": "GET", "url": "/items/7?x=1" }));
    assert_eq!(found["route"], "items");
    assert_eq!(found["captures"], json!({ "id": "7" }));
    assert_eq!(found["service"], Json::Null);
    let shares = json!([
        { "service": "order", "share_percent": 90.0 },
        { "service": "stock", "share_percent": 10.0 },
    ]);
    assert_eq!(found["services"], shares);
    let user = |name: &str| {
        test(json!({ "url": "/items/7", "headers": [["x-user", name]] }))["service"].clone()
    };
    assert!(user("ada").is_string());
    assert_eq!(user("ada"), user("ada"));
    let found = test(json!({ "url": "http://shop.example/" }));
    assert_eq!((&found["host"], &found["service"]), (&json!("shop.example"), &json!("order")));
    let stages = found["stages"].as_array().expect("a list");
    let names: Vec<&str> = stages.iter().filter_map(|stage| stage["stage"].as_str()).collect();
    let want =
        ["deadline", "limit", "retry", "balance", "circuit", "circuit", "timeout", "upstream"];
    assert_eq!(names, want);
    assert_eq!((&stages[1]["rule"], &stages[4]["rule"]), (&json!("api"), &json!("all")));
    let origin = stages[1]["origin"].as_str().expect("an origin");
    assert!(origin.contains("mainstay.toml:"), "{origin}");
    assert_eq!((&stages[5]["rule"], &stages[5]["origin"]), (&json!("default"), &json!("default")));
    let own = test(json!({ "url": "/closed" }));
    assert_eq!((&own["action"], &own["services"]), (&json!({ "respond": 503 }), &json!([])));
    let stages = own["stages"].as_array().expect("a list").iter();
    let names: Vec<&str> = stages.filter_map(|stage| stage["stage"].as_str()).collect();
    assert_eq!(names, ["deadline", "limit"], "what its own answer passes");
    let none = test(json!({ "url": "/other" }));
    assert_eq!((&none["route"], &none["problem"]), (&Json::Null, &json!("route-not-found")));
    let none = test(json!({ "method": "PUT", "url": "/items/7" }));
    assert_eq!((&none["problem"], &none["allow"]), (&json!("method-not-allowed"), &json!("GET")));
    let (code, out, err) = node.run(&["route", "test", "GET", "/items/7", "-H", "x-user: ada"]);
    assert!(code == 0 && out.starts_with("route items\n"), "{out}{err}");
}

#[test]
fn the_rest_tells_what_the_gateway_does() {
    let node = Node::start();
    assert_eq!(node.call(), "200 hello");
    let usage = node.get("/api/v1/limits/default/api/usage?top=3");
    assert_eq!((&usage["granted"], &usage["capacity"]), (&json!(1), &json!(1000)));
    let (code, out, _) = node.run(&["limit", "usage", "api"]);
    assert!(code == 0 && out.contains("granted: 1"), "{out}");
    let limits = node.get("/api/v1/limits");
    assert_eq!(limits["items"].as_array().map(Vec::len), Some(2));
    let services = node.get("/api/v1/upstreams");
    assert_eq!(services["items"][1]["name"], "stock");
    assert_eq!(
        (&services["items"][1]["usable"], &services["items"][1]["instances"]),
        (&json!(1), &json!(2))
    );
    let stock = node.get("/api/v1/balance/default/stock");
    assert_eq!(stock["items"][0]["usable"], true);
    assert_eq!(stock["items"][1]["why_not"], "its weight is 0");
    let order = node.get("/api/v1/balance/default/order");
    assert_eq!(order["items"][0]["circuits"][0]["state"], "closed");
    assert!(order["items"][0]["estimate_seconds"].is_number(), "{order}");
    let (code, out, err) = node.run(&["explain", "stock"]);
    assert!(code == 0 && out.contains("1 of 2 instances can be picked"), "{out}{err}");
    assert!(out.contains("its weight is 0"), "{out}");
    assert_eq!(node.run(&["explain", "circuit-open"]).0, 0);
    let page = node.get("/api/v1/explain/circuit-open");
    assert!(page["page"].as_str().is_some_and(|page| page.starts_with("# circuit-open")));
    assert_eq!(node.run(&["explain", "01JD3Q9F"]).0, 3);
    let (code, out, _) = node.run(&["check"]);
    assert!(code == 0 && out.contains("2 of 3 instances are usable"), "{out}");
    assert_eq!(node.run(&["check", "--live"]).0, 0);
    let settings = node.get("/api/v1/settings");
    let items = settings["items"].as_array().expect("a list");
    let max = items.iter().find(|item| item["path"] == "limit.api.max").expect("it is set");
    assert_eq!(max["value"], "1000");
    assert!(max["origin"].as_str().is_some_and(|origin| origin.contains("mainstay.toml:")));
}

#[test]
fn a_broken_configuration_changes_nothing_and_says_why() {
    let node = Node::start();
    let file = node.folder.path().join("mainstay.toml");
    let good = std::fs::read_to_string(&file).expect("the file");
    std::fs::write(&file, good.replace("max = 1000", "max = 0")).expect("written");
    let (code, _, err) = node.run(&["settings", "reload"]);
    assert_eq!(code, 7, "{err}");
    assert!(err.contains("limit.api.max") && err.contains("mainstay.toml:"), "{err}");
    let usage = node.get("/api/v1/limits/default/api/usage");
    assert_eq!(usage["capacity"], 1000);
    assert!(node.get("/api/v1/settings")["last_reload_error"].is_string());
    let (code, out, _) = node.run(&["check"]);
    assert!(code == 1 && out.contains("settings-loaded"), "{out}");
    std::fs::write(&file, good.replace("max = 1000", "max = 7")).expect("written");
    // The watcher may have been first; then there is nothing left to apply.
    assert_eq!(node.run(&["settings", "reload"]).0, 0);
    assert_eq!(node.get("/api/v1/limits/default/api/usage")["capacity"], 7);
    assert_eq!(node.run(&["check"]).0, 0);
}
