//! Calls in flight: the semaphore, who waits for it, and what moves its maximum.

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::Duration;

use mainstay_core::Instant;
use mainstay_resilience::adaptive::{Adaptive, AdaptivePolicy, Ended, VegasBounds};
use mainstay_resilience::limit::{Kind, LimitPolicy, Permit, Semaphore, TicketId};

/// A semaphore, who waits for it, and what moves its maximum.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) semaphore: Semaphore,
    pub(super) wakers: BTreeMap<TicketId, Waker>,
    adaptive: Option<Adaptive>,
}

/// Whom to wake, which is done after the lock is released: what a waker drops may want it.
#[derive(Debug, Default)]
#[must_use = "those who wait would wait for ever"]
pub(super) struct Woken {
    /// The one that got the permit which came back.
    next: Option<Waker>,
    /// Those for whom the maximum rose.
    others: Vec<Waker>,
}

/// What a call that has ended says about the peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) started: Instant,
    pub(super) in_flight: u32,
    pub(super) ended: Ended,
    pub(super) latency: Duration,
}

impl InFlight {
    /// Nobody in flight; `None` for a policy that tells time.
    pub(super) fn new(policy: &LimitPolicy, now: Instant) -> Option<Self> {
        let adaptive = adaptive_policy(policy).map(|policy| Adaptive::new(policy, now));
        let semaphore = Semaphore::new(policy)?;
        Some(Self { semaphore, wakers: BTreeMap::new(), adaptive })
    }

    /// Takes a permit back, and what the call has to say.
    pub(super) fn release(&mut self, now: Instant, permit: Permit, says: Option<Sample>) -> Woken {
        let next = self.semaphore.release(now, permit);
        let mut woken =
            Woken { next: next.and_then(|id| self.wakers.remove(&id)), ..Woken::default() };
        if let (Some(sample), Some(adaptive)) = (says, &mut self.adaptive) {
            let Sample { started, in_flight, ended, latency } = sample;
            if let Some(max) = adaptive.record(now, started, in_flight, ended, latency) {
                let ids = self.semaphore.set_max(now, max);
                woken.others = self.wakers_of(&ids);
            }
        }
        woken
    }

    /// Takes over a changed policy. What was learned stays, within the new bounds.
    pub(super) fn set_policy(&mut self, now: Instant, policy: &LimitPolicy) -> Woken {
        let mut ids = self.semaphore.set_policy(now, policy);
        self.adaptive = match (adaptive_policy(policy), self.adaptive.take()) {
            (None, _) => None,
            (Some(policy), None) => Some(Adaptive::new(policy, now)),
            (Some(policy), Some(mut learned)) => {
                learned.set_policy(now, policy);
                Some(learned)
            }
        };
        if let Some(adaptive) = &self.adaptive {
            ids.extend(self.semaphore.set_max(now, adaptive.limit()));
        }
        Woken { next: None, others: self.wakers_of(&ids) }
    }

    /// Scales the written maximum of `policy`.
    pub(super) fn set_scale(&mut self, now: Instant, percent: u32, policy: &LimitPolicy) -> Woken {
        let ids = self.semaphore.set_scale(now, percent, policy);
        Woken { next: None, others: self.wakers_of(&ids) }
    }

    fn wakers_of(&mut self, ids: &[TicketId]) -> Vec<Waker> {
        ids.iter().filter_map(|id| self.wakers.remove(id)).collect()
    }
}

impl Woken {
    /// Wakes one, if `next` is one.
    pub(super) fn one(next: Option<Waker>) -> Self {
        Self { next, others: Vec::new() }
    }

    pub(super) fn wake(self) {
        self.next.into_iter().chain(self.others).for_each(Waker::wake);
    }
}

fn adaptive_policy(policy: &LimitPolicy) -> Option<AdaptivePolicy> {
    let Kind::Adaptive { algorithm, floor, ceiling, initial, tolerance, sample, .. } = policy.kind
    else {
        return None;
    };
    Some(AdaptivePolicy {
        algorithm,
        floor: floor.get(),
        ceiling: ceiling.get(),
        initial: initial.get(),
        tolerance,
        sample,
        timeout: None,
        vegas: VegasBounds::default(),
    })
}
