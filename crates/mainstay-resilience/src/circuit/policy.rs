//! What a circuit is told: the `[circuit.N]` table as written, and what it means.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod raw;

pub use self::raw::RawCircuit;

/// A `[circuit.N]` table, resolved. Zero turns a condition off.
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitPolicy {
    /// What one circuit guards.
    pub scope: Scope,
    /// Whether it refuses at all.
    pub enforcement: Enforcement,
    /// Whether thresholds fire when reached or when passed.
    pub compare: Compare,
    /// What the circuit remembers.
    pub window: WindowShape,
    /// Calls below which no rate is judged, at least 1.
    pub min_calls: u32,
    /// Failed share that trips.
    pub failure_rate: Share,
    /// Latency that makes a call slow.
    pub slow_call: Option<Duration>,
    /// Slow share that trips.
    pub slow_rate: Share,
    /// Run of failures that trips.
    pub consecutive_failures: u32,
    /// Failures in the window that trip.
    pub failures: u32,
    /// Failures that trip a sub-window.
    pub sub_window_failures: u32,
    /// Tripped sub-windows that trip the circuit.
    pub sub_windows_tripped: u32,
    /// Calls in an ended sub-window that trip when all timed out.
    pub unavailable_calls: u32,
    /// First cooldown.
    pub cooldown: Duration,
    /// Growth of the cooldown, at least 1.
    pub cooldown_multiplier: f64,
    /// Longest cooldown before jitter.
    pub cooldown_max: Duration,
    /// Jitter of the cooldown, up and down.
    pub cooldown_jitter: Share,
    /// Permits while half-open, at least 1.
    pub probes: u32,
    /// How probes are judged.
    pub probe_rule: ProbeRule,
    /// How long a probe holds its place.
    pub probe_lease: Duration,
    /// Longest time half-open.
    pub half_open_max: Duration,
    /// Percent let through in each step of the ramp, 1 to 100.
    pub ramp: Box<[u8]>,
    /// Shortest time of a step.
    pub ramp_step: Duration,
    /// Switch that sets the mode.
    pub mode_switch: Option<Box<str>>,
}

impl Default for CircuitPolicy {
    fn default() -> Self {
        Self::try_from(RawCircuit::default()).expect("every default lies in its range")
    }
}

/// What one circuit guards.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One instance; asked by the balancer, which then takes another.
    #[default]
    Instance,
    /// A service as a whole.
    Service,
    /// A route.
    Route,
}

/// Whether a policy refuses or only tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// Refuses.
    #[default]
    Enforce,
    /// Computes everything, refuses nothing.
    Observe,
}

/// When a threshold fires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compare {
    /// When it is reached.
    #[default]
    AtLeast,
    /// When it is passed; a rate of 100 percent, which nothing passes, when it is reached.
    Above,
}

/// What a window is measured in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WindowKind {
    /// Seconds.
    #[default]
    Time,
    /// Calls.
    Count,
}

/// Which tripped sub-windows open a circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubWindowPolicy {
    /// None.
    #[default]
    Off,
    /// One.
    Any,
    /// `sub_window_k` of all.
    KOfN,
}

/// How probes are judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeRule {
    /// Together, by their failure and slow rate, when all are in.
    #[default]
    Rate,
    /// The first bad one opens the circuit; all good ones pass.
    All,
}

/// The shape of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowShape {
    /// A [`TimeWindow`](crate::window::TimeWindow).
    Time {
        /// Length, 0.1 s to 1 h.
        length: Duration,
        /// Parts, 1 to 100.
        sub_windows: usize,
    },
    /// A [`CountWindow`](crate::window::CountWindow).
    Count {
        /// Results, a multiple of the parts.
        calls: usize,
        /// Parts, 1 to 100.
        sub_windows: usize,
    },
}

/// A share of a whole in hundredths of a percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

impl Share {
    /// Half of the whole.
    pub const HALF: Self = Self(5_000);

    /// The share as written, rounded to a hundredth of a percent; within 0 to 100.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    pub fn from_percent(percent: f64) -> Self {
        Self((percent.clamp(0.0, 100.0) * 100.0).round() as u32)
    }

    /// In percent.
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// In hundredths of a percent, 0 to 10,000.
    pub const fn basis_points(self) -> u32 {
        self.0
    }

    /// Whether it turns its condition off.
    pub const fn is_off(self) -> bool {
        self.0 == 0
    }
}
