//! The door for clients of DTM, as they find it, with participants over real HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "dtm/door.rs"]
mod door;
#[path = "dtm/messages.rs"]
mod messages;
#[path = "dtm/sagas.rs"]
mod sagas;
#[path = "support/support.rs"]
mod support;
#[path = "dtm/two_phases.rs"]
mod two_phases;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use support::gateway::Gateway;
use support::participant::Participant;
use support::wait::until;

const CONFIG: &str = r#"
server = { listen = "127.0.0.1:0" }
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
[transaction.dtm]
retry_interval_seconds = 1
request_timeout_seconds = 2
timeout_to_fail_seconds = 20
"#;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const SUCCESS: (u16, &str) = (200, r#"{"dtm_result":"SUCCESS"}"#);

/// A request without a token, but with `headers`, whole lines.
#[track_caller]
fn ask(to: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "{method} /api/{path} HTTP/1.1\r\nhost: {to}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn post(node: &Gateway, verb: &str, body: &Value) -> (u16, String) {
    ask(node.control, "POST", &format!("dtmsvr/{verb}"), "", &body.to_string())
}

#[track_caller]
fn get(node: &Gateway, path: &str) -> Value {
    let (status, body) = ask(node.control, "GET", &format!("dtmsvr/{path}"), "", "");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect(&body)
}

/// The verb answers so, to the letter.
#[track_caller]
fn check(node: &Gateway, verb: &str, body: &Value, want: (u16, &str)) {
    let (status, text) = post(node, verb, body);
    assert_eq!((status, text.as_str()), want, "{verb} {body}");
}

#[track_caller]
fn succeeds(node: &Gateway, verb: &str, body: &Value) {
    check(node, verb, body, SUCCESS);
}

/// The verb answers with `status`, and says `part`. Clients look for words in the text.
#[track_caller]
fn refuses(node: &Gateway, verb: &str, body: &Value, want: u16, part: &str) {
    let (status, text) = post(node, verb, body);
    assert_eq!(status, want, "{verb} {body}: {text}");
    let (failures, goings_on) = match want {
        409 => (2, 0), // As the result, and at the end of the message.
        425 => (0, 2),
        _ => (0, 0),
    };
    assert_eq!(text.matches("FAILURE").count(), failures, "{text}");
    assert_eq!(text.matches("ONGOING").count(), goings_on, "{text}");
    let message: Value = serde_json::from_str(&text).expect(&text);
    assert!(message["message"].as_str().unwrap().contains(part), "{text}");
}

fn base(gid: &str, kind: &str) -> Value {
    json!({ "gid": gid, "trans_type": kind })
}

/// A saga or message of steps that `shop` takes.
fn steps(shop: &Participant, gid: &str, kind: &str, names: &[&str]) -> Value {
    let step = |name: &&str| {
        let action = shop.url(&format!("/{name}"));
        json!({ "action": action, "compensate": shop.url(&format!("/undo-{name}")) })
    };
    let mut base = base(gid, kind);
    base["steps"] = names.iter().map(step).collect();
    base["payloads"] = names.iter().map(|name| json!({ "step": name }).to_string()).collect();
    base
}

/// `base` with more members.
fn with(mut base: Value, more: Value) -> Value {
    base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    base
}

/// The transaction, once it has `status`.
#[track_caller]
fn becomes(node: &Gateway, gid: &str, status: &str) -> Value {
    let mut seen = Value::Null;
    until(&format!("{gid} is {status}"), PATIENCE, || {
        seen = get(node, &format!("query?gid={gid}"));
        seen["transaction"]["status"] == status
    });
    seen
}
