//! The `[limit.N]` table: as written, and as meant.

mod raw;
mod resolve;

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decision::Cost;
use crate::key::KeyPart;

pub use crate::adaptive::Algorithm;
pub use raw::{RawKind, RawLimit, RawOverride};

/// A limit. Needs no further check.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitPolicy {
    /// Which machine, with its figures.
    pub kind: Kind,
    /// Whether it refuses or only counts.
    pub mode: Mode,
    /// Units a call takes that says nothing else.
    pub cost: Cost,
    /// What there is one quota for each of; empty for one quota for all.
    ///
    /// Whoever knows the call joins the parts' values and hashes them; a part the call does not
    /// have counts as empty, so that calls without it share one quota instead of having none.
    pub key: Vec<KeyPart>,
    /// Most keys remembered.
    pub keys_max: NonZeroU32,
    /// Other quotas for single keys, each key once.
    pub overrides: Vec<Override>,
    /// Whether answers carry `RateLimit-Policy` and `RateLimit`.
    pub headers: bool,
    /// What becomes of a refused call.
    pub on_deny: OnDeny,
    /// Switch whose value, in percent, scales the quota.
    pub scale_switch: Option<String>,
}

/// Another quota for one exact key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The value of each part of the key, in the order of the parts.
    pub key: Vec<String>,
    /// Units per window.
    pub max: NonZeroU32,
    /// Units a bucket holds; other kinds do not look at it.
    pub burst: NonZeroU32,
}

/// Which machine a limit is, with its figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// So many units per aligned window.
    Counter {
        /// Units per window.
        quota: Quota,
        /// Longest wait for one of the following windows.
        wait_max: Duration,
    },
    /// So many units in any window.
    Sliding {
        /// Units per window.
        quota: Quota,
        /// Parts of the window.
        sub_windows: u32,
        /// How the oldest part counts.
        edge: Edge,
    },
    /// An even rate with room for a burst.
    Bucket {
        /// Units per window, refilled evenly.
        quota: Quota,
        /// Units a full bucket holds.
        burst: NonZeroU32,
    },
    /// Evenly spaced calls.
    Pacing {
        /// Units per window, evenly spaced.
        quota: Quota,
        /// Who may wait for a slot.
        waiting: Waiting,
    },
    /// Evenly spaced calls, sparser while the peer is cold.
    WarmUp {
        /// Units per window once warm.
        quota: Quota,
        /// Who may wait for a slot.
        waiting: Waiting,
        /// Time from cold to warm under full load.
        warm_up: Duration,
        /// How many times longer a call takes at first; above 1.
        cold_factor: f64,
    },
    /// Calls in flight.
    Concurrency {
        /// Most calls in flight.
        max: NonZeroU32,
        /// Who may wait for a permit.
        waiting: Waiting,
        /// Who of those waiting goes first.
        order: Order,
    },
    /// Calls in flight, with a maximum that is learned (see [`crate::adaptive`]).
    Adaptive {
        /// How it is learned.
        algorithm: Algorithm,
        /// The least it may become.
        floor: NonZeroU32,
        /// The most it may become.
        ceiling: NonZeroU32,
        /// What it is at first.
        initial: NonZeroU32,
        /// How many times slower than the baseline counts as unharmed.
        tolerance: f64,
        /// Length of one sample window.
        sample: Duration,
        /// Who may wait for a permit.
        waiting: Waiting,
        /// Who of those waiting goes first.
        order: Order,
    },
}

impl Kind {
    /// The quota of a time-based kind; `None` where calls in flight are counted.
    pub const fn quota(&self) -> Option<Quota> {
        match *self {
            Self::Counter { quota, .. }
            | Self::Sliding { quota, .. }
            | Self::Bucket { quota, .. }
            | Self::Pacing { quota, .. }
            | Self::WarmUp { quota, .. } => Some(quota),
            Self::Concurrency { .. } | Self::Adaptive { .. } => None,
        }
    }

    /// The same kind with `percent` of its quota and burst, rounded down, each at least 1. The
    /// bounds of an adaptive limit are not a quota and stay.
    #[must_use]
    pub fn scaled(mut self, percent: u32) -> Self {
        let share = |value: NonZeroU32| {
            let part = u64::from(value.get()) * u64::from(percent) / 100;
            let part = u32::try_from(part).unwrap_or(u32::MAX);
            NonZeroU32::new(part).unwrap_or(NonZeroU32::MIN)
        };
        match &mut self {
            Self::Bucket { quota, burst } => {
                quota.max = share(quota.max);
                *burst = share(*burst);
            }
            Self::Counter { quota, .. }
            | Self::Sliding { quota, .. }
            | Self::Pacing { quota, .. }
            | Self::WarmUp { quota, .. } => quota.max = share(quota.max),
            Self::Concurrency { max, .. } => *max = share(*max),
            Self::Adaptive { .. } => (),
        }
        self
    }

    /// The same kind with the quota of `other`.
    #[must_use]
    pub(super) fn overridden(mut self, other: &Override) -> Self {
        match &mut self {
            Self::Bucket { quota, burst } => {
                quota.max = other.max;
                *burst = other.burst;
            }
            Self::Counter { quota, .. }
            | Self::Sliding { quota, .. }
            | Self::Pacing { quota, .. }
            | Self::WarmUp { quota, .. } => quota.max = other.max,
            Self::Concurrency { .. } | Self::Adaptive { .. } => (),
        }
        self
    }
}

/// Units allowed per window. Zero cannot be expressed: a closed door is a switch, not a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Units.
    pub max: NonZeroU32,
    /// Window, 10 ms to 1 h.
    pub window: Duration,
}

/// Who may wait instead of being refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Longest wait; zero when nobody waits.
    pub wait_max: Duration,
    /// Most calls waiting at once.
    pub queue_max: u32,
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(
                Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema,
            )]
            #[serde(rename_all = "snake_case")]
            pub enum $name {
                $($(#[$variant_doc])* $variant,)*
            }
        )*
    };
}

words! {
    /// Whether a limit refuses.
    Mode {
        /// It does.
        #[default]
        Enforce,
        /// Everything is worked out and counted, nothing is refused.
        Observe,
    }

    /// What becomes of a refused call.
    OnDeny {
        /// It is answered with the refusal.
        #[default]
        Fail,
        /// The route's fallback answers.
        Fallback,
    }

    /// How the oldest, partly outside sub-window of a sliding window counts.
    Edge {
        /// By the share of it that is inside.
        #[default]
        Weighted,
        /// Whole.
        Full,
    }

    /// Who of those waiting for a permit goes first.
    Order {
        /// Who came first.
        #[default]
        Fifo,
        /// Who came last: under overload some are served in time instead of all too late.
        Lifo,
    }
}
