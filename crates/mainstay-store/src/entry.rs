//! What is stored, and the numbers that tell states apart.

use std::fmt;
use std::num::NonZeroU64;

use bytes::Bytes;

use crate::key::Key;

/// A state of the whole store. An empty store is at 1; each batch that changes something takes the
/// next one. 0 stands for "never": a missing key was created at revision 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// Before every revision: what a missing key compares as.
    pub const NEVER: Self = Self(0);

    /// The revision of an empty store.
    pub const FIRST: Self = Self(1);

    /// The revision numbered `number`.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The one before it; [`Revision::NEVER`] has none and stays.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a lease. Below 2⁶³, since etcd's are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(NonZeroU64);

impl LeaseId {
    /// The lease numbered `number`; none has the number 0, or 2⁶³ and above.
    pub const fn new(number: u64) -> Option<Self> {
        if number > i64::MAX as u64 {
            return None;
        }
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for LeaseId {
    /// Sixteen hexadecimal digits, as etcd's tools write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A key with its value and its past, as of some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// Its value; empty where only keys were asked for.
    pub value: Bytes,
    /// The revision that brought the key into being. Unique to this life of the key, so it serves
    /// as a fencing token.
    pub create_revision: Revision,
    /// The revision that wrote this value.
    pub mod_revision: Revision,
    /// How many times this life of the key was written; 1 when new.
    pub version: u64,
    /// The lease the key ends with, if any.
    pub lease: Option<LeaseId>,
}

impl Entry {
    /// Bytes of key and value.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }
}
