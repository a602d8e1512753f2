//! A `retryPolicy` of a gRPC service config, as gRPC writes it.
//!
//! Source: gRFC A6, "Client Retries", and gRPC's own validation of it. The names are those of the
//! service config, so that an error names the field its author wrote.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Backoff, Jitter, RetryPolicy, Shape};
use crate::Invalid;
use crate::classify::{ResultSet, grpc_code};
use crate::deadline::digits;

/// `retryPolicy` of a gRPC service config. Every field must be given.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct RawGrpcRetry {
    /// Attempts in all, the first included: a whole number, at least 2; more than 5 becomes 5.
    pub max_attempts: Option<f64>,
    /// The first interval: decimal seconds and `s`, above 0 (`0.1s`).
    pub initial_backoff: Option<String>,
    /// The longest interval: decimal seconds and `s`, above 0 (`1s`).
    pub max_backoff: Option<String>,
    /// What an interval is multiplied with each time, above 0.
    pub backoff_multiplier: Option<f64>,
    /// Codes that are tried again, by number or by name in any case; at least one.
    pub retryable_status_codes: Option<Vec<RawCode>>,
}

/// A gRPC code: a number or a name.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RawCode {
    /// `14`
    Number(u32),
    /// `UNAVAILABLE`, in any case.
    Name(String),
}

impl TryFrom<RawGrpcRetry> for RetryPolicy {
    type Error = Invalid;

    /// Back-off is exponential with a jitter of 20 percent, as gRFC A6 has it; whatever a service
    /// config does not speak of is as by default.
    fn try_from(raw: RawGrpcRetry) -> Result<Self, Invalid> {
        Ok(Self {
            attempts: attempts(raw.max_attempts)?,
            retry_on: codes(raw.retryable_status_codes.as_deref().unwrap_or_default())?,
            backoff: Backoff {
                shape: Shape::Exponential,
                base: interval("initialBackoff", raw.initial_backoff.as_deref())?,
                multiplier: multiplier(raw.backoff_multiplier)?,
                max: interval("maxBackoff", raw.max_backoff.as_deref())?,
                jitter: Jitter::Percent(20.0),
            },
            ..Self::default()
        })
    }
}

fn attempts(written: Option<f64>) -> Result<NonZeroU32, Invalid> {
    let number = written.unwrap_or_default();
    let whole = 2.0 <= number && number.is_finite() && number.fract() == 0.0;
    // Counted upwards rather than cast, since what is wanted ends at five.
    let counted = (2..ATTEMPTS_MAX).find(|&n| number <= f64::from(n)).unwrap_or(ATTEMPTS_MAX);
    NonZeroU32::new(counted).filter(|_| whole).ok_or_else(|| {
        Invalid::range("maxAttempts", format!("must be a whole number from 2, found {number}"))
    })
}

fn multiplier(written: Option<f64>) -> Result<f64, Invalid> {
    let number = written.unwrap_or_default();
    if 0.0 < number && number.is_finite() {
        Ok(number)
    } else {
        Err(Invalid::range("backoffMultiplier", format!("must be above 0, found {number}")))
    }
}

fn interval(path: &str, written: Option<&str>) -> Result<Duration, Invalid> {
    let text = written.unwrap_or_default();
    duration(text).filter(|span| !span.is_zero()).ok_or_else(|| {
        Invalid::range(
            path,
            format!("must be seconds above 0 with an `s`, as `0.1s`, found {text:?}"),
        )
    })
}

/// A `google.protobuf.Duration` in its JSON form: seconds, up to nine decimals, `s`.
fn duration(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (seconds, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let seconds = digits(seconds.as_bytes(), 12)?;
    let nanos = digits(decimals.as_bytes(), 9)?;
    let nanos = (decimals.len()..9).fold(nanos, |nanos, _| nanos * 10);
    Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos)))
}

fn codes(written: &[RawCode]) -> Result<ResultSet, Invalid> {
    let mut set = ResultSet::EMPTY;
    for (index, code) in written.iter().enumerate() {
        let known = match code {
            RawCode::Number(number) => Some(*number).filter(|number| (1..=16).contains(number)),
            RawCode::Name(name) => grpc_code(name.trim()),
        };
        set = set.with_code(known.ok_or_else(|| {
            let path = format!("retryableStatusCodes[{index}]");
            Invalid::range(path, format!("must be a gRPC code other than OK, found {code:?}"))
        })?);
    }
    if set.is_empty() {
        return Err(Invalid::range("retryableStatusCodes", "must name at least one code"));
    }
    Ok(set)
}

const ATTEMPTS_MAX: u32 = 5;
