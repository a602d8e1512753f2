//! The `[limit.N]` table as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Algorithm, Edge, Mode, OnDeny, Order};

/// A limit, `[limit.NAME]`, as written. A key that means nothing to the chosen `kind` is an error.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimit {
    /// Namespace it is kept under, 1 to 63 of `a-z`, `0-9`, `-`. It is named without it: two of
    /// one name cannot be. Default `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Which machine: `counter`, `sliding`, `bucket`, `pacing`, `warm_up`, `concurrency` or
    /// `adaptive`. Default `bucket`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<RawKind>,
    /// `enforce` refuses; `observe` works everything out, counts what it would refuse, and lets
    /// everything through. Default `enforce`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Units per window, or calls in flight for `concurrency`; at least 1. Required, except for
    /// `adaptive`, which learns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Length of the window in seconds, 0.01 to 3600. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<f64>,
    /// Units a full `bucket` holds, at least 1; refilling it must not take longer than a year.
    /// Default: `max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Units a call takes that says nothing else, from 1 to what the limit can hold. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<u32>,
    /// Parts of a `sliding` window, 1 to 10. Default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_windows: Option<u32>,
    /// How the oldest part of a `sliding` window counts: `weighted` by the share still inside, or
    /// `full`. Default `weighted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge: Option<Edge>,
    /// Longest wait in seconds, 0 to 3600, at most 10 windows for `counter`; 0 refuses at once.
    /// Default 0, for `pacing` and `warm_up` 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_max_seconds: Option<f64>,
    /// Most calls waiting at once, 0 to 65536. Default 0, for `pacing` and `warm_up` 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_max: Option<u32>,
    /// Who of those waiting for a permit goes first: `fifo` or `lifo`. Default `fifo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// Time in seconds a `warm_up` takes from cold to `max` under full load, 0.01 to 3600.
    /// Default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_up_seconds: Option<f64>,
    /// How many times longer a call takes at the start of a `warm_up`, 1.1 to 100. Default 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cold_factor: Option<f64>,
    /// How an `adaptive` limit learns: `gradient`, `vegas` or `aimd`. Default `gradient`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// The least an `adaptive` limit may become, in calls in flight; at least 1. Default 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<u32>,
    /// The most an `adaptive` limit may become, in calls in flight; at least `floor`. Default
    /// 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<u32>,
    /// What an `adaptive` limit is at first, in calls in flight; `floor` to `ceiling`. Default 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial: Option<u32>,
    /// How many times slower than the baseline an `adaptive` limit takes for unharmed, 1 to 10.
    /// Default 1.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
    /// Length of an `adaptive` limit's sample window in seconds, 0.01 to 60. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_seconds: Option<f64>,
    /// What there is one quota for each of: `client_address`, `principal`, `tenant`, `service`,
    /// `header:NAME`, `path:NAME`, `query:NAME`, `cookie:NAME`, joined when there are several.
    /// Default: none, one quota for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<String>>,
    /// Most keys remembered, 1 to 1048576, at 96 bytes or less each; the one nearest to untouched
    /// is forgotten for a new one. Default 65536.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys_max: Option<u32>,
    /// Other quotas for single keys, at most 4096. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overrides: Option<Vec<RawOverride>>,
    /// Whether answers carry `RateLimit-Policy` and `RateLimit`. Default: true with `key`, false
    /// without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<bool>,
    /// What becomes of a refused call: `fail` or `fallback`. Default `fail`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_deny: Option<OnDeny>,
    /// Switch whose value, in percent, scales `max` and `burst`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_switch: Option<String>,
}

/// The quota of one exact key, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawOverride {
    /// The value of each part of the limit's `key`, in the same order. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<String>>,
    /// Units per window, at least 1. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Units a full `bucket` holds, at least 1. Default: `max` of the same entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// The name of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawKind {
    /// So many units per aligned window.
    Counter,
    /// So many units in any window.
    Sliding,
    /// An even rate with room for a burst.
    #[default]
    Bucket,
    /// Evenly spaced calls.
    Pacing,
    /// Evenly spaced calls, sparser while the peer is cold.
    WarmUp,
    /// Calls in flight.
    Concurrency,
    /// Calls in flight, with a maximum that is learned.
    Adaptive,
}

impl RawKind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Sliding => "sliding",
            Self::Bucket => "bucket",
            Self::Pacing => "pacing",
            Self::WarmUp => "warm_up",
            Self::Concurrency => "concurrency",
            Self::Adaptive => "adaptive",
        }
    }

    pub(super) const fn is_paced(self) -> bool {
        matches!(self, Self::Pacing | Self::WarmUp)
    }

    pub(super) const fn counts_in_flight(self) -> bool {
        matches!(self, Self::Concurrency | Self::Adaptive)
    }
}
