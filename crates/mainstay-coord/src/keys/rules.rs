//! Keys of objects with a history.
//!
//! The newest revision of every object of a kind lies in one range with nothing between, so a node
//! follows a kind without reading its whole past.

use std::fmt;

use mainstay_store::{Key, Range};

use super::{made, segment, unescape};
use crate::name::{Namespace, RuleName};

/// A kind of object: letters of a-z and dashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleKind(&'static str);

impl RuleKind {
    /// Switches; their newest revisions lie under `sw/`.
    pub const SWITCH: Self = Self("switch");

    /// Plans; their newest revisions lie under `plan/`, whether they are active beside them.
    pub const PLAN: Self = Self("plan");

    /// Routes of the gateway.
    pub const ROUTE: Self = Self("route");

    /// How services are reached.
    pub const UPSTREAM: Self = Self("upstream");

    /// Circuits.
    pub const CIRCUIT: Self = Self("circuit");

    /// Limits.
    pub const LIMIT: Self = Self("limit");

    /// Fallbacks.
    pub const FALLBACK: Self = Self("fallback");

    /// The kind called `name`.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// The newest revision of every object, and what lies beside it; of one namespace, if told.
    pub fn heads(self, namespace: Option<&Namespace>) -> Range {
        let namespace =
            namespace.map_or_else(String::new, |ns| format!("{}/", segment(ns.as_str())));
        Range::prefix(format!("{}{namespace}", self.prefix()))
    }

    /// The object whose newest revision `key` holds.
    pub fn parse(self, key: &[u8]) -> Option<RuleRef> {
        let path = std::str::from_utf8(key).ok()?.strip_prefix(&*self.prefix())?;
        let (namespace, name) = path.split_once('/')?;
        let namespace = Namespace::new(unescape(namespace)?).ok()?;
        Some(RuleRef { kind: self, namespace, name: RuleName::new(unescape(name)?).ok()? })
    }

    fn prefix(self) -> String {
        match self {
            Self::SWITCH => "sw/".to_owned(),
            Self::PLAN => "plan/".to_owned(),
            Self(name) => format!("rule/{}/head/", segment(name)),
        }
    }
}

impl fmt::Display for RuleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleRef {
    /// Of what kind.
    pub kind: RuleKind,
    /// Whose it is.
    pub namespace: Namespace,
    /// Which it is.
    pub name: RuleName,
}

impl RuleRef {
    /// The key of its newest revision.
    pub fn head(&self) -> Key {
        made(format!("{}{self}", self.kind.prefix()))
    }

    /// The key of its revision `number`. Ten digits: a change a second for three centuries.
    pub fn revision(&self, number: u64) -> Key {
        made(format!("{}{number:010}", self.past()))
    }

    /// Its revisions from `first` to `last`, both included.
    pub fn revisions(&self, first: u64, last: u64) -> Range {
        let end = self.revision(last.saturating_add(1)).into_bytes();
        Range::between(self.revision(first).into_bytes(), Some(end))
    }

    /// Whether a plan is active, and what was before.
    pub fn undo(&self) -> Key {
        made(format!("{}{self}/undo", self.kind.prefix()))
    }

    fn past(&self) -> String {
        format!("rule/{}/rev/{self}/", segment(self.kind.0))
    }
}

impl fmt::Display for RuleRef {
    /// As people write it: `namespace/name`. Neither part needs escaping.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The plan whose state `key` holds.
pub fn plans_beside(key: &[u8]) -> Option<RuleRef> {
    RuleKind::PLAN.parse(key.strip_suffix(b"/undo")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(kind: RuleKind) -> RuleRef {
        let namespace = Namespace::new("default").unwrap();
        RuleRef { kind, namespace, name: RuleName::new("checkout-v2").unwrap() }
    }

    #[test]
    fn keys_are_written_as_the_table_says_and_read_back() {
        let silence = RuleKind::new("silence");
        for (kind, head) in [
            (RuleKind::SWITCH, "sw/default/checkout-v2"),
            (RuleKind::PLAN, "plan/default/checkout-v2"),
            (silence, "rule/silence/head/default/checkout-v2"),
        ] {
            let rule = rule(kind);
            assert_eq!(rule.head().to_string(), head);
            assert_eq!(kind.parse(&rule.head()), Some(rule.clone()));
            assert_eq!(kind.parse(&rule.revision(7)), None);
            assert!(kind.heads(None).contains(&rule.head()));
            assert!(!kind.heads(None).contains(&rule.revision(7)));
            assert!(!kind.heads(Some(&Namespace::new("other").unwrap())).contains(&rule.head()));
        }
        let rule = rule(RuleKind::PLAN);
        assert_eq!(rule.revision(7).to_string(), "rule/plan/rev/default/checkout-v2/0000000007");
        assert_eq!(rule.undo().to_string(), "plan/default/checkout-v2/undo");
        assert_eq!(plans_beside(&rule.undo()), Some(rule.clone()));
        assert_eq!(RuleKind::PLAN.parse(&rule.undo()), None);
        assert!(rule.revisions(2, 7).contains(&rule.revision(7)));
        assert!(!rule.revisions(2, 7).contains(&rule.revision(8)));
    }
}
