//! What a coordinator does with unfinished sagas after it was killed.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::coordinator::{Coordinator, Kind};
use crate::participants::{Mood, Participant};

/// Sagas that have not ended.
pub const SAGAS: u64 = 10_000;

/// Of each saga, all of one participant.
const STEPS: u64 = 2;

const PARTICIPANTS: usize = 10;

const CLIENTS: u64 = 32;

/// What came of one round.
#[derive(Clone, Copy, Debug)]
pub struct Recovery {
    /// From the start of the process until it answers for one of them.
    pub serving_seconds: f64,
    /// From the start of the process until all have ended, or all but those of whoever hangs.
    pub ended_seconds: f64,
    /// Memory for each saga that has not ended, its payload among it.
    pub kib_each: f64,
}

/// With `hanging`, one of the ten participants never answers.
pub fn round(binary: &Path, folder: &Path, hanging: bool) -> Recovery {
    let participants: Vec<Participant> = (0..PARTICIPANTS).map(|_| Participant::start()).collect();
    participants.iter().for_each(|participant| participant.be(Mood::Away));
    let coordinator = Coordinator::start(Kind::Mainstay, binary, folder, "", None);
    std::thread::sleep(Duration::from_secs(1));
    let before = coordinator.used().resident_kib;
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (coordinator, participants) = (&coordinator, &participants);
            scope.spawn(move || begin(coordinator, participants, client));
        }
    });
    let kib_each = coordinator.used().resident_kib.saturating_sub(before) as f64 / SAGAS as f64;
    coordinator.kill();
    participants.iter().for_each(|participant| participant.be(Mood::Well));
    if hanging {
        participants[0].be(Mood::Hanging);
    }
    let began = Instant::now();
    let coordinator = Coordinator::start(Kind::Mainstay, binary, folder, "", None);
    // It listens before it has read what it has.
    let mut open = coordinator.connection();
    while open.ask("GET", "/api/v1/transactions/left-0", b"").0 != 200 {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not coordinate");
        std::thread::sleep(Duration::from_millis(5));
    }
    let serving_seconds = began.elapsed().as_secs_f64();
    let left = if hanging { SAGAS / PARTICIPANTS as u64 } else { 0 };
    loop {
        let live = coordinator.metric("mainstay_transaction_live_count");
        let done: u64 = participants.iter().map(Participant::done).sum();
        // It counts none before it has read what it has, and steps may be asked for twice.
        if live <= left as f64 && STEPS * (SAGAS - left) <= done {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(300), "{live} have not ended");
        std::thread::sleep(Duration::from_millis(50));
    }
    let ended_seconds = began.elapsed().as_secs_f64();
    participants[0].be(Mood::Well);
    coordinator.kill();
    drop(std::fs::remove_dir_all(folder));
    Recovery { serving_seconds, ended_seconds, kib_each }
}

fn begin(coordinator: &Coordinator, participants: &[Participant], client: u64) {
    let mut open = coordinator.connection();
    for number in (client..SAGAS).step_by(CLIENTS as usize) {
        let at = participants[number as usize % PARTICIPANTS].address;
        let step = json!({
            "action": { "url": format!("http://{at}/do") },
            "compensate": { "url": format!("http://{at}/undo") },
            "payload": { "number": number },
        });
        let saga =
            json!({ "gid": format!("left-{number}"), "mode": "saga", "submit": true, "steps": vec![step; STEPS as usize] });
        let (status, body) =
            open.ask("POST", "/api/v1/transactions", saga.to_string().as_bytes());
        assert!(status < 300, "{status} {}", String::from_utf8_lossy(&body));
    }
}
