//! Seeded runs of the coordinator of transactions.
//!
//! Processes with the real coordinator share one store, which is the real embedded one on a disk
//! that loses what was not synced. They are killed, stand still, are cut off, and come back, also
//! while an earlier process of the same name still runs. Participants hold money, each behind a
//! barrier; calls and answers are lost, late and repeated. Initiators die between any two steps.
//! When all is well again everything ends, and then:
//!
//! | what holds | where |
//! |---|---|
//! | it is decided once (I1), and only the owner of its shard writes it (I6) | `log` |
//! | who is called or told finds the decision in the log (I2), and the branch (I3) | `books` |
//! | nothing that is not known counts as done: all branches went the way that was decided (I4, I5, I7, I8) | here |
//! | who was answered was told the truth; who was promised something finds it | here |
//! | no money comes or goes, none is left aside | `books` |

mod books;
mod initiator;
mod log;
mod member;
mod mutant;
mod way;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_coord::seeded;
use mainstay_store::Revision;
use mainstay_txn::{Decision, Mode, Shards};
use parking_lot::Mutex;

use crate::clock::{spawn, truth};
use crate::draw::Draw;
use crate::faults::{Fault, Trouble};
use crate::server::Server;
use crate::world::Outcome;

use books::Books;
use initiator::{Deed, Initiator, Told};
use log::Log;
use member::{Ground, Member};
pub use mutant::Mutant;

/// Something that goes wrong with a process that coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mishap {
    Slow,
    Cut,
    Pause,
    Kill,
    /// Another process takes its name while it stands still; then it goes on.
    Zombie,
    Leap,
    /// Something goes wrong with the store.
    Store(Fault),
}

impl Mishap {
    const ALL: [Self; 13] = [
        Self::Slow,
        Self::Cut,
        Self::Pause,
        Self::Kill,
        Self::Zombie,
        Self::Leap,
        Self::Store(Fault::KillServer),
        Self::Store(Fault::PowerCut),
        Self::Store(Fault::PauseServer),
        Self::Store(Fault::LeapServer),
        Self::Store(Fault::StopServerClock),
        Self::Store(Fault::DiskFull),
        Self::Store(Fault::DiskFails),
    ];

    /// Those of a run: about half.
    fn some(draw: &Draw) -> Vec<Self> {
        let first = *draw.pick(&Self::ALL);
        let others = Self::ALL.into_iter().filter(|other| *other != first && draw.once_in(2));
        std::iter::once(first).chain(others).collect()
    }
}

/// Plays `seed`, with a mistake built in if there is one; tells every step on the standard error
/// when asked to.
///
/// # Panics
///
/// When no runtime can be made.
pub fn play(seed: u64, mutant: Option<Mutant>, trace: bool) -> Outcome {
    seeded::start(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without sockets");
    runtime.block_on(async {
        let world = World::new(seed, mutant, trace);
        world.run().await;
        let server = &world.ground.server;
        let (wrong, digest) = (server.verdict(), server.digest());
        Outcome { seed, wrong, digest, counts: world.counts() }
    })
}

/// The command that plays a seed again.
pub fn command(seed: u64, mutant: Option<Mutant>) -> String {
    use clap::ValueEnum as _;
    let mutant = mutant.and_then(|mutant| mutant.to_possible_value());
    let mutant = mutant.map(|mutant| format!(" --mutant {}", mutant.get_name()));
    let mutant = mutant.unwrap_or_default();
    format!("cargo run -p mainstay-sim -- transactions --seed {seed} --trace{mutant}")
}

struct World {
    ground: Ground,
    members: Arc<Mutex<Vec<Member>>>,
    told: Arc<Mutex<Told>>,
    deeds: Vec<Deed>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl World {
    fn new(seed: u64, mutant: Option<Mutant>, trace: bool) -> Self {
        let draw = Draw::new(seed);
        let server = Server::new(&draw, None, trace);
        let shards = Shards::new(4).expect("a power of two");
        let log = Log::new(server.clone(), shards);
        let books = Books::new(log.clone(), mutant);
        let deeds = (0..DEEDS).map(|number| Deed::draw(number, &draw)).collect();
        let (calm, ended) = (Arc::default(), Arc::default());
        let ground = Ground { server, draw, log, books, mutant, shards, calm, ended };
        let counts = Mutex::default();
        Self { ground, members: Arc::default(), told: Arc::default(), deeds, counts }
    }

    async fn run(&self) {
        let server = &self.ground.server;
        server.start();
        server.run();
        for node in 0..=usize::from(!self.ground.draw.once_in(4)) {
            self.members.lock().push(Member::start(node, &self.ground));
        }
        for deed in &self.deeds {
            let initiator = Initiator {
                ground: self.ground.clone(),
                members: Arc::clone(&self.members),
                told: Arc::clone(&self.told),
            };
            let (deed, begins) = (deed.clone(), self.ground.draw.millis(0, 14_000));
            spawn(async move {
                tokio::time::sleep(begins).await;
                initiator.run(deed).await;
            });
        }
        self.trouble().await;
        self.heal();
        self.end().await;
        if server.verdict().is_none()
            && let Err(what) = self.judge()
        {
            server.wrong(what);
        }
    }

    /// Lets mishaps of this run's kinds happen, two at a time at most.
    async fn trouble(&self) {
        let (server, draw) = (&self.ground.server, &self.ground.draw);
        let mishaps = match self.ground.mutant {
            // It hides where a process goes on that was replaced: there it is looked for.
            Some(Mutant::NoEpoch) => vec![Mishap::Zombie, Mishap::Cut],
            _ => Mishap::some(draw),
        };
        server.note(|| format!("this run has {mishaps:?}"));
        let until = truth() + draw.millis(8_000, 20_000);
        let often = |least, most| {
            let mishaps = &mishaps;
            async move {
                while truth() < until && server.verdict().is_none() {
                    tokio::time::sleep(draw.millis(least, most)).await;
                    self.make(*draw.pick(mishaps)).await;
                }
            }
        };
        tokio::join!(often(50, 3_000), often(500, 6_000));
    }

    async fn make(&self, mishap: Mishap) {
        let (server, draw) = (&self.ground.server, &self.ground.draw);
        let at = usize::try_from(draw.below(self.members.lock().len() as u64)).unwrap_or(0);
        let Some(member) = self.members.lock().get(at).cloned() else { return };
        server.note(|| format!("mishap: {mishap:?} of n{}", member.node));
        self.count(match mishap {
            Mishap::Kill => "nodes killed",
            Mishap::Zombie => "nodes replaced while they lived",
            Mishap::Store(_) => "mishaps of the store",
            _ => "mishaps of nodes",
        });
        match mishap {
            Mishap::Slow => {
                member.link.slow(true);
                tokio::time::sleep(draw.millis(1_000, 6_000)).await;
                member.link.slow(false);
            }
            Mishap::Cut => {
                member.link.cut(true);
                tokio::time::sleep(draw.millis(100, 9_000)).await;
                member.link.cut(false);
            }
            Mishap::Pause => {
                member.clock.pause(true);
                tokio::time::sleep(draw.millis(100, 12_000)).await;
                member.clock.pause(member.is_killed());
            }
            Mishap::Kill => {
                member.kill();
                self.replace(at, &member);
            }
            Mishap::Zombie => {
                member.clock.pause(true);
                self.replace(at, &member);
                tokio::time::sleep(draw.millis(500, 6_000)).await;
                member.clock.pause(member.is_killed());
                tokio::time::sleep(draw.millis(500, 6_000)).await;
                member.kill();
            }
            Mishap::Leap => member.clock.leap(draw.millis(1_000, 90_000)),
            Mishap::Store(fault) => {
                let trouble =
                    Trouble { server: server.clone(), nodes: Arc::default(), draw: draw.clone() };
                trouble.make(fault, |_| ()).await;
            }
        }
    }

    /// Another process of the same name.
    fn replace(&self, at: usize, old: &Member) {
        let new = Member::start(old.node, &self.ground);
        if let Some(slot) = self.members.lock().get_mut(at) {
            *slot = new;
        }
    }

    /// Everything is well again.
    fn heal(&self) {
        self.ground.calm.store(true, std::sync::atomic::Ordering::SeqCst);
        Trouble {
            server: self.ground.server.clone(),
            nodes: Arc::default(),
            draw: self.ground.draw.clone(),
        }
        .heal();
        for member in self.members.lock().iter() {
            member.link.cut(false);
            member.link.slow(false);
            member.clock.pause(member.is_killed());
        }
    }

    /// Waits until everything has ended, and whatever is on its way has arrived.
    async fn end(&self) {
        let until = truth() + CALM_MAX;
        // Whoever still begins something does so now.
        tokio::time::sleep(Duration::from_mins(1)).await;
        loop {
            let live = self.ground.log.live();
            if self.ground.server.verdict().is_some() || live.is_empty() {
                return;
            }
            if until < truth() {
                return self.ground.log.wrong(format!("all is well, and still {live:?} go on"));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn judge(&self) -> Result<(), String> {
        self.ground.log.check()?;
        for deed in &self.deeds {
            self.judge_deed(deed)?;
        }
        self.ground.books.check()
    }

    /// Everybody did what was decided, and was told so.
    fn judge_deed(&self, deed: &Deed) -> Result<(), String> {
        let gid = &deed.gid;
        let ended = self.ground.log.get(gid).map(|transaction| transaction.state());
        let told = self.told.lock();
        let was_promised = told.promised.contains(gid);
        // What is not there was aborted.
        let way = match ended {
            Some(state) => log::way(state).ok_or_else(|| format!("{gid} is {state}"))?,
            None if was_promised => return Err(format!("{gid} was promised, and is gone")),
            None => Decision::Abort,
        };
        let moved: Vec<(i64, i64)> = deed
            .parts
            .iter()
            .enumerate()
            .map(|(at, (_, change))| (self.ground.books.moved(gid, &deed.branch(at)), *change))
            .collect();
        if !books::fits(&moved, way) {
            let mode = deed.mode;
            return Err(format!("{gid}, a {mode}, went {way:?}, and its branches {moved:?}"));
        }
        if let Some(told) = told.decided.get(gid).filter(|told| **told != way) {
            return Err(format!("{gid} went {way:?}, and its initiator was told {told:?}"));
        }
        let hooked = self.ground.ended.lock().get(gid).copied();
        if hooked != ended {
            return Err(format!("{gid} is {ended:?}, and was told to have ended {hooked:?}"));
        }
        self.count(match (deed.mode, way) {
            (Mode::Saga, Decision::Commit) => "sagas committed",
            (Mode::Saga, Decision::Abort) => "sagas aborted",
            (Mode::Tcc, Decision::Commit) => "tries confirmed",
            (Mode::Tcc, Decision::Abort) => "tries cancelled",
            (Mode::Message, Decision::Commit) => "messages delivered",
            (Mode::Message, Decision::Abort) => "messages dropped",
            (_, Decision::Commit) => "two-phase commits committed",
            (_, Decision::Abort) => "two-phase commits aborted",
        });
        Ok(())
    }

    fn count(&self, what: &'static str) {
        *self.counts.lock().entry(what).or_default() += 1;
    }

    fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = self.counts.lock().clone();
        counts.extend(self.ground.books.counts());
        let revisions: Revision = self.ground.server.recorded(crate::recorder::Recorder::last);
        counts.insert("revisions", revisions.get());
        counts.insert("answers believed", self.told.lock().decided.len() as u64);
        counts
    }
}

/// Transactions of a run.
const DEEDS: u64 = 16;

/// How long everything may take to end once all is well: clocks may be a minute and a half apart,
/// deadlines are 40 seconds, and the longest wait between two attempts is a minute.
const CALM_MAX: Duration = Duration::from_mins(12);
