//! Locks of holders elsewhere, by the native API of a real process.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::events::Events;
use support::gateway::Gateway;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
"#;

/// A session, by its id and secret.
struct Session {
    id: String,
    secret: String,
}

impl Session {
    fn open(node: &Gateway, ttl_seconds: u32) -> Self {
        let owner = json!({ "host": "h", "pid": 7, "name": "test" });
        let ask = json!({ "ttl_seconds": ttl_seconds, "owner": owner });
        let (status, opened) = call(node, None, "POST", "/sessions", &ask);
        assert_eq!(status, 201, "{opened}");
        let text = |field: &str| opened[field].as_str().unwrap().to_owned();
        Self { id: text("session"), secret: text("secret") }
    }

    /// Asks for the lock `jobs/nightly`.
    fn acquire(&self, node: &Gateway, request: &str, wait: u32) -> (u16, Value) {
        let ask = json!({ "session": self.id, "request_id": request, "wait_seconds": wait });
        call(node, Some(self), "POST", &format!("{LOCK}/acquire"), &ask)
    }

    fn release(&self, node: &Gateway, token: &Value) -> (u16, Value) {
        let ask = json!({ "session": self.id, "token": token, "request_id": "r" });
        call(node, Some(self), "POST", &format!("{LOCK}/release"), &ask)
    }
}

/// A name with a `/`, as one segment.
const LOCK: &str = "/locks/default/jobs%2Fnightly";

fn call(
    node: &Gateway,
    session: Option<&Session>,
    method: &str,
    path: &str,
    document: &Value,
) -> (u16, Value) {
    let secret = session.map(|session| format!("mainstay-session-secret: {}\r\n", session.secret));
    let (status, body) = node.call_with(
        method,
        &format!("/api/v1{path}"),
        &secret.unwrap_or_default(),
        &document.to_string(),
    );
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or_default())
}

#[test]
fn one_holds_others_wait_in_order_and_tokens_rise() {
    let node = Gateway::start_dev("locks", CONFIG);
    let (a, b) = (Session::open(&node, 30), Session::open(&node, 30));
    let (status, first) = a.acquire(&node, "1", 0);
    assert_eq!((status, first["count"].as_u64()), (200, Some(1)));
    let valid = first["valid_seconds"].as_f64().unwrap();
    assert!((27.0..30.0).contains(&valid), "30 s less a margin of 3 s, and the wait: {valid}");
    // The same request again counts once; another one counts once more.
    assert_eq!(a.acquire(&node, "1", 0).1["count"], 1);
    assert_eq!(a.acquire(&node, "2", 0).1["count"], 2);

    let busy = b.acquire(&node, "1", 0);
    assert_eq!(code(&busy), (409, "lock-busy"));
    assert_eq!((&busy.1["holder"]["token"], &busy.1["queued"]), (&first["token"], &json!(1)));
    assert_eq!(code(&b.acquire(&node, "1", 1)), (409, "lock-wait-timeout"));
    let wrong = Session { id: a.id.clone(), secret: b.secret.clone() };
    assert_eq!(code(&wrong.release(&node, &first["token"])).0, 403);
    assert_eq!(code(&b.release(&node, &first["token"])), (409, "lock-not-held"));

    let granted = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| b.acquire(&node, "3", 20));
        support::wait::until("it waits", Duration::from_secs(10), || {
            let (_, status) = call(&node, None, "GET", LOCK, &json!({}));
            status["queue"][0]["waits_for"] == first["token"]
        });
        let listed = node.cli_json(&["lock", "list", "--waiters"]);
        let line = &listed["items"][0];
        assert_eq!((&line["waiters"], &line["holders"][0]["token"]), (&json!(1), &first["token"]));
        let (_, table, _) = node.cli(&["lock", "list", "--waiters"]);
        assert!(table.contains("jobs/nightly") && table.contains("WAITERS"), "{table}");
        for left in [1, 0] {
            let ask = json!({ "session": a.id, "token": first["token"], "request_id": format!("r{left}") });
            let (status, answer) = call(&node, Some(&a), "POST", &format!("{LOCK}/release"), &ask);
            assert_eq!((status, answer["count"].as_u64()), (200, Some(left)));
        }
        waiting.join().unwrap()
    });
    assert_eq!(granted.0, 200, "{}", granted.1);
    assert!(granted.1["token"].as_u64() > first["token"].as_u64());
    let (_, list) = call(&node, None, "GET", "/locks/default", &json!({}));
    assert_eq!(list["items"][0]["name"], "jobs/nightly");
}

#[test]
fn sessions_are_refused_beyond_as_many_as_there_may_be() {
    let node =
        Gateway::start_dev("locks-sessions", &format!("{CONFIG}[lock]\nsessions_max = 12\n"));
    let ask = json!({ "ttl_seconds": 60, "owner": { "host": "h", "pid": 1, "name": "n" } });
    let open = || call(&node, None, "POST", "/sessions", &ask);
    let mut opened = Vec::new();
    let refused = loop {
        match open() {
            (201, session) => opened.push(session),
            refused => break refused,
        }
        // The duties of the node itself are sessions, too.
        assert!(opened.len() <= 12, "no limit");
    };
    assert_eq!(code(&refused), (503, "sessions-full"), "{}", refused.1);
    assert!(refused.1["detail"].as_str().unwrap().contains("lock.sessions_max"), "{}", refused.1);
    let last = opened.pop().unwrap();
    let text = |name: &str| last[name].as_str().unwrap().to_owned();
    let session = Session { id: text("session"), secret: text("secret") };
    let ended = call(&node, Some(&session), "DELETE", &format!("/sessions/{}", session.id), &ask);
    assert_eq!(ended.0, 204);
    assert_eq!(open().0, 201, "there is room again");
}

#[test]
fn what_was_granted_is_held_after_a_kill_and_ends_with_its_session() {
    let mut node = Gateway::start_dev("locks-kill", CONFIG);
    let a = Session::open(&node, 30);
    let (_, granted) = a.acquire(&node, "1", 0);
    node.signal(Signal::KILL);
    node.ended();
    let node = node.again("locks-killed", &[]);
    let b = Session::open(&node, 30);
    assert_eq!(code(&b.acquire(&node, "1", 0)), (409, "lock-busy"));
    let path = format!("/sessions/{}/renew", a.id);
    assert_eq!(call(&node, Some(&a), "PUT", &path, &json!({})).0, 200);
    assert_eq!(call(&node, Some(&a), "DELETE", &format!("/sessions/{}", a.id), &json!({})).0, 204);
    let (status, next) = b.acquire(&node, "2", 10);
    assert_eq!(status, 200, "{next}");
    assert!(next["token"].as_u64() > granted["token"].as_u64());
    assert_eq!(code(&a.acquire(&node, "3", 0)), (404, "session-not-found"));
}

#[test]
fn a_holder_is_told_what_was_taken_and_that_its_session_is_gone() {
    let node = Gateway::start_dev("locks-stream", CONFIG);
    let a = Session::open(&node, 30);
    let (_, granted) = a.acquire(&node, "1", 0);
    let header = format!("mainstay-session-secret: {}\r\n", a.secret);
    let path = format!("/api/v1/sessions/{}/stream", a.id);
    let mut stream = Events::of(node.open("GET", &path, &header, ""));
    let snapshot = stream.find("snapshot");
    assert_eq!(snapshot["held"][0]["token"], granted["token"]);

    let force = |reason: &str| {
        let ask = json!({ "token": granted["token"], "reason": reason });
        call(&node, None, "POST", &format!("{LOCK}/force-release"), &ask)
    };
    assert_eq!(code(&force("")), (422, "reason-required"));
    assert_eq!(code(&force("   ")), (422, "reason-required"));
    assert_eq!(force("its holder hangs").0, 204);
    assert!(node.logged("its holder hangs") == 1 && node.logged("lock.force-release") == 1);
    let lost = stream.find("change");
    assert_eq!((lost["what"].as_str(), lost["reason"].as_str()), (Some("lost"), Some("revoked")));
    assert_eq!(lost["token"], granted["token"]);

    assert_eq!(call(&node, Some(&a), "DELETE", &format!("/sessions/{}", a.id), &json!({})).0, 204);
    assert_eq!(stream.find("change")["what"], "ended");
}
