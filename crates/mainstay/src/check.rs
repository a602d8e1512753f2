//! Is this machine fit to run on? Questions that need no server.
//!
//! Each check runs on a thread of its own and has two seconds; one that takes longer is `unknown`,
//! never `pass`. All run at once, so that the whole takes as long as the slowest.

mod form;

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};
use std::{fs, io, net, thread};

use serde::Serialize;

pub use self::form::{Form, exit_code};

/// For one check. Since all run at once, also for all.
const TIMEOUT: Duration = Duration::from_secs(2);

const MIB: u64 = 1 << 20;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Pass,
    /// It does not apply here.
    Skip,
    /// It could not be found out.
    Unknown,
    /// It works, but not for long or not well.
    Warn,
    /// It does not work.
    Fail,
}

impl State {
    /// The word, as in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Skip => "skip",
            Self::Unknown => "unknown",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    /// The state written `word`; what nobody knows is unknown.
    pub fn parse(word: &str) -> Self {
        let all = [Self::Pass, Self::Skip, Self::Warn, Self::Fail];
        all.into_iter().find(|state| state.as_str() == word).unwrap_or(Self::Unknown)
    }
}

/// The answer of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Its name; the page is `docs/problems/check-<id>.md`.
    pub id: String,
    /// Its category.
    pub category: String,
    /// How it came out.
    pub state: State,
    /// One sentence.
    pub summary: String,
    /// Figures behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// What to type next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What the checks look at.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Where data will be kept.
    pub data_dir: PathBuf,
    /// TCP ports of loopback that will be listened on.
    pub tcp_ports: Vec<u16>,
    /// UDP ports, too.
    pub udp_ports: Vec<u16>,
}

/// A check.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Its name.
    pub id: &'static str,
    ask: fn(&Subject) -> Answer,
}

/// State, sentence, evidence.
type Answer = (State, String, Option<String>);

/// The checks of the category `pre`.
pub const PRE: [Check; 7] = [
    Check { id: "ports-free", ask: ports_free },
    Check { id: "data-dir-writable", ask: data_dir_writable },
    Check { id: "disk-free", ask: disk_free },
    Check { id: "open-files", ask: open_files },
    Check { id: "clock-sane", ask: clock_sane },
    Check { id: "memory", ask: memory },
    Check { id: "kernel", ask: kernel },
];

/// The checks that only a running process can answer.
pub const LIVE: [&str; 26] = [
    "settings-loaded",
    "circuits-open",
    "panic-active",
    "retry-budget-spent",
    "limits-saturated",
    "gateway-state-age",
    "instances",
    "store-reachable",
    "store-size",
    "store-compaction",
    "store-quorum",
    "store-writable",
    "store-revision-moving",
    "watch-lag",
    "keyring-mode",
    "audit-outbox",
    "protection-active",
    "services-without-health",
    "instances-expiring",
    "lock-lease-short",
    "lock-waiters-long",
    "transactions-in-doubt",
    "heuristic-outcomes",
    "rm-reachable",
    "prepared-orphans",
    "jwks-state",
];

/// Runs `checks` on `subject`, all at once; answers in order of the list.
pub fn run(checks: &[Check], subject: &Subject) -> Vec<Checked> {
    let asked: Vec<(Check, mpsc::Receiver<Answer>)> = checks
        .iter()
        .map(|&check| {
            let (answer, answers) = mpsc::channel();
            let subject = subject.clone();
            // A thread that hangs in the file system is left behind; the process ends soon.
            let started = thread::Builder::new().spawn(move || {
                drop(answer.send((check.ask)(&subject)));
            });
            drop(started);
            (check, answers)
        })
        .collect();
    let mut patience = TIMEOUT;
    let mut checked = Vec::new();
    for (check, answers) in asked {
        let answer = answers.recv_timeout(patience).unwrap_or_else(|_| {
            patience = Duration::ZERO; // The others have had the same time by now.
            (State::Unknown, format!("no answer within {} s", TIMEOUT.as_secs()), None)
        });
        checked.push(answer_of(check.id, "pre", answer));
    }
    checked
}

fn answer_of(id: &str, category: &str, (state, summary, evidence): Answer) -> Checked {
    let next = matches!(state, State::Warn | State::Fail | State::Unknown)
        .then(|| format!("mainstay explain check-{id}"));
    Checked { id: id.to_owned(), category: category.to_owned(), state, summary, evidence, next }
}

/// The check of the configuration, from its own verdict.
pub fn settings_valid(verdict: Result<String, String>) -> Checked {
    let answer = match verdict {
        Ok(sentence) => (State::Pass, sentence, None),
        Err(first) => (State::Fail, "the configuration has errors".to_owned(), Some(first)),
    };
    let mut checked = answer_of("settings-valid", "settings", answer);
    if checked.state == State::Fail {
        checked.next = Some("mainstay settings validate".to_owned());
    }
    checked
}

fn ports_free(subject: &Subject) -> Answer {
    let loopback = net::Ipv4Addr::LOCALHOST;
    let busy = |result: io::Result<()>| {
        result.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    let tcp = |port: &&u16| busy(net::TcpListener::bind((loopback, **port)).map(drop));
    let udp = |port: &&u16| busy(net::UdpSocket::bind((loopback, **port)).map(drop));
    let tcp = subject.tcp_ports.iter().filter(tcp).map(|port| format!("{port}/tcp"));
    let udp = subject.udp_ports.iter().filter(udp).map(|port| format!("{port}/udp"));
    let taken: Vec<String> = tcp.chain(udp).collect();
    if taken.is_empty() {
        (State::Pass, "all ports are free".to_owned(), None)
    } else {
        let sentence = "another process listens on a port of ours".to_owned();
        (State::Fail, sentence, Some(taken.join(", ")))
    }
}

/// The data directory, or the nearest folder above it that exists.
fn nearest_folder(subject: &Subject) -> Option<PathBuf> {
    subject.data_dir.ancestors().find(|folder| folder.is_dir()).map(Into::into)
}

fn data_dir_writable(subject: &Subject) -> Answer {
    let Some(folder) = nearest_folder(subject) else {
        return (State::Fail, "the data directory cannot be made".to_owned(), None);
    };
    let probe = folder.join(format!(".mainstay-check-{}", std::process::id()));
    let written = fs::File::create_new(&probe).and_then(|file| file.sync_all());
    drop(fs::remove_file(&probe));
    let evidence = Some(folder.display().to_string());
    match written {
        Ok(()) => (State::Pass, "the data directory can be written".to_owned(), evidence),
        Err(error) => {
            let sentence = format!("the data directory cannot be written: {error}");
            (State::Fail, sentence, evidence)
        }
    }
}

fn disk_free(subject: &Subject) -> Answer {
    let Some(folder) = nearest_folder(subject) else { return unknown("no folder to ask about") };
    match rustix::fs::statvfs(&folder) {
        Ok(disk) => {
            let (state, sentence) = judge_disk(disk.f_bavail.saturating_mul(disk.f_frsize) / MIB);
            (state, sentence, Some(folder.display().to_string()))
        }
        Err(error) => unknown(&format!("the file system does not say: {error}")),
    }
}

/// Below 2 GiB a day of records may not fit, below 200 MiB the next compaction may not.
fn judge_disk(free_mib: u64) -> (State, String) {
    let state = match free_mib {
        0..200 => State::Fail,
        200..2048 => State::Warn,
        _ => State::Pass,
    };
    (state, format!("{free_mib} MiB are free"))
}

fn open_files(_: &Subject) -> Answer {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let (state, sentence) = judge_files(limit.current);
    (state, sentence, limit.maximum.map(|maximum| format!("may be raised to {maximum}")))
}

/// A proxied connection takes two descriptors: 4,000 are fewer than 2,000 calls at once.
fn judge_files(limit: Option<u64>) -> (State, String) {
    match limit {
        Some(limit @ 0..4000) => (State::Warn, format!("only {limit} files may be open at once")),
        Some(limit) => (State::Pass, format!("{limit} files may be open at once")),
        None => (State::Pass, "any number of files may be open at once".to_owned()),
    }
}

fn clock_sane(_: &Subject) -> Answer {
    #[expect(clippy::disallowed_methods, reason = "the wall clock itself is what is checked")]
    let now = SystemTime::now();
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (state, sentence) = judge_clock(seconds);
    (state, sentence, Some(format!("{seconds} s since 1970")))
}

/// 2025-01-01: before this program was written. 2100-01-01: certificates would be long over.
fn judge_clock(seconds: u64) -> (State, String) {
    match seconds {
        0..1_735_689_600 => (State::Fail, "the clock is in the past".to_owned()),
        4_102_444_800.. => (State::Fail, "the clock is in the far future".to_owned()),
        _ => (State::Pass, "the clock shows a plausible time".to_owned()),
    }
}

fn memory(_: &Subject) -> Answer {
    let Ok(text) = fs::read_to_string("/proc/meminfo") else {
        return unknown("the system has no /proc/meminfo");
    };
    let Some(available) = field_kib(&text, "MemAvailable:") else {
        return unknown("/proc/meminfo has no MemAvailable");
    };
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = limit.and_then(|text| text.trim().parse::<u64>().ok()).map(|bytes| bytes / MIB);
    let free = (available / 1024).min(limit.unwrap_or(u64::MAX));
    let (state, sentence) = judge_memory(free);
    (state, sentence, limit.map(|limit| format!("limit of the container: {limit} MiB")))
}

fn field_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Idle it takes about 60 MiB; 256 leave room for a few thousand calls at once.
fn judge_memory(mib: u64) -> (State, String) {
    let state = match mib {
        0..64 => State::Fail,
        64..256 => State::Warn,
        _ => State::Pass,
    };
    (state, format!("{mib} MiB of memory can be had"))
}

fn kernel(_: &Subject) -> Answer {
    match fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) => {
            let (state, sentence) = judge_kernel(release.trim());
            (state, sentence, None)
        }
        Err(_) => (State::Skip, "not Linux".to_owned(), None),
    }
}

/// 4.19 is the oldest kernel still in supported distributions, and has all we call
/// (`SO_REUSEPORT` 3.9, `TCP_USER_TIMEOUT` 2.6.37).
fn judge_kernel(release: &str) -> (State, String) {
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) < (4, 19) => {
            (State::Warn, format!("kernel {release} is older than 4.19"))
        }
        (Some(_), Some(_)) => (State::Pass, format!("kernel {release}")),
        _ => (State::Unknown, format!("kernel {release:?} has no number")),
    }
}

fn unknown(why: &str) -> Answer {
    (State::Unknown, why.to_owned(), None)
}

#[cfg(test)]
mod tests;
