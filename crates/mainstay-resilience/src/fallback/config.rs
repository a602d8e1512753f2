//! The `[fallback.N]` table as written, and what it means.

use std::sync::Arc;

use mainstay_core::name::{PolicyName, ServiceName};
use mainstay_core::problem::Code;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    ANY, Action, CIRCUIT, CONGESTION, CONNECT, FallbackPolicy, LIMITED, NO_INSTANCE, SERVER_ERROR,
    SHED, SLOW, SWITCH, StaleKey, Step, TIMEOUT, UNAVAILABLE, When,
};
use crate::Invalid;
use crate::invalid::{namespace, span, within};

/// `[fallback.N]`: what to answer when the real answer cannot be had.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawFallback {
    /// Namespace it is kept under, 1 to 63 of `a-z`, `0-9`, `-`. It is named without it: two of
    /// one name cannot be. Default `default`.
    pub namespace: Option<String>,
    /// 1 to 16 steps; the first that holds and can answer, answers. Must be given.
    pub steps: Option<Vec<RawStep>>,
}

/// One of `steps`: `when`, and exactly one of the other keys.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawStep {
    /// Conditions, of which one is enough. After a failed call: `circuit`, `timeout`, `connect`,
    /// `congestion`, `5xx`, `no-instance`, `unavailable` (no connection, no instance, or circuit
    /// open), `any`. Before the call: `slow`, `switch` (the route's is off), `switch:NAME` (that
    /// one is on). Refused by a limit: `limited`, `shed`, `any`. Must be given.
    pub when: Option<Vec<String>>,
    /// Answer as if all were well.
    pub silent: Option<RawSilent>,
    /// Answer with a value given here.
    pub value: Option<RawValue>,
    /// Answer with the last good answer.
    pub stale: Option<RawStale>,
    /// Ask another service.
    pub substitute: Option<RawSubstitute>,
    /// Hold the call, then send it on. Not for conditions that hold only after a failed call.
    pub delay: Option<RawDelay>,
    /// Answer with a problem.
    pub fail: Option<RawFail>,
    /// Take the call on, make it later, and answer with a receipt. Answers only where the
    /// coordinator of transactions runs beside the gateway.
    pub defer: Option<RawDefer>,
}

/// `silent`: an answer that says all is well, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawSilent {
    /// HTTP status. 200 to 299; default 204.
    pub status: Option<u16>,
    /// Body, at most 65536 bytes; empty unless given. A status of 204 or 205 has none.
    pub body: Option<String>,
}

/// `value`: an answer given in advance.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawValue {
    /// HTTP status. 200 to 599; default 200.
    pub status: Option<u16>,
    /// `Content-Type` of the body. 1 to 256 printable ASCII characters; default
    /// `text/plain; charset=utf-8`.
    pub content_type: Option<String>,
    /// Body, at most 65536 bytes. Must be given.
    pub body: Option<String>,
}

/// `stale`: the last good answer to the same call.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawStale {
    /// The oldest answer that will do, in seconds. 1 to 86400; default 300.
    pub max_age_seconds: Option<f64>,
    /// Who shares a stored answer: `request` (default; calls with `Authorization` are not stored)
    /// or `principal`.
    pub key: Option<String>,
}

/// `substitute`: another service that can do.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawSubstitute {
    /// Its name. Must be given.
    pub service: Option<String>,
}

/// `delay`: later rather than never.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawDelay {
    /// How long a call is held, in seconds. 0.001 to 60; default 1.
    pub seconds: Option<f64>,
    /// How many calls may be held at once. 1 to 65536; default 1024.
    pub queue_max: Option<u32>,
}

/// `fail`: a problem document.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawFail {
    /// HTTP status. 400 to 599; default that of the code, which is 503 for `degraded`.
    pub status: Option<u16>,
    /// Problem code: `degraded` (default), `limited`, `shed`, `circuit-open`, `no-instance` or
    /// `switched-off`.
    pub code: Option<String>,
}

/// `defer`: later, and at least once.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawDefer {
    /// Name of the queue; `[deferred.NAME]` says what holds for it, if the defaults do not. Must be
    /// given.
    pub queue: Option<String>,
}

impl TryFrom<RawFallback> for FallbackPolicy {
    type Error = Invalid;

    fn try_from(raw: RawFallback) -> Result<Self, Invalid> {
        namespace(raw.namespace.as_deref())?;
        let steps = raw.steps.unwrap_or_default();
        if steps.is_empty() || STEPS_MAX < steps.len() {
            let problem = format!("must hold 1 to {STEPS_MAX} steps, found {}", steps.len());
            return Err(Invalid::range("steps", problem));
        }
        let resolve = |(index, step): (usize, RawStep)| {
            Step::try_from(step).map_err(|e| e.within(&format!("steps[{index}]")))
        };
        Ok(Self { steps: steps.into_iter().enumerate().map(resolve).collect::<Result<_, _>>()? })
    }
}

impl TryFrom<RawStep> for Step {
    type Error = Invalid;

    fn try_from(raw: RawStep) -> Result<Self, Invalid> {
        let when = When::parse(raw.when.as_deref().unwrap_or_default())?;
        let given = [
            raw.silent.map(|it| it.resolve().map_err(|e| e.within("silent"))),
            raw.value.map(|it| it.resolve().map_err(|e| e.within("value"))),
            raw.stale.map(|it| it.resolve().map_err(|e| e.within("stale"))),
            raw.substitute.map(|it| it.resolve().map_err(|e| e.within("substitute"))),
            raw.delay.map(|it| it.resolve().map_err(|e| e.within("delay"))),
            raw.defer.map(|it| it.resolve().map_err(|e| e.within("defer"))),
            raw.fail.map(|it| it.resolve().map_err(|e| e.within("fail"))),
        ];
        let mut given = given.into_iter().flatten();
        let (Some(action), None) = (given.next(), given.next()) else {
            return Err(Invalid::contradiction("when", ONE_ACTION));
        };
        let action = action?;
        when.suits(&action)?;
        Ok(Self { when, action })
    }
}

impl When {
    fn parse(conditions: &[String]) -> Result<Self, Invalid> {
        let mut when = Self::default();
        for (index, text) in conditions.iter().enumerate() {
            let text = text.trim();
            let switch = text.strip_prefix("switch:").map(PolicyName::new);
            if let Some(Ok(name)) = switch {
                when.switches.push(name);
            } else if let Some((_, word)) = WORDS.iter().find(|(name, _)| *name == text) {
                when.words |= word;
            } else {
                let path = format!("when[{index}]");
                return Err(Invalid::range(path, format!("{CONDITIONS}, found {text:?}")));
            }
        }
        if when == Self::default() {
            return Err(Invalid::range("when", "must name at least one condition"));
        }
        Ok(when)
    }

    /// A step whose conditions hold only where it cannot answer would lie there for ever, looking
    /// like protection.
    fn suits(&self, action: &Action) -> Result<(), Invalid> {
        let (words, problem) = match action {
            Action::Delay { .. } => (
                SLOW | LIMITED | SHED | ANY,
                "`delay` needs `slow`, `switch:NAME`, `limited`, `shed` or `any`: after a failed \
                    call, or on a route that is off, there is nothing to delay",
            ),
            Action::Substitute { .. } => (
                !(LIMITED | SHED),
                "a call refused by a limit is not sent to another service: `substitute` needs a \
                    condition other than `limited` and `shed`",
            ),
            _ => return Ok(()),
        };
        if self.has(words) || !self.switches.is_empty() {
            Ok(())
        } else {
            Err(Invalid::contradiction("when", problem))
        }
    }
}

impl RawSilent {
    fn resolve(self) -> Result<Action, Invalid> {
        let status = within("status", self.status.unwrap_or(204), 200, 299)?;
        let body = body(status, self.body.unwrap_or_default())?;
        Ok(Action::Silent { status, body })
    }
}

impl RawValue {
    fn resolve(self) -> Result<Action, Invalid> {
        let status = within("status", self.status.unwrap_or(200), 200, 599)?;
        let written = self.body.ok_or_else(|| {
            Invalid::range("body", "must be given; to answer without one use `silent`")
        })?;
        let content_type =
            self.content_type.unwrap_or_else(|| "text/plain; charset=utf-8".to_owned());
        let printable = content_type.bytes().all(|b| matches!(b, b' '..=b'~'));
        if content_type.trim().is_empty() || CONTENT_TYPE_MAX < content_type.len() || !printable {
            let problem = format!("must be 1 to {CONTENT_TYPE_MAX} printable ASCII characters");
            return Err(Invalid::range("content_type", problem));
        }
        Ok(Action::Value {
            status,
            content_type: Arc::from(content_type.trim()),
            body: body(status, written)?,
        })
    }
}

impl RawStale {
    fn resolve(self) -> Result<Action, Invalid> {
        let max_age = self.max_age_seconds.unwrap_or(300.0);
        let key = match self.key.as_deref() {
            None | Some("request") => StaleKey::Request,
            Some("principal") => StaleKey::Principal,
            Some(other) => {
                let problem = format!("must be `request` or `principal`, found {other:?}");
                return Err(Invalid::range("key", problem));
            }
        };
        Ok(Action::Stale { max_age: span("max_age_seconds", max_age, 1.0, 86_400.0)?, key })
    }
}

impl RawSubstitute {
    fn resolve(self) -> Result<Action, Invalid> {
        let name = self.service.unwrap_or_default();
        let service =
            ServiceName::new(&name).map_err(|e| Invalid::range("service", e.to_string()))?;
        Ok(Action::Substitute { service })
    }
}

impl RawDelay {
    fn resolve(self) -> Result<Action, Invalid> {
        Ok(Action::Delay {
            span: span("seconds", self.seconds.unwrap_or(1.0), 0.001, 60.0)?,
            queue_max: within("queue_max", self.queue_max.unwrap_or(1_024), 1, 65_536)?,
        })
    }
}

impl RawDefer {
    fn resolve(self) -> Result<Action, Invalid> {
        let name = self.queue.unwrap_or_default();
        let queue = PolicyName::new(&name).map_err(|e| Invalid::range("queue", e.to_string()))?;
        Ok(Action::Defer { queue })
    }
}

impl RawFail {
    fn resolve(self) -> Result<Action, Invalid> {
        let code = match self.code {
            None => Code::Degraded,
            Some(text) => {
                Code::parse(&text).filter(|code| CODES.contains(code)).ok_or_else(|| {
                    let codes = CODES.map(Code::as_str).join("`, `");
                    Invalid::range("code", format!("must be one of `{codes}`, found {text:?}"))
                })?
            }
        };
        let status = within("status", self.status.unwrap_or_else(|| code.http()), 400, 599)?;
        Ok(Action::Fail { status, code })
    }
}

fn body(status: u16, body: String) -> Result<Arc<str>, Invalid> {
    if !body.is_empty() && matches!(status, 204 | 205 | 304) {
        return Err(Invalid::contradiction("body", format!("an answer of {status} has no body")));
    }
    if BODY_BYTES_MAX < body.len() {
        let problem = format!("must be at most {BODY_BYTES_MAX} bytes, found {}", body.len());
        return Err(Invalid::range("body", problem));
    }
    Ok(Arc::from(body))
}

pub(super) const WORDS: [(&str, u16); 12] = [
    ("circuit", CIRCUIT),
    ("timeout", TIMEOUT),
    ("connect", CONNECT),
    ("congestion", CONGESTION),
    ("5xx", SERVER_ERROR),
    ("no-instance", NO_INSTANCE),
    ("unavailable", UNAVAILABLE),
    ("any", ANY),
    ("slow", SLOW),
    ("switch", SWITCH),
    ("limited", LIMITED),
    ("shed", SHED),
];

const CONDITIONS: &str = "must be `circuit`, `timeout`, `connect`, `congestion`, `5xx`, \
    `no-instance`, `unavailable`, `any`, `slow`, `switch`, `switch:NAME`, `limited` or `shed`";

const ONE_ACTION: &str = "must stand beside exactly one of `silent`, `value`, `stale`, \
    `substitute`, `delay`, `defer`, `fail`";

/// What a step may say of itself: the refusals of stages, not faults of the request or of ours.
const CODES: [Code; 6] = [
    Code::Degraded,
    Code::Limited,
    Code::Shed,
    Code::CircuitOpen,
    Code::NoInstance,
    Code::SwitchedOff,
];

/// There are seven kinds and a dozen conditions; who needs more steps than that has a rule engine
/// in mind.
const STEPS_MAX: usize = 16;
/// Held in memory for as long as the policy is, 16 steps to a fallback.
const BODY_BYTES_MAX: usize = 64 * 1024;
const CONTENT_TYPE_MAX: usize = 256;
