//! One revision of an object, and what the next one would be.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{RuleError, What};
use super::terms::Terms;
use crate::keys::RuleRef;
use crate::moment::Moment;

/// One revision of an object, immutable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edition {
    v: u32,
    /// Its number: 1, 2, 3 …
    pub revision: u64,
    /// When.
    pub at: Moment,
    /// Who.
    pub who: String,
    /// Why.
    pub why: Option<String>,
    /// Through which door.
    pub from: String,
    /// The content; null where this revision removed the object.
    pub content: Value,
    /// Where the object is kept, unless here.
    pub managed_by: Option<String>,
    /// Whether this revision removed the object.
    #[serde(default)]
    pub removed: bool,
    /// The revision whose content this one brought back.
    #[serde(default)]
    pub rollback_of: Option<u64>,
    /// Names the change that wrote it, so that an unknown outcome can be read.
    pub(crate) change: String,
    /// What a newer version wrote.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Edition {
    /// What a node tells of an edition that others follow. It is not to be written.
    pub fn told(
        revision: u64,
        at: Moment,
        who: String,
        why: Option<String>,
        content: Value,
    ) -> Self {
        Self {
            v: 1,
            revision,
            at,
            who,
            why,
            from: String::new(),
            content,
            managed_by: None,
            removed: false,
            rollback_of: None,
            change: String::new(),
            rest: Map::new(),
        }
    }

    pub(crate) fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text keys and numbers are JSON")
    }

    /// The edition that follows `before`.
    pub(crate) fn after(before: Option<&Self>, at: Moment, change: &str, terms: &Terms) -> Self {
        let actor = &terms.author.actor;
        Self {
            v: 1,
            revision: before.map_or(0, |before| before.revision) + 1,
            at,
            who: actor.principal.clone(),
            why: terms.author.reason.clone(),
            from: actor.via.clone(),
            content: Value::Null,
            managed_by: terms.managed_by.clone(),
            removed: false,
            rollback_of: None,
            change: change.to_owned(),
            rest: Map::new(),
        }
    }
}

/// What shall become of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wanted {
    /// It has this content.
    Content(Value),
    /// It has the content of that revision again.
    Back(u64, Value),
    /// It is not there.
    Removed,
}

/// Decides what `wanted` comes to when `before` is the newest edition; `None` when it is so already.
///
/// # Errors
///
/// [`RuleError::Moved`], [`RuleError::ManagedElsewhere`], [`RuleError::NotFound`].
pub(crate) fn decide(
    rule: &RuleRef,
    before: Option<&Edition>,
    wanted: &Wanted,
    terms: &Terms,
    (at, change): (Moment, &str),
) -> Result<Option<Edition>, RuleError> {
    let there = before.filter(|before| !before.removed);
    let found = there.map_or(0, |before| before.revision);
    if let Some(expected) = terms.expected.filter(|expected| *expected != found) {
        let current = there.map(|edition| Box::new(Object::new(rule, edition)));
        return Err(RuleError::Moved { rule: rule.clone(), expected, found, current });
    }
    if let Some(owner) = there.filter(|before| before.managed_by != terms.managed_by) {
        let managed_by = owner.managed_by.clone().unwrap_or_else(|| "the API".to_owned());
        return Err(RuleError::ManagedElsewhere { rule: rule.clone(), managed_by });
    }
    let next = Edition::after(before, at, change, terms);
    match wanted {
        Wanted::Content(content) | Wanted::Back(_, content) => {
            if there.is_some_and(|before| before.content == *content) {
                return Ok(None);
            }
            let rollback_of = match wanted {
                Wanted::Back(revision, _) => Some(*revision),
                _ => None,
            };
            Ok(Some(Edition { content: content.clone(), rollback_of, ..next }))
        }
        Wanted::Removed if there.is_none() => Err(RuleError::not_found(rule, What::Object)),
        Wanted::Removed => Ok(Some(Edition { removed: true, ..next })),
    }
}

/// An object as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Object {
    /// Whose it is.
    pub namespace: String,
    /// Which it is.
    pub name: String,
    /// The number of its newest revision; the `ETag` is this in quotes.
    pub revision: u64,
    /// Where it is kept, unless here.
    pub managed_by: Option<String>,
    /// When it was last changed.
    pub at: Moment,
    /// By whom.
    pub who: String,
    /// Why.
    pub why: Option<String>,
    /// Its content.
    pub content: Value,
}

impl Object {
    pub(crate) fn new(rule: &RuleRef, edition: &Edition) -> Self {
        Self {
            namespace: rule.namespace.to_string(),
            name: rule.name.to_string(),
            revision: edition.revision,
            managed_by: edition.managed_by.clone(),
            at: edition.at,
            who: edition.who.clone(),
            why: edition.why.clone(),
            content: edition.content.clone(),
        }
    }
}
