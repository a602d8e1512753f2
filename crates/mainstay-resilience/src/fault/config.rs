//! A fault as asked for: `POST /api/v1/faults`, `mainstay fault set`.

use std::num::NonZeroU64;

use mainstay_core::problem::Code;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{FaultKind, FaultMatch, FaultPolicy};
use crate::Invalid;
use crate::classify::Answer;
use crate::invalid::{span, within};

/// A fault as asked for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawFault {
    /// Whom it is for. Every condition given must hold; at least one must be given.
    #[serde(rename = "match")]
    pub matches: Option<RawMatch>,
    /// Share of the attempts matched. 0.0001 to 100 percent; default 100.
    pub percent: Option<f64>,
    /// What is done to them. Must be given.
    pub fault: Option<RawFaultKind>,
    /// How long it lasts, in seconds; also read as `ttl`. 1 to 3600; default 60.
    #[serde(alias = "ttl")]
    pub ttl_seconds: Option<f64>,
    /// Why. 1 to 512 bytes; must be given.
    pub reason: Option<String>,
}

/// `match`: whom a fault is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawMatch {
    /// Calls that came by this route.
    pub route: Option<String>,
    /// Calls to this service.
    pub service: Option<String>,
    /// Attempts on this instance.
    pub instance: Option<String>,
    /// Calls with this request header.
    pub header: Option<RawHeaderMatch>,
}

/// `match.header`: a request header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawHeaderMatch {
    /// Its name, in any case. Must be given.
    pub name: Option<String>,
    /// Its whole value; any, unless given.
    pub value: Option<String>,
}

/// `fault`: what is done to an attempt. A kind without fields is written as a word.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawFaultKind {
    /// It is held back, then sent.
    Delay(RawDelay),
    /// It is answered at once, and never sent.
    Abort(RawAbort),
    /// Its connection is reset before a response head.
    Reset,
    /// It is never answered.
    Blackhole,
    /// Its response body trickles.
    SlowBody(RawSlowBody),
    /// No connection comes up in time.
    ConnectTimeout,
    /// Its response breaks off.
    Truncate(RawTruncate),
}

/// `fault.delay`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawDelay {
    /// For how long, in seconds. 0.001 to 300. Must be given.
    pub seconds: Option<f64>,
    /// Give or take so many percent. 0 to 100; default 0.
    pub jitter: Option<f64>,
}

/// `fault.abort`: exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawAbort {
    /// HTTP status. 200 to 599.
    pub status: Option<u16>,
    /// gRPC code. 1 to 16.
    pub grpc: Option<u32>,
}

/// `fault.slow_body`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawSlowBody {
    /// How fast, in bytes a second, at least 1. Must be given.
    pub bytes_per_second: Option<u64>,
}

/// `fault.truncate`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawTruncate {
    /// After so many bytes of the body; default 0, right after the head.
    pub after_bytes: Option<u64>,
}

impl TryFrom<RawFault> for FaultPolicy {
    type Error = Invalid;

    fn try_from(raw: RawFault) -> Result<Self, Invalid> {
        let percent = within("percent", raw.percent.unwrap_or(100.0), 0.000_1, 100.0)?;
        let kind = raw.fault.ok_or_else(|| Invalid::range("fault", KINDS))?;
        let reason = raw.reason.unwrap_or_default().trim().to_owned();
        if reason.is_empty() || REASON_BYTES_MAX < reason.len() {
            return Err(Invalid {
                path: "reason".to_owned(),
                code: Code::ReasonRequired,
                problem: format!("must be 1 to {REASON_BYTES_MAX} bytes, found {}", reason.len()),
            });
        }
        Ok(Self {
            matches: raw.matches.unwrap_or_default().resolve().map_err(|e| e.within("match"))?,
            share_millionths: millionths(percent),
            kind: kind.resolve().map_err(|e| e.within("fault"))?,
            ttl: span("ttl_seconds", raw.ttl_seconds.unwrap_or(60.0), 1.0, 3_600.0)?,
            reason,
        })
    }
}

impl RawMatch {
    fn resolve(self) -> Result<FaultMatch, Invalid> {
        let Self { route, service, instance, header } = self;
        let header = header
            .map(|header| match header.name.filter(|name| !name.is_empty()) {
                Some(name) => Ok((name.to_ascii_lowercase(), header.value)),
                None => Err(Invalid::range("header.name", "must be given")),
            })
            .transpose()?;
        let matches = FaultMatch { route, service, instance, header };
        if matches == FaultMatch::default() {
            let problem = "must be given: a fault for everybody is an outage";
            return Err(Invalid::contradiction("service", problem));
        }
        Ok(matches)
    }
}

impl RawFaultKind {
    fn resolve(self) -> Result<FaultKind, Invalid> {
        let missing = |path: &str| Invalid::range(path, "must be given");
        Ok(match self {
            Self::Delay(RawDelay { seconds, jitter }) => FaultKind::Delay {
                span: span(
                    "delay.seconds",
                    seconds.ok_or_else(|| missing("delay.seconds"))?,
                    0.001,
                    300.0,
                )?,
                jitter_percent: within("delay.jitter", jitter.unwrap_or(0.0), 0.0, 100.0)?,
            },
            Self::Abort(RawAbort { status: Some(status), grpc: None }) => {
                FaultKind::Abort(Answer::Http(within("abort.status", status, 200, 599)?))
            }
            Self::Abort(RawAbort { status: None, grpc: Some(code) }) => {
                FaultKind::Abort(Answer::Grpc(within("abort.grpc", code, 1, 16)?))
            }
            Self::Abort(_) => {
                let problem = "must name exactly one of `status` and `grpc`";
                return Err(Invalid::contradiction("abort", problem));
            }
            Self::Reset => FaultKind::Reset,
            Self::Blackhole => FaultKind::Blackhole,
            Self::SlowBody(RawSlowBody { bytes_per_second }) => FaultKind::SlowBody {
                bytes_per_second: bytes_per_second.and_then(NonZeroU64::new).ok_or_else(|| {
                    let problem = "must be at least 1; to send nothing at all use `blackhole`";
                    Invalid::range("slow_body.bytes_per_second", problem)
                })?,
            },
            Self::ConnectTimeout => FaultKind::ConnectTimeout,
            Self::Truncate(RawTruncate { after_bytes }) => {
                FaultKind::Truncate { after_bytes: after_bytes.unwrap_or_default() }
            }
        })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a percentage from 0.0001 to 100 is 1 to 1,000,000 millionths"
)]
fn millionths(percent: f64) -> u32 {
    (percent * 10_000.0).round() as u32
}

const KINDS: &str = "must be `delay`, `abort`, `reset`, `blackhole`, `slow_body`, \
    `connect_timeout` or `truncate`";
const REASON_BYTES_MAX: usize = 512;
