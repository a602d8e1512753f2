//! Questions and changes against a listener that says what the test wants.

use std::fs;
use std::io::Write as _;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::thread;

use super::*;

/// Answers one connection after the other with `answers`; returns the address and, in the end,
/// the requests. An empty answer closes the connection.
fn peer(answers: &'static [&'static str]) -> (String, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let served = thread::spawn(move || {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") {
                let start = head.len();
                reader.read_line(&mut head).expect("a line");
                let line = head.get(start..).unwrap_or("").to_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a number");
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("the body");
            requests.push(head + &String::from_utf8_lossy(&body));
            stream.write_all(answer.as_bytes()).expect("written");
        }
        requests
    });
    (format!("http://{address}"), served)
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{\"a\": 1}";
const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";
const MOVED: &str = "HTTP/1.1 409 Conflict\r\ncontent-length: 38\r\n\r\n{\"code\":\"revision-moved\",\"detail\":\"x\"}";

fn control(url: &str) -> Control {
    Control::new(url, Some("t0ken".to_owned())).expect("an address")
}

fn exit(answer: Result<Json, Errors>) -> (u8, String) {
    let errors = answer.expect_err("no good answer");
    (errors.reports[0].exit.code(), errors.reports[0].code.to_string())
}

#[test]
fn a_question_carries_the_token_and_host_and_is_asked_once_more() {
    let (url, served) = peer(&[BUSY, OK]);
    assert_eq!(control(&url).get("/api/v1/x?y=1").expect("answered")["a"], 1);
    let requests = served.join().expect("served");
    assert!(requests[1].starts_with("GET /api/v1/x?y=1 HTTP/1.1\r\n"), "{requests:?}");
    assert!(requests[1].contains("authorization: Bearer t0ken\r\n"), "{requests:?}");
    assert!(requests[1].contains(&format!("host: {}\r\n", url.trim_start_matches("http://"))));
}

#[test]
fn a_change_is_sent_once_with_its_reason() {
    let (url, served) = peer(&[OK]);
    let body = serde_json::json!({ "mode": "auto" });
    control(&url).change("PUT", "/x", Some(&body), Some("演练")).expect("answered");
    let request = served.join().expect("served").remove(0);
    assert!(request.contains("mainstay-reason: %E6%BC%94%E7%BB%83\r\n"), "{request}");
    assert!(request.contains("idempotency-key: "), "{request}");
    assert!(request.ends_with("{\"mode\":\"auto\"}"), "{request}");
}

#[test]
fn the_exit_code_tells_what_became_of_it() {
    let (url, _) = peer(&[BUSY]);
    assert_eq!(exit(control(&url).change("POST", "/x", None, None)).0, 6);
    let (url, _) = peer(&[MOVED]);
    assert_eq!(exit(control(&url).get("/x")), (4, "revision-moved".to_owned()));
    let (url, _) = peer(&[""]);
    assert_eq!(exit(control(&url).change("POST", "/x", None, None)).0, 8);
    let (url, _) = peer(&["", ""]);
    assert_eq!(exit(control(&url).get("/x")).0, 6);
}

#[test]
fn nobody_listening_is_unavailable_with_the_next_step() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    drop(listener);
    for answer in [control(&url).get("/x"), control(&url).change("POST", "/x", None, None)] {
        let errors = answer.expect_err("nobody is there");
        let report = &errors.reports[0];
        assert_eq!((report.exit.code(), report.code.as_ref()), (6, "control-unreachable"));
        assert_eq!(report.next, ["mainstay dev"]);
        assert!(report.message.ends_with("connection refused"), "{}", report.message);
    }
}

#[test]
fn a_problem_without_effect_known_is_unknown() {
    let problem = serde_json::json!({ "code": "shed", "detail": "d", "effect": "unknown" });
    assert_eq!(exit(answered(503, problem)), (8, "shed".to_owned()));
    assert_eq!(exit(answered(404, Json::Null)), (3, "not-found".to_owned()));
    assert_eq!(exit(answered(418, Json::String("tea".to_owned()))), (1, "internal".to_owned()));
}

#[test]
fn an_address_is_http_host_and_port() {
    for bad in ["https://a:1", "a:1", "http://a:1/x", "", "unix:/x"] {
        assert!(Control::new(bad, None).is_err(), "{bad}");
    }
    assert_eq!(control("http://[::1]:7400/").authority, "[::1]:7400");
}

#[test]
fn a_context_file_is_for_its_owner_and_its_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mainstay/dev.toml");
    let own = std::process::id();
    let file = ContextFile {
        url: DEFAULT_URL.to_owned(),
        token: "t".to_owned(),
        pid: Some(own),
        started_ticks: started_ticks(own),
    };
    assert_eq!(ContextFile::read(&path).expect("no file"), None);
    file.write(&path).expect("written");
    file.write(&path).expect("written over");
    assert_eq!(ContextFile::read(&path).expect("good").as_ref(), Some(&file));

    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("changed");
    let errors = ContextFile::read(&path).expect_err("others may read it");
    assert_eq!(errors.reports[0].code, "context-file-open");
    assert_eq!(errors.reports[0].exit.code(), 5);

    let stale = ContextFile { started_ticks: Some(1), ..file };
    stale.write(&path).expect("written");
    assert_eq!(ContextFile::read(&path).expect("good"), None, "that process is gone");
}
