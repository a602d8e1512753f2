//! What operations on key-value pairs come to: decided from what was read, nothing done.
//!
//! One operation or many, the rules are those of a batch: each sees what those before it did, and
//! when one cannot be done, none is.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mainstay_store::Revision;

use super::pair::Pair;
use crate::keys::PairName;

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PairOp {
    /// Reads a pair.
    Get(PairName),
    /// Reads a pair, or nothing if it is not there.
    GetOrEmpty(PairName),
    /// Reads all pairs whose names begin so.
    GetTree(String),
    /// Writes a pair.
    Set(Written),
    /// Writes a pair that was last written at this revision; 0 for one that is not there.
    Cas(Written, Revision),
    /// Writes a pair, and holds it for a session from then on.
    Lock(Written, String),
    /// Writes a pair that a session holds, and holds it no longer.
    Unlock(Written, String),
    /// Requires that a pair was last written at this revision.
    CheckIndex(PairName, Revision),
    /// Requires that a session holds a pair.
    CheckSession(PairName, String),
    /// Requires that a pair is not there.
    CheckNotExists(PairName),
    /// Deletes a pair.
    Delete(PairName),
    /// Deletes a pair that was last written at this revision, or is not there.
    DeleteCas(PairName, Revision),
    /// Deletes all pairs whose names begin so.
    DeleteTree(String),
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Where.
    pub name: PairName,
    /// A number of the caller's.
    pub flags: u64,
    /// The value.
    pub value: Bytes,
}

impl PairOp {
    /// The pair it is about; `None` for a tree.
    pub(super) fn name(&self) -> Option<&PairName> {
        match self {
            Self::Get(name)
            | Self::GetOrEmpty(name)
            | Self::CheckIndex(name, _)
            | Self::CheckSession(name, _)
            | Self::CheckNotExists(name)
            | Self::Delete(name)
            | Self::DeleteCas(name, _) => Some(name),
            Self::Set(written)
            | Self::Cas(written, _)
            | Self::Lock(written, _)
            | Self::Unlock(written, _) => Some(&written.name),
            Self::GetTree(_) | Self::DeleteTree(_) => None,
        }
    }

    /// The tree it is about.
    pub(super) fn tree(&self) -> Option<&str> {
        match self {
            Self::GetTree(prefix) | Self::DeleteTree(prefix) => Some(prefix),
            _ => None,
        }
    }
}

/// Why an operation cannot be done. The words are Consul's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// It is not there.
    #[error("key {0:?} doesn't exist")]
    Missing(String),
    /// It is there.
    #[error("key {0:?} exists")]
    Exists(String),
    /// Somebody wrote it since.
    #[error("failed to set key {0:?}, index is stale")]
    Stale(String),
    /// Somebody wrote it since.
    #[error("failed to delete key {0:?}, index is stale")]
    DeleteStale(String),
    /// Another session holds it, or it is delayed.
    #[error("failed to lock key {0:?}, lock is already held")]
    Held(String),
    /// The session does not hold it.
    #[error("failed to unlock key {0:?}, lock isn't held, or is held by another session")]
    NotHeld(String),
    /// No such session lives.
    #[error("invalid session {0:?}")]
    SessionInvalid(String),
    /// It was written at another revision.
    #[error("failed index check for key {0:?}, current modify index {1} != {2}")]
    Index(String, Revision, Revision),
    /// Another session holds it, or none.
    #[error("failed session check for key {0:?}, current session {1:?} != {2:?}")]
    Session(String, String, String),
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Pairs by name, those that are not there too.
    pub(super) pairs: BTreeMap<PairName, Option<Pair>>,
    /// Sessions that live.
    pub(super) sessions: BTreeSet<String>,
    /// Pairs that nobody may acquire now.
    pub(super) delayed: BTreeSet<PairName>,
}

/// What one operation answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// These pairs, as they were read.
    Read(Vec<Pair>),
    /// This pair, as it was written.
    Written(Pair),
    /// Nothing to tell.
    Nothing,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Pairs as they are to be; `None` goes.
    pub(super) changes: BTreeMap<PairName, Option<Pair>>,
    /// Trees that go, but for what [`changes`](Plan::changes) writes.
    pub(super) trees: Vec<String>,
    /// Pairs that a session holds from now on.
    pub(super) holds: BTreeSet<(String, PairName)>,
    /// Pairs that a session holds no longer.
    pub(super) frees: BTreeSet<(String, PairName)>,
    /// What each operation answers.
    pub(super) done: Vec<Done>,
}

/// Decides what `ops` come to.
///
/// # Errors
///
/// Every operation that cannot be done, by its place.
pub(super) fn plan(ops: &[PairOp], read: &Read) -> Result<Plan, Vec<(usize, Failed)>> {
    let mut plan = Plan::default();
    let mut failed = Vec::new();
    for (at, op) in ops.iter().enumerate() {
        match step(op, read, &mut plan) {
            Ok(done) => plan.done.push(done),
            Err(why) => failed.push((at, why)),
        }
    }
    if failed.is_empty() { Ok(plan) } else { Err(failed) }
}

fn step(op: &PairOp, read: &Read, plan: &mut Plan) -> Result<Done, Failed> {
    let text = |name: &PairName| name.as_str().to_owned();
    let found = op.name().and_then(|name| plan.now(read, name));
    let modified = found.as_ref().map_or(Revision::NEVER, |pair| pair.modified);
    match op {
        PairOp::Get(name) => {
            found.map(|pair| Done::Read(vec![pair])).ok_or_else(|| Failed::Missing(text(name)))
        }
        PairOp::GetOrEmpty(name) => {
            let pair = found.unwrap_or_else(|| Pair::new(name.clone()));
            Ok(Done::Read(vec![pair]))
        }
        PairOp::GetTree(prefix) => Ok(Done::Read(plan.tree(read, prefix))),
        PairOp::Set(written) => Ok(plan.write(found, written, |_pair| ())),
        PairOp::Cas(written, index) if *index == modified => {
            Ok(plan.write(found, written, |_pair| ()))
        }
        PairOp::Cas(written, _) => Err(Failed::Stale(text(&written.name))),
        PairOp::Lock(written, session) => lock(plan, read, found, written, session),
        PairOp::Unlock(written, session) => {
            let holder = found.as_ref().and_then(|pair| pair.session.as_ref());
            if holder != Some(session) {
                return Err(Failed::NotHeld(text(&written.name)));
            }
            let at = (session.clone(), written.name.clone());
            plan.holds.remove(&at);
            plan.frees.insert(at);
            Ok(plan.write(found, written, |pair| pair.session = None))
        }
        PairOp::CheckIndex(name, _) if found.is_none() => Err(Failed::Missing(text(name))),
        PairOp::CheckIndex(_, index) if *index == modified => Ok(Done::Nothing),
        PairOp::CheckIndex(name, index) => Err(Failed::Index(text(name), modified, *index)),
        PairOp::CheckSession(name, session) => {
            let pair = found.ok_or_else(|| Failed::Missing(text(name)))?;
            let holder = pair.session.clone().unwrap_or_default();
            if holder == *session {
                return Ok(Done::Read(vec![pair]));
            }
            Err(Failed::Session(text(name), holder, session.clone()))
        }
        PairOp::CheckNotExists(name) if found.is_some() => Err(Failed::Exists(text(name))),
        PairOp::CheckNotExists(_) => Ok(Done::Nothing),
        PairOp::Delete(name) => Ok(plan.delete(found, name)),
        PairOp::DeleteCas(name, index) if found.is_none() || *index == modified => {
            Ok(plan.delete(found, name))
        }
        PairOp::DeleteCas(name, _) => Err(Failed::DeleteStale(text(name))),
        PairOp::DeleteTree(prefix) => {
            plan.delete_tree(prefix);
            Ok(Done::Nothing)
        }
    }
}

fn lock(
    plan: &mut Plan,
    read: &Read,
    found: Option<Pair>,
    written: &Written,
    session: &str,
) -> Result<Done, Failed> {
    if !read.sessions.contains(session) {
        return Err(Failed::SessionInvalid(session.to_owned()));
    }
    let holder = found.as_ref().and_then(|pair| pair.session.as_deref());
    let is_again = holder == Some(session);
    // A session that holds it already is not delayed by what came before.
    if !is_again && (holder.is_some() || read.delayed.contains(&written.name)) {
        return Err(Failed::Held(written.name.as_str().to_owned()));
    }
    let at = (session.to_owned(), written.name.clone());
    plan.frees.remove(&at);
    plan.holds.insert(at);
    Ok(plan.write(found, written, |pair| {
        if !is_again {
            pair.lock_index += 1;
            pair.session = Some(session.to_owned());
        }
    }))
}

impl Plan {
    /// The pair as the operations so far leave it.
    fn now(&self, read: &Read, name: &PairName) -> Option<Pair> {
        if let Some(changed) = self.changes.get(name) {
            return changed.clone();
        }
        if self.trees.iter().any(|prefix| name.as_str().starts_with(prefix)) {
            return None;
        }
        read.pairs.get(name).cloned().flatten()
    }

    fn tree(&self, read: &Read, prefix: &str) -> Vec<Pair> {
        let names: BTreeSet<&PairName> = read.pairs.keys().chain(self.changes.keys()).collect();
        let within = names.into_iter().filter(|name| name.as_str().starts_with(prefix));
        within.filter_map(|name| self.now(read, name)).collect()
    }

    fn write(
        &mut self,
        found: Option<Pair>,
        written: &Written,
        change: impl FnOnce(&mut Pair),
    ) -> Done {
        let mut pair = found.unwrap_or_else(|| Pair::new(written.name.clone()));
        pair.flags = written.flags;
        pair.value = written.value.clone();
        change(&mut pair);
        self.changes.insert(written.name.clone(), Some(pair.clone()));
        Done::Written(pair)
    }

    fn delete(&mut self, found: Option<Pair>, name: &PairName) -> Done {
        if let Some(Pair { session: Some(session), .. }) = found {
            let at = (session, name.clone());
            self.holds.remove(&at);
            self.frees.insert(at);
        }
        self.changes.insert(name.clone(), None);
        Done::Nothing
    }

    /// Marks of holds in it stay; they say nothing without the pair, and go with the session.
    fn delete_tree(&mut self, prefix: &str) {
        self.changes.retain(|name, _| !name.as_str().starts_with(prefix));
        self.holds.retain(|(_, name)| !name.as_str().starts_with(prefix));
        self.trees.push(prefix.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> PairName {
        PairName::new(text).unwrap()
    }

    fn written(text: &str) -> Written {
        Written { name: name(text), flags: 0, value: Bytes::from_static(b"v") }
    }

    /// `a` was written at 7 and belongs to nobody, `l` is held by `S`, `d` is delayed.
    fn read() -> Read {
        let mut read = Read::default();
        for (text, session) in [("a", None), ("l", Some("S"))] {
            let mut pair = Pair::new(name(text));
            (pair.created, pair.modified) = (Revision::new(5), Revision::new(7));
            pair.session = session.map(str::to_owned);
            pair.lock_index = u64::from(session.is_some());
            read.pairs.insert(name(text), Some(pair));
        }
        read.sessions.extend(["S".to_owned(), "T".to_owned()]);
        read.delayed.insert(name("d"));
        read
    }

    /// Whether `ops` can be done.
    fn check(ops: &[PairOp], want: bool) -> Option<Plan> {
        let got = plan(ops, &read());
        assert_eq!(got.is_ok(), want, "{ops:?}: {got:?}");
        got.ok()
    }

    #[test]
    fn a_write_compares_what_it_was_told_to() {
        let at = Revision::new;
        check(&[PairOp::Cas(written("a"), at(7))], true);
        check(&[PairOp::Cas(written("a"), at(6))], false);
        check(&[PairOp::Cas(written("a"), at(0))], false);
        check(&[PairOp::Cas(written("new"), at(0))], true);
        check(&[PairOp::Cas(written("new"), at(7))], false);
        check(&[PairOp::DeleteCas(name("a"), at(6))], false);
        check(&[PairOp::DeleteCas(name("new"), at(6))], true);
        check(&[PairOp::CheckNotExists(name("a"))], false);
        check(&[PairOp::CheckIndex(name("a"), at(7))], true);
    }

    #[test]
    fn a_lock_belongs_to_one_session_and_counts_its_holders() {
        let lock = |text: &str, session: &str| PairOp::Lock(written(text), session.to_owned());
        let index = |plan: Option<Plan>, text: &str| {
            plan.unwrap().changes[&name(text)].as_ref().unwrap().lock_index
        };
        assert_eq!(index(check(&[lock("a", "T")], true), "a"), 1);
        assert_eq!(index(check(&[lock("l", "S")], true), "l"), 1, "held already");
        check(&[lock("l", "T")], false);
        check(&[lock("d", "T")], false);
        check(&[lock("a", "unknown")], false);
        let free = PairOp::Unlock(written("l"), "S".to_owned());
        assert_eq!(index(check(&[free.clone(), lock("l", "T")], true), "l"), 2);
        check(&[PairOp::Unlock(written("l"), "T".to_owned())], false);
        let plan = check(&[free], true).unwrap();
        assert_eq!(plan.frees.len(), 1);
        assert_eq!(plan.changes[&name("l")].as_ref().unwrap().session, None);
        // A plain write leaves the lock where it is.
        let plan = check(&[PairOp::Set(written("l"))], true).unwrap();
        assert_eq!(plan.changes[&name("l")].as_ref().unwrap().session.as_deref(), Some("S"));
    }

    #[test]
    fn an_operation_sees_those_before_it_and_one_failure_undoes_all() {
        check(&[PairOp::Delete(name("a")), PairOp::CheckNotExists(name("a"))], true);
        check(&[PairOp::Set(written("n")), PairOp::CheckNotExists(name("n"))], false);
        let ops = [PairOp::DeleteTree(String::new()), PairOp::Set(written("a"))];
        let plan = check(&ops, true).unwrap();
        assert_eq!(plan.changes[&name("a")].as_ref().unwrap().created, Revision::NEVER);
        let ops = [PairOp::DeleteTree(String::new()), PairOp::GetTree(String::new())];
        assert_eq!(check(&ops, true).unwrap().done.last(), Some(&Done::Read(Vec::new())));
    }
}
