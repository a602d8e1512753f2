//! What a call took from a limit, and a place in the queue for it.

use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use mainstay_core::{Clock, Instant};
use mainstay_resilience::adaptive::Ended;
use mainstay_resilience::limit::{Claim, Permit, Receipt, Ticket};

use super::bucket::Spent;
use super::in_flight::{Sample, Woken};
use super::{Gate, SharedLimit};
use crate::clock::MonotonicClock;
use crate::error::Refusal;

/// What a call took from a limit. Units in flight go back when this is dropped; units of a window
/// stay counted, unless [`Taken::refund`] says that the call was not made.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(super) limit: Arc<SharedLimit>,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Spent(Option<Spent>),
    Receipt(Option<Receipt>),
    KeyedReceipt(u128, Option<Receipt>),
    Permit {
        permit: Option<Permit>,
        since: Instant,
        /// Calls in flight when it was granted, this one included.
        in_flight: u32,
        /// Time to the answer's head. The rest is up to the size of the body and to its reader.
        head: Option<Duration>,
    },
}

impl Taken {
    /// Gives everything back: the call was not made.
    pub(crate) fn refund(mut self) {
        let now = MonotonicClock.now();
        match (&self.limit.gate, &mut self.what) {
            (Gate::Bucket(bucket), What::Spent(spent)) => {
                if let Some(spent) = spent.take() {
                    bucket.refund(now, spent);
                }
            }
            (Gate::Lone(machine), What::Receipt(receipt)) => {
                if let Some(receipt) = receipt.take() {
                    machine.lock().refund(now, receipt);
                }
            }
            (Gate::Keyed(machine), What::KeyedReceipt(key, receipt)) => {
                if let Some(receipt) = receipt.take() {
                    machine.lock().refund(now, *key, receipt);
                }
            }
            // A permit goes back when it is dropped.
            _ => (),
        }
    }

    /// Whether it is a permit, which must be held until the answer's body has ended.
    pub(crate) fn is_permit(&self) -> bool {
        matches!(self.what, What::Permit { .. })
    }

    /// Notes that the head of the answer has come at `now`.
    pub(crate) fn answered(&mut self, now: Instant) {
        if let What::Permit { since, head, .. } = &mut self.what {
            *head = Some(now.since(*since));
        }
    }

    /// Gives back a permit, and tells a limit that adapts how the call fared.
    pub(crate) fn ended(mut self, fared: Fared) {
        self.give_back(fared);
    }

    fn give_back(&mut self, fared: Fared) {
        let (Gate::InFlight(gate), What::Permit { permit, since, in_flight, head }) =
            (&self.limit.gate, &mut self.what)
        else {
            return;
        };
        let Some(permit) = permit.take() else { return };
        let now = MonotonicClock.now();
        let (started, in_flight) = (*since, *in_flight);
        let latency = head.unwrap_or_else(|| now.since(started));
        let sample = fared.ended().map(|ended| Sample { started, in_flight, ended, latency });
        let woken = gate.lock().release(now, permit, sample);
        woken.wake();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.give_back(Fared::Unknown);
    }
}

/// How a call that held a permit ended, for limits that adapt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fared {
    /// Answered.
    Well,
    /// Not answered in time.
    TimedOut,
    /// Refused, or met congestion.
    Dropped,
    /// In a way that says nothing of load.
    Unknown,
}

impl Fared {
    const fn ended(self) -> Option<Ended> {
        match self {
            Self::Well => Some(Ended::Success),
            Self::TimedOut => Some(Ended::Timeout),
            Self::Dropped => Some(Ended::Dropped),
            Self::Unknown => None,
        }
    }
}

/// A place in the queue for a permit.
#[derive(Debug)]
pub(crate) struct Place {
    pub(super) limit: Arc<SharedLimit>,
    pub(super) ticket: Option<Ticket>,
}

impl Place {
    /// When the wait is over.
    pub(crate) fn until(&self) -> Instant {
        self.ticket.as_ref().map_or(Instant::ZERO, Ticket::until)
    }

    /// Ready with a permit, or with the refusal once the wait took too long.
    pub(crate) fn poll_permit(&mut self, cx: &mut Task<'_>) -> Poll<Result<Taken, Box<Refusal>>> {
        let now = MonotonicClock.now();
        let Gate::InFlight(gate) = &self.limit.gate else { return Poll::Pending };
        let Some(ticket) = self.ticket.take() else { return Poll::Pending };
        let waker = cx.waker().clone();
        let mut gate = gate.lock();
        let id = ticket.id();
        let (answer, old) = match gate.semaphore.claim(now, ticket) {
            Claim::Waiting(ticket) => {
                self.ticket = Some(ticket);
                (Poll::Pending, gate.wakers.insert(id, waker))
            }
            Claim::Granted(permit) => {
                let in_flight = gate.semaphore.in_flight();
                let taken = self.limit.permit(permit, now, in_flight);
                (Poll::Ready(Ok(taken)), gate.wakers.remove(&id))
            }
            Claim::Expired(denied) => {
                let refusal = Box::new(self.limit.refusal(now, denied));
                (Poll::Ready(Err(refusal)), gate.wakers.remove(&id))
            }
        };
        drop(gate);
        drop(old);
        answer
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let Gate::InFlight(gate) = &self.limit.gate else { return };
        let mut gate = gate.lock();
        let own = gate.wakers.remove(&ticket.id());
        let next = gate.semaphore.cancel(MonotonicClock.now(), ticket);
        let next = next.and_then(|id| gate.wakers.remove(&id));
        drop(gate);
        drop(own);
        Woken::one(next).wake();
    }
}
