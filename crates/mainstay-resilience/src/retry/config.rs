//! The `retry` table as written, and what it means.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Backoff, HedgePolicy, Jitter, RetryPolicy, Shape};
use crate::Invalid;
use crate::budget::RawBudget;
use crate::classify::ResultSet;
use crate::invalid::{span, within};

/// `[upstream.N.retry]`: what is tried again, how often, and how patiently.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawRetry {
    /// Attempts in all, the first included. 1 to 5; default 3.
    pub attempts: Option<u32>,
    /// How long one attempt waits for a response head, in seconds. 0.001 to 3600; default: as long
    /// as is left until the deadline.
    pub try_seconds: Option<f64>,
    /// Results that are tried again: `connect`, `refused-stream`, `refused`, `congestion`,
    /// `timeout`, `5xx`, HTTP statuses, gRPC codes as `grpc:14` or `unavailable`. Default
    /// `["connect", "refused-stream", "refused", "congestion", "timeout", "502", "503", "504"]`.
    pub retry_on: Option<Vec<String>>,
    /// How long to wait before each retry.
    pub backoff: Option<RawBackoff>,
    /// The longest `Retry-After` that is waited for, in seconds; a longer one is passed on to the
    /// caller. 0 to 3600; default 10.
    pub retry_after_max_seconds: Option<f64>,
    /// The longest request body kept for another attempt, in bytes. 0 to 16777216; default 65536.
    pub replay_bytes_max: Option<u64>,
    /// How many retries all calls together may make.
    pub budget: Option<RawBudget>,
    /// Send another attempt before the first has ended. Off unless given.
    pub hedge: Option<RawHedge>,
}

/// `retry.backoff`: how long to wait before each retry.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawBackoff {
    /// How intervals grow: `constant`, `linear` or `exponential` (default).
    pub shape: Option<RawShape>,
    /// The first interval, in seconds. 0.001 to 60; default 0.025.
    pub base_seconds: Option<f64>,
    /// What an exponential interval is multiplied with each time. 1 to 100; default 2.
    pub multiplier: Option<f64>,
    /// The longest interval, in seconds, before jitter. 0.001 to 3600; default ten times
    /// `base_seconds`.
    pub max_seconds: Option<f64>,
    /// `full` (anything below the interval; default), `none`, or a number: the interval give or
    /// take so many percent, 0 to 100.
    pub jitter: Option<RawJitter>,
}

/// `backoff.shape`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawShape {
    /// The same interval each time.
    Constant,
    /// The n-th interval is n times the first.
    Linear,
    /// Each interval is the one before times `multiplier`.
    #[default]
    Exponential,
}

/// `backoff.jitter`: a word or a percentage.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RawJitter {
    /// Give or take so many percent.
    Percent(f64),
    /// `full` or `none`.
    Word(String),
}

/// `retry.hedge`: another attempt before the first has ended, for idempotent calls only.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawHedge {
    /// How long without a response head until one more attempt is sent, in seconds. 0.001 to 300.
    /// Must be given.
    pub after_seconds: Option<f64>,
    /// How many more than the first. 1 to 4; default 1.
    pub extra: Option<u32>,
    /// Results that leave the race to the others and start the next hedge at once, in the words of
    /// `retry_on`. Default: `retry_on`.
    pub non_fatal: Option<Vec<String>>,
}

impl TryFrom<RawRetry> for RetryPolicy {
    type Error = Invalid;

    fn try_from(raw: RawRetry) -> Result<Self, Invalid> {
        let default = Self::default();
        let retry_on = match &raw.retry_on {
            Some(words) => ResultSet::parse("retry_on", words)?,
            None => default.retry_on,
        };
        let retry_after_max = raw.retry_after_max_seconds.unwrap_or(10.0);
        let replay_bytes_max = raw.replay_bytes_max.unwrap_or(default.replay_bytes_max);
        Ok(Self {
            attempts: count("attempts", raw.attempts, default.attempts, 5)?,
            try_timeout: raw
                .try_seconds
                .map(|seconds| span("try_seconds", seconds, 0.001, 3_600.0))
                .transpose()?,
            retry_on,
            backoff: raw
                .backoff
                .unwrap_or_default()
                .try_into()
                .map_err(|e: Invalid| e.within("backoff"))?,
            retry_after_max: span("retry_after_max_seconds", retry_after_max, 0.0, 3_600.0)?,
            replay_bytes_max: within("replay_bytes_max", replay_bytes_max, 0, REPLAY_BYTES_MAX)?,
            budget: raw
                .budget
                .unwrap_or_default()
                .try_into()
                .map_err(|e: Invalid| e.within("budget"))?,
            hedge: raw
                .hedge
                .map(|hedge| hedge.resolve(retry_on).map_err(|e| e.within("hedge")))
                .transpose()?,
        })
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: NonZeroU32::MIN.saturating_add(2),
            try_timeout: None,
            retry_on: ResultSet::RETRY_ON,
            backoff: Backoff::default(),
            retry_after_max: std::time::Duration::from_secs(10),
            replay_bytes_max: 64 * 1024,
            budget: crate::budget::BudgetPolicy::default(),
            hedge: None,
        }
    }
}

impl TryFrom<RawBackoff> for Backoff {
    type Error = Invalid;

    fn try_from(raw: RawBackoff) -> Result<Self, Invalid> {
        let base = span("base_seconds", raw.base_seconds.unwrap_or(0.025), 0.001, 60.0)?;
        let jitter = match raw.jitter {
            None => Jitter::Full,
            Some(RawJitter::Percent(percent)) => {
                Jitter::Percent(within("jitter", percent, 0.0, 100.0)?)
            }
            Some(RawJitter::Word(word)) => match word.trim() {
                "full" => Jitter::Full,
                "none" => Jitter::None,
                _ => {
                    let expected = "must be `full`, `none` or a percentage from 0 to 100";
                    return Err(Invalid::range("jitter", format!("{expected}, found {word:?}")));
                }
            },
        };
        Ok(Self {
            shape: match raw.shape.unwrap_or_default() {
                RawShape::Constant => Shape::Constant,
                RawShape::Linear => Shape::Linear,
                RawShape::Exponential => Shape::Exponential,
            },
            base,
            multiplier: within("multiplier", raw.multiplier.unwrap_or(2.0), 1.0, 100.0)?,
            max: match raw.max_seconds {
                Some(seconds) => span("max_seconds", seconds, 0.001, 3_600.0)?,
                None => base * 10,
            },
            jitter,
        })
    }
}

impl RawHedge {
    fn resolve(self, retry_on: ResultSet) -> Result<HedgePolicy, Invalid> {
        let after = self.after_seconds.ok_or_else(|| {
            Invalid::range("after_seconds", "must be given: how long to wait for the first attempt")
        })?;
        Ok(HedgePolicy {
            after: span("after_seconds", after, 0.001, 300.0)?,
            extra: count("extra", self.extra, NonZeroU32::MIN, 4)?,
            non_fatal: match &self.non_fatal {
                Some(words) => ResultSet::parse("non_fatal", words)?,
                None => retry_on,
            },
        })
    }
}

/// A count from 1 to `max`.
fn count(
    path: &str,
    written: Option<u32>,
    default: NonZeroU32,
    max: u32,
) -> Result<NonZeroU32, Invalid> {
    let Some(number) = written else { return Ok(default) };
    NonZeroU32::new(number)
        .filter(|number| number.get() <= max)
        .ok_or_else(|| Invalid::range(path, format!("must be 1 to {max}, found {number}")))
}

/// Kept per call that may be retried: 128 calls in flight hold 2 GiB at most, and whoever writes so
/// large a figure should have to think of that.
const REPLAY_BYTES_MAX: u64 = 16 * 1024 * 1024;
