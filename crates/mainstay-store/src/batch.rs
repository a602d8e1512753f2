//! Compare, then apply: all or nothing.
//!
//! A batch holds compares and two lists of operations, its branches. When every compare holds the
//! branch `then` runs, else `otherwise`. Operations run in order, and a read sees the writes
//! before it in the same branch. All changes of a batch share one revision.

#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::entry::{Entry, LeaseId, Revision};
use crate::error::Error;
use crate::key::{Key, Range};
use crate::limits::{BATCH_BYTES_MAX, COMPARES_MAX, OPERATIONS_MAX, VALUE_BYTES_MAX};
use crate::read::{Page, Select};

/// Compares, and what to do in either case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// All of them hold, or `otherwise` runs. None always hold.
    pub compares: Vec<Compare>,
    /// Runs when every compare holds.
    pub then: Vec<Op>,
    /// Runs when one does not.
    pub otherwise: Vec<Op>,
}

impl Batch {
    /// Does nothing yet.
    pub const fn new() -> Self {
        Self { compares: Vec::new(), then: Vec::new(), otherwise: Vec::new() }
    }

    /// Also requires `compare`.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Then does `op`.
    #[must_use]
    pub fn then(mut self, op: impl Into<Op>) -> Self {
        self.then.push(op.into());
        self
    }

    /// Otherwise does `op`.
    #[must_use]
    pub fn otherwise(mut self, op: impl Into<Op>) -> Self {
        self.otherwise.push(op.into());
        self
    }

    /// Checks sizes, and that no branch changes a key twice. Every backend calls it first, so that
    /// all refuse the same batches.
    ///
    /// # Errors
    ///
    /// [`Error::BatchTooLarge`], [`Error::ValueTooLarge`], [`Error::DuplicateKey`].
    pub fn check(&self) -> Result<(), Error> {
        let at_most = |what, found, max| {
            if found <= max { Ok(()) } else { Err(Error::BatchTooLarge { what, found, max }) }
        };
        at_most("compares", self.compares.len(), COMPARES_MAX)?;
        for branch in [&self.then, &self.otherwise] {
            at_most("operations", branch.len(), OPERATIONS_MAX)?;
            let values = branch.iter().filter_map(|op| match op {
                Op::Put(put) => Some(put.value.len()),
                Op::Delete { .. } | Op::Range(_) => None,
            });
            if let Some(bytes) = values.filter(|bytes| VALUE_BYTES_MAX < *bytes).max() {
                return Err(Error::ValueTooLarge { bytes });
            }
            no_duplicates(branch)?;
        }
        at_most("bytes", self.bytes(), BATCH_BYTES_MAX)
    }

    /// Bytes of all keys, bounds and values.
    pub fn bytes(&self) -> usize {
        let compares = self.compares.iter().map(|compare| {
            let operand = match &compare.target {
                Target::Value(value) => value.len(),
                _ => 0,
            };
            compare.range.bytes() + operand
        });
        let ops = self.then.iter().chain(&self.otherwise).map(|op| match op {
            Op::Put(put) => put.key.len() + put.value.len(),
            Op::Delete { range, .. } => range.bytes(),
            Op::Range(select) => select.range.bytes(),
        });
        compares.chain(ops).sum()
    }
}

/// No key of `branch` is put twice, or put and deleted; in whatever order, as etcd has it.
fn no_duplicates(branch: &[Op]) -> Result<(), Error> {
    let mut keys: Vec<&Key> = branch.iter().filter_map(Op::put_key).collect();
    keys.sort_unstable();
    let twice = keys.windows(2).find(|pair| matches!(pair, [a, b] if a == b));
    let deleted = || {
        let within = |range: &Range| keys.iter().find(|key| range.contains(key)).copied();
        branch.iter().find_map(|op| match op {
            Op::Delete { range, .. } => within(range),
            Op::Put(_) | Op::Range(_) => None,
        })
    };
    match twice.and_then(|pair| pair.first().copied()).or_else(deleted) {
        Some(key) => Err(Error::DuplicateKey { key: key.clone() }),
        None => Ok(()),
    }
}

/// Holds when `target` stands in relation `operator` to its operand for every key of `range`.
///
/// A missing key compares as version 0, created and changed at revision 0, without lease; no
/// compare of its value holds. An empty range compares as a missing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Which keys.
    pub range: Range,
    /// What of them, and with what it is compared.
    pub target: Target,
    /// How.
    pub operator: Operator,
}

impl Compare {
    /// `key` is not there.
    pub fn missing(key: &Key) -> Self {
        Self::created_at(key, Revision::NEVER)
    }

    /// `key` is there.
    pub fn present(key: &Key) -> Self {
        let target = Target::CreateRevision(Revision::NEVER);
        Self { range: Range::key(key), target, operator: Operator::NotEqual }
    }

    /// `key` lives since `revision`. This is the guard of a fenced write: the token of a lock is
    /// the create revision of its queue entry.
    pub fn created_at(key: &Key, revision: Revision) -> Self {
        let target = Target::CreateRevision(revision);
        Self { range: Range::key(key), target, operator: Operator::Equal }
    }

    /// `key` was last written at `revision`; [`Revision::NEVER`] for one that is not there.
    pub fn unchanged_since(key: &Key, revision: Revision) -> Self {
        let target = Target::ModRevision(revision);
        Self { range: Range::key(key), target, operator: Operator::Equal }
    }

    /// `key` has this value.
    pub fn value(key: &Key, value: impl Into<Bytes>) -> Self {
        let target = Target::Value(value.into());
        Self { range: Range::key(key), target, operator: Operator::Equal }
    }

    /// Whether it holds for `entry`, or for a missing key.
    pub fn holds_for(&self, entry: Option<&Entry>) -> bool {
        let never = Revision::NEVER;
        match (&self.target, entry) {
            (Target::Value(_), None) => false,
            (Target::Value(want), Some(entry)) => self.operator.holds(&entry.value, want),
            (Target::Version(want), _) => {
                self.operator.holds(&entry.map_or(0, |entry| entry.version), want)
            }
            (Target::CreateRevision(want), _) => {
                self.operator.holds(&entry.map_or(never, |entry| entry.create_revision), want)
            }
            (Target::ModRevision(want), _) => {
                self.operator.holds(&entry.map_or(never, |entry| entry.mod_revision), want)
            }
            (Target::Lease(want), _) => {
                self.operator.holds(&entry.and_then(|entry| entry.lease), want)
            }
        }
    }
}

/// What is compared, with its operand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The value, byte by byte.
    Value(Bytes),
    /// The version.
    Version(u64),
    /// The revision that brought the key into being.
    CreateRevision(Revision),
    /// The revision that wrote it last.
    ModRevision(Revision),
    /// The lease; none is less than any.
    Lease(Option<LeaseId>),
}

/// How two things are compared: found, operator, operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// =
    Equal,
    /// !=
    NotEqual,
    /// <
    Less,
    /// \>
    Greater,
}

impl Operator {
    /// Whether `found` stands in this relation to `operand`.
    fn holds<T: Ord>(self, found: &T, operand: &T) -> bool {
        match self {
            Self::Equal => found == operand,
            Self::NotEqual => found != operand,
            Self::Less => found < operand,
            Self::Greater => operand < found,
        }
    }
}

/// One operation of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a key. Always a change, even with the value it had.
    Put(Put),
    /// Deletes the keys of a range.
    Delete {
        /// Which keys.
        range: Range,
        /// Whether to answer with what they were.
        previous: bool,
    },
    /// Reads a page, as of this point of the branch.
    Range(Select),
}

impl Op {
    /// Deletes `key`.
    pub fn delete(key: &Key) -> Self {
        Self::Delete { range: Range::key(key), previous: false }
    }

    /// Deletes every key of `range`.
    pub const fn delete_range(range: Range) -> Self {
        Self::Delete { range, previous: false }
    }

    /// Reads `key`.
    pub fn get(key: &Key) -> Self {
        Self::Range(Select::new(Range::key(key)))
    }

    /// The key a put writes.
    const fn put_key(&self) -> Option<&Key> {
        match self {
            Self::Put(put) => Some(&put.key),
            Self::Delete { .. } | Self::Range(_) => None,
        }
    }
}

/// Writes a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: Key,
    /// Its new value, up to 1,048,576 bytes.
    pub value: Bytes,
    /// What becomes of its lease.
    pub lease: Attach,
    /// Whether to answer with what it was.
    pub previous: bool,
}

impl Put {
    /// Writes `value`, without a lease.
    pub fn new(key: Key, value: impl Into<Bytes>) -> Self {
        Self { key, value: value.into(), lease: Attach::Detach, previous: false }
    }

    /// Ties the key to `lease`.
    #[must_use]
    pub const fn lease(mut self, lease: LeaseId) -> Self {
        self.lease = Attach::To(lease);
        self
    }

    /// Leaves the key with the lease it has.
    #[must_use]
    pub const fn keep_lease(mut self) -> Self {
        self.lease = Attach::Keep;
        self
    }

    /// Answers with what it was.
    #[must_use]
    pub const fn previous(mut self) -> Self {
        self.previous = true;
        self
    }
}

impl From<Put> for Op {
    fn from(put: Put) -> Self {
        Self::Put(put)
    }
}

/// What a put does with the lease of its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// The key ends with none.
    #[default]
    Detach,
    /// The key ends with this one, and no other.
    To(LeaseId),
    /// The key ends with the one it ended with.
    Keep,
}

/// What a batch did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Whether every compare held.
    pub succeeded: bool,
    /// The revision of its changes; if it changed nothing, the current one.
    pub revision: Revision,
    /// One answer an operation of the branch that ran.
    pub answers: Vec<Answer>,
}

/// What one operation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A put.
    Put {
        /// What the key was, if asked for and there.
        previous: Option<Entry>,
    },
    /// A delete.
    Delete {
        /// How many keys went.
        deleted: u64,
        /// What they were, if asked for.
        previous: Vec<Entry>,
    },
    /// A read.
    Range(Page),
}
