//! A holder of a lock as a process of its own, so that it can be killed and stopped for real.
//!
//! The test binary starts itself again, as the one test that holds. A holder writes down what it
//! knows, line by line and at once, so that a kill leaves what it had seen:
//!
//! | line | means |
//! |---|---|
//! | `asked T` | it asked for the lock |
//! | `granted T TOKEN` | it was told that it holds it |
//! | `sure T` | its own clock said, after T, that it still holds it |
//! | `gives T`, `gave T` | it gives it back; that is done |
//! | `lost T` | it knows that it holds it no more |
//!
//! T is of `CLOCK_BOOTTIME`, which all processes share.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mainstay_client::{Client, ClientError};
use mainstay_sim::check::OPEN;
use mainstay_sim::check::locks::{Call, What};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::support::gateway::send;
use crate::support::wait::pause;

const ASKED: &str = "MAINSTAY_TEST_HOLDER";

/// The lock all of them are after.
pub(crate) const LOCK: &str = "jobs/nightly";

/// The shortest there is.
pub(crate) const TTL: Duration = Duration::from_secs(2);

/// How often a holder looks whether it still holds, and how long it waits in between.
const LOOKS: u32 = 5;
const BETWEEN: Duration = Duration::from_millis(20);

/// How a holder asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By the client library, which renews.
    Library,
    /// By the API, judging by what it says and its own clock.
    Http,
}

/// A holder, running as a child; it wants the lock again and again.
#[derive(Debug)]
pub(crate) struct Holder {
    child: Child,
    notes: PathBuf,
    number: u32,
}

impl Holder {
    /// Starts one by running the test `a_holder` of this binary. It writes into `folder`.
    #[track_caller]
    pub(crate) fn start(
        way: Way,
        number: u32,
        folder: &Path,
        servers: &[SocketAddr],
        token: &str,
    ) -> Self {
        let notes = folder.join(format!("holder-{number}"));
        let ask = json!({
            "http": way == Way::Http,
            "notes": notes,
            "servers": servers,
            "token": token,
        });
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["a_holder", "--exact", "--nocapture"])
            .env(ASKED, ask.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, notes, number }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// Ends it as a crash does, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// What it has written so far, without what it was writing just now.
    fn notes(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.notes).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(str::to_owned).collect()
    }

    /// Whether it held the lock when it wrote last.
    pub(crate) fn holds(&self) -> bool {
        let notes = self.notes();
        notes.last().is_some_and(|line| line.starts_with("granted") || line.starts_with("sure"))
    }

    /// How often a line with `word` stands in its notes.
    pub(crate) fn noted(&self, word: &str) -> usize {
        self.notes().iter().filter(|line| line.split(' ').next() == Some(word)).count()
    }

    /// What it did, as calls of a lock. One that went without giving back lets go at some moment
    /// after it last was sure, and nobody saw when.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let client = self.number;
        let (mut calls, mut asked, mut held) = (Vec::new(), 0, None);
        let release =
            |token, called, returned| Call { client, what: What::Release(token), called, returned };
        for line in self.notes() {
            let words: Vec<&str> = line.split(' ').collect();
            let at: i64 = words[1].parse().unwrap();
            match (words[0], held) {
                ("asked", Some((token, sure))) => {
                    calls.push(release(token, sure, OPEN));
                    (asked, held) = (at, None);
                }
                ("asked", None) => asked = at,
                ("granted", _) => {
                    let token = words[2].parse().unwrap();
                    let what = What::Acquire(token);
                    calls.push(Call { client, what, called: asked, returned: at });
                    held = Some((token, at));
                }
                ("sure" | "gives", Some((token, _))) => held = Some((token, at)),
                ("gave", Some((token, gives))) => {
                    calls.push(release(token, gives, at));
                    held = None;
                }
                ("lost", Some((token, sure))) => {
                    calls.push(release(token, sure, OPEN));
                    held = None;
                }
                (word, _) => assert!(held.is_some(), "{word} by one who does not hold: {line}"),
            }
        }
        if let Some((token, sure)) = held {
            calls.push(release(token, sure, OPEN));
        }
        calls
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Wants the lock for ever if this process was started to be a holder.
pub(crate) fn hold_if_asked() {
    let Ok(ask) = std::env::var(ASKED) else { return };
    let ask: Value = serde_json::from_str(&ask).unwrap();
    let text = |name: &str| ask[name].as_str().unwrap().to_owned();
    let notes = Notes(File::create(text("notes")).unwrap());
    let servers: Vec<SocketAddr> = serde_json::from_value(ask["servers"].clone()).unwrap();
    if ask["http"] == true {
        over_http(notes, &servers, &text("token"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(by_library(notes, &servers, &text("token")));
}

/// A client of the library for `servers`.
pub(crate) fn client(servers: &[SocketAddr], token: &str) -> Client {
    let servers = servers.iter().map(|address| format!("http://{address}"));
    Client::builder(servers).token(token).name("holder").build().unwrap()
}

struct Notes(File);

impl Notes {
    fn write(&mut self, word: &str, at: i64, rest: &str) {
        self.0.write_all(format!("{word} {at}{rest}\n").as_bytes()).unwrap();
    }
}

fn boottime() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

async fn by_library(mut notes: Notes, servers: &[SocketAddr], token: &str) {
    let client = client(servers, token);
    loop {
        notes.write("asked", boottime(), "");
        let Ok(held) = client.lock(LOCK).ttl(TTL).acquire().await else {
            tokio::time::sleep(BETWEEN).await;
            continue;
        };
        notes.write("granted", boottime(), &format!(" {}", held.token()));
        let mut is_sure = true;
        for _ in 0..LOOKS {
            let before = boottime();
            is_sure = held.check().is_ok();
            if !is_sure {
                break;
            }
            notes.write("sure", before, "");
            tokio::time::sleep(BETWEEN).await;
        }
        if !is_sure {
            notes.write("lost", boottime(), "");
            continue;
        }
        let before = boottime();
        if held.check().is_err() {
            notes.write("lost", boottime(), "");
            continue;
        }
        notes.write("gives", before, "");
        match held.release().await {
            Ok(()) => notes.write("gave", boottime(), ""),
            Err(ClientError::Lost(_)) => notes.write("lost", boottime(), ""),
            // It ends with its session, some time.
            Err(_unknown) => {}
        }
    }
}

/// A session of the API, at a server that answers.
struct Session {
    connection: Connection,
    token: String,
    id: String,
    headers: String,
}

impl Session {
    fn open(to: SocketAddr, token: &str) -> Option<Self> {
        let mut connection = Connection::open(to)?;
        let headers = format!("authorization: Bearer {token}\r\n");
        let owner = json!({ "host": "h", "pid": std::process::id(), "name": "http" });
        let ask = json!({ "ttl_seconds": TTL.as_secs(), "owner": owner }).to_string();
        let answer = connection.ask("POST", "/api/v1/sessions", &headers, ask.as_bytes());
        let (201, opened) = answer? else { return None };
        let opened: Value = serde_json::from_str(&opened).ok()?;
        let secret = opened["secret"].as_str()?;
        let headers = format!("{headers}mainstay-session-secret: {secret}\r\n");
        let id = opened["session"].as_str()?.to_owned();
        Some(Self { connection, token: token.to_owned(), id, headers })
    }

    fn ask(&mut self, method: &str, path: &str, document: &Value) -> Option<(u16, Value)> {
        let (path, document) = (format!("/api/v1{path}"), document.to_string());
        let answer = self.connection.ask(method, &path, &self.headers, document.as_bytes());
        let (status, text) = answer?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }
}

/// Asks by the API alone. It does not renew what it holds: it knows for how long it is good.
fn over_http(mut notes: Notes, servers: &[SocketAddr], token: &str) -> ! {
    let mut at = std::process::id() as usize;
    loop {
        if turn(&mut notes, servers[at % servers.len()], token).is_none() {
            // What it asked for goes with its session, and it asks somebody else.
            at += 1;
            pause(BETWEEN);
        }
    }
}

/// A session, and one turn of holding; `None` when the server did not do as it should.
fn turn(notes: &mut Notes, server: SocketAddr, token: &str) -> Option<()> {
    let mut session = Session::open(server, token)?;
    let lock = "/locks/default/jobs%2Fnightly";
    let mut request = 0;
    let (grant, asked) = loop {
        let renewed = session.ask("PUT", &format!("/sessions/{}/renew", session.id), &json!({}))?;
        if renewed.0 / 100 != 2 {
            return None;
        }
        let asked = boottime();
        notes.write("asked", asked, "");
        request += 1;
        let (id, secret) = (&session.id, format!("r{request}"));
        let ask = json!({ "session": id, "request_id": secret, "wait_seconds": 1 });
        match session.ask("POST", &format!("{lock}/acquire"), &ask)? {
            (200, grant) => break (grant, asked),
            (409, _) => {}
            _ => return None,
        }
    };
    notes.write("granted", boottime(), &format!(" {}", grant["token"]));
    let valid = Duration::from_secs_f64(grant["valid_seconds"].as_f64()?);
    let until = asked + i64::try_from(valid.as_nanos()).ok()?;
    for _ in 0..LOOKS {
        let now = boottime();
        if until <= now {
            notes.write("lost", now, "");
            return None;
        }
        notes.write("sure", now, "");
        pause(BETWEEN);
    }
    notes.write("gives", boottime(), "");
    let ask = json!({ "session": session.id, "token": grant["token"], "request_id": "g" });
    let (status, _) = session.ask("POST", &format!("{lock}/release"), &ask)?;
    if status == 200 {
        notes.write("gave", boottime(), "");
    }
    let (end, _) = session.ask("DELETE", &format!("/sessions/{}", session.id), &json!({}))?;
    (end == 204).then_some(())
}
