//! Sagas of two steps that do nothing, waited for until they have ended.

use std::path::Path;
use std::time::Duration;

use bench_measure::http::Connection;
use bench_measure::{Round, closed_loop};
use serde_json::json;

use crate::coordinator::{Coordinator, Kind};
use crate::participants::Participant;

/// The same requests of DTM's clients to both.
pub fn round(
    coordinator: &Coordinator,
    participant: &Participant,
    clients: usize,
    span: Duration,
) -> Round {
    let client = |number| Client {
        open: coordinator.connection(),
        step: json!({
            "action": format!("http://{}/do", participant.address),
            "compensate": format!("http://{}/undo", participant.address),
        }),
        clients,
        number,
        count: 0,
    };
    closed_loop(clients, span, client, Client::once, || coordinator.used())
}

struct Client {
    open: Connection,
    step: serde_json::Value,
    clients: usize,
    number: usize,
    count: u64,
}

impl Client {
    fn once(&mut self) {
        self.count += 1;
        let saga = json!({
            "gid": format!("bench-{}-{}-{}", self.clients, self.number, self.count),
            "trans_type": "saga",
            "steps": [self.step, self.step],
            "payloads": ["{}", "{}"],
            "wait_result": true,
        });
        let (status, body) =
            self.open.ask("POST", "/api/dtmsvr/submit", saga.to_string().as_bytes());
        let body = String::from_utf8_lossy(&body);
        assert!(status == 200 && body.contains("SUCCESS"), "{status} {body}");
    }
}

/// Syncs for each saga: a run of its own, since counting them costs time. Needs strace.
pub fn syncs(kind: Kind, binary: &Path, folder: &Path, clients: usize) -> Option<f64> {
    let file = std::path::absolute(folder).ok()?.join(format!("syncs-{kind:?}"));
    let coordinator = Coordinator::start(kind, binary, folder, "", Some(&file));
    let done = round(&coordinator, &Participant::start(), clients, Duration::from_secs(4)).all;
    coordinator.stop();
    let text = std::fs::read_to_string(file).ok()?;
    // % time, seconds, usecs/call, calls, errors (may be absent), name
    let calls = text.lines().filter(|line| line.ends_with("sync")).filter_map(|line| {
        line.split_whitespace().nth(3).and_then(|calls| calls.parse::<f64>().ok())
    });
    Some(calls.sum::<f64>() / done as f64)
}
