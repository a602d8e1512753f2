//! What to answer when the real answer cannot be had, or is not wanted.
//!
//! A fallback is an ordered list of steps. The first whose `when` holds and that *can* answer,
//! answers; one that turns out not to (nothing stored, queue full, the substitute failed) passes
//! the question on to the next. The list is asked at three moments:
//!
//! | moment | conditions | who may answer |
//! |---|---|---|
//! | before the call | `slow`, `switch`, `switch:NAME` | everyone |
//! | after it failed | `circuit` `timeout` `connect` `congestion` `5xx` `no-instance` `unavailable` `any` | everyone but `delay`: there is nothing left to delay |
//! | a limit refused | `limited`, `shed`, `any` | nobody who would call an upstream: refusing has to stay cheap |
//!
//! `unavailable` stands for `circuit`, `connect` and `no-instance`: nobody could be reached. `any`
//! stands for every failed call and every refusal, and never holds before a call, or no call would
//! ever be made.
//!
//! The list is asked once a call. It never recurses: a substitute has its own policy but no
//! fallback of its own, and a step that delays is followed by the call, not by another step.
//!
//! A step that defers answers with a receipt: the request is kept, and made later. What holds for a
//! queue of such requests is a [`DeferredPolicy`].

mod config;
mod deferred;

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::name::{PolicyName, ServiceName};
use mainstay_core::problem::Code;

use crate::Failure;

pub use config::{
    RawDefer, RawDelay, RawFail, RawFallback, RawSilent, RawStale, RawStep, RawSubstitute, RawValue,
};
pub use deferred::{DeferredPolicy, RawDeferred};

/// A fallback, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FallbackPolicy {
    steps: Vec<Step>,
}

/// One step of a fallback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    when: When,
    /// What it does.
    pub action: Action,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answers as if all were well (D1).
    Silent {
        /// Status of the HTTP answer, 200 to 299; 204 unless given.
        status: u16,
        /// Body of the HTTP answer; empty unless given.
        body: Arc<str>,
    },
    /// Answers with a value given in advance (D6).
    Value {
        /// Status of the HTTP answer, 200 to 599.
        status: u16,
        /// Its `Content-Type`.
        content_type: Arc<str>,
        /// Its body, at most 64 KiB.
        body: Arc<str>,
    },
    /// Answers with the last good answer (D6).
    Stale {
        /// The oldest that will do.
        max_age: Duration,
        /// Who shares a stored answer.
        key: StaleKey,
    },
    /// Asks another service (D6).
    Substitute {
        /// Which.
        service: ServiceName,
    },
    /// Holds the call, then sends it on (D3).
    Delay {
        /// For how long.
        span: Duration,
        /// How many calls may be held at once.
        queue_max: u32,
    },
    /// Takes the call on, to be made later, and answers with a receipt (D5).
    Defer {
        /// The queue it waits in.
        queue: PolicyName,
    },
    /// Answers with a problem (D4).
    Fail {
        /// Status of the HTTP answer, 400 to 599.
        status: u16,
        /// Which problem.
        code: Code,
    },
}

/// Who shares a stored answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StaleKey {
    /// Everybody who asks for the same thing; answers to calls with `Authorization` are not kept.
    #[default]
    Request,
    /// The same principal asking for the same thing.
    Principal,
}

/// When a fallback is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the call.
    Before {
        /// The route's slow rate is at or above the threshold of its circuit.
        slow: bool,
        /// The route's own switch is off. If no step answers, the call is refused with
        /// `switched-off`.
        switched_off: bool,
    },
    /// The call failed, retries included.
    After(Cause),
    /// A limit with `on_deny = "fallback"` refused for want of a permit.
    Limited,
    /// Concurrency or system protection refused.
    Shed,
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A circuit of the service or route was open.
    Circuit,
    /// No answer in time, by the attempt's timeout or the deadline.
    Timeout,
    /// No connection.
    Connect,
    /// The connection broke or stalled, or none was free.
    Congestion,
    /// A complete answer that the classifier judged failed.
    ServerError,
    /// Nobody to ask.
    NoInstance,
    /// Anything else; only `any` holds.
    Other,
}

impl FallbackPolicy {
    /// The steps, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The first step from `from` on that is to answer at `moment`, with its index.
    ///
    /// `is_on` tells whether the switch of a name is on; it is asked only before the call, and only
    /// for steps that name one. When the step cannot answer after all, ask again from its index
    /// plus one.
    pub fn choose(
        &self,
        moment: Moment,
        is_on: impl Fn(&PolicyName) -> bool,
        from: usize,
    ) -> Option<(usize, &Step)> {
        let mut rest = self.steps.iter().enumerate().skip(from);
        rest.find(|(_, step)| step.action.may_answer(moment) && step.when.holds(moment, &is_on))
    }

    /// The queues that steps defer to.
    pub fn queues(&self) -> impl Iterator<Item = &PolicyName> {
        self.steps.iter().filter_map(|step| match &step.action {
            Action::Defer { queue } => Some(queue),
            _ => None,
        })
    }

    /// The switches that steps are armed by.
    pub fn switches(&self) -> impl Iterator<Item = &PolicyName> {
        self.steps.iter().flat_map(|step| &step.when.switches)
    }

    /// Whether any step is armed by something that stands before the call: a list of which this is
    /// false need not be asked then, unless the route is switched off.
    pub fn looks_before(&self) -> bool {
        let armed = |when: &When| when.has(SLOW) || !when.switches.is_empty();
        self.steps.iter().any(|step| armed(&step.when))
    }
}

impl Step {
    /// Its conditions, as they are written in configuration.
    pub fn when(&self) -> Vec<String> {
        let words = config::WORDS.iter().filter(|(_, word)| self.when.has(*word));
        let switches = self.when.switches.iter().map(|name| format!("switch:{name}"));
        words.map(|(name, _)| (*name).to_owned()).chain(switches).collect()
    }
}

impl Action {
    /// The word for it in configuration, headers and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Silent { .. } => "silent",
            Self::Value { .. } => "value",
            Self::Stale { .. } => "stale",
            Self::Substitute { .. } => "substitute",
            Self::Delay { .. } => "delay",
            Self::Defer { .. } => "defer",
            Self::Fail { .. } => "fail",
        }
    }

    /// Whether an action of this kind can answer at `moment` at all: a refusal must not become a
    /// call to another service, nor a switch that is off a call that is merely late.
    const fn may_answer(&self, moment: Moment) -> bool {
        match self {
            Self::Silent { .. }
            | Self::Value { .. }
            | Self::Stale { .. }
            | Self::Defer { .. }
            | Self::Fail { .. } => true,
            Self::Substitute { .. } => !matches!(moment, Moment::Limited | Moment::Shed),
            Self::Delay { .. } => {
                !matches!(moment, Moment::After(_) | Moment::Before { switched_off: true, .. })
            }
        }
    }
}

impl Cause {
    /// Why a call failed whose last attempt ended in `failure`; `None` when there is nobody left to
    /// answer: the caller has gone, or has part of an answer already.
    pub const fn of(failure: Failure) -> Option<Self> {
        match failure {
            Failure::RequestTimeout
            | Failure::Overslept { connecting: false }
            | Failure::Deadline { .. } => Some(Self::Timeout),
            Failure::ConnectTimeout
            | Failure::Overslept { connecting: true }
            | Failure::ConnectFailed { .. } => Some(Self::Connect),
            Failure::Congestion(_) => Some(Self::Congestion),
            Failure::Unprocessed | Failure::Malformed => Some(Self::Other),
            Failure::Truncated | Failure::Cancelled => None,
        }
    }

    /// The word for it in configuration, headers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Circuit => "circuit",
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Congestion => "congestion",
            Self::ServerError => "5xx",
            Self::NoInstance => "no-instance",
            Self::Other => "other",
        }
    }
}

/// The conditions of a step; one that holds is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct When {
    words: u16,
    switches: Vec<PolicyName>,
}

impl When {
    fn holds(&self, moment: Moment, is_on: impl Fn(&PolicyName) -> bool) -> bool {
        let before = matches!(moment, Moment::Before { .. });
        self.has(words(moment)) || (before && self.switches.iter().any(is_on))
    }

    /// Whether one of `words` is among the conditions.
    const fn has(&self, words: u16) -> bool {
        self.words & words != 0
    }
}

/// The conditions that hold at `moment`, switches by name aside.
const fn words(moment: Moment) -> u16 {
    match moment {
        Moment::Before { slow, switched_off } => {
            (if slow { SLOW } else { 0 }) | (if switched_off { SWITCH } else { 0 })
        }
        Moment::After(Cause::Circuit) => CIRCUIT | UNAVAILABLE | ANY,
        Moment::After(Cause::Timeout) => TIMEOUT | ANY,
        Moment::After(Cause::Connect) => CONNECT | UNAVAILABLE | ANY,
        Moment::After(Cause::Congestion) => CONGESTION | ANY,
        Moment::After(Cause::ServerError) => SERVER_ERROR | ANY,
        Moment::After(Cause::NoInstance) => NO_INSTANCE | UNAVAILABLE | ANY,
        Moment::After(Cause::Other) => ANY,
        Moment::Limited => LIMITED | ANY,
        Moment::Shed => SHED | ANY,
    }
}

const CIRCUIT: u16 = 1;
const TIMEOUT: u16 = 1 << 1;
const CONNECT: u16 = 1 << 2;
const CONGESTION: u16 = 1 << 3;
const SERVER_ERROR: u16 = 1 << 4;
const NO_INSTANCE: u16 = 1 << 5;
const UNAVAILABLE: u16 = 1 << 6;
const ANY: u16 = 1 << 7;
const SLOW: u16 = 1 << 8;
const SWITCH: u16 = 1 << 9;
const LIMITED: u16 = 1 << 10;
const SHED: u16 = 1 << 11;

#[cfg(test)]
mod tests;
