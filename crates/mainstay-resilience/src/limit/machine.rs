//! What the time-based machines have in common, so that one limiter and one key table serve all.

use std::fmt::Debug;
use std::time::Duration;

use mainstay_core::Instant;

use super::decision::{Decision, Denied, Receipt, Tally};
use super::policy::Mode;
use super::snapshot::Left;

/// A rule with every number worked out in advance, applied to states of a few words.
///
/// `now` never goes back between two calls for the same state: the owner of the state sees to it.
pub(super) trait Rule: Copy + Debug {
    /// What has to be remembered between two calls.
    type State: Copy + Debug;

    /// The state of a limit nobody has asked yet.
    fn fresh(&self, now: Instant) -> Self::State;

    /// The largest cost that can ever be granted.
    fn capacity(&self) -> u32;

    /// Asks for `request.cost` units, which are at most [`Rule::capacity`].
    fn ask(&self, state: &mut Self::State, request: Request) -> Verdict;

    /// Takes back what `spent` took, as far as time has not done so already. Never returns more
    /// than that, whatever was granted in between.
    fn refund(&self, state: &mut Self::State, now: Instant, spent: Spent);

    /// Turns a state kept under `old` into one for this rule: nothing that was used becomes free,
    /// and what a larger quota adds arrives with time, not at once.
    fn adopt(&self, old: &Self, state: &mut Self::State, now: Instant);

    /// How much of the limit is in use.
    fn level(&self, state: &Self::State, now: Instant) -> Level;

    /// How it counts, in three numbers: a state kept under others means something else.
    fn measure(&self) -> [u64; 3] {
        [0; 3]
    }

    /// `state` in spans before and after `now`; none for a rule that is about the moment only.
    fn save(&self, _state: &Self::State, _now: Instant) -> Option<Left> {
        None
    }

    /// The state that [`Rule::save`] wrote down `elapsed` ago, under a rule of the same measure.
    fn load(&self, _left: &Left, _now: Instant, _elapsed: Duration) -> Option<Self::State> {
        None
    }

    /// Grows with the last use of the state; of two equally used states the lower one is older.
    fn age(&self, state: &Self::State) -> u64;
}

/// One question to a rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// The moment of asking.
    pub(super) now: Instant,
    /// Units asked for.
    pub(super) cost: u32,
    /// A wait beyond this moment is of no use to the caller.
    pub(super) deadline: Instant,
}

/// What was taken, as the rule that took it needs it to give it back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    pub(super) cost: u32,
    pub(super) at: Instant,
    pub(super) slot: u64,
}

/// A rule's answer, before mode and bookkeeping.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    Granted { remaining: u64, reset: Duration, slot: u64 },
    Wait { until: Instant, slot: u64 },
    Denied { retry_after: Duration, observed: u64, threshold: u64 },
}

/// How much of a limit is in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub(super) used: u64,
    pub(super) capacity: u64,
    pub(super) reset: Duration,
}

/// Units that count as used after a quota went from `old` to `new`: those that were, and as many
/// of the added ones as keep what is left from growing.
pub(super) fn carried(used: u32, old: u32, new: u32) -> u32 {
    used.max(new.saturating_sub(old.saturating_sub(used)))
}

/// `span` in nanoseconds, at most `u64::MAX` (584 years).
pub(super) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Turns verdicts into decisions: what an observing limit refuses goes, and everything is counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clerk {
    pub(super) mode: Mode,
    pub(super) tally: Tally,
}

impl Clerk {
    pub(super) fn new(mode: Mode) -> Self {
        Self { mode, tally: Tally::default() }
    }

    /// The decision `verdict` comes to, for a state that is in its life `life`.
    pub(super) fn decide(
        &mut self,
        request: Request,
        verdict: Verdict,
        life: u32,
        refusing: &mut Refusing,
    ) -> Decision {
        let Request { now, cost, .. } = request;
        let receipt = |life, slot| Receipt { life, cost, at: now, slot };
        match verdict {
            Verdict::Granted { remaining, reset, slot } => {
                self.tally.granted += 1;
                *refusing = Refusing::default();
                Decision::Granted { remaining, reset, receipt: receipt(life, slot) }
            }
            Verdict::Wait { until, slot } => {
                *refusing = Refusing::default();
                let receipt = receipt(life, slot);
                match self.mode {
                    Mode::Enforce => {
                        self.tally.waited += 1;
                        Decision::Wait { until, receipt }
                    }
                    Mode::Observe => {
                        self.tally.granted += 1;
                        Decision::Granted { remaining: 0, reset: until.since(now), receipt }
                    }
                }
            }
            Verdict::Denied { retry_after, observed, threshold } => {
                let since = refusing.since(now);
                self.refuse(
                    request,
                    retry_after,
                    Decision::Denied(Denied { retry_after, observed, threshold, since }),
                )
            }
        }
    }

    /// The decision on a cost no limit of `capacity` can grant.
    pub(super) fn exceeds(&mut self, request: Request, capacity: u32) -> Decision {
        self.refuse(request, Duration::ZERO, Decision::CostExceedsQuota { capacity })
    }

    /// `refusal`, or the grant an observing limit makes of it; that one took nothing.
    fn refuse(&mut self, request: Request, reset: Duration, refusal: Decision) -> Decision {
        match self.mode {
            Mode::Enforce => {
                self.tally.denied += 1;
                refusal
            }
            Mode::Observe => {
                self.tally.granted += 1;
                self.tally.would_reject += 1;
                let receipt = Receipt { life: 0, cost: request.cost, at: request.now, slot: 0 };
                Decision::Granted { remaining: 0, reset, receipt }
            }
        }
    }
}

/// Since when a state has been refusing, in ticks of 16.8 ms so that it fits a key's state; 0 while
/// it grants. Lasts 2.3 years, and is shown to people only.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refusing(u32);

impl Refusing {
    /// The moment of the first refusal without a grant since; `now` if that is this one.
    fn since(&mut self, now: Instant) -> Instant {
        if self.0 == 0 {
            let ticks = now.as_nanos().div_ceil(TICK).max(1);
            self.0 = u32::try_from(ticks).unwrap_or(u32::MAX);
        }
        Instant::from_nanos(u64::from(self.0) * TICK).min(now)
    }
}

const TICK: u64 = 1 << 24;
