//! Requests that the gateway takes on now and makes later: the `defer` step of fallbacks.
//!
//! There is no second queue. A deferred request is a message of the transaction coordinator, with
//! its durability, retries, dead letters and redelivery; the queue is a name it bears. Here is
//! what stands between the two.
//!
//! | what | module |
//! |---|---|
//! | a request as a message, and who repeats one | `message` |
//! | a message as a receipt | `receipt` |
//! | how much waits in each queue | `tally` |
//! | sending it | [`transaction::deliveries`](crate::transaction::deliveries) |

mod message;
mod receipt;
pub(crate) mod tally;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use mainstay_call::deferred::{Answering, Deferral, Deferred, NoReceipt, NotDeferred, Receipt};
use mainstay_coord::{BootClock, Timer as _};
use mainstay_core::name::PolicyName;
use mainstay_resilience::fallback::DeferredPolicy;
use mainstay_txn::error::Refused;
use mainstay_txn::run::{Seen, VerbError};
use mainstay_txn::{Begin, Coordinator, Gid, Transaction};
use tokio::runtime::Handle;

use crate::report::causes;
use crate::transaction::Coordinators;
use crate::transaction::deliveries::{Outlets, queue_of};
pub(crate) use message::gid;
use message::{LABEL, Message, Mint, NAME, next};
use tally::{Figures, Room, Tally};

/// Keeps requests as messages of this process' coordinator. Clones stand for the same.
#[derive(Clone)]
pub struct Deferrals(Arc<Shared>);

struct Shared {
    coordinators: Coordinators,
    outlets: Outlets,
    runtime: Handle,
    body_bytes_max: usize,
    mint: Mint,
    tally: Tally,
    figures: Figures,
}

impl Deferrals {
    /// Keeps requests with bodies of at most `body_bytes_max` bytes. Must be called within the tokio
    /// runtime that the coordinator runs on: requests come from threads with runtimes of their own.
    pub fn new(coordinators: Coordinators, outlets: Outlets, body_bytes_max: usize) -> Self {
        Self(Arc::new(Shared {
            coordinators,
            outlets,
            runtime: Handle::current(),
            body_bytes_max,
            mint: Mint::default(),
            tally: Tally::default(),
            figures: Figures::default(),
        }))
    }

    /// The data plane that requests come from and go to.
    pub fn outlets(&self) -> &Outlets {
        &self.0.outlets
    }

    /// Puts what is counted into `registry`.
    pub fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        self.0.figures.register(registry);
    }

    /// All queues, as far as this node knows.
    pub(crate) fn queues(&self, coordinator: &Coordinator) -> Vec<Standing> {
        let (waiting, _partial) = tally::count(coordinator);
        let known = self.known();
        let mut names: BTreeSet<&str> = known.iter().map(PolicyName::as_str).collect();
        names.extend(waiting.keys().map(|queue| &**queue));
        let standing = |queue: &str| {
            let amount = waiting.get(queue).copied().unwrap_or_default();
            let delivering = u64::from(self.0.outlets.under_way(queue)).min(amount.items);
            Standing {
                queue: queue.to_owned(),
                queued: amount.items - delivering,
                delivering,
                bytes: amount.bytes,
                policy: self.0.policy(queue),
            }
        };
        names.into_iter().map(standing).collect()
    }

    /// Queues that steps name, or that are configured.
    fn known(&self) -> Vec<PolicyName> {
        match self.0.outlets.gateway() {
            Some(gateway) => gateway.running().plane.queues().into_iter().cloned().collect(),
            None => Vec::new(),
        }
    }

    /// Brings what is counted of this moment up to date.
    pub fn look_around(&self) {
        let Some(coordinator) = self.0.coordinators.get() else { return };
        let known = self.known();
        let (waiting, _partial) = tally::count(&coordinator);
        self.0.figures.look(&known, &waiting, |queue| self.0.outlets.under_way(queue));
    }
}

impl fmt::Debug for Deferrals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deferrals").field("outlets", &self.0.outlets).finish_non_exhaustive()
    }
}

impl Deferred for Deferrals {
    fn body_bytes_max(&self) -> usize {
        self.0.body_bytes_max
    }

    fn defer(&self, deferral: Deferral) -> Answering<Result<Receipt, NotDeferred>> {
        let own = Arc::clone(&self.0);
        let kept = self.0.runtime.spawn(async move {
            let queue = deferral.queue.clone();
            let kept = own.keep(deferral).await;
            kept.inspect_err(|error| own.figures.refused(&queue, error))
        });
        Box::pin(async move { kept.await.unwrap_or_else(|_ended| Err(stopping())) })
    }

    fn look(&self, id: &str) -> Answering<Result<Receipt, NoReceipt>> {
        let (own, id) = (Arc::clone(&self.0), id.to_owned());
        let found = self.0.runtime.spawn(async move { own.find(&id).await });
        Box::pin(async move {
            found.await.unwrap_or_else(|_ended| Err(NoReceipt::Away("the node stops".to_owned())))
        })
    }
}

fn stopping() -> NotDeferred {
    NotDeferred::Away("the node stops".to_owned())
}

impl Shared {
    fn policy(&self, queue: &str) -> DeferredPolicy {
        let gateway = self.outlets.gateway();
        gateway.map(|gateway| gateway.running().plane.queue(queue)).unwrap_or_default()
    }

    fn coordinator(&self) -> Option<Coordinator> {
        self.coordinators.get()
    }

    async fn keep(&self, deferral: Deferral) -> Result<Receipt, NotDeferred> {
        if self.body_bytes_max < deferral.request.body().len() {
            return Err(NotDeferred::Unfit("its body is too long".to_owned()));
        }
        let coordinator = self
            .coordinator()
            .ok_or_else(|| NotDeferred::Away("the coordinator has not started".to_owned()))?;
        let policy = self.policy(deferral.queue.as_str());
        let message = Message::of(&deferral, &policy, || self.mint.id(&coordinator))?;
        if message.is_keyed() {
            match latest(&coordinator, message.gid()).await {
                Ok(seen) => return message.repeated(&seen),
                Err(VerbError::Unknown { .. }) => {}
                Err(error) => return Err(away(&error)),
            }
        }
        let room = Room { queue: &deferral.queue, bytes: message.bytes(), policy: &policy };
        let place = self.tally.reserve(&coordinator, &room)?;
        let begun = coordinator.begin(message.begin()).await;
        place.settle(begun.is_ok());
        match begun {
            Ok(seen) => Ok(message.receipt(&seen)),
            // Somebody repeated it at the same moment.
            Err(VerbError::Refused(Refused::GidTaken { .. })) => {
                let seen = coordinator.get(message.gid()).await.map_err(|error| away(&error))?;
                message.repeated(&seen)
            }
            Err(VerbError::Refused(refused)) => Err(NotDeferred::Unfit(refused.to_string())),
            Err(error) => Err(away(&error)),
        }
    }

    /// What became of the request with the receipt `id`: of the last of those it was replayed as.
    async fn find(&self, id: &str) -> Result<Receipt, NoReceipt> {
        let gid = gid(id).ok_or(NoReceipt::Unknown)?;
        let coordinator = self
            .coordinator()
            .ok_or_else(|| NoReceipt::Away("the coordinator has not started".to_owned()))?;
        let seen = latest(&coordinator, &gid).await.map_err(|error| match error {
            VerbError::Unknown { .. } => NoReceipt::Unknown,
            error => NoReceipt::Away(causes(&error)),
        })?;
        let transaction = &seen.transaction;
        let queue = queue(transaction).ok_or(NoReceipt::Unknown)?;
        let kept = self.policy(queue).result;
        let now = mainstay_txn::Moment::from_unix_millis(BootClock.unix_millis());
        if transaction.register.finished_at.is_some_and(|ended| kept < now.since(ended)) {
            return Err(NoReceipt::Unknown);
        }
        Ok(receipt::receipt(id, transaction))
    }
}

/// How a queue stands at this node.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// What it is called.
    pub(crate) queue: String,
    /// Requests that wait.
    pub(crate) queued: u64,
    /// Requests that are being sent.
    pub(crate) delivering: u64,
    /// Bytes of both.
    pub(crate) bytes: u64,
    /// What holds for it.
    pub(crate) policy: DeferredPolicy,
}

/// Whether what was begun so is a deferred request of `queue`.
pub(crate) fn is_of(begin: &Begin, queue: &str) -> bool {
    begin.name.as_deref() == Some(NAME)
        && begin.labels.get(LABEL).is_some_and(|label| label == queue)
}

/// The receipt of a deferred request, as it stands; `None` of what is none.
pub(crate) fn receipt(transaction: &Transaction) -> Option<Receipt> {
    Some(receipt::receipt(message::id(transaction.gid())?, transaction))
}

/// Whether a deferred request was given up and then replayed as another, as far as can be seen now:
/// it is shown itself where what may have followed is not known, or cannot be read.
pub(crate) async fn is_replayed(coordinator: &Coordinator, transaction: &Transaction) -> bool {
    match next(transaction.gid()).filter(|_| receipt::is_dead(transaction)) {
        Some(next) => coordinator.get(&next).await.is_ok(),
        None => false,
    }
}

/// What a dead request is begun as once more: the generation after it and no other, so that all who
/// find it dead begin the same.
///
/// # Errors
///
/// [`Refused::NotAllowed`] for what was not given up, but ended by an operator.
pub(crate) fn again(dead: &Transaction) -> Result<Begin, Refused> {
    let begin = dead.redelivery(1)?;
    let gid = next(dead.gid()).unwrap_or_else(|| begin.gid.clone());
    Ok(Begin { gid, ..begin })
}

/// All that the request `base` was replayed as, `last` among them, the last first.
pub(crate) fn generations(base: &Gid, last: &Gid) -> Vec<Gid> {
    let mut all = Vec::new();
    for gid in std::iter::successors(Some(base.clone()), next) {
        let is_last = gid == *last;
        all.push(gid);
        if is_last {
            break;
        }
    }
    all.reverse();
    all
}

/// The queue that a transaction was deferred to, if it is a deferred request.
pub(crate) fn queue(transaction: &Transaction) -> Option<&str> {
    queue_of(&transaction.branches.first()?.payload)
}

/// The message called `gid`, or the last that it was replayed as.
pub(crate) async fn latest(coordinator: &Coordinator, gid: &Gid) -> Result<Seen, VerbError> {
    let mut seen = coordinator.get(gid).await?;
    while receipt::is_dead(&seen.transaction) {
        let Some(next) = next(seen.transaction.gid()) else { break };
        match coordinator.get(&next).await {
            Ok(later) => seen = later,
            Err(VerbError::Unknown { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(seen)
}

fn away(error: &VerbError) -> NotDeferred {
    NotDeferred::Away(causes(error))
}
