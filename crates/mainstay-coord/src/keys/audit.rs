//! Keys of the audit outbox.

use std::fmt;

use mainstay_store::{Key, Range, Revision};

use super::{made, segment, unescape};
use crate::random;

/// Names one audit record, for good.
///
/// It begins with the revision the change was decided at. Who decides on top of a change has read
/// it, so its record sorts after that change's; records of changes that did not know of each other
/// lie in whatever order. No clock is asked, and no two writers meet at a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuditId {
    decided_at: Revision,
    own: u64,
}

impl AuditId {
    /// An id nobody else draws, of a change decided at `revision`.
    pub fn draw(revision: Revision) -> Self {
        Self { decided_at: revision, own: u64::from_be_bytes(random::bytes()) }
    }

    /// Before every id of a change decided at `revision` or later.
    pub const fn first_at(revision: Revision) -> Self {
        Self { decided_at: revision, own: 0 }
    }

    /// The revision the change was decided at.
    pub const fn decided_at(self) -> Revision {
        self.decided_at
    }

    /// The id written `text`: two times sixteen hexadecimal digits with a dash between them.
    pub fn parse(text: &str) -> Option<Self> {
        let (revision, own) = text.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let id = Self { decided_at: Revision::new(number(revision)?), own: number(own)? };
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for AuditId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.decided_at.get(), self.own)
    }
}

/// The key of a record.
pub fn audit(id: AuditId) -> Key {
    made(format!("aud/out/{id}"))
}

/// Every record.
pub fn audit_records() -> Range {
    Range::prefix("aud/out/")
}

/// The key of a record that a log has taken over, where several nodes want to see it.
pub fn audit_logged(id: AuditId) -> Key {
    made(format!("aud/seen/{id}"))
}

/// Every such record.
pub fn audit_all_logged() -> Range {
    Range::prefix("aud/seen/")
}

/// How many records were trimmed.
pub fn audit_trimmed() -> Key {
    made("aud/trimmed".to_owned())
}

/// Which node takes records over.
pub fn audit_holder() -> Key {
    made("aud/log".to_owned())
}

/// The newest head of a log.
pub fn audit_head(log: &str) -> Key {
    made(format!("aud/head/{}", segment(log)))
}

/// Every newest head.
pub fn audit_heads() -> Range {
    Range::prefix("aud/head/")
}

/// The log whose head `key` holds; `None` when it holds none.
pub fn parse_audit_head(key: &[u8]) -> Option<String> {
    unescape(std::str::from_utf8(key).ok()?.strip_prefix("aud/head/")?)
}

/// The record `key` holds, logged or not; `None` when it holds none.
pub fn parse_audit(key: &[u8]) -> Option<AuditId> {
    let text = std::str::from_utf8(key).ok()?;
    AuditId::parse(text.strip_prefix("aud/out/").or_else(|| text.strip_prefix("aud/seen/"))?)
}

/// Everything about the outbox.
pub(crate) fn audit_area() -> Range {
    Range::prefix("aud/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_the_revision_they_were_decided_at() {
        let (early, late) = (AuditId::draw(Revision::new(9)), AuditId::draw(Revision::new(10)));
        assert!(audit(early) < audit(late));
        assert!(audit(AuditId::first_at(Revision::new(10))) <= audit(late));
        assert_ne!(AuditId::draw(Revision::new(9)), early);
    }

    #[test]
    fn an_id_is_written_in_one_way() {
        let id = AuditId::draw(Revision::new(0xab));
        assert_eq!(parse_audit(&audit(id)), Some(id));
        assert!(
            audit_records().contains(&audit(id)) && !audit_records().contains(&audit_trimmed())
        );
        for bad in ["ab-1", "00000000000000AB-0000000000000001", "", "-", "1"] {
            assert_eq!(AuditId::parse(bad), None, "{bad}");
        }
    }
}
