//! What one record says.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::moment::Moment;

/// Longest record, in bytes. A change of a large object would fill the outbox with copies of it,
/// and the history has the content anyway: a record longer than this says how long `before` and
/// `after` were.
pub const RECORD_BYTES_MAX: usize = 65_536;

/// Fewest and most characters of a reason.
pub const REASON_CHARACTERS: std::ops::RangeInclusive<usize> = 3..=500;

/// What came of what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AuditOutcome)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was not allowed.
    Refused,
    /// It was allowed, and did not work.
    Failed,
}

/// Who acts, as the door they came through knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
#[schema(as = AuditActor)]
pub struct Actor {
    /// The principal: `user/u-7f3a`, `system/timers`.
    pub principal: String,
    /// What kind of principal: `user`, `service`, `system`.
    pub kind: String,
    /// Through which door: `api`, `cli`, `console`, `socket`, `consul`, `timer`.
    pub via: String,
    /// From which address.
    pub address: Option<String>,
    /// In which session: its id, never the cookie.
    pub session: Option<String>,
    /// By which token: its id, never the token.
    pub token: Option<String>,
    /// What they were then.
    pub roles: Vec<String>,
}

impl Actor {
    /// A part of Mainstay itself, acting for nobody.
    pub fn system(part: &str) -> Self {
        Self {
            principal: format!("system/{part}"),
            kind: "system".to_owned(),
            via: "timer".to_owned(),
            ..Self::default()
        }
    }
}

/// Who asks for a change, why, and what let them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// Who.
    pub actor: Actor,
    /// Why, in their words; 3 to 500 characters.
    pub reason: Option<String>,
    /// The policies that permitted it.
    pub policies: Vec<String>,
    /// The trace it belongs to.
    pub trace_id: Option<String>,
    /// The request it belongs to.
    pub correlation: Option<String>,
}

/// A reason that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reason has {0} characters; it must have 3 to 500")]
pub struct ReasonInvalid(pub usize);

impl Author {
    /// `actor`, without a reason.
    pub fn new(actor: Actor) -> Self {
        Self { actor, ..Self::default() }
    }

    /// Says why.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Checks the reason, if there is one. Whether there must be one is for the door to say.
    ///
    /// # Errors
    ///
    /// [`ReasonInvalid`].
    pub fn check(&self) -> Result<(), ReasonInvalid> {
        let Some(reason) = &self.reason else { return Ok(()) };
        let characters = reason.trim().chars().count();
        if REASON_CHARACTERS.contains(&characters) {
            Ok(())
        } else {
            Err(ReasonInvalid(characters))
        }
    }
}

/// What was acted upon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
#[schema(as = AuditTarget)]
pub struct Target {
    /// What kind of thing.
    pub kind: String,
    /// Which: `namespace/name`.
    pub id: String,
    /// Its revision before; none where it was not there.
    pub revision_before: Option<u64>,
    /// Its revision after; none where nothing changed.
    pub revision_after: Option<u64>,
}

/// One audit record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = AuditRecordContent)]
pub struct Record {
    v: u32,
    /// When.
    pub time: Moment,
    /// What was done: `switch:write`.
    pub action: String,
    /// What came of it.
    pub outcome: Outcome,
    /// The code of the problem, where it was not done.
    pub code: Option<String>,
    /// Why, in the words of whoever asked.
    pub reason: Option<String>,
    /// Who.
    pub actor: Actor,
    /// Upon what.
    pub target: Target,
    /// What it was, secrets masked.
    #[serde(default)]
    pub before: Value,
    /// What it became, secrets masked.
    #[serde(default)]
    pub after: Value,
    /// The policies that decided.
    #[serde(default)]
    pub policies: Vec<String>,
    /// The trace it belongs to.
    pub trace_id: Option<String>,
    /// The request it belongs to.
    pub correlation: Option<String>,
    /// Of several equal ones told as one: how many, and when the first and the last were.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    folded: Option<Folded>,
    /// What a newer version wrote.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Several equal records told as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = AuditFolded)]
struct Folded {
    count: u64,
    first: Moment,
    last: Moment,
}

impl Record {
    /// `author` did `action` to `target`.
    pub fn done(time: Moment, action: &str, target: Target, author: &Author) -> Self {
        Self {
            v: 1,
            time,
            action: action.to_owned(),
            outcome: Outcome::Done,
            code: None,
            reason: author.reason.clone(),
            actor: author.actor.clone(),
            target,
            before: Value::Null,
            after: Value::Null,
            policies: author.policies.clone(),
            trace_id: author.trace_id.clone(),
            correlation: author.correlation.clone(),
            folded: None,
            rest: Map::new(),
        }
    }

    /// What the target was and became; secrets must be masked already.
    #[must_use]
    pub fn changed(mut self, before: Value, after: Value) -> Self {
        (self.before, self.after) = (before, after);
        self
    }

    /// It was not done.
    #[must_use]
    pub fn instead(mut self, outcome: Outcome, code: mainstay_core::problem::Code) -> Self {
        (self.outcome, self.code) = (outcome, Some(code.as_str().to_owned()));
        self
    }

    /// It was not done, and a door says so in its own words.
    #[must_use]
    pub fn instead_of(mut self, outcome: Outcome, code: &str) -> Self {
        (self.outcome, self.code) = (outcome, Some(code.to_owned()));
        self
    }

    /// The first of several that are told as one.
    pub(super) fn folded(mut self) -> Self {
        self.folded = Some(Folded { count: 1, first: self.time, last: self.time });
        self
    }

    /// Another one like it, at `time`.
    pub(super) const fn and_again(&mut self, time: Moment) {
        if let Some(folded) = &mut self.folded {
            folded.count += 1;
            folded.last = time;
            self.time = time;
        }
    }

    /// How many it tells of.
    pub fn count(&self) -> u64 {
        self.folded.map_or(1, |folded| folded.count)
    }

    /// As bytes, at most [`RECORD_BYTES_MAX`] unless its names alone are longer.
    pub(super) fn write(&self) -> Vec<u8> {
        let whole = bytes_of(self);
        if whole.len() <= RECORD_BYTES_MAX {
            return whole;
        }
        let length = |value: &Value| match value {
            Value::Null => Value::Null,
            value => json!({ "left_out_bytes": bytes_of(value).len() }),
        };
        let (before, after) = (length(&self.before), length(&self.after));
        bytes_of(&Self { before, after, ..self.clone() })
    }

    /// What was written; `None` when it is no record.
    pub fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}

fn bytes_of(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("text keys and numbers are JSON")
}
