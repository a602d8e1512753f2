//! The process of the store: started, stopped, killed, and without power.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use mainstay_store::embedded::simulated::{Commits, Faults, Simulated};
use mainstay_store::embedded::{Embedded, Options};
use mainstay_store::{Range, RangeRequest, Revision, Store as _, Watch, WatchItem, WatchRequest};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::{SkewedClock, spawn};
use crate::draw::Draw;
use crate::mutant::Mutant;
use crate::recorder::Recorder;

/// The store's process, or the place where it will be again. Clones are the same.
#[derive(Clone, Debug)]
pub struct Server(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    media: Simulated,
    clock: SkewedClock,
    draw: Draw,
    mutant: Option<Mutant>,
    life: Mutex<Option<Life>>,
    /// How many lives have ended.
    ended: AtomicU64,
    /// Told when one has.
    dies: Notify,
    recorder: Mutex<Recorder>,
    /// Orders everything that is seen.
    order: AtomicI64,
    wrong: Mutex<Option<String>>,
    /// What is different when the run was.
    digest: AtomicU64,
    trace: bool,
}

/// One run of the process.
#[derive(Debug)]
struct Life {
    store: Arc<Embedded>,
    commits: Commits,
    told: Watch,
}

/// A store that runs, and which of its lives that is.
#[derive(Clone, Debug)]
pub struct Alive {
    /// The store.
    pub store: Arc<Embedded>,
    /// How many lives had ended before.
    pub life: u64,
}

/// What becomes of what was written and not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The process alone ends: the kernel still writes everything.
    Kill,
    /// The power fails.
    Power,
}

impl Server {
    /// A server that has never run.
    pub fn new(draw: &Draw, mutant: Option<Mutant>, trace: bool) -> Self {
        let fast = i64::try_from(draw.below(20_001)).unwrap_or(0) - 10_000;
        Self(Arc::new(Inner {
            media: Simulated::default(),
            clock: SkewedClock::new(fast),
            draw: draw.clone(),
            mutant,
            life: Mutex::default(),
            ended: AtomicU64::new(0),
            dies: Notify::new(),
            recorder: Mutex::default(),
            order: AtomicI64::new(0),
            wrong: Mutex::default(),
            digest: AtomicU64::new(0xcbf2_9ce4_8422_2325),
            trace,
        }))
    }

    /// Its clock.
    pub fn clock(&self) -> &SkewedClock {
        &self.0.clock
    }

    /// The mistake that is built in.
    pub fn mutant(&self) -> Option<Mutant> {
        self.0.mutant
    }

    /// What happened so far.
    pub fn recorded<T>(&self, read: impl FnOnce(&Recorder) -> T) -> T {
        read(&self.0.recorder.lock())
    }

    /// History before `revision` may be compacted from now on.
    pub fn compacts(&self, revision: Revision) {
        self.0.recorder.lock().compacts(revision);
    }

    /// The next place in the order of everything.
    pub fn order(&self) -> i64 {
        self.0.order.fetch_add(1, Ordering::SeqCst)
    }

    /// Something that must not be was seen; the first such thing is kept.
    pub fn wrong(&self, what: impl Into<String>) {
        let what = what.into();
        self.note(|| format!("WRONG {what}"));
        self.0.wrong.lock().get_or_insert(what);
    }

    /// What must not be and was seen.
    pub fn verdict(&self) -> Option<String> {
        self.0.wrong.lock().clone()
    }

    /// Something happened: it is traced, and becomes part of what tells two runs apart.
    pub fn note(&self, what: impl FnOnce() -> String) {
        let elapsed = crate::clock::truth().duration_since(self.0.clock.began()).as_millis();
        let line = format!("{:>6}.{:03}  {}", elapsed / 1_000, elapsed % 1_000, what());
        // FNV-1a (Fowler, Noll and Vo, 1991).
        let mut digest = self.0.digest.load(Ordering::SeqCst);
        for byte in line.bytes() {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.0.digest.store(digest, Ordering::SeqCst);
        if self.0.trace {
            trace(&line);
        }
    }

    /// What tells two runs apart.
    pub fn digest(&self) -> u64 {
        self.0.digest.load(Ordering::SeqCst)
    }

    /// The store, if it runs.
    pub fn alive(&self) -> Option<Alive> {
        let life = self.0.life.lock();
        let store = Arc::clone(&life.as_ref()?.store);
        Some(Alive { store, life: self.0.ended.load(Ordering::SeqCst) })
    }

    /// Waits until the life numbered `life` has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn over(&self, life: u64) {
        while self.0.ended.load(Ordering::SeqCst) <= life {
            self.0.dies.notified().await;
        }
    }

    /// What goes wrong with its disk from now on.
    pub fn fail(&self, faults: Faults) {
        self.note(|| format!("disk: {faults:?}"));
        self.0.media.fail(faults);
    }

    /// Starts the process; the power may fail again while it repairs what the last cut left.
    pub fn start(&self) {
        if self.alive().is_some() {
            return;
        }
        let draw = &self.0.draw;
        for attempt in 0..4 {
            let again = attempt < 3 && draw.once_in(3);
            let power_after = again.then(|| draw.below(60));
            self.0.media.fail(Faults { power_after, ..Faults::default() });
            let started = self.0.media.start(options(), Arc::new(self.0.clock.clone()));
            if self.0.media.is_dark() {
                self.note(|| "server: the power fails during repair".to_owned());
                self.cut(End::Power);
                drop(started);
                continue;
            }
            self.0.media.fail(Faults::default());
            match started {
                Ok((store, commits)) => self.take_up(store, commits),
                Err(error) => self.wrong(format!("the store does not open: {error:?}")),
            }
            return;
        }
    }

    fn take_up(&self, store: Embedded, commits: Commits) {
        let seen = self.recorded(Recorder::last);
        let status = store.status().now_or_never().and_then(Result::ok);
        let revision = status.map_or(Revision::NEVER, |status| status.revision);
        if revision < seen {
            self.wrong(format!("revision {seen} was published, {revision} came back"));
        }
        self.note(|| format!("server: runs at revision {revision}"));
        let request = WatchRequest::new(Range::all()).from(seen.next()).quiet();
        let Ok(told) = store.watch(request) else {
            return self.wrong("a store that has just opened takes no watch");
        };
        let mut life = Life { store: Arc::new(store), commits, told };
        self.drain(&mut life);
        self.compare(&life);
        if self.0.mutant == Some(Mutant::LeasesEndAtRestart) {
            end_leases(&life.store, &self.recorded(|recorder| recorder.state().clone()));
        }
        *self.0.life.lock() = Some(life);
    }

    /// Records what was published since it was last asked.
    fn drain(&self, life: &mut Life) {
        while let Some(Some(item)) = life.told.next().now_or_never() {
            match item {
                WatchItem::Changes { revision, events } => {
                    let now = self.order();
                    let taken = self.0.recorder.lock().take(revision, events, now);
                    if let Err(what) = taken {
                        return self.wrong(what);
                    }
                }
                WatchItem::Created { .. } | WatchItem::Bookmark { .. } => {}
                other => return self.wrong(format!("a watch that reads at once got {other:?}")),
            }
        }
    }

    /// What is read is what was recorded.
    fn compare(&self, life: &Life) {
        let page = life.store.range(RangeRequest::from(Range::all())).now_or_never();
        let Some(Ok(page)) = page else { return self.wrong("the store cannot be read") };
        let same = self.recorded(|recorder| page.entries.iter().eq(recorder.state().values()));
        if !same {
            self.wrong(format!("at {} there is not what was published", page.revision));
        }
    }

    /// Commits what is queued, unless the process does not run.
    pub fn commit(&self) {
        if self.0.clock.is_paused() {
            return;
        }
        let mut life = self.0.life.lock();
        let Some(running) = life.as_mut() else { return };
        let count = running.commits.turn();
        if self.0.media.is_dark() {
            drop(life);
            return self.stop(End::Power);
        }
        if 0 < count {
            self.note(|| format!("server: commits {count}"));
        }
        self.drain(running);
    }

    /// The process ends, at once.
    pub fn stop(&self, end: End) {
        let Some(life) = self.0.life.lock().take() else { return };
        self.note(|| format!("server: {end:?}"));
        self.cut(end);
        self.0.ended.fetch_add(1, Ordering::SeqCst);
        self.0.dies.notify_waiters();
        drop(life);
    }

    fn cut(&self, end: End) {
        let draw = &self.0.draw;
        let keeps = if end == End::Kill { 1 } else { draw.below(3) };
        self.0.media.crash(|| match keeps {
            0 => false,
            1 => true,
            _ => draw.once_in(2),
        });
    }

    /// The process as it goes: commits now and then, looks at its clock five times a second.
    pub fn run(&self) {
        let server = self.clone();
        spawn(async move {
            loop {
                let draw = &server.0.draw;
                let slow = draw.once_in(200);
                let span = if slow { draw.millis(50, 1_500) } else { draw.millis(1, 12) };
                tokio::time::sleep(span).await;
                server.commit();
            }
        });
        let server = self.clone();
        spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                server.0.clock.running().await;
                let Some(Alive { store, life }) = server.alive() else { continue };
                let ticking = server.clone();
                spawn(async move {
                    tokio::select! { biased; () = store.tick() => {}, () = ticking.over(life) => {} }
                });
            }
        });
    }
}

/// The mistake of restoring leases without any time left.
fn end_leases(
    store: &Arc<Embedded>,
    state: &std::collections::BTreeMap<mainstay_store::Key, mainstay_store::Entry>,
) {
    for lease in state.values().filter_map(|entry| entry.lease) {
        let store = Arc::clone(store);
        spawn(async move { drop(store.revoke(lease).await) });
    }
}

fn options() -> Options {
    Options { cache_bytes_max: 1_048_576, ..Options::new("simulated") }
}

#[expect(clippy::print_stderr, reason = "a trace was asked for")]
fn trace(line: &str) {
    eprintln!("{line}");
}
