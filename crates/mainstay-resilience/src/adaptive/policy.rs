//! What an adaptive limit is told.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::invalid::{Invalid, span, within};

/// The keys of a `[limit.N]` table that concern an adaptive limit, as written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawAdaptive {
    /// `gradient`, `vegas` or `aimd`. Default `gradient`.
    pub algorithm: Option<Algorithm>,
    /// Least calls in flight, 1 to 1000000. Default 5.
    pub floor: Option<u32>,
    /// Most calls in flight, `floor` to 1000000. Default 1000.
    pub ceiling: Option<u32>,
    /// Calls in flight to begin with, `floor` to `ceiling`. Default 20, or the nearer bound.
    pub initial: Option<u32>,
    /// Factor by which latency may exceed that of an idle peer before `gradient` shrinks the
    /// limit, 1 to 10. Default 1.5.
    pub tolerance: Option<f64>,
    /// Shortest sample window in seconds, 0.01 to 60; it also takes ten samples. Default 1.
    pub sample_seconds: Option<f64>,
    /// Median latency in seconds above which `aimd` shrinks the limit, 0.001 to 3600. Default:
    /// only lost calls do.
    pub timeout_seconds: Option<f64>,
}

/// An adaptive limit, resolved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptivePolicy {
    /// Law of growth.
    pub algorithm: Algorithm,
    /// Least calls in flight, at least 1.
    pub floor: u32,
    /// Most calls in flight.
    pub ceiling: u32,
    /// Calls in flight to begin with.
    pub initial: u32,
    /// Factor at least 1, for `gradient`.
    pub tolerance: f64,
    /// Shortest sample window.
    pub sample: Duration,
    /// Latency that `aimd` takes for a loss.
    pub timeout: Option<Duration>,
    /// Bounds of `vegas`; not in the configuration, since the defaults follow the limit.
    pub vegas: VegasBounds,
}

/// Law of growth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// By the ratio of latencies.
    #[default]
    Gradient,
    /// By the estimated queue.
    Vegas,
    /// By losses.
    Aimd,
}

/// What `vegas` holds the queue between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VegasBounds {
    /// Queue, in calls, below which the limit grows; by default 3·log10 of the limit.
    pub alpha: Option<u32>,
    /// Queue above which it shrinks; by default 6·log10.
    pub beta: Option<u32>,
    /// How it shrinks.
    pub decrease: Decrease,
    /// Share of the way to the new limit that is gone in each window; 0 to 1.
    pub smoothing: f64,
}

impl Default for VegasBounds {
    fn default() -> Self {
        Self { alpha: None, beta: None, decrease: Decrease::Log10, smoothing: 1.0 }
    }
}

/// How `vegas` shrinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decrease {
    /// By log10 of the limit.
    #[default]
    Log10,
    /// To a half.
    Halve,
}

impl Default for AdaptivePolicy {
    fn default() -> Self {
        Self::try_from(RawAdaptive::default()).expect("every default lies in its range")
    }
}

impl TryFrom<RawAdaptive> for AdaptivePolicy {
    type Error = Invalid;

    fn try_from(raw: RawAdaptive) -> Result<Self, Invalid> {
        let floor = within("floor", raw.floor.unwrap_or(5), 1, LIMIT_MAX)?;
        let ceiling = raw.ceiling.unwrap_or_else(|| floor.max(1_000));
        let ceiling = within("ceiling", ceiling, floor, LIMIT_MAX)?;
        let initial = raw.initial.unwrap_or_else(|| 20.clamp(floor, ceiling));
        let timeout = raw.timeout_seconds;
        Ok(Self {
            algorithm: raw.algorithm.unwrap_or_default(),
            floor,
            ceiling,
            initial: within("initial", initial, floor, ceiling)?,
            tolerance: within("tolerance", raw.tolerance.unwrap_or(1.5), 1.0, 10.0)?,
            sample: span("sample_seconds", raw.sample_seconds.unwrap_or(1.0), 0.01, 60.0)?,
            timeout: timeout.map(|s| span("timeout_seconds", s, 0.001, 3600.0)).transpose()?,
            vegas: VegasBounds::default(),
        })
    }
}

/// More calls in flight than one process can hold sockets for.
const LIMIT_MAX: u32 = 1_000_000;
