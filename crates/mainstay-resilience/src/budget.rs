//! How many retries an upstream can bear, whoever asks for them.
//!
//! `attempts` bounds what one call may do; it does not bound what all calls do together. When
//! everything fails, three attempts a call are three times the load, sent to a service that is
//! already down, and each tier above multiplies it again. A budget is shared by all calls to an
//! upstream and bounds the sum. A retry takes its credit when it is decided, before the back-off:
//! a retry that waits is a retry already.
//!
//! | kind | a retry is allowed while | taken from |
//! |---|---|---|
//! | `window` (default) | retries of the last ttl < share of its first attempts + a minimum | Finagle's `RetryBudget` |
//! | `concurrent` | retries not ended < share of the calls in flight, or a minimum | Envoy's `retry_budget` |
//! | `tokens` | the balance is above half | gRPC's retry throttling, gRFC A6 |
//!
//! The window is the default because its share stays when every call fails. A share of the calls
//! *in flight* shrinks just then: failing fast leaves few in flight, and the budget closes upon
//! those that one retry would have saved.

mod config;
mod window;

use std::time::Duration;

use mainstay_core::Instant;

pub use config::{RawBudget, RawKind};
use window::Window;

/// What a budget allows, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetPolicy {
    /// A share of the first attempts of the last `ttl`.
    Window {
        /// Share, in millionths, at most 10,000,000 (1,000 %).
        ratio_millionths: u32,
        /// Retries that are always allowed, a second.
        min_per_second: u32,
        /// How far back first attempts and retries count, 1 to 60 s.
        ttl: Duration,
    },
    /// A share of the calls in flight.
    Concurrent {
        /// Share, in millionths, at most 10,000,000 (1,000 %).
        ratio_millionths: u32,
        /// Retries that may always be outstanding.
        min_concurrent: u32,
    },
    /// A balance that failures drain and successes fill.
    Tokens {
        /// The full balance, in thousandths of a token, 1 to 1,000,000.
        max_thousandths: u32,
        /// What a success adds, in thousandths of a token, at least 1.
        ratio_thousandths: u32,
    },
}

/// Leave for one retry (or one hedge).
///
/// Spend it with [`Budget::done`] when the attempt it paid for has ended, or return it with
/// [`Budget::give_back`] when that attempt was never sent.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a credit that is neither spent nor given back stays outstanding"]
pub struct Credit {
    /// Which policy gave it; a credit of another kind of budget moves nothing in this one.
    epoch: u32,
    /// Which part of the window it was counted in.
    part: u64,
}

/// How an attempt ended, as far as a budget cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A good answer.
    Well,
    /// A result that is tried again, or a peer that said not to.
    Badly,
    /// Anything else: an answer that is nobody's fault, a caller that went away.
    Otherwise,
}

/// A budget as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Of kind `window`.
    Window {
        /// First attempts in the last ttl.
        first_attempts: u64,
        /// Retries in the last ttl.
        retries: u64,
        /// Retries those first attempts allow.
        allowed: u64,
    },
    /// Of kind `concurrent`.
    Concurrent {
        /// Calls in flight.
        active: u32,
        /// Retries decided and not ended.
        outstanding: u32,
        /// Retries those calls allow.
        allowed: u32,
    },
    /// Of kind `tokens`.
    Tokens {
        /// Balance, in thousandths of a token.
        balance_thousandths: u32,
        /// Full balance, in thousandths of a token.
        max_thousandths: u32,
    },
}

/// The retry budget of one upstream.
#[derive(Clone, Debug)]
pub struct Budget {
    state: State,
    /// Calls in flight and retries not ended: counted under every kind, so that a change to
    /// `concurrent` begins with the truth.
    active: u32,
    outstanding: u32,
    epoch: u32,
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one budget an upstream: a pointer saves nothing")]
enum State {
    Window(Window),
    Concurrent { ratio_millionths: u32, min_concurrent: u32 },
    Tokens { balance: u32, max: u32, ratio: u32 },
}

impl Budget {
    /// A budget nothing has been taken from; a balance of tokens begins full.
    pub fn new(policy: BudgetPolicy, now: Instant) -> Self {
        Self { state: State::new(policy, now), active: 0, outstanding: 0, epoch: 0 }
    }

    /// Lets time pass: first attempts and retries older than the ttl no longer count.
    pub fn poll(&mut self, now: Instant) {
        if let State::Window(window) = &mut self.state {
            window.poll(now);
        }
    }

    /// When time alone will change something next.
    pub fn next_wake(&self) -> Option<Instant> {
        match &self.state {
            State::Window(window) => window.next_wake(),
            State::Concurrent { .. } | State::Tokens { .. } => None,
        }
    }

    /// Counts a call that begins: its first attempt is what retries are a share of. Exactly one
    /// [`Budget::call_ended`] must follow.
    pub fn first_attempt(&mut self, now: Instant) {
        self.active = self.active.saturating_add(1);
        if let State::Window(window) = &mut self.state {
            window.poll(now);
            window.first_attempt();
        }
    }

    /// Counts a call that is over, however it ended.
    pub fn call_ended(&mut self) {
        self.active = self.active.saturating_sub(1);
    }

    /// Leave for one retry, or `None` when the budget is spent.
    ///
    /// The failure that makes a retry necessary is counted first ([`Budget::done`]); a balance of
    /// tokens is judged after it.
    pub fn try_take(&mut self, now: Instant) -> Option<Credit> {
        let part = match &mut self.state {
            State::Window(window) => {
                window.poll(now);
                window.try_take()?
            }
            State::Concurrent { ratio_millionths, min_concurrent } => {
                let allowed = concurrent(*ratio_millionths, *min_concurrent, self.active);
                (self.outstanding < allowed).then_some(0)?
            }
            State::Tokens { balance, max, .. } => (*max / 2 < *balance).then_some(0)?,
        };
        self.outstanding = self.outstanding.saturating_add(1);
        Some(Credit { epoch: self.epoch, part })
    }

    /// Takes back the credit of a retry that was never sent: its caller went away while it waited.
    pub fn give_back(&mut self, now: Instant, credit: Credit) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if credit.epoch == self.epoch
            && let State::Window(window) = &mut self.state
        {
            window.poll(now);
            window.give_back(credit.part);
        }
    }

    /// Counts an attempt that was sent and is over, and spends the credit it was sent on; a first
    /// attempt and a transparent one have none.
    pub fn done(&mut self, ended: Ended, credit: Option<Credit>) {
        if credit.is_some() {
            self.outstanding = self.outstanding.saturating_sub(1);
        }
        if let State::Tokens { balance, max, ratio } = &mut self.state {
            *balance = match ended {
                Ended::Well => balance.saturating_add(*ratio).min(*max),
                Ended::Badly => balance.saturating_sub(TOKEN),
                Ended::Otherwise => *balance,
            };
        }
    }

    /// Puts a changed policy into force without granting anything by the change.
    ///
    /// Counts stay. A window keeps its parts, which take on the new length; a balance keeps its
    /// share of the full one, rounded down. Only another kind begins anew; credits given before
    /// such a change still end what they began, and move nothing else.
    pub fn set_policy(&mut self, now: Instant, policy: BudgetPolicy) {
        match (&mut self.state, policy) {
            (
                State::Window(window),
                BudgetPolicy::Window { ratio_millionths, min_per_second, ttl },
            ) => {
                window.poll(now);
                window.set(ratio_millionths, min_per_second, ttl);
            }
            (
                State::Tokens { balance, max, ratio },
                BudgetPolicy::Tokens { max_thousandths, ratio_thousandths },
            ) => {
                *balance = scale(*balance, max_thousandths, *max);
                (*max, *ratio) = (max_thousandths, ratio_thousandths);
            }
            (state @ State::Concurrent { .. }, BudgetPolicy::Concurrent { .. }) => {
                *state = State::new(policy, now);
            }
            (state, _) => {
                *state = State::new(policy, now);
                self.epoch = self.epoch.wrapping_add(1);
            }
        }
    }

    /// The budget as it stands at `now`.
    pub fn view(&mut self, now: Instant) -> View {
        self.poll(now);
        match &self.state {
            State::Window(window) => window.view(),
            State::Concurrent { ratio_millionths, min_concurrent } => View::Concurrent {
                active: self.active,
                outstanding: self.outstanding,
                allowed: concurrent(*ratio_millionths, *min_concurrent, self.active),
            },
            State::Tokens { balance, max, .. } => {
                View::Tokens { balance_thousandths: *balance, max_thousandths: *max }
            }
        }
    }
}

impl View {
    /// Retries that count against it now: under `tokens` as many as would earn back what is
    /// missing.
    pub fn spent(self) -> u64 {
        match self {
            Self::Window { retries, .. } => retries,
            Self::Concurrent { outstanding, .. } => u64::from(outstanding),
            Self::Tokens { balance_thousandths, max_thousandths } => {
                u64::from(max_thousandths.saturating_sub(balance_thousandths).div_ceil(TOKEN))
            }
        }
    }

    /// Retries that would be granted now, one after the other, were nothing else to happen: under
    /// `tokens` as many as the balance can lose before it is down to half.
    pub fn credits(self) -> u64 {
        match self {
            Self::Window { retries, allowed, .. } => allowed.saturating_sub(retries),
            Self::Concurrent { outstanding, allowed, .. } => {
                u64::from(allowed.saturating_sub(outstanding))
            }
            Self::Tokens { balance_thousandths, max_thousandths } => {
                u64::from(balance_thousandths.saturating_sub(max_thousandths / 2).div_ceil(TOKEN))
            }
        }
    }
}

impl State {
    fn new(policy: BudgetPolicy, now: Instant) -> Self {
        match policy {
            BudgetPolicy::Window { ratio_millionths, min_per_second, ttl } => {
                Self::Window(Window::new(now, ratio_millionths, min_per_second, ttl))
            }
            BudgetPolicy::Concurrent { ratio_millionths, min_concurrent } => {
                Self::Concurrent { ratio_millionths, min_concurrent }
            }
            BudgetPolicy::Tokens { max_thousandths, ratio_thousandths } => Self::Tokens {
                balance: max_thousandths,
                max: max_thousandths,
                ratio: ratio_thousandths,
            },
        }
    }
}

/// Retries that may be outstanding while `active` calls are in flight.
fn concurrent(ratio_millionths: u32, min_concurrent: u32, active: u32) -> u32 {
    let share = u64::from(active) * u64::from(ratio_millionths) / WHOLE;
    u32::try_from(share).unwrap_or(u32::MAX).max(min_concurrent)
}

/// `part` of `from`, as the same share of `to`, rounded down.
fn scale(part: u32, to: u32, from: u32) -> u32 {
    let scaled = u64::from(part) * u64::from(to) / u64::from(from.max(1));
    u32::try_from(scaled).unwrap_or(u32::MAX).min(to)
}

/// A token, in thousandths.
const TOKEN: u32 = 1_000;
/// A whole, in millionths.
const WHOLE: u64 = 1_000_000;

#[cfg(test)]
mod tests;
