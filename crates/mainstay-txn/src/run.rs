//! The coordinator of a node: drives the machines of all transactions in the shards it owns.
//!
//! It has no opinion. An event is taken in by the transaction's machine; what the machine says is
//! written, and, once that is acknowledged if it must be, what it says is done. A slot's lock is
//! held from the event to the acknowledgement, so events of one transaction are taken one at a
//! time, and those of different transactions share batches.
//!
//! | what | module |
//! |---|---|
//! | from its start to its end; time | here |
//! | what it goes by | `settings` |
//! | verbs of initiators and operators | `verbs` |
//! | one event: step, write, effects | `step` |
//! | what has ended; what sweeps find | `history` |
//! | how far the log has come, as databases were told | `high` |
//! | lists of what is live, and of what has ended | `list` |
//! | calls of branches, within their limits | `calls` |
//! | shards: claimed, read, given up; the session of the node | `shards` |

mod calls;
mod high;
mod history;
mod list;
mod settings;
mod shards;
mod step;
#[cfg(test)]
mod tests;
mod verbs;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use mainstay_store::{Get, LeaseId, Revision};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, OwnedMappedMutexGuard, OwnedMutexGuard, Semaphore, watch};
use tokio_util::sync::CancellationToken;

pub use list::{Ended, Glance, Glances};
pub use settings::{Ports, Settings};
pub use verbs::{Seen, Until, Verb, VerbError};

use crate::commit::{Lane, LogError, Place};
use crate::crash;
use crate::due::Due;
use crate::figures::Figures;
use crate::log::{self, Keys, Owner};
use crate::meta::{self, LogIdentity};
use crate::moment::Moment;
use crate::name::{Gid, Shard};
use crate::owner::ClaimError;
use crate::retention::History;
use crate::schedule::Schedule;
use crate::tasks::Tasks;
use crate::transaction::Transaction;
use crate::word::State;

use calls::Job;

/// Transactions that are read at the same time after a takeover: enough to hide a round trip of
/// each behind the others, and few enough that requests of others still get through.
const READERS: usize = 64;

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
    /// Shards whose history is being read.
    indexing: AtomicUsize,
    due: Mutex<Due>,
    due_changed: Notify,
    schedule: Mutex<Schedule<Job>>,
    stopping: AtomicBool,
    /// How much was decided to commit or taken over.
    growth: AtomicU64,
    /// Why nothing is begun, submitted or called: the log is behind what databases were told.
    behind: RwLock<Option<String>>,
    /// Everything but the lanes.
    work: Tasks,
    lanes_work: Tasks,
}

/// A shard, and since when this node owns it.
type Owned = (Shard, Revision);

/// Where one live transaction is kept.
struct Slot {
    gid: Gid,
    owned: Owned,
    kept: Arc<tokio::sync::Mutex<Kept>>,
    standing: watch::Sender<Standing>,
    /// What lists go by; `None` until it was read, or begun.
    glance: Mutex<Option<Glance>>,
    /// The log had it when this node took it over.
    was_logged: bool,
}

/// Where a transaction stands, as far as others wait for it.
#[derive(Clone, Copy, Debug)]
struct Standing {
    state: State,
    /// Whether a branch is being called.
    is_calling: bool,
    /// The shard was given up, or the transaction forgotten: nothing in its slot is true any more.
    is_closed: bool,
}

enum Kept {
    /// Being begun.
    Empty,
    /// In the log, not read yet.
    Unread,
    /// As it stands.
    Live(Box<Transaction>),
}

/// A transaction whose lock is held.
type Locked = OwnedMappedMutexGuard<Kept, Transaction>;

impl Slot {
    fn new(gid: &Gid, owned: Owned, kept: Kept) -> Arc<Self> {
        let was_logged = matches!(kept, Kept::Unread);
        Arc::new(Self {
            gid: gid.clone(),
            owned,
            kept: Arc::new(tokio::sync::Mutex::new(kept)),
            standing: watch::Sender::new(Standing {
                state: State::Active,
                is_calling: false,
                is_closed: false,
            }),
            glance: Mutex::default(),
            was_logged,
        })
    }

    fn is_closed(&self) -> bool {
        self.standing.borrow().is_closed
    }

    fn close(&self) {
        self.standing.send_modify(|standing| standing.is_closed = true);
    }

    fn place(&self) -> Place<'_> {
        let (shard, created) = self.owned;
        Place { gid: &self.gid, shard, created }
    }

    /// What others see of it is `transaction` from now on.
    fn shows(&self, transaction: &Transaction) {
        *self.glance.lock() = Some(Glance::of(transaction));
        self.standing.send_modify(|standing| {
            (standing.state, standing.is_calling) = (transaction.state(), transaction.is_calling());
        });
    }

    /// Waits for its lock; `None` if it was closed meanwhile.
    async fn lock(&self) -> Option<OwnedMutexGuard<Kept>> {
        let kept = Arc::clone(&self.kept).lock_owned().await;
        (!self.is_closed()).then_some(kept)
    }

    /// The same for what has been read.
    async fn live(&self) -> Option<Locked> {
        live(self.lock().await?)
    }
}

fn live(kept: OwnedMutexGuard<Kept>) -> Option<Locked> {
    let transaction = OwnedMutexGuard::try_map(kept, |kept| match kept {
        Kept::Live(transaction) => Some(&mut **transaction),
        Kept::Empty | Kept::Unread => None,
    });
    transaction.ok()
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
        let ports = Ports { surroundings: crash::clock(ports.surroundings), ..ports };
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
                indexing: AtomicUsize::new(0),
                due: Mutex::default(),
                due_changed: Notify::new(),
                schedule,
                stopping: AtomicBool::new(false),
                growth: AtomicU64::new(0),
                behind: RwLock::default(),
                work: Tasks::default(),
                lanes_work: Tasks::default(),
            }),
        };
        if let Err(error) = coordinator.join().await {
            // Nothing is left running, and others may claim what was claimed.
            coordinator.shutdown(Duration::ZERO).await;
            return Err(error);
        }
        let (timed, kept) = (coordinator.clone(), coordinator.clone());
        let trimmed = coordinator.clone();
        let work = &coordinator.shared.work;
        work.spawn("transaction timers", |stop| async move { timed.keep_time(stop).await });
        work.spawn("transaction session", |stop| async move { kept.keep_sessions(stop).await });
        work.spawn("transaction history", |stop| async move { trimmed.keep_history(stop).await });
        Ok(coordinator)
    }

    /// Which log it keeps: part of what prepared branches are called.
    pub fn identity(&self) -> &LogIdentity {
        &self.shared.identity
    }

    /// What it counts.
    pub fn figures(&self) -> &Figures {
        &self.shared.settings.figures
    }

    /// Stops: refuses beginnings, lets calls under way end, writes what waits, gives shards up.
    /// Waits up to `grace` for each of that; returns how many tasks are still running.
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

    /// Whether this node owns where `gid` lies.
    pub fn owns(&self, gid: &Gid) -> bool {
        self.owned(gid).is_ok()
    }

    /// Who owns where `gid` lies, this node or another; `None` while nobody does.
    ///
    /// # Errors
    ///
    /// [`VerbError`] when the log cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn owner(&self, gid: &Gid) -> Result<Option<Owner>, VerbError> {
        let key = log::shard(gid.shard(self.shared.settings.shards));
        let owner = self.shared.ports.store.get(Get::new(key)).await?.entry;
        Ok(owner.map(|owner| Owner::read(&owner.value)).transpose()?)
    }

    /// Where `gid` lies, if this node owns that.
    fn owned(&self, gid: &Gid) -> Result<Owned, LogError> {
        let shard = gid.shard(self.shared.settings.shards);
        let created = self.shared.owned.lock().get(&shard).copied();
        created
            .filter(|_| self.believes())
            .map(|created| (shard, created))
            .ok_or(LogError::NotOwner)
    }

    /// Whether the session can be relied on. Safety never rests on this: batches compare.
    fn believes(&self) -> bool {
        let now = self.shared.ports.surroundings.now();
        self.shared.session.lock().is_some_and(|(_, until)| now < until)
    }

    fn slot(&self, gid: &Gid) -> Option<Arc<Slot>> {
        self.shared.slots.lock().get(gid).map(Arc::clone)
    }

    fn epoch(&self, (_, created): Owned) -> u64 {
        self.shared.settings.fence_base.saturating_add(created.get())
    }

    fn seen(&self, slot: &Slot, transaction: &Transaction) -> Seen {
        let (shard, _) = slot.owned;
        let (transaction, epoch) = (transaction.clone(), self.epoch(slot.owned));
        let cluster = self.shared.identity.cluster.clone();
        Seen { transaction, shard, epoch, begun: false, cluster }
    }

    /// How a transaction ended that is not live.
    async fn history(&self, gid: &Gid, owned: Owned) -> Result<Seen, VerbError> {
        let keys = Keys::new(gid, self.shared.settings.shards);
        let store = &self.shared.ports.store;
        let history = store.get(Get::new(keys.history())).await?.entry;
        let Some(history) = history else { return Err(VerbError::Unknown { gid: gid.clone() }) };
        let body = store.get(Get::new(keys.body())).await?.entry;
        let Some(body) = body else { return Err(VerbError::Unknown { gid: gid.clone() }) };
        let transaction = log::read_history(&body.value, &history.value)?;
        Ok(Seen {
            transaction,
            shard: owned.0,
            epoch: self.epoch(owned),
            begun: false,
            cluster: self.shared.identity.cluster.clone(),
        })
    }

    /// The same for whoever asks. That it is not known means that it was aborted, and only its
    /// owner may say so: who that is, is read after everything else.
    async fn ended(&self, gid: &Gid, owned: Owned) -> Result<Seen, VerbError> {
        let ended = self.history(gid, owned).await;
        if matches!(ended, Err(VerbError::Unknown { .. })) {
            let (shard, created) = owned;
            let owner = self.shared.ports.store.get(Get::new(log::shard(shard))).await?.entry;
            if owner.is_none_or(|owner| owner.create_revision != created) {
                return Err(LogError::NotOwner.into());
            }
        }
        ended
    }

    /// Wakes transactions when their time has come.
    async fn keep_time(&self, stop: CancellationToken) {
        /// The wall clock may be set, so nobody waits longer for it.
        const NAP_MAX: Duration = Duration::from_secs(1);
        loop {
            let now = self.shared.ports.surroundings.now();
            let due = self.shared.due.lock().take(now);
            for gid in due {
                let own = self.clone();
                let span = tracing::debug_span!("transaction.time", gid = gid.as_str());
                self.shared.work.spawn_within(span, |_stop| async move {
                    own.time_passed(&gid).await;
                });
            }
            let first = self.shared.due.lock().first();
            let nap = first.map_or(NAP_MAX, |first| first.since(now).min(NAP_MAX));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.shared.due_changed.notified() => {}
                () = tokio::time::sleep(nap) => {}
            }
        }
    }
}
