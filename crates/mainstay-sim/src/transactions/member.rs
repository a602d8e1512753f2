//! A process that coordinates: the real coordinator, its way to the store, its calls, its clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_coord::Timer as _;
use mainstay_core::Clock as _;
use mainstay_store::Store;
use mainstay_txn::owner::Replace;
use mainstay_txn::port::{Answering, Hooks, Outgoing, Participants, Surroundings, To};
use mainstay_txn::run::{Ports, Settings};
use mainstay_txn::{Coordinator, Finding, Gid, Moment, Outcome, Shards, State};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::books::{Ask, Books, Reply};
use super::log::Log;
use super::mutant::Mutant;
use super::way::Way;
use crate::clock::{SkewedClock, spawn};
use crate::draw::Draw;
use crate::link::Link;
use crate::server::Server;

/// What all processes of a run share.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    pub(super) server: Server,
    pub(super) draw: Draw,
    pub(super) log: Log,
    pub(super) books: Books,
    pub(super) mutant: Option<Mutant>,
    pub(super) shards: Shards,
    /// Nothing is lost, late or repeated any more.
    pub(super) calm: Arc<AtomicBool>,
    /// How everything ended that was told to have ended.
    pub(super) ended: Arc<Mutex<BTreeMap<Gid, State>>>,
}

impl Ground {
    pub(super) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    /// Once in `times`, while not all is well.
    pub(super) fn happens_once_in(&self, times: u64) -> bool {
        !self.is_calm() && self.draw.once_in(times)
    }
}

/// A process. Clones are the same one.
#[derive(Clone)]
pub(super) struct Member {
    /// What its node is called: a process that takes the place of a killed one is called the same.
    pub(super) node: usize,
    pub(super) clock: SkewedClock,
    pub(super) link: Arc<Link>,
    coordinator: Arc<Mutex<Option<Coordinator>>>,
    killed: Arc<AtomicBool>,
}

impl Member {
    /// A process that starts now.
    pub(super) fn start(node: usize, ground: &Ground) -> Self {
        let draw = &ground.draw;
        let clock = SkewedClock::new(i64::try_from(draw.below(20_001)).unwrap_or(0) - 10_000);
        let name: Arc<str> = format!("n{node}").into();
        let link = Link::new(Arc::clone(&name), ground.server.clone(), clock.clone(), draw.clone());
        let link = Arc::new(link);
        let member =
            Self { node, clock, link, coordinator: Arc::default(), killed: Arc::default() };
        let way =
            Way::new(Arc::clone(&member.link), member.clock.clone(), draw.clone(), ground.mutant);
        let calls = Calls { ground: ground.clone(), clock: member.clock.clone() };
        let calls = Arc::new(calls);
        let watch = Watch {
            clock: member.clock.clone(),
            began: ground.server.clock().unix_millis(),
            wall_ahead: i64::try_from(draw.below(4_001)).unwrap_or(0) - 2_000,
            draw: draw.clone(),
        };
        let ports = Ports {
            store: Arc::new(way) as Arc<dyn Store>,
            participants: Arc::clone(&calls) as Arc<dyn Participants>,
            hooks: calls as Arc<dyn Hooks>,
            surroundings: Arc::new(watch),
        };
        let settings = Settings {
            shards: ground.shards,
            lanes: 2,
            replace: Replace::OwnName,
            call_timeout: Duration::from_secs(2),
            ..Settings::new(&name)
        };
        let (starting, ground) = (member.clone(), ground.clone());
        spawn(async move {
            while !starting.is_killed() {
                match Coordinator::start(settings.clone(), ports.clone()).await {
                    Ok(coordinator) => {
                        ground.server.note(|| format!("n{node}: coordinates"));
                        *starting.coordinator.lock() = Some(coordinator);
                        return;
                    }
                    Err(error) => {
                        ground.server.note(|| format!("n{node}: does not start: {error}"));
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                }
            }
        });
        member
    }

    /// Whether nothing of it ever runs again.
    pub(super) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::SeqCst)
    }

    /// Its coordinator, once it has started.
    pub(super) fn coordinator(&self) -> Option<Coordinator> {
        self.coordinator.lock().clone()
    }

    /// Nothing of it ever runs again; what it has sent is still on its way.
    pub(super) fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        self.clock.pause(true);
        // Only so that its tasks do not fill the memory of the run.
        if let Some(coordinator) = self.coordinator.lock().take() {
            spawn(async move {
                let _left = coordinator.shutdown(Duration::ZERO).await;
            });
        }
    }
}

/// Calls of branches, over a network.
#[derive(Debug)]
struct Calls {
    ground: Ground,
    clock: SkewedClock,
}

impl Calls {
    /// Carries one request, and perhaps a copy of it; nothing comes back when something is lost.
    async fn carry(&self, ask: Ask) -> Option<Reply> {
        let ground = &self.ground;
        let (draw, books) = (ground.draw.clone(), ground.books.clone());
        if ground.happens_once_in(8) {
            let (late, ask, books) = (draw.millis(5, 20_000), ask.clone(), books.clone());
            spawn(async move {
                tokio::time::sleep(late).await;
                let _nobody_waits: Reply = books.coordinator_asks(&ask);
            });
        }
        let lost_there = ground.happens_once_in(12);
        let lost_back = ground.happens_once_in(12);
        let (there, back) = (draw.millis(0, 8), draw.millis(0, 8));
        let there = if ground.happens_once_in(15) { draw.millis(500, 9_000) } else { there };
        let (tell, told) = oneshot::channel();
        spawn(async move {
            tokio::time::sleep(there).await;
            if lost_there {
                return;
            }
            let reply = books.coordinator_asks(&ask);
            tokio::time::sleep(back).await;
            if !lost_back {
                let _went_away = tell.send(reply);
            }
        });
        match told.await {
            Ok(reply) => Some(reply),
            // It was lost, which shows only by nothing coming.
            Err(_lost) => std::future::pending().await,
        }
    }
}

impl Participants for Calls {
    fn call(&self, call: Outgoing) -> Answering<'_, Outcome> {
        Box::pin(async move {
            self.clock.running().await;
            let ground = &self.ground;
            if ground.happens_once_in(25) {
                return Outcome::Unsent { why: "not connected".to_owned(), retry_after: None };
            }
            if ground.happens_once_in(25) {
                return Outcome::Ongoing;
            }
            let account = match &call.to {
                To::Endpoint(target) => target.peer(),
                To::Resource { resource, .. } => resource.to_string(),
            };
            let change = std::str::from_utf8(&call.payload.bytes).ok();
            let change = change.and_then(|text| text.parse().ok()).unwrap_or(0);
            let ask = Ask {
                gid: call.gid,
                branch: call.branch,
                mode: call.mode,
                op: call.op,
                account: account.split(':').next().unwrap_or_default().to_owned(),
                change,
            };
            let answer = tokio::time::timeout(call.timeout, self.carry(ask)).await;
            self.clock.running().await;
            match answer.ok().flatten() {
                Some(Reply::Done) => Outcome::Done,
                Some(Reply::Refused) => Outcome::Refused("no".to_owned()),
                None if ground.mutant == Some(Mutant::UnknownIsDone) => Outcome::Done,
                None => Outcome::Unknown("timeout".to_owned()),
            }
        })
    }
}

impl Hooks for Calls {
    fn ended(&self, gid: &Gid, state: State) -> Answering<'_, Result<(), String>> {
        let gid = gid.clone();
        Box::pin(async move {
            self.clock.running().await;
            if self.ground.happens_once_in(10) {
                return Err("locks are away".to_owned());
            }
            let before = self.ground.ended.lock().insert(gid.clone(), state);
            if before.is_some_and(|before| before != state) {
                self.ground.log.wrong(format!("{gid} ended as {before:?} and as {state}"));
            }
            Ok(())
        })
    }

    fn found(&self, gid: &Gid, finding: &Finding) {
        self.ground.log.note(|| format!("{gid}: {finding:?}"));
    }
}

/// The clock of a process, and chance.
struct Watch {
    clock: SkewedClock,
    /// Milliseconds since 1970 when it began.
    began: u64,
    /// By how much the wall clock was wrong when the process began.
    wall_ahead: i64,
    draw: Draw,
}

impl Surroundings for Watch {
    fn now(&self) -> Moment {
        let began = self.began.saturating_add_signed(self.wall_ahead);
        let since = Duration::from_nanos(self.clock.now().as_nanos());
        Moment::from_unix_millis(began).plus(since)
    }

    fn draw(&self) -> u32 {
        u32::try_from(self.draw.below(1 << 32)).unwrap_or(0)
    }
}
