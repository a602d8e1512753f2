//! Keys of the config centre.

#[cfg(test)]
mod tests;

use std::fmt;

use mainstay_store::{Key, Range};

use super::{made, segment, unescape};
use crate::name::{GroupName, ItemName, Namespace, NodeName};

/// One group of configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupRef {
    /// Whose it is.
    pub namespace: Namespace,
    /// Which it is.
    pub name: GroupName,
}

impl GroupRef {
    /// The key that says which release is in force.
    pub fn head(&self) -> Key {
        made(format!("cfg/{self}/head"))
    }

    /// The key of a release. Ten digits, so that the order of keys is the order of releases.
    pub fn release(&self, release: u64) -> Key {
        made(format!("cfg/{self}/rel/{release:010}"))
    }

    /// Every release.
    pub fn releases(&self) -> Range {
        Range::prefix(format!("cfg/{self}/rel/"))
    }

    /// The key of the draft of an item.
    pub fn draft(&self, item: &ItemName) -> Key {
        made(format!("cfg/{self}/draft/{}", segment(item.as_str())))
    }

    /// Every draft.
    pub fn drafts(&self) -> Range {
        Range::prefix(format!("cfg/{self}/draft/"))
    }

    /// The key that is written with each edit of a draft: whoever publishes drafts compares it.
    pub fn drafts_mark(&self) -> Key {
        made(format!("cfg/{self}/draft"))
    }

    /// The key of a part of what `node` knows of who holds which release.
    pub fn hold(&self, node: &NodeName, chunk: usize) -> Key {
        made(format!("hold/{}/{self}/{chunk}", segment(node.as_str())))
    }
}

impl fmt::Display for GroupRef {
    /// As people write it: `namespace/group`. Neither part needs escaping.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The key of a content; `name` is its hash in hexadecimal.
pub fn blob(name: &str) -> Key {
    made(format!("blob/{}", segment(name)))
}

/// All of the config centre but contents and holders.
pub fn configuration() -> Range {
    Range::prefix("cfg/")
}

/// Every content.
pub fn blobs() -> Range {
    Range::prefix("blob/")
}

/// Who holds what, by every node.
pub fn holds() -> Range {
    Range::prefix("hold/")
}

/// What a key of the config centre stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CentreKey {
    /// Which release of a group is in force.
    Head(GroupRef),
    /// A release.
    Release(GroupRef, u64),
    /// A draft.
    Draft(GroupRef, ItemName),
    /// Drafts of a group were edited.
    DraftsMark(GroupRef),
    /// A content.
    Blob(String),
    /// A part of what a node knows of who holds what.
    Hold(NodeName, GroupRef, usize),
}

/// What `key` stands for; `None` when it is none of the config centre's.
pub fn parse_centre(key: &[u8]) -> Option<CentreKey> {
    let mut segments = std::str::from_utf8(key).ok()?.split('/');
    let area = segments.next()?;
    let rest: Vec<String> = segments.map(unescape).collect::<Option<_>>()?;
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let group = |namespace: &str, name: &str| {
        let namespace = Namespace::new(namespace).ok()?;
        Some(GroupRef { namespace, name: GroupName::new(name).ok()? })
    };
    match (area, &*rest) {
        ("cfg", [namespace, name, "head"]) => group(namespace, name).map(CentreKey::Head),
        ("cfg", [namespace, name, "draft"]) => group(namespace, name).map(CentreKey::DraftsMark),
        ("cfg", [namespace, name, "draft", item]) => {
            Some(CentreKey::Draft(group(namespace, name)?, ItemName::new(*item).ok()?))
        }
        ("cfg", [namespace, name, "rel", release]) => {
            let number = release.parse().ok()?;
            let is_ours = format!("{number:010}") == **release;
            Some(CentreKey::Release(group(namespace, name)?, number)).filter(|_| is_ours)
        }
        ("blob", [name]) => Some(CentreKey::Blob((*name).to_owned())),
        ("hold", [node, namespace, name, chunk]) => {
            let node = NodeName::new(*node).ok()?;
            Some(CentreKey::Hold(node, group(namespace, name)?, chunk.parse().ok()?))
        }
        _ => None,
    }
}
