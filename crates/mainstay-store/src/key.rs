//! Keys, and ranges of keys in byte order.

use std::borrow::Borrow;
use std::fmt;
use std::ops::{Bound, Deref};

use bytes::Bytes;

use crate::error::Error;
use crate::limits::KEY_BYTES_MAX;

/// A key: 1 to 2,048 bytes, none of them NUL. Whoever holds one need not check it again.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// Makes a key of `bytes`.
    ///
    /// # Errors
    ///
    /// [`Error::KeyInvalid`] when they are none, too many, or hold a NUL.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, Error> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(Error::KeyInvalid { why: "it is empty" });
        }
        if bytes.len() > KEY_BYTES_MAX {
            return Err(Error::KeyInvalid { why: "it is longer than 2,048 bytes" });
        }
        if bytes.contains(&0) {
            return Err(Error::KeyInvalid { why: "it holds a NUL byte" });
        }
        Ok(Self(bytes))
    }

    /// The bytes, without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&str> for Key {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        Self::new(text.as_bytes().to_vec())
    }
}

impl fmt::Display for Key {
    /// As text; bytes that are none are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

/// The keys from one bound up to, and not including, another.
///
/// A range of one key ends right after it: `key` followed by NUL, which no key holds.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Range {
    from: Bytes,
    /// `None` is the end of all keys.
    to: Option<Bytes>,
}

impl Range {
    /// Every key.
    pub const fn all() -> Self {
        Self { from: Bytes::new(), to: None }
    }

    /// `key` alone.
    pub fn key(key: &Key) -> Self {
        let mut to = Vec::with_capacity(key.len() + 1);
        to.extend_from_slice(key);
        to.push(0);
        Self { from: key.0.clone(), to: Some(to.into()) }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let from = prefix.into();
        // The first key past them all: the prefix, its last byte that can grow grown by one.
        let to = from.iter().rposition(|byte| *byte != u8::MAX).map(|last| {
            let mut to = from.get(..=last).unwrap_or_default().to_vec();
            if let Some(byte) = to.last_mut() {
                *byte += 1;
            }
            Bytes::from(to)
        });
        Self { from, to }
    }

    /// The keys from `from` up to, and not including, `to`; `None` is the end of all keys.
    pub fn between(from: impl Into<Bytes>, to: Option<Bytes>) -> Self {
        Self { from: from.into(), to }
    }

    /// The part of this range that lies after `key`: where the next page begins.
    #[must_use]
    pub fn after(&self, key: &Key) -> Self {
        let next = Self::key(key).to.unwrap_or_default();
        Self { from: next.max(self.from.clone()), to: self.to.clone() }
    }

    /// Its first possible key.
    pub fn from(&self) -> &Bytes {
        &self.from
    }

    /// The first key past it; `None` is the end of all keys.
    pub fn to(&self) -> Option<&Bytes> {
        self.to.as_ref()
    }

    /// Whether no key can lie in it.
    pub fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }

    /// Whether `key` lies in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        *self.from <= *key && self.to.as_ref().is_none_or(|to| *key < **to)
    }

    /// Whether every key of `other` lies in it.
    pub fn covers(&self, other: &Self) -> bool {
        let to_end = match (&self.to, &other.to) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => other <= own,
        };
        other.is_empty() || (self.from <= other.from && to_end)
    }

    /// The key it consists of, when it can hold only one.
    pub fn as_key(&self) -> Option<Key> {
        let to = self.to.as_ref()?;
        let is_one = to.strip_suffix(&[0]) == Some(&*self.from);
        is_one.then(|| Key::new(self.from.clone()).ok()).flatten()
    }

    /// Bounds for ordered maps. An empty range, for which such maps panic when its ends are the
    /// wrong way round, gives an empty one they accept.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let from = Bound::Included(&*self.from);
        match &self.to {
            Some(to) => (from, Bound::Excluded((&**to).max(&*self.from))),
            None => (from, Bound::Unbounded),
        }
    }

    /// Bytes of its bounds.
    pub(crate) fn bytes(&self) -> usize {
        self.from.len() + self.to.as_ref().map_or(0, Bytes::len)
    }
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, ", self.from.escape_ascii())?;
        match &self.to {
            Some(to) => write!(f, "{})", to.escape_ascii()),
            None => f.write_str("end)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        text.try_into().unwrap()
    }

    #[test]
    fn keys_are_checked_at_their_limits() {
        assert!(Key::new(vec![b'a'; KEY_BYTES_MAX]).is_ok());
        for wrong in [vec![], vec![b'a'; KEY_BYTES_MAX + 1], b"a\0b".to_vec()] {
            assert!(matches!(Key::new(wrong), Err(Error::KeyInvalid { .. })));
        }
    }

    #[test]
    fn a_prefix_ends_where_its_last_growable_byte_has_grown() {
        let cases: [(&[u8], Option<&[u8]>); 4] =
            [(b"a/", Some(b"a0")), (b"a\xff", Some(b"b")), (b"\xff\xff", None), (b"", None)];
        for (prefix, to) in cases {
            let range = Range::prefix(prefix.to_vec());
            assert_eq!(range.to().map(|to| &**to), to, "{prefix:?}");
        }
    }

    #[test]
    fn a_range_of_one_key_holds_it_and_nothing_longer() {
        let range = Range::key(&key("a"));
        assert!(range.contains(b"a"));
        assert!(!range.contains(b"a!"));
        assert_eq!(range.as_key(), Some(key("a")));
        assert_eq!(Range::prefix("a").as_key(), None);
    }

    #[test]
    fn the_rest_of_a_range_begins_after_the_last_key_seen() {
        let rest = Range::prefix("a").after(&key("ab"));
        assert!(!rest.contains(b"ab"));
        assert!(rest.contains(b"ab\x01"));
        assert!(Range::key(&key("a")).after(&key("a")).is_empty());
    }

    #[test]
    fn what_covers_a_range_holds_both_its_ends() {
        let cases = [
            (Range::all(), Range::prefix("x"), true),
            (Range::prefix("x"), Range::all(), false),
            (Range::prefix("x"), Range::prefix("xy"), true),
            (Range::prefix("xy"), Range::key(&key("x")), false),
            (Range::prefix("a"), Range::between("z", Some(Bytes::from("b"))), true),
        ];
        for (outer, inner, want) in cases {
            assert_eq!(outer.covers(&inner), want, "{outer:?} covers {inner:?}");
        }
    }

    #[test]
    fn a_range_the_wrong_way_round_is_empty_and_harmless() {
        let keys = std::collections::BTreeSet::from([key("c")]);
        let range = Range::between("z", Some(Bytes::from("b")));
        assert_eq!(keys.range::<[u8], _>(range.bounds()).count(), 0);
    }
}
