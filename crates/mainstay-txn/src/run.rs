//! The coordinator of a node: drives the machines of all transactions in the shards it owns.
//!
//! It has no opinion. An event is taken in by the transaction's machine; what the machine says is
//! written, and, once that is acknowledged if it must be, what it says is done. A slot's lock is
//! held from the event to the acknowledgement, so events of one transaction are taken one at a
//! time, and those of different transactions share batches.
//!
//! | what | module |
//! |---|---|
//! | verbs of initiators and operators | here |
//! | one event: step, write, effects | `step` |
//! | what has ended; what sweeps find | `history` |
//! | calls of branches, within their limits | `calls` |
//! | shards: claimed, read, given up; the session of the node | `shards` |

mod calls;
mod history;
mod shards;
mod step;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_core::Effect;
use mainstay_store::{Get, LeaseId, Revision, Store};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore, oneshot, watch};

use crate::commit::{Figures, Lane, LogError};
use crate::due::Due;
use crate::error::Refused;
use crate::log::{self, Keys, Unreadable};
use crate::machine::{By, Event, Resolution, Submit};
use crate::meta::{self, LogIdentity};
use crate::moment::Moment;
use crate::name::{Gid, Shard, Shards};
use crate::owner::{ClaimError, Replace};
use crate::policy::Policy;
use crate::port::{Hooks, Participants, Surroundings};
use crate::retention::{History, Retention};
use crate::schedule::{Limits, Schedule};
use crate::tasks::Tasks;
use crate::transaction::{Begin, NewBranch, Transaction};
use crate::word::State;

use calls::Job;

/// What a node needs to know to coordinate.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name.
    pub node: String,
    /// Where its control port is.
    pub address: String,
    /// Parts of the log, if this node is the first; else it has those it was made with.
    pub shards: Shards,
    /// Lanes of the log.
    pub lanes: u16,
    /// Added to create revisions to make epochs: those of a store that was restored go on.
    pub fence_base: u64,
    /// How long shards outlive this node.
    pub session_ttl: Duration,
    /// From whom it may take shards.
    pub replace: Replace,
    /// How long what nobody waits for waits to be written.
    pub lazy_flush: Duration,
    /// Live transactions.
    pub live_max: usize,
    /// How long a call may take, unless a transaction says it.
    pub call_timeout: Duration,
    /// Calls under way.
    pub limits: Limits,
    /// What machines go by.
    pub policy: Policy,
    /// How much history is kept.
    pub retention: Retention,
}

impl Settings {
    /// The defaults, for a node called `node` whose store is its own.
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            address: String::new(),
            shards: Shards::DEFAULT,
            lanes: 8,
            fence_base: 0,
            session_ttl: Duration::from_secs(4),
            replace: Replace::Everybody,
            lazy_flush: Duration::from_millis(100),
            live_max: 200_000,
            call_timeout: Duration::from_secs(5),
            limits: Limits::default(),
            policy: Policy::default(),
            retention: Retention::default(),
        }
    }
}

/// Whom the coordinator asks.
#[derive(Clone)]
pub struct Ports {
    /// Where the log lies.
    pub store: Arc<dyn Store>,
    /// Who calls branches.
    pub participants: Arc<dyn Participants>,
    /// Who hears of ends and findings.
    pub hooks: Arc<dyn Hooks>,
    /// Time and chance.
    pub surroundings: Arc<dyn Surroundings>,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}

/// Why a verb did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// The machine refused it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It could not be written down.
    #[error(transparent)]
    Log(#[from] LogError),
    /// No such transaction: it was aborted, or ended longer ago than is kept.
    #[error("transaction `{gid}` is not known: it was aborted, or ended long ago")]
    Unknown {
        /// Its name.
        gid: Gid,
    },
    /// More live transactions than a node takes.
    #[error("coordinator has {live} live transactions and takes no more")]
    Overloaded {
        /// How many.
        live: usize,
    },
    /// The node is going away.
    #[error("coordinator is stopping")]
    Stopping,
    /// Its record cannot be read.
    #[error("record of the transaction cannot be read")]
    Unreadable(#[from] Unreadable),
    /// The log could not be read.
    #[error("transaction log could not be read")]
    Store(#[from] mainstay_store::Error),
}

impl VerbError {
    /// The code of the problem it becomes at the edge.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused(refused) => refused.code(),
            Self::Log(error) => error.code(),
            Self::Unknown { .. } => "transaction-unknown",
            Self::Overloaded { .. } | Self::Stopping => "transaction-overloaded",
            Self::Unreadable(unreadable) => unreadable.code(),
            Self::Store(_) => "transaction-log-unavailable",
        }
    }

    /// What the verb may have done.
    pub const fn effect(&self) -> Effect {
        match self {
            Self::Log(error) => error.effect(),
            _ => Effect::None,
        }
    }

    /// When it makes sense to ask again.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Log(_) | Self::Overloaded { .. } | Self::Stopping | Self::Store(_) => {
                Some(Duration::from_secs(1))
            }
            Self::Refused(_) | Self::Unknown { .. } | Self::Unreadable(_) => None,
        }
    }
}

/// Transactions that are read at the same time after a takeover: enough to hide a round trip of
/// each behind the others, and few enough that requests of others still get through.
const READERS: usize = 64;

/// A transaction as it was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// As it stands.
    pub transaction: Transaction,
    /// Where it lies.
    pub shard: Shard,
    /// Epoch of the owner.
    pub epoch: u64,
}

/// How far an answer waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// It is decided.
    Decided,
    /// Every branch has heard, or an operator is needed.
    Done,
}

/// The coordinator of a node. Clones stand for the same one.
#[derive(Clone)]
pub struct Coordinator {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shared = &self.shared;
        f.debug_struct("Coordinator")
            .field("node", &shared.settings.node)
            .field("live", &shared.slots.lock().len())
            .finish_non_exhaustive()
    }
}

struct Shared {
    identity: LogIdentity,
    settings: Settings,
    ports: Ports,
    lanes: RwLock<Vec<Lane>>,
    /// The session of this node, and how long it can be relied on.
    session: Mutex<Option<(LeaseId, Moment)>>,
    owned: Mutex<BTreeMap<Shard, Revision>>,
    /// Transactions that are read at the same time after a takeover.
    readers: Arc<Semaphore>,
    slots: Mutex<HashMap<Gid, Arc<Slot>>>,
    history: Mutex<History>,
    due: Mutex<Due>,
    due_changed: Notify,
    schedule: Mutex<Schedule<Job>>,
    figures: Arc<Figures>,
    stopping: AtomicBool,
    /// Everything but the lanes.
    work: Tasks,
    lanes_work: Tasks,
}

/// Where one live transaction is kept.
struct Slot {
    gid: Gid,
    shard: Shard,
    kept: tokio::sync::Mutex<Kept>,
    state: watch::Sender<State>,
    /// The shard was given up: nothing in here is true any more.
    closed: AtomicBool,
}

enum Kept {
    /// Being begun.
    Empty,
    /// In the log, not read yet.
    Unread,
    /// As it stands.
    Live(Box<Transaction>),
}

impl Slot {
    fn new(gid: &Gid, shard: Shard, kept: Kept) -> Arc<Self> {
        Arc::new(Self {
            gid: gid.clone(),
            shard,
            kept: tokio::sync::Mutex::new(kept),
            state: watch::Sender::new(State::Active),
            closed: AtomicBool::new(false),
        })
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Coordinator {
    /// Joins as a node, claims shards, and goes on with what they hold.
    ///
    /// # Errors
    ///
    /// [`ClaimError`] when the store cannot be reached, or holds what a newer version wrote.
    ///
    /// # Cancel safety
    ///
    /// What was claimed ends with the session.
    pub async fn start(mut settings: Settings, ports: Ports) -> Result<Self, ClaimError> {
        let draw = || ports.surroundings.draw();
        let identity = meta::settle(&*ports.store, settings.shards, draw).await?;
        settings.shards = identity.shards;
        let schedule = Mutex::new(Schedule::new(settings.limits));
        let coordinator = Self {
            shared: Arc::new(Shared {
                identity,
                settings,
                ports,
                lanes: RwLock::default(),
                session: Mutex::default(),
                readers: Arc::new(Semaphore::new(READERS)),
                owned: Mutex::default(),
                slots: Mutex::default(),
                history: Mutex::default(),
                due: Mutex::default(),
                due_changed: Notify::new(),
                schedule,
                figures: Arc::default(),
                stopping: AtomicBool::new(false),
                work: Tasks::default(),
                lanes_work: Tasks::default(),
            }),
        };
        coordinator.join().await?;
        let (timed, kept) = (coordinator.clone(), coordinator.clone());
        let trimmed = coordinator.clone();
        let work = &coordinator.shared.work;
        work.spawn("transaction timers", |stop| async move { timed.keep_time(stop).await });
        work.spawn("transaction session", |stop| async move { kept.keep_session(stop).await });
        work.spawn("transaction history", |stop| async move { trimmed.keep_history(stop).await });
        Ok(coordinator)
    }

    /// Begins a transaction; the same again answers with the one there is.
    ///
    /// # Errors
    ///
    /// [`VerbError`].
    ///
    /// # Cancel safety
    ///
    /// It goes on: ask again, or look.
    pub async fn begin(&self, begin: Begin) -> Result<Seen, VerbError> {
        let own = self.clone();
        self.run(async move { own.do_begin(begin).await }).await
    }

    /// Takes a branch in.
    ///
    /// # Errors
    ///
    /// [`VerbError`].
    ///
    /// # Cancel safety
    ///
    /// It goes on: ask again, or look.
    pub async fn register(&self, gid: &Gid, branch: NewBranch) -> Result<Seen, VerbError> {
        self.happens(gid, Event::Register(branch)).await
    }

    /// Decides to commit, if every branch voted so. `lost` is what is known of a two-phase commit
    /// whose begin a failover may have forgotten: what it was begun with, when, and its deadline.
    /// The answer may say that it was decided otherwise.
    ///
    /// # Errors
    ///
    /// [`VerbError`]; [`Refused::Aborted`] when it is not known: presumed.
    ///
    /// # Cancel safety
    ///
    /// It goes on: ask again, or look.
    pub async fn submit(
        &self,
        gid: &Gid,
        submit: Submit,
        lost: Option<(Begin, Moment, Moment)>,
    ) -> Result<Seen, VerbError> {
        match self.happens(gid, Event::Submit(submit.clone())).await {
            Err(VerbError::Unknown { .. }) => {}
            answer => return answer,
        }
        let Some((begin, begun_at, deadline_at)) = lost else {
            return Err(Refused::Aborted(None).into());
        };
        let own = self.clone();
        self.run(async move { own.do_submit_lost(begin, (begun_at, deadline_at), submit).await })
            .await
    }

    /// Decides to abort.
    ///
    /// # Errors
    ///
    /// [`VerbError`].
    ///
    /// # Cancel safety
    ///
    /// It goes on: ask again, or look.
    pub async fn abort(&self, gid: &Gid, by: By) -> Result<Seen, VerbError> {
        self.happens(gid, Event::Abort(by)).await
    }

    /// Tries everything now.
    ///
    /// # Errors
    ///
    /// [`VerbError`].
    ///
    /// # Cancel safety
    ///
    /// It goes on: ask again, or look.
    pub async fn retry(&self, gid: &Gid, by: By) -> Result<Seen, VerbError> {
        self.happens(gid, Event::Retry(by)).await
    }

    /// Calls nobody, or calls again.
    ///
    /// # Errors
    ///
    /// [`VerbError`].
    ///
    /// # Cancel safety
    ///
    /// It goes on: ask again, or look.
    pub async fn pause(&self, gid: &Gid, paused: bool, by: By) -> Result<Seen, VerbError> {
        self.happens(gid, if paused { Event::Pause(by) } else { Event::Resume(by) }).await
    }

    /// Ends by a person's word what cannot be ended otherwise.
    ///
    /// # Errors
    ///
    /// [`VerbError`].
    ///
    /// # Cancel safety
    ///
    /// It goes on: ask again, or look.
    pub async fn resolve(&self, gid: &Gid, resolution: Resolution) -> Result<Seen, VerbError> {
        self.happens(gid, Event::Resolve(resolution)).await
    }

    /// Delivers once more a message that was given up.
    ///
    /// # Errors
    ///
    /// [`VerbError`].
    ///
    /// # Cancel safety
    ///
    /// It goes on: ask again, or look.
    pub async fn redeliver(&self, gid: &Gid, by: &By) -> Result<Seen, VerbError> {
        by.check()?;
        let given_up = self.get(gid).await?.transaction;
        let mut number = 1;
        loop {
            let again = given_up.redelivery(number)?;
            match self.get(&again.gid).await {
                Err(VerbError::Unknown { .. }) => return self.begin(again).await,
                Err(error) => return Err(error),
                Ok(_) => number += 1,
            }
        }
    }

    /// A transaction as it stands, or as it ended.
    ///
    /// # Errors
    ///
    /// [`VerbError::Unknown`], or what was in the way of reading it.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn get(&self, gid: &Gid) -> Result<Seen, VerbError> {
        let shard = self.shard_of(gid)?;
        if let Some(slot) = self.slot(gid) {
            let mut kept = slot.kept.lock().await;
            self.read(&slot, &mut kept).await?;
            if let Kept::Live(transaction) = &*kept {
                return Ok(self.seen(shard, Transaction::clone(transaction)));
            }
        }
        self.history(gid).await
    }

    /// Waits until a transaction is decided or done, at most for `patience`, and returns it as it
    /// then stands.
    ///
    /// # Errors
    ///
    /// As [`Coordinator::get`].
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn wait(
        &self,
        gid: &Gid,
        until: Until,
        patience: Duration,
    ) -> Result<Seen, VerbError> {
        let is_there = |state: &State| match until {
            Until::Decided => !state.is_undecided(),
            Until::Done => state.is_final() || *state == State::Mixed,
        };
        if let Some(slot) = self.slot(gid) {
            let mut state = slot.state.subscribe();
            // What it is in the end is read below.
            drop(tokio::time::timeout(patience, state.wait_for(is_there)).await);
        }
        self.get(gid).await
    }

    /// Which log it keeps: part of what prepared branches are called.
    pub fn identity(&self) -> &LogIdentity {
        &self.shared.identity
    }

    /// How many transactions are live.
    pub fn live(&self) -> usize {
        self.shared.slots.lock().len()
    }

    /// Shards this node owns, with their epochs.
    pub fn shards(&self) -> Vec<(Shard, u64)> {
        let owned = self.shared.owned.lock();
        let base = self.shared.settings.fence_base;
        owned.iter().map(|(shard, created)| (*shard, base + created.get())).collect()
    }

    /// Counts of the log.
    pub fn figures(&self) -> &Figures {
        &self.shared.figures
    }

    /// Stops: refuses beginnings, lets calls under way end, writes what waits, gives shards up.
    /// Waits up to `grace`; returns how many tasks are still running.
    ///
    /// # Cancel safety
    ///
    /// Safe: tasks stay told to stop, and calling again waits again.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        let shared = &self.shared;
        shared.stopping.store(true, Ordering::Release);
        let calls = async {
            while shared.schedule.lock().under_way() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        drop(tokio::time::timeout(grace, calls).await);
        let left = shared.work.shutdown(grace).await + shared.lanes_work.shutdown(grace).await;
        self.leave().await;
        left
    }

    /// Runs `verb` as a task of its own, so that nothing is left half done when the caller goes.
    async fn run<T: Send + 'static>(
        &self,
        verb: impl Future<Output = Result<T, VerbError>> + Send + 'static,
    ) -> Result<T, VerbError> {
        let (sender, receiver) = oneshot::channel();
        self.shared.work.spawn("transaction verb", |_stop| async move {
            let answer = verb.await;
            drop(sender.send(answer)); // Whoever went away does not want to know.
        });
        receiver.await.unwrap_or(Err(VerbError::Stopping))
    }

    fn shard_of(&self, gid: &Gid) -> Result<Shard, VerbError> {
        let shard = gid.shard(self.shared.settings.shards);
        let is_owned = self.shared.owned.lock().contains_key(&shard);
        if is_owned && self.believes() { Ok(shard) } else { Err(LogError::NotOwner.into()) }
    }

    /// Whether the session can be relied on. Safety never rests on this: batches compare.
    fn believes(&self) -> bool {
        let now = self.shared.ports.surroundings.now();
        self.shared.session.lock().is_some_and(|(_, until)| now < until)
    }

    fn slot(&self, gid: &Gid) -> Option<Arc<Slot>> {
        self.shared.slots.lock().get(gid).map(Arc::clone)
    }

    fn epoch(&self, shard: Shard) -> u64 {
        let created = self.shared.owned.lock().get(&shard).map_or(0, |created| created.get());
        self.shared.settings.fence_base.saturating_add(created)
    }

    fn seen(&self, shard: Shard, transaction: Transaction) -> Seen {
        Seen { transaction, shard, epoch: self.epoch(shard) }
    }

    /// How a transaction ended.
    async fn history(&self, gid: &Gid) -> Result<Seen, VerbError> {
        let keys = Keys::new(gid, self.shared.settings.shards);
        let store = &self.shared.ports.store;
        let history = store.get(Get::new(keys.history())).await?.entry;
        let Some(history) = history else { return Err(VerbError::Unknown { gid: gid.clone() }) };
        let body = store.get(Get::new(keys.body())).await?.entry;
        let Some(body) = body else { return Err(VerbError::Unknown { gid: gid.clone() }) };
        let transaction = log::read_history(&body.value, &history.value)?;
        Ok(self.seen(gid.shard(self.shared.settings.shards), transaction))
    }

    /// Wakes transactions when their time has come.
    async fn keep_time(&self, stop: tokio_util::sync::CancellationToken) {
        /// The wall clock may be set, so nobody waits longer for it.
        const NAP_MAX: Duration = Duration::from_secs(1);
        loop {
            let now = self.shared.ports.surroundings.now();
            let due = self.shared.due.lock().take(now);
            for gid in due {
                let own = self.clone();
                self.shared.work.spawn("transaction timer", |_stop| async move {
                    own.time_passed(&gid).await;
                });
            }
            let first = self.shared.due.lock().first();
            let nap = first.map_or(NAP_MAX, |first| first.since(now).min(NAP_MAX));
            tokio::select! {
                () = tokio::time::sleep(nap) => {}
                () = self.shared.due_changed.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Calls that wait, and calls under way.
    pub fn calls(&self) -> (usize, usize) {
        let schedule = self.shared.schedule.lock();
        (schedule.waiting(), schedule.under_way())
    }

    fn op_timeout(&self, transaction: &Transaction) -> Duration {
        transaction.begin.call_timeout.unwrap_or(self.shared.settings.call_timeout)
    }
}
