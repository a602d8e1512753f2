//! What a policy would have done with calls that were made: the machines of this crate, played
//! through again.
//!
//! Nothing is estimated: a limit is asked at the moments at which it would have been asked, and a
//! circuit learns of a call when that call ended. What is assumed is that callers would have done
//! the same all the same, and that a call which was refused then would have been answered well.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Instant;

use crate::Outcome;
use crate::circuit::{self, Circuit, CircuitPolicy};
use crate::limit::{
    Admission, Claim, Decision, Keyed, Kind, LimitPolicy, Limiter, Permit, Semaphore, Ticket,
    TicketId,
};

/// One call that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// When it came.
    pub at: Instant,
    /// How long it took to its answer.
    pub took: Duration,
    /// Who is counted apart from whom.
    pub key: u64,
    /// How it ended; `None` where nobody was asked, so nobody knows.
    pub outcome: Option<Outcome>,
}

/// What would have become of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It goes, now or a little later.
    Permitted,
    /// A limit refuses it.
    Denied,
    /// A circuit refuses it.
    RejectedOpen,
}

/// The longest that a call is taken to wait for a limit: the deadline of a call that brings none.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a limit by `policy`, which nobody had asked before, would have said to `calls`, which are in
/// order of time. `None` for a limit that learns: what it would have learned nobody can tell.
pub fn limit(policy: &LimitPolicy, calls: &[Call]) -> Option<Vec<Verdict>> {
    if matches!(policy.kind, Kind::Adaptive { .. }) {
        return None;
    }
    let begin = calls.first().map_or(Instant::ZERO, |call| call.at);
    if let Some(semaphore) = Semaphore::new(policy) {
        return Some(InFlight::new(semaphore).play(calls));
    }
    // Values of the overrides are not known, so every key has the plain quota.
    let keyed = (!policy.key.is_empty()).then(|| Keyed::new(policy, begin, |_| u128::MAX));
    if let Some(mut keyed) = keyed.flatten() {
        let ask = |call: &Call| {
            let (key, by) = (u128::from(call.key), call.at.plus(PATIENCE));
            verdict(&keyed.ask(call.at, key, policy.cost, by, |_| ()))
        };
        return Some(calls.iter().map(ask).collect());
    }
    let mut limiter = Limiter::new(policy, begin)?;
    let ask = |call: &Call| verdict(&limiter.ask_by(call.at, policy.cost, call.at.plus(PATIENCE)));
    Some(calls.iter().map(ask).collect())
}

const fn verdict(decision: &Decision) -> Verdict {
    match decision {
        Decision::Granted { .. } | Decision::Wait { .. } => Verdict::Permitted,
        Decision::Denied(_) | Decision::CostExceedsQuota { .. } => Verdict::Denied,
    }
}

/// Calls in flight.
#[derive(Debug)]
struct InFlight {
    semaphore: Semaphore,
    /// When each call that goes ends; of equal moments, the first that came.
    ends: BinaryHeap<Reverse<(Instant, usize)>>,
    /// One for each call that goes, by its number.
    permits: Vec<Option<Permit>>,
    waiting: BTreeMap<TicketId, (usize, Ticket)>,
}

impl InFlight {
    fn new(semaphore: Semaphore) -> Self {
        let (ends, permits) = (BinaryHeap::new(), Vec::new());
        Self { semaphore, ends, permits, waiting: BTreeMap::new() }
    }

    fn play(mut self, calls: &[Call]) -> Vec<Verdict> {
        let mut verdicts = vec![Verdict::Denied; calls.len()];
        self.permits.resize_with(calls.len(), || None);
        for (n, call) in calls.iter().enumerate() {
            self.end_until(call.at, calls, &mut verdicts);
            match self.semaphore.ask(call.at, call.at.plus(PATIENCE)) {
                Admission::Granted(permit) => self.goes(call.at, n, permit, calls, &mut verdicts),
                Admission::Queued(ticket) => {
                    self.waiting.insert(ticket.id(), (n, ticket));
                }
                Admission::Denied(_) => (),
            }
        }
        self.end_until(Instant::from_nanos(u64::MAX), calls, &mut verdicts);
        verdicts
    }

    fn goes(
        &mut self,
        at: Instant,
        n: usize,
        permit: Permit,
        calls: &[Call],
        verdicts: &mut [Verdict],
    ) {
        if let (Some(call), Some(verdict), Some(place)) =
            (calls.get(n), verdicts.get_mut(n), self.permits.get_mut(n))
        {
            *verdict = Verdict::Permitted;
            self.ends.push(Reverse((at.plus(call.took), n)));
            *place = Some(permit);
        }
    }

    /// Ends what is over by `now`; whoever waited goes then.
    fn end_until(&mut self, now: Instant, calls: &[Call], verdicts: &mut [Verdict]) {
        while let Some(Reverse((at, n))) = self.ends.peek().copied().filter(|next| next.0.0 <= now)
        {
            self.ends.pop();
            let permit = self.permits.get_mut(n).and_then(Option::take);
            let Some(permit) = permit else { continue };
            let mut woken = self.semaphore.release(at, permit);
            while let Some((n, ticket)) = woken.and_then(|id| self.waiting.remove(&id)) {
                woken = None;
                match self.semaphore.claim(at, ticket) {
                    Claim::Granted(permit) => self.goes(at, n, permit, calls, verdicts),
                    Claim::Waiting(ticket) => {
                        self.waiting.insert(ticket.id(), (n, ticket));
                    }
                    Claim::Expired(_) => (),
                }
            }
        }
    }
}

/// What circuits by `policy`, one for each key, would have said to `calls`, which are in order of
/// time. `seed` decides the jitter of their cooldowns.
pub fn circuit(policy: &Arc<CircuitPolicy>, seed: u64, calls: &[Call]) -> Vec<Verdict> {
    let mut guarded = Guarded::default();
    let mut verdicts = Vec::with_capacity(calls.len());
    for (n, call) in calls.iter().enumerate() {
        // Of equal moments, a call that ends is heard of before the next one asks.
        guarded.end_until(call.at, calls);
        let new = || Circuit::new(Arc::clone(policy), seed ^ call.key, call.at);
        let circuit = guarded.circuits.entry(call.key).or_insert_with(new);
        verdicts.push(match circuit.admit(call.at) {
            Ok(permit) => {
                guarded.ends.push(Reverse((call.at.plus(call.took), n)));
                guarded.permits.insert(n, permit);
                Verdict::Permitted
            }
            Err(_refused) => Verdict::RejectedOpen,
        });
    }
    verdicts
}

/// Calls behind circuits.
#[derive(Debug, Default)]
struct Guarded {
    circuits: BTreeMap<u64, Circuit>,
    ends: BinaryHeap<Reverse<(Instant, usize)>>,
    permits: BTreeMap<usize, circuit::Permit>,
}

impl Guarded {
    /// Tells circuits of calls that are over by `now`.
    fn end_until(&mut self, now: Instant, calls: &[Call]) {
        while let Some(Reverse((at, n))) = self.ends.peek().copied().filter(|next| next.0.0 <= now)
        {
            self.ends.pop();
            let (Some(call), Some(permit)) = (calls.get(n), self.permits.remove(&n)) else {
                continue;
            };
            let Some(circuit) = self.circuits.get_mut(&call.key) else { continue };
            match call.outcome {
                Some(outcome) => _ = circuit.record(at, permit, outcome, call.took),
                None => circuit.cancel(at, permit),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::circuit::RawCircuit;
    use crate::limit::RawLimit;

    fn millis(n: u64) -> Instant {
        Instant::ZERO.plus(Duration::from_millis(n))
    }

    fn call(at: u64, took: u64, outcome: Option<Outcome>) -> Call {
        Call { at: millis(at), took: Duration::from_millis(took), key: 1, outcome }
    }

    fn quota(text: &str) -> LimitPolicy {
        toml::from_str::<RawLimit>(text).unwrap().try_into().unwrap()
    }

    /// Which calls are refused.
    fn refused(verdicts: &[Verdict]) -> Vec<usize> {
        let is_refused = |n: &usize| verdicts[*n] != Verdict::Permitted;
        (0..verdicts.len()).filter(is_refused).collect()
    }

    #[test]
    fn a_limit_says_what_it_would_have_said() {
        let calls: Vec<Call> = (0..15).map(|n| call(n * 100, 0, None)).collect();
        let eight = quota("kind = 'counter'\nmax = 8");
        assert_eq!(refused(&limit(&eight, &calls).unwrap()), [8, 9]);
        let ten = quota("kind = 'counter'\nmax = 10");
        assert!(refused(&limit(&ten, &calls).unwrap()).is_empty());
        let each =
            quota("kind = 'counter'\nmax = 1\nwindow_seconds = 100\nkey = ['client_address']");
        let two: Vec<Call> = (0..4).map(|n| Call { key: n % 2, ..call(n, 0, None) }).collect();
        assert_eq!(refused(&limit(&each, &two).unwrap()), [2, 3]);
        assert_eq!(limit(&quota("kind = 'adaptive'"), &calls), None);
    }

    #[test]
    fn calls_in_flight_end_when_they_ended() {
        let calls = [call(0, 1_000, None), call(100, 100, None), call(150, 100, None)];
        let none_waits = quota("kind = 'concurrency'\nmax = 2\nqueue_max = 0");
        assert_eq!(refused(&limit(&none_waits, &calls).unwrap()), [2]);
        let one_waits = quota("kind = 'concurrency'\nmax = 2\nqueue_max = 1\nwait_max_seconds = 1");
        assert!(refused(&limit(&one_waits, &calls).unwrap()).is_empty());
    }

    #[test]
    fn a_circuit_learns_of_calls_as_they_ended() {
        let raw = "consecutive_failures = 3\ncooldown_seconds = 2\ncooldown_jitter_percent = 0\n\
            probes = 1\nramp_percent = []";
        let policy: CircuitPolicy = toml::from_str::<RawCircuit>(raw).unwrap().try_into().unwrap();
        let outcome = |n| if n < 3 { Outcome::Failure } else { Outcome::Success };
        let calls: Vec<Call> = (0..6).map(|n| call(n * 1_000, 0, Some(outcome(n)))).collect();
        let verdicts = circuit(&Arc::new(policy), 7, &calls);
        assert_eq!(refused(&verdicts), [3], "the probe at 4 s goes well, and so does the rest");
    }

    proptest! {
        /// Whatever calls: each gets an answer, and a window never grants more than its quota.
        #[test]
        fn no_window_grants_more_than_its_quota(
            mut at in prop::collection::vec(0u64..5_000, 0..200), max in 1u64..20,
        ) {
            at.sort_unstable();
            let calls: Vec<Call> = at.iter().map(|at| call(*at, 10, None)).collect();
            let policy = quota(&format!("kind = 'counter'\nmax = {max}"));
            let verdicts = limit(&policy, &calls).unwrap();
            prop_assert_eq!(verdicts.len(), calls.len());
            let begin = at.first().copied().unwrap_or(0);
            for window in 0..5 {
                let granted = at.iter().zip(&verdicts).filter(|(at, verdict)| {
                    (**at - begin) / 1_000 == window && **verdict == Verdict::Permitted
                });
                prop_assert!(granted.count() as u64 <= 2 * max);
            }
            let asked = circuit(&Arc::default(), 1, &calls).len();
            prop_assert_eq!(asked, calls.len());
        }
    }
}
