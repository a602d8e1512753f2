//! The transaction log: its keys, and what a step writes.
//!
//! | key | value | written |
//! |---|---|---|
//! | `txn/meta` | cluster, log id, shard count | once |
//! | `txn/high` | how far it has come, as databases were told | a sweep, after work was begun |
//! | `txn/node/<node>` | address of a node; ends with its session | at its start |
//! | `txn/lane/<node>/<n>` | session and number of the last batch; ends with the session | each batch |
//! | `txn/shard/<ss>` | who owns the shard; ends with the owner's session | takeover |
//! | `txn/t/<ss>/<gid>` | body: what a transaction was begun with | once |
//! | `txn/s/<ss>/<gid>` | register of a live one: state, decision, votes | each durable transition |
//! | `txn/b/<ss>/<gid>/<branch>` | a branch with all its operations | joining; results, lazily |
//! | `txn/h/<ss>/<gid>` | how it ended, branches and timeline folded in | the end |
//!
//! A value is one byte of format and a protobuf message. The create revision of `txn/shard/<ss>`
//! is the owner's epoch: every batch compares it, so a write of an owner that was replaced fails.

mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use mainstay_store::{Key, Op as StoreOp, Put, Range};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

pub use record::{High, Lane, Meta, Node, Owner, Unreadable};

use crate::machine::Write;
use crate::moment::Moment;
use crate::name::{BranchId, Gid, Shard, Shards};
use crate::transaction::{Parts, Transaction};

/// What stays as it is inside a segment, besides letters and digits.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'~').remove(b'-');

fn segment(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// What the log says about itself.
pub fn meta() -> Key {
    made("txn/meta".to_owned())
}

/// How far the log has come, as databases were told.
pub fn high() -> Key {
    made("txn/high".to_owned())
}

/// All nodes.
pub fn nodes() -> Range {
    Range::prefix("txn/node/")
}

/// The node called `node`.
pub fn node(node: &str) -> Key {
    made(format!("txn/node/{}", segment(node)))
}

/// The name of the node whose key this is.
pub fn node_name(key: &Key) -> Option<String> {
    let name = std::str::from_utf8(key).ok()?.strip_prefix("txn/node/")?;
    Some(percent_decode_str(name).decode_utf8().ok()?.into_owned())
}

/// Lane `number` of the node called `node`.
pub fn lane(node: &str, number: u16) -> Key {
    made(format!("txn/lane/{}/{number}", segment(node)))
}

/// Who owns a shard.
pub fn shard(shard: Shard) -> Key {
    made(format!("txn/shard/{shard}"))
}

/// Who owns which shard.
pub fn owners() -> Range {
    Range::prefix("txn/shard/")
}

/// The shard whose owner stands at `key`.
pub fn owned_shard(key: &Key) -> Option<Shard> {
    let number = std::str::from_utf8(key).ok()?.strip_prefix("txn/shard/")?;
    let shard = u8::from_str_radix(number, 16).ok().map(Shard::new)?;
    (shard.to_string() == number).then_some(shard)
}

/// The keys of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    tail: String,
}

impl Keys {
    /// Those of `gid`.
    pub fn new(gid: &Gid, shards: Shards) -> Self {
        Self { tail: format!("{}/{}", gid.shard(shards), segment(gid.as_str())) }
    }

    /// What it was begun with.
    pub fn body(&self) -> Key {
        made(format!("txn/t/{}", self.tail))
    }

    /// What changes in it as a whole.
    pub fn register(&self) -> Key {
        made(format!("txn/s/{}", self.tail))
    }

    /// One of its branches.
    pub fn branch(&self, branch: &BranchId) -> Key {
        made(format!("txn/b/{}/{branch}", self.tail))
    }

    /// All of its branches.
    pub fn branches(&self) -> Range {
        Range::prefix(format!("txn/b/{}/", self.tail))
    }

    /// How it ended.
    pub fn history(&self) -> Key {
        made(format!("txn/h/{}", self.tail))
    }
}

/// Registers of all live transactions of a shard.
pub fn registers(shard: Shard) -> Range {
    Range::prefix(format!("txn/s/{shard}/"))
}

/// How transactions of a shard ended.
pub fn histories(shard: Shard) -> Range {
    Range::prefix(format!("txn/h/{shard}/"))
}

/// The gid in the key of a body, a register or a history.
pub fn gid(key: &Key) -> Option<Gid> {
    let mut segments = std::str::from_utf8(key).ok()?.split('/');
    let fits = segments.next() == Some("txn") && matches!(segments.next(), Some("t" | "s" | "h"));
    let (_shard, gid) = (segments.next()?, segments.next()?);
    let gid = percent_decode_str(gid).decode_utf8().ok()?;
    Gid::new(&gid).ok().filter(|_| fits && segments.next().is_none())
}

/// A key made of checked names: the longest has 3 × 128 bytes of gid and 64 of branch, far below
/// 2,048.
fn made(text: String) -> Key {
    Key::new(text).expect("checked names make a short key without NUL")
}

/// What one transaction writes at once. Changes of one transaction can be joined: a later value of
/// a key stands for an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// New values; `None` deletes.
    puts: BTreeMap<Key, Option<Bytes>>,
    /// All keys of this range go.
    deletes: Option<Range>,
}

impl Change {
    /// Changes nothing.
    pub const fn new() -> Self {
        Self { puts: BTreeMap::new(), deletes: None }
    }

    /// What `write` of a step of `transaction` writes, by the owner whose epoch is `epoch`.
    pub fn of(transaction: &Transaction, write: &Write, shards: Shards, epoch: u64) -> Self {
        let keys = Keys::new(transaction.gid(), shards);
        let mut change = Self::default();
        if write.body {
            change.put(keys.body(), record::body(transaction));
        }
        if write.register {
            change.put(keys.register(), record::register(transaction, epoch));
        }
        for (at, branch) in write
            .branches
            .iter()
            .filter_map(|at| transaction.branches.get(*at).map(|branch| (*at, branch)))
        {
            change.put(keys.branch(&branch.id), record::branch(transaction, at, branch));
        }
        change
    }

    /// What the end of `transaction` writes: one record, in place of all that was live.
    pub fn end(transaction: &Transaction, shards: Shards, epoch: u64) -> Self {
        let keys = Keys::new(transaction.gid(), shards);
        let mut change = Self::default();
        change.put(keys.history(), record::history(transaction, epoch));
        change.puts.insert(keys.register(), None);
        change.deletes = Some(keys.branches());
        change
    }

    fn put(&mut self, key: Key, value: Bytes) {
        self.puts.insert(key, Some(value));
    }

    /// A record of somebody else's, written together with it.
    pub(crate) fn accompany(&mut self, record: Option<Put>) {
        if let Some(Put { key, value, .. }) = record {
            self.put(key, value);
        }
    }

    /// Joins `later` to it. Nothing is put into a range that goes, before or after: no batch may do
    /// both, and after its end nothing of a transaction is live.
    pub fn merge(&mut self, later: Self) {
        self.puts.extend(later.puts);
        if later.deletes.is_some() {
            self.deletes = later.deletes;
        }
        if let Some(range) = &self.deletes {
            self.puts.retain(|key, _| !range.contains(key));
        }
    }

    /// How many operations of a batch it takes.
    pub fn operations(&self) -> usize {
        self.puts.len() + usize::from(self.deletes.is_some())
    }

    /// Bytes of its keys and values.
    pub fn bytes(&self) -> usize {
        let put =
            |(key, value): (&Key, &Option<Bytes>)| key.len() + value.as_ref().map_or(0, Bytes::len);
        self.puts.iter().map(put).sum()
    }

    /// Leaves out what `other` changes.
    pub(crate) fn without(&mut self, other: &Self) {
        self.puts.retain(|key, _| !other.puts.contains_key(key));
    }

    /// Puts `value` at `key`.
    #[cfg(test)]
    pub(crate) fn with(mut self, key: Key, value: impl Into<Bytes>) -> Self {
        self.put(key, value.into());
        self
    }

    /// Does it to `values`, which stand for the store.
    #[cfg(test)]
    pub(crate) fn apply_to(self, values: &mut BTreeMap<Key, Bytes>) {
        if let Some(range) = &self.deletes {
            values.retain(|key, _| !range.contains(key));
        }
        for (key, value) in self.puts {
            match value {
                Some(value) => values.insert(key, value),
                None => values.remove(&key),
            };
        }
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.operations() == 0
    }

    /// The same as operations of a batch.
    pub fn ops(&self) -> Vec<StoreOp> {
        let put = |(key, value): (&Key, &Option<Bytes>)| match value {
            Some(value) => StoreOp::Put(Put::new(key.clone(), value.clone())),
            None => StoreOp::delete(key),
        };
        let deletes = self.deletes.iter().map(|range| StoreOp::delete_range(range.clone()));
        self.puts.iter().map(put).chain(deletes).collect()
    }

    /// Parts with the branches that lie last in it, so that at most `operations` are left; they
    /// are the only records that need not be written together.
    pub fn split_branches(&mut self, operations: usize) -> Self {
        let mut rest = Self::default();
        while operations < self.operations() {
            let is_branch = |key: &&Key| key.starts_with(b"txn/b/");
            let Some(key) = self.puts.keys().rfind(is_branch).cloned() else { break };
            if let Some(value) = self.puts.remove(&key) {
                rest.puts.insert(key, value);
            }
        }
        rest
    }
}

/// Reads a live transaction: its body, its register, its branches in any order.
///
/// # Errors
///
/// [`Unreadable`].
pub fn read<'a>(
    body: &[u8],
    register: &[u8],
    branches: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Transaction, Unreadable> {
    let (begin, created_at, deadline_at) = record::read_body(body)?;
    let register = record::read_register(register)?;
    let branches = record::read_branches(&begin, &register, branches)?;
    let (register, timeline) = (register.register, Vec::new());
    let parts = Parts { begin, created_at, deadline_at, register, branches, timeline };
    Ok(Transaction::restore(parts))
}

/// Reads a transaction that has ended: its body, and its record in history.
///
/// # Errors
///
/// [`Unreadable`].
pub fn read_history(body: &[u8], history: &[u8]) -> Result<Transaction, Unreadable> {
    let (begin, created_at, deadline_at) = record::read_body(body)?;
    let (register, branches, timeline) = record::read_history(&begin, history)?;
    let parts = Parts { begin, created_at, deadline_at, register, branches, timeline };
    Ok(Transaction::restore(parts))
}

/// When a transaction of history ended, and until when it has to be remembered.
///
/// # Errors
///
/// [`Unreadable`].
pub fn read_span(history: &[u8]) -> Result<(Moment, Moment), Unreadable> {
    record::read_span(history)
}

/// The epoch that wrote a register: what a takeover asks of it, without reading bodies.
///
/// # Errors
///
/// [`Unreadable`].
pub fn read_epoch(register: &[u8]) -> Result<u64, Unreadable> {
    Ok(record::read_register(register)?.epoch)
}
