//! A process that writes under load and is killed, again and again.
//!
//! The child is this test binary itself, told by a variable to be one. It acknowledges on its
//! standard output: what stands there was answered, so it has to be in the store afterwards.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::entry::Revision;
use crate::watch::{WatchItem, WatchRequest};

const CHILD: &str = "MAINSTAY_STORE_CHILD";
const CRASH: &str = "MAINSTAY_STORE_CRASH";
const WRITERS: u64 = 16;

/// A clock for processes of their own.
#[derive(Clone, Copy)]
struct Uptime;

impl mainstay_core::Clock for Uptime {
    fn now(&self) -> mainstay_core::Instant {
        use std::sync::LazyLock;
        static BEGAN: LazyLock<std::time::Instant> = LazyLock::new(now);
        mainstay_core::Instant::ZERO.plus(now().duration_since(*BEGAN))
    }
}

#[expect(clippy::disallowed_methods, reason = "the clock of a test process")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Not a test by itself: the child's main. Without the variable it does nothing.
#[test]
fn child() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let store = opened(Options::new(folder));
    let begun = runtime.block_on(everything(&store)).len();
    let store = Arc::new(store);
    say(&format!("open {begun}"));
    let writers = (0..WRITERS).map(|writer| {
        let store = Arc::clone(&store);
        async move {
            let name = format!("w{writer:02}");
            let got = store.get(crate::read::Get::new(key(&name))).await.unwrap().entry;
            let last = got.map_or(0, |entry| number(&entry));
            for count in last + 1.. {
                let pair = format!("p{writer:02}");
                let batch = Batch::new()
                    .then(put(&name, count.to_string()))
                    .then(put(&pair, count.to_string()));
                let applied = store.apply(batch).await.unwrap();
                say(&format!("ack {writer} {count} {}", applied.revision));
            }
        }
    });
    runtime.block_on(futures_util::future::join_all(writers));
}

/// One whole line, at once: a line that is cut short was not said.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n@{line};\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

fn number(entry: &Entry) -> u64 {
    String::from_utf8_lossy(&entry.value).parse().unwrap()
}

/// Ends with the test, whatever happens to it.
struct Writer(Child);

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Runs a child until it has acknowledged `acks` writes and is killed, or has ended itself at
/// `crash`. Returns the acknowledged counts by writer, and the highest acknowledged revision.
fn live_and_die(folder: &Path, acks: usize, crash: Option<&str>) -> (BTreeMap<u64, u64>, Revision) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "embedded::tests::kill::child", "--nocapture", "--test-threads=1"]);
    command.env(CHILD, folder).stdout(Stdio::piped()).stderr(Stdio::null());
    if let Some(crash) = crash {
        command.env(CRASH, crash);
    }
    let mut writer = Writer(command.spawn().unwrap());
    let out = BufReader::new(writer.0.stdout.take().unwrap());
    let (mut acknowledged, mut highest, mut seen) = (BTreeMap::new(), Revision::NEVER, 0);
    let mut opened = false;
    for line in out.lines() {
        let Ok(line) = line else { break };
        let Some(said) = line.strip_prefix('@').and_then(|line| line.strip_suffix(';')) else {
            continue;
        };
        let words: Vec<&str> = said.split(' ').collect();
        match words.as_slice() {
            ["ack", by, count, revision] => {
                acknowledged.insert(by.parse().unwrap(), count.parse().unwrap());
                highest = highest.max(Revision::new(revision.parse().unwrap()));
                seen += 1;
                if seen == acks && crash.is_none() {
                    writer.0.kill().unwrap();
                }
            }
            _ => opened = true,
        }
    }
    assert!(opened || crash.is_some(), "the child did not open the store");
    assert!(acks <= seen || crash.is_some(), "the child ended by itself after {seen} writes");
    (acknowledged, highest)
}

/// Nothing acknowledged is lost, nothing is there that nobody wrote, and history has no gap.
async fn inspect(
    folder: &Path,
    acknowledged: &BTreeMap<u64, u64>,
    highest: Revision,
    resume: Revision,
) -> Revision {
    let options = Options { path: folder.to_owned(), ..by_hand() };
    let store = opened(options);
    let status = store.status().await.unwrap();
    assert!(highest <= status.revision, "revision {} < {highest}", status.revision);
    let entries = everything(&store).await;
    let found: BTreeMap<String, u64> =
        entries.iter().map(|entry| (entry.key.to_string(), number(entry))).collect();
    for (writer, count) in acknowledged {
        let got = found.get(&format!("w{writer:02}")).copied().unwrap_or(0);
        assert!(*count <= got, "writer {writer}: {count} acknowledged, {got} found");
        // One write may have been under way, and none after it.
        assert!(got <= count + 1, "writer {writer}: {count} acknowledged, {got} found");
    }
    for writer in 0..WRITERS {
        let (one, two) = (format!("w{writer:02}"), format!("p{writer:02}"));
        assert_eq!(found.get(&one), found.get(&two), "a batch was torn");
    }
    // A watch of before the kill resumes: each revision once, each writer's counts in order.
    let request = WatchRequest::new(Range::prefix("w")).from(resume.next()).quiet();
    let mut watch = store.watch(request).unwrap();
    watch.next().await;
    let mut next = resume.next();
    while next <= status.revision {
        match watch.next().await {
            Some(WatchItem::Changes { revision, events }) => {
                assert_eq!((revision, events.len()), (next, 1), "a gap or a repeat");
                next = revision.next();
            }
            other => panic!("{other:?} instead of revision {next}"),
        }
    }
    store.close().await.unwrap();
    status.revision
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_however_often_the_process_is_killed() {
    let cycles = std::env::var("MAINSTAY_STORE_KILLS").ok().and_then(|n| n.parse().ok());
    let cycles: usize = cycles.unwrap_or(30);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut resume = Revision::FIRST;
    let mut all = BTreeMap::new();
    for cycle in 0..cycles {
        let (acknowledged, highest) = live_and_die(&path, 20 + cycle * 37 % 400, None);
        all.extend(acknowledged);
        resume = inspect(&path, &all, highest, resume).await;
        // What was under way may have been done; it counts from now on.
        all = counts(&path).await;
    }
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_at_any_step_of_a_commit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut resume = Revision::FIRST;
    let mut all = BTreeMap::new();
    for point in ["taken", "evaluated", "written", "committed", "published", "answered"] {
        for times in [0, 7] {
            let crash = format!("{point}:{times}");
            let (acknowledged, highest) = live_and_die(&path, usize::MAX, Some(&crash));
            all.extend(acknowledged);
            resume = inspect(&path, &all, highest, resume).await;
            all = counts(&path).await;
        }
    }
    assert!(Revision::FIRST < resume, "nothing was ever written");
}

/// Opens what was open before: a child of another test that has been forked and has not begun its
/// program yet holds all that this process had open, the lock of the store too.
#[expect(clippy::disallowed_methods, reason = "nothing else runs on this thread meanwhile")]
fn opened(options: Options) -> Embedded {
    for _ in 0..500 {
        match Embedded::open(options.clone(), Uptime) {
            Err(OpenError::Locked { .. }) => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            opened => return opened.unwrap(),
        }
    }
    Embedded::open(options, Uptime).unwrap()
}

async fn counts(folder: &Path) -> BTreeMap<u64, u64> {
    let options = Options { path: folder.to_owned(), ..by_hand() };
    let store = opened(options);
    let mut counts = BTreeMap::new();
    for writer in 0..WRITERS {
        let got = store.get(crate::read::Get::new(key(&format!("w{writer:02}")))).await.unwrap();
        counts.extend(got.entry.map(|entry| (writer, number(&entry))));
    }
    counts
}
