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
mod tally;

use std::fmt;
use std::sync::Arc;

use mainstay_call::deferred::{Answering, Deferral, Deferred, NoReceipt, NotDeferred, Receipt};
use mainstay_coord::{BootClock, Timer as _};
use mainstay_core::name::PolicyName;
use mainstay_resilience::fallback::DeferredPolicy;
use mainstay_txn::error::Refused;
use mainstay_txn::run::{Seen, VerbError};
use mainstay_txn::{Coordinator, Gid, Transaction};
use tokio::runtime::Handle;

use crate::report::causes;
use crate::transaction::Coordinators;
use crate::transaction::deliveries::{Outlets, queue_of};
use message::{Message, Mint};
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

    /// Brings what is counted of this moment up to date.
    pub fn look_around(&self) {
        let Some(coordinator) = self.0.coordinators.get() else { return };
        let known: Vec<PolicyName> = match self.0.outlets.gateway() {
            Some(gateway) => gateway.running().plane.queues().into_iter().cloned().collect(),
            None => Vec::new(),
        };
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
        let gid = message::gid(id).ok_or(NoReceipt::Unknown)?;
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

/// The queue that a transaction was deferred to, if it is a deferred request.
pub(crate) fn queue(transaction: &Transaction) -> Option<&str> {
    queue_of(&transaction.branches.first()?.payload)
}

/// The message called `gid`, or the last that it was replayed as.
pub(crate) async fn latest(coordinator: &Coordinator, gid: &Gid) -> Result<Seen, VerbError> {
    let mut seen = coordinator.get(gid).await?;
    let mut number = 1;
    while receipt::is_dead(&seen.transaction) {
        let Ok(again) = gid.again(number) else { break };
        match coordinator.get(&again).await {
            Ok(later) => seen = later,
            Err(VerbError::Unknown { .. }) => break,
            Err(error) => return Err(error),
        }
        number += 1;
    }
    Ok(seen)
}

fn away(error: &VerbError) -> NotDeferred {
    NotDeferred::Away(causes(error))
}
