//! Whether to try again, and when.
//!
//! [`RetryPolicy::decide`] looks at how an attempt ended and answers *again, after so long* or
//! *stop, because*. It is asked once an attempt, and keeps nothing but a few counts in a
//! [`Progress`] that lives as long as the call.
//!
//! Two questions come first, and both must be answered with yes. *Can it help?* The result is in
//! `retry_on`, and its nature allows it. *Can it harm?* Its effect is none, or the call is
//! idempotent: an attempt of unknown effect is never repeated on the mere hope that it had none.
//! A result that fails either question is passed on as it is, however many attempts were left; the
//! limits are asked only afterwards, so a caller never reads "attempts used up" where the truth is
//! "it would not have helped".
//!
//! One case stands apart. A stream that the peer provably never processed is sent again once, at
//! once, without costing an attempt or a credit: nothing has been tried yet (gRFC A6, transparent
//! retries). It happens when a connection is drained under load, and charging it would spend the
//! budget on ordinary restarts.
//!
//! When a caller above is retrying already (`mainstay-attempt`, `grpc-previous-rpc-attempts`),
//! this hop repeats only what was provably never sent: three tiers of three attempts are
//! twenty-seven calls, and the innermost service would see them all.

mod backoff;
mod config;
mod grpc;
mod hedge;
mod hint;

use std::num::NonZeroU32;
use std::time::Duration;

use mainstay_core::Effect;

use crate::Failure;
use crate::budget::BudgetPolicy;
use crate::classify::{Answer, ResultSet, Word};

pub use backoff::{Backoff, Jitter, Shape};
pub use config::{RawBackoff, RawHedge, RawJitter, RawRetry, RawShape};
pub use grpc::{RawCode, RawGrpcRetry};
pub use hedge::{HedgePolicy, Race, Start};
pub use hint::{
    Pushback, arriving_attempt, method_is_idempotent, outgoing_attempt, outgoing_grpc_attempts,
    parse_pushback, parse_retry_after,
};

/// What to try again, how often, and how patiently.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub attempts: NonZeroU32,
    /// How long one attempt waits for its head; `None`: as long as the deadline.
    pub try_timeout: Option<Duration>,
    /// Results that are tried again.
    pub retry_on: ResultSet,
    /// How long to wait before each retry.
    pub backoff: Backoff,
    /// The longest `Retry-After` that is waited for.
    pub retry_after_max: Duration,
    /// The longest request body kept for another attempt, in bytes.
    pub replay_bytes_max: u64,
    /// How many retries all calls together may make.
    pub budget: BudgetPolicy,
    /// Whether to send a second attempt before the first has ended.
    pub hedge: Option<HedgePolicy>,
}

/// What a call has behind it. Begins with its first attempt under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Number of the attempt under way; a transparent one keeps the number it repeats.
    number: u32,
    /// Number of the back-off interval that comes next.
    interval: u32,
    /// Whether the transparent retry is used up.
    transparent: bool,
    /// Most attempts in all, where not the policy says it.
    most: Option<NonZeroU32>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a complete answer.
    Answered(Answer),
    /// Without one.
    Failed(Failure),
}

/// An attempt that has ended, and the call it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// How it ended.
    pub ending: Ending,
    /// Whether doing the call twice does what doing it once does: its method says so
    /// ([`method_is_idempotent`]), or it has an `Idempotency-Key`, or its route is declared so.
    pub idempotent: bool,
    /// Whether it is too late: response headers have reached the caller, or the request body
    /// outgrew [`RetryPolicy::replay_bytes_max`].
    pub committed: bool,
    /// The attempt of somebody above that the call arrived as; 1 when nothing was said
    /// ([`arriving_attempt`]).
    pub arriving: u32,
    /// `grpc-retry-pushback-ms`, if the answer had it.
    pub pushback: Option<Pushback>,
    /// `Retry-After`, if the answer had it.
    pub retry_after: Option<Duration>,
    /// Time left until the deadline.
    pub remaining: Duration,
}

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Send it again.
    Again {
        /// How long to wait before.
        after: Duration,
        /// Whether it is free. If not, it still needs a credit of the budget, taken now, before
        /// the wait; without one the call ends with [`Stopped::Budget`].
        transparent: bool,
    },
    /// Pass on what came back.
    Stop(Stopped),
}

/// Why a call is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stopped {
    /// The attempts are used up, or it is for a caller above to make them.
    Attempts,
    /// The budget of the upstream is spent. Never decided here, see [`Retry::Again`].
    Budget,
    /// The retry could not begin before the deadline.
    Deadline,
    /// The peer asked not to be tried again, or not for longer than we wait.
    Pushback,
    /// The answer is with the caller, or the request is no longer with us.
    Committed,
    /// It may have had an effect, and must not have it twice.
    NotIdempotent,
    /// Trying again would not help.
    NotRetryable,
}

impl RetryPolicy {
    /// Decides what follows `attempt`, the one under way in `progress`.
    ///
    /// `draw` is any random number; it picks the jitter. An answer of "again" moves `progress` on
    /// to the next attempt.
    pub fn decide(&self, progress: &mut Progress, attempt: &Attempt, draw: u64) -> Retry {
        let unprocessed = attempt.ending == Ending::Failed(Failure::Unprocessed);
        let transparent = unprocessed && !progress.transparent;
        let decided = if transparent {
            commitment(attempt).map(|()| Duration::ZERO)
        } else {
            self.eligible(attempt)
                .and_then(|()| commitment(attempt))
                .and_then(|()| self.wait(progress, attempt, draw))
        };
        match decided {
            Err(why) => Retry::Stop(why),
            Ok(after) if attempt.remaining <= after => Retry::Stop(Stopped::Deadline),
            Ok(after) => {
                progress.advance(transparent, attempt.pushback.is_some());
                Retry::Again { after, transparent }
            }
        }
    }

    /// Whether `ending` is one that `retry_on` names and that trying again can help at all.
    /// `hinted`: the answer came with `Retry-After`.
    pub fn is_retryable(&self, ending: Ending, hinted: bool) -> bool {
        names(&self.retry_on, ending, hinted)
    }

    /// Can it help, and can it harm?
    fn eligible(&self, attempt: &Attempt) -> Result<(), Stopped> {
        let hinted = attempt.retry_after.is_some();
        let effect = effect(attempt.ending, hinted);
        let unsent = matches!(attempt.ending, Ending::Failed(_)) && effect == Effect::None;
        if !self.is_retryable(attempt.ending, hinted) {
            Err(Stopped::NotRetryable)
        } else if effect != Effect::None && !attempt.idempotent {
            Err(Stopped::NotIdempotent)
        } else if 1 < attempt.arriving && !unsent {
            Err(Stopped::Attempts)
        } else {
            Ok(())
        }
    }

    /// How long to wait before the next attempt, if there is one left.
    ///
    /// A peer's `Retry-After` is the least it asks for, so the longer of it and the back-off is
    /// waited; its pushback is an order, and waited exactly.
    fn wait(&self, progress: &Progress, attempt: &Attempt, draw: u64) -> Result<Duration, Stopped> {
        let hint = attempt.retry_after.unwrap_or_default();
        if attempt.pushback == Some(Pushback::Never) || self.retry_after_max < hint {
            return Err(Stopped::Pushback);
        }
        if progress.most.unwrap_or(self.attempts).get() <= progress.number {
            return Err(Stopped::Attempts);
        }
        Ok(match attempt.pushback {
            Some(Pushback::After(exactly)) => exactly,
            Some(Pushback::Never) | None => self.backoff.delay(progress.interval, draw).max(hint),
        })
    }
}

impl Progress {
    /// The beginning of a call that takes at most `most` attempts, whatever the policy says; `None`
    /// leaves it to the policy.
    pub fn at_most(most: Option<NonZeroU32>) -> Self {
        Self { most, ..Self::default() }
    }

    /// Number of the attempt under way: 1 is the first. A transparent retry keeps the number.
    pub const fn number(self) -> u32 {
        self.number
    }

    /// Most attempts in all, where not the policy says it.
    pub const fn most(self) -> Option<NonZeroU32> {
        self.most
    }

    const fn advance(&mut self, transparent: bool, pushed_back: bool) {
        if transparent {
            self.transparent = true;
            return;
        }
        self.number = self.number.saturating_add(1);
        self.interval = if pushed_back { 1 } else { self.interval.saturating_add(1) };
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self { number: 1, interval: 1, transparent: false, most: None }
    }
}

impl Stopped {
    /// The word used in the header and in the record of a call.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Budget => "budget",
            Self::Deadline => "deadline",
            Self::Pushback => "pushback",
            Self::Committed => "committed",
            Self::NotIdempotent => "not-idempotent",
            Self::NotRetryable => "not-retryable",
        }
    }
}

/// What an attempt that ended so has done: a peer that refused has done nothing, one that answered
/// otherwise has done what was asked, as far as anybody can tell.
fn effect(ending: Ending, hinted: bool) -> Effect {
    match ending {
        Ending::Failed(failure) => failure.effect(),
        Ending::Answered(answer) if answer.is_refusal(hinted) => Effect::None,
        Ending::Answered(_) => Effect::Done,
    }
}

/// Whether `set` names `ending`, and its nature allows another attempt.
fn names(set: &ResultSet, ending: Ending, hinted: bool) -> bool {
    match ending {
        Ending::Failed(failure) => failure.is_retryable() && set.has_failure(failure),
        Ending::Answered(answer) => {
            set.has_answer(answer) || (answer.is_refusal(hinted) && set.has(Word::Refused))
        }
    }
}

fn commitment(attempt: &Attempt) -> Result<(), Stopped> {
    if attempt.committed { Err(Stopped::Committed) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
