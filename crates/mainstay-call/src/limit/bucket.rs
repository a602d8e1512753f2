//! A token bucket without a lock.
//!
//! All a bucket remembers is one word, the moment at which it will be full again, and
//! [`gcra`] is a pure function of that word. So the word is an atomic, and asking is a loop of
//! compare-and-swap: however many threads ask, every unit is granted once. Nothing else depends on
//! the order in which they see each other's writes, so the word may be `Relaxed`.
//!
//! A change of policy seals the word of the old bucket for good and carries its last value over.
//! A thread that still holds the old bucket finds the seal and asks the new one.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Instant;
use mainstay_resilience::limit::{
    Cost, Denied, Kind, LimitPolicy, Mode, QuotaLeft, Rate, Tally, Usage, gcra,
};

use crate::sync::{ArcSwap, AtomicU64, Mutex, Ordering};

/// A bucket that any number of threads ask.
#[derive(Debug)]
pub(super) struct Bucket {
    state: ArcSwap<State>,
    /// Held while the policy changes.
    changing: Mutex<()>,
    granted: AtomicU64,
    denied: AtomicU64,
    would_reject: AtomicU64,
    /// Nanoseconds of the first refusal since the last grant, plus one; 0 while it grants.
    refusing: AtomicU64,
}

#[derive(Debug)]
struct State {
    rate: Rate,
    cost: Cost,
    mode: Mode,
    /// Counts policies: what was taken under another cannot be given back.
    life: u32,
    /// Theoretical arrival time in grains of `rate`, or [`SEALED`].
    tat: AtomicU64,
}

/// Stands in a word that is no longer in use. No bucket reaches it: its times end 2^62 below, and
/// it never lies more than 2^61 ahead of them.
const SEALED: u64 = u64::MAX;

/// A bucket's answer.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The call may go.
    Granted {
        remaining: u64,
        reset: Duration,
        /// Nothing, if the bucket only observes and would have refused.
        spent: Option<Spent>,
    },
    Denied(Denied),
    CostExceedsQuota {
        capacity: u32,
    },
}

/// What was taken, to be given back.
#[derive(Debug)]
pub(super) struct Spent {
    at: Instant,
    cost: Cost,
    life: u32,
}

impl Bucket {
    /// A full bucket; `None` for a policy of another kind.
    pub(super) fn new(policy: &LimitPolicy) -> Option<Self> {
        Some(Self {
            state: ArcSwap::from_pointee(State::new(policy, 0, 0)?),
            changing: Mutex::new(()),
            granted: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            would_reject: AtomicU64::new(0),
            refusing: AtomicU64::new(0),
        })
    }

    /// Asks for the units of one call.
    pub(super) fn ask(&self, now: Instant) -> Verdict {
        loop {
            let state = self.state.load();
            if let Some(verdict) = self.ask_of(&state, now) {
                return verdict;
            }
            // The policy is changing: whoever changes it is done when the lock is free.
            drop(self.changing.lock());
        }
    }

    /// The answer of `state`, unless it is no longer in use.
    fn ask_of(&self, state: &State, now: Instant) -> Option<Verdict> {
        let State { rate, cost, mode, life, tat: word } = state;
        let capacity = rate.capacity();
        if capacity < cost.get() {
            return Some(
                self.refused(*mode, Duration::ZERO, || Verdict::CostExceedsQuota { capacity }),
            );
        }
        let mut tat = word.load(Ordering::Relaxed);
        loop {
            if tat == SEALED {
                return None;
            }
            match gcra(tat, now, rate, *cost) {
                Ok(next) => {
                    match word.compare_exchange_weak(
                        tat,
                        next,
                        Ordering::Relaxed,
                        Ordering::Relaxed,
                    ) {
                        Err(seen) => tat = seen,
                        Ok(_) => {
                            self.granted.fetch_add(1, Ordering::Relaxed);
                            // Read first: a word that nobody writes is in every core's cache.
                            if self.refusing.load(Ordering::Relaxed) != 0 {
                                self.refusing.store(0, Ordering::Relaxed);
                            }
                            let (remaining, reset) =
                                (rate.remaining(next, now), rate.reset(next, now));
                            let spent = Some(Spent { at: now, cost: *cost, life: *life });
                            return Some(Verdict::Granted { remaining, reset, spent });
                        }
                    }
                }
                Err(retry_after) => {
                    let threshold = u64::from(capacity);
                    let observed = threshold.saturating_sub(rate.remaining(tat, now));
                    return Some(self.refused(*mode, retry_after, || {
                        let since = self.refusing_since(now);
                        Verdict::Denied(Denied { retry_after, observed, threshold, since })
                    }));
                }
            }
        }
    }

    /// `refusal`, or the grant an observing bucket makes of it.
    fn refused(&self, mode: Mode, reset: Duration, refusal: impl FnOnce() -> Verdict) -> Verdict {
        match mode {
            Mode::Enforce => {
                self.denied.fetch_add(1, Ordering::Relaxed);
                refusal()
            }
            Mode::Observe => {
                self.granted.fetch_add(1, Ordering::Relaxed);
                self.would_reject.fetch_add(1, Ordering::Relaxed);
                Verdict::Granted { remaining: 0, reset, spent: None }
            }
        }
    }

    fn refusing_since(&self, now: Instant) -> Instant {
        let mark = now.as_nanos().saturating_add(1);
        match self.refusing.compare_exchange(0, mark, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => now,
            Err(first) => Instant::from_nanos(first.saturating_sub(1)).min(now),
        }
    }

    /// Gives back what a call took that was not made. What time has given back already is not
    /// given twice.
    pub(super) fn refund(&self, now: Instant, spent: Spent) {
        let state = self.state.load();
        if state.life != spent.life {
            return;
        }
        let back = |tat: u64| {
            (tat != SEALED).then(|| state.rate.give_back(tat, now, spent.at, spent.cost))
        };
        // Sealed meanwhile: taken under a policy that is gone.
        let _gone = state.tat.fetch_update(Ordering::Relaxed, Ordering::Relaxed, back);
    }

    /// Takes over a changed policy and keeps what was used; false for one of another kind.
    pub(super) fn set_policy(&self, now: Instant, policy: &LimitPolicy) -> bool {
        let _changing = self.changing.lock();
        let old = self.state.load_full();
        let Some(mut new) = State::new(policy, old.life.wrapping_add(1), 0) else { return false };
        let tat = old.tat.swap(SEALED, Ordering::Relaxed);
        new.tat = AtomicU64::new(new.rate.carry_over(&old.rate, tat, now));
        self.state.store(Arc::new(new));
        true
    }

    /// What is worth keeping over a restart, if anything.
    pub(super) fn snapshot(&self, now: Instant) -> Option<QuotaLeft> {
        let (rate, tat) = self.present();
        rate.snapshot(tat, now)
    }

    /// Begins with what was written down `elapsed` ago.
    pub(super) fn restore(&self, now: Instant, kept: &QuotaLeft, elapsed: Duration) {
        let _changing = self.changing.lock();
        let state = self.state.load();
        state.tat.store(state.rate.restored(kept, now, elapsed), Ordering::Relaxed);
    }

    /// The rate in force, and the word as it is.
    fn present(&self) -> (Rate, u64) {
        loop {
            let state = self.state.load();
            let tat = state.tat.load(Ordering::Relaxed);
            if tat != SEALED {
                return (state.rate, tat);
            }
            drop(self.changing.lock());
        }
    }

    /// How much is in use, and the answers so far.
    pub(super) fn usage(&self, now: Instant) -> Usage {
        let (rate, tat) = self.present();
        let capacity = u64::from(rate.capacity());
        let tally = Tally {
            granted: self.granted.load(Ordering::Relaxed),
            waited: 0,
            denied: self.denied.load(Ordering::Relaxed),
            would_reject: self.would_reject.load(Ordering::Relaxed),
        };
        let used = capacity.saturating_sub(rate.remaining(tat, now));
        Usage { used, capacity, reset: rate.reset(tat, now), tally }
    }
}

impl State {
    fn new(policy: &LimitPolicy, life: u32, tat: u64) -> Option<Self> {
        let Kind::Bucket { quota, burst } = policy.kind else { return None };
        let rate = Rate::new(quota, burst.get());
        let (cost, mode) = (policy.cost, policy.mode);
        Some(Self { rate, cost, mode, life, tat: AtomicU64::new(tat) })
    }
}

#[cfg(all(test, mainstay_loom))]
mod modelled {
    use loom::thread;
    use mainstay_resilience::limit::RawLimit;

    use super::*;

    const NOW: Instant = Instant::from_nanos(1);

    fn policy(max: u32) -> LimitPolicy {
        let raw = RawLimit { max: Some(max), window_seconds: Some(3_600.0), ..RawLimit::default() };
        LimitPolicy::try_from(raw).unwrap()
    }

    fn bucket(max: u32) -> Arc<Bucket> {
        Arc::new(Bucket::new(&policy(max)).unwrap())
    }

    /// Asks once; what was taken, if the call may go.
    fn ask(bucket: &Bucket) -> Option<Spent> {
        match bucket.ask(NOW) {
            Verdict::Granted { spent, .. } => spent,
            Verdict::Denied(_) | Verdict::CostExceedsQuota { .. } => None,
        }
    }

    /// Runs `theirs` on a thread of its own while `mine` runs on this one.
    fn together<R: Send + 'static>(
        bucket: &Arc<Bucket>,
        theirs: impl FnOnce(&Bucket) -> R + Send + 'static,
        mine: impl FnOnce(&Bucket),
    ) -> R {
        let shared = Arc::clone(bucket);
        let other = thread::spawn(move || theirs(&shared));
        mine(bucket);
        other.join().unwrap()
    }

    #[test]
    fn every_unit_is_granted_once() {
        loom::model(|| {
            let bucket = bucket(2);
            let others = [(); 2].map(|()| {
                let shared = Arc::clone(&bucket);
                thread::spawn(move || ask(&shared).is_some())
            });
            let mine = ask(&bucket).is_some();
            let granted = others.into_iter().map(|other| other.join().unwrap());
            assert_eq!(granted.chain([mine]).filter(|granted| *granted).count(), 2);
        });
    }

    /// A larger bucket is given what was left in the smaller one, and fills from there.
    #[test]
    fn a_change_of_policy_grants_nothing_twice() {
        loom::model(|| {
            let bucket = bucket(2);
            let taken = together(
                &bucket,
                |bucket| (0..2).filter(|_| ask(bucket).is_some()).count(),
                |bucket| assert!(bucket.set_policy(NOW, &policy(3))),
            );
            assert_eq!(taken, 2);
            assert!(ask(&bucket).is_none());
        });
    }

    #[test]
    fn what_is_given_back_while_the_policy_changes_is_not_given_twice() {
        loom::model(|| {
            let bucket = bucket(2);
            let spent = ask(&bucket).unwrap();
            together(
                &bucket,
                |bucket| bucket.refund(NOW, spent),
                |bucket| assert!(bucket.set_policy(NOW, &policy(3))),
            );
            let granted = (0..3).filter(|_| ask(&bucket).is_some()).count();
            assert!((1..=2).contains(&granted), "{granted}");
        });
    }
}
