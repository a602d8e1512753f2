//! Writing key-value pairs.

use mainstay_store::{
    Batch, Compare, Get, Op, Operator, Put, Range, RangeRequest, Revision, Select, Target,
};

use super::pair::{PAIR_VALUE_BYTES_MAX, Pair};
use super::plan::{Done, Failed, PairOp, Plan, Read, plan};
use super::session::Record;
use super::{Consul, ConsulError};
use crate::keys::{self, ConsulSessionId};
use crate::patience::Patience;

/// Tries of a batch that others keep overtaking; each try that fails is one that another won.
const TRIES_MAX: u32 = 1_000;

/// What a batch of operations came to.
pub type Outcome = Result<Vec<Done>, Vec<(usize, Failed)>>;

impl Consul {
    /// Does all of `ops`, or none of them and says which could not be done.
    ///
    /// # Errors
    ///
    /// What the store said; [`OutcomeUnknown`](mainstay_store::Error::OutcomeUnknown) is among it,
    /// since a pair bears no mark of who wrote it.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open.
    pub async fn apply(&self, ops: &[PairOp]) -> Result<Outcome, ConsulError> {
        for op in ops {
            if let PairOp::Set(written)
            | PairOp::Cas(written, _)
            | PairOp::Lock(written, _)
            | PairOp::Unlock(written, _) = op
            {
                let (found, max) = (written.value.len(), PAIR_VALUE_BYTES_MAX);
                if max < found {
                    return Err(ConsulError::ValueTooLarge { found, max });
                }
            }
        }
        let shared = &self.shared;
        let mut patience = Patience::new(shared.timer.now(), Patience::FOR_CALLERS);
        for _try in 0..TRIES_MAX {
            match self.try_apply(ops).await {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) => {}
                Err(ConsulError::Store(error)) if error.is_retryable() => {
                    patience.bear(&*shared.timer, error).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(ConsulError::Behind)
    }

    /// One try; `None` when somebody else was quicker.
    async fn try_apply(&self, ops: &[PairOp]) -> Result<Option<Outcome>, ConsulError> {
        let (read, guards, revision) = self.read_for(ops).await?;
        let mut plan = match plan(ops, &read) {
            Ok(plan) => plan,
            Err(failed) => return Ok(Some(Err(failed))),
        };
        let branch = branch(&plan, &read);
        if branch.is_empty() {
            return Ok(Some(Ok(plan.done)));
        }
        let batch = Batch { compares: guards, then: branch, otherwise: Vec::new() };
        let applied = self.shared.store.apply(batch).await?;
        if !applied.succeeded {
            return Ok(None);
        }
        // A batch of deletes that match nothing takes no revision of its own.
        let at = applied.revision.max(revision);
        for done in &mut plan.done {
            if let Done::Written(pair) = done {
                pair.modified = at;
                if pair.created == Revision::NEVER {
                    pair.created = at;
                }
            }
        }
        Ok(Some(Ok(plan.done)))
    }

    /// Reads what `ops` are judged by, at one revision; and compares that hold while it is so.
    async fn read_for(
        &self,
        ops: &[PairOp],
    ) -> Result<(Read, Vec<Compare>, Revision), ConsulError> {
        let store = &*self.shared.store;
        let (mut read, mut guards) = (Read::default(), Vec::new());
        let mut revision = store.get(Get::new(keys::fence_base())).await?.revision;
        for op in ops {
            if let Some(name) = op.name()
                && !read.pairs.contains_key(name)
            {
                let key = name.pair();
                let got = store.get(Get::new(key.clone()).at(revision)).await?;
                let since = got.entry.as_ref().map_or(Revision::NEVER, |e| e.mod_revision);
                guards.push(Compare::unchanged_since(&key, since));
                let pair = got.entry.as_ref().map(Pair::read).transpose()?;
                read.pairs.insert(name.clone(), pair);
            }
            if let Some(prefix) = op.tree() {
                let range = keys::consul_pairs(prefix);
                self.read_tree(range.clone(), revision, &mut read).await?;
                guards.push(nothing_newer(range, revision));
            }
            if let PairOp::Lock(written, session) = op {
                let key = written.name.delay();
                if store.get(Get::new(key.clone()).at(revision)).await?.entry.is_some() {
                    read.delayed.insert(written.name.clone());
                } else if !guards.contains(&Compare::missing(&key)) {
                    guards.push(Compare::missing(&key));
                }
                if let Some(more) = self.lives(session, &mut revision).await?
                    && read.sessions.insert(session.clone())
                {
                    guards.extend(more);
                }
            }
        }
        Ok((read, guards, revision))
    }

    async fn read_tree(
        &self,
        mut range: Range,
        at: Revision,
        read: &mut Read,
    ) -> Result<(), ConsulError> {
        loop {
            let request = RangeRequest::new(Select::new(range.clone())).at(at);
            let page = self.shared.store.range(request).await?;
            for entry in &page.entries {
                let pair = Pair::read(entry)?;
                read.pairs.insert(pair.name.clone(), Some(pair));
            }
            match page.entries.last() {
                Some(last) if page.more => range = range.after(&last.key),
                _ => return Ok(()),
            }
        }
    }

    /// Compares that hold while `session` lives, if it does.
    async fn lives(
        &self,
        session: &str,
        at: &mut Revision,
    ) -> Result<Option<Vec<Compare>>, ConsulError> {
        let store = &*self.shared.store;
        let Some(id) = ConsulSessionId::new(session) else { return Ok(None) };
        let Some(entry) = store.get(Get::new(id.record()).at(*at)).await?.entry else {
            return Ok(None);
        };
        let mut guards = vec![Compare::present(&entry.key)];
        if Record::read(&entry)?.lease.is_some() {
            if store.get(Get::new(id.life()).at(*at)).await?.entry.is_none() {
                return Ok(None);
            }
            guards.push(Compare::present(&id.life()));
        }
        Ok(Some(guards))
    }
}

/// Holds while nothing in `range` was written after `revision`.
pub(super) fn nothing_newer(range: Range, revision: Revision) -> Compare {
    Compare { range, target: Target::ModRevision(revision.next()), operator: Operator::Less }
}

fn branch(plan: &Plan, read: &Read) -> Vec<Op> {
    let mut ops: Vec<Op> = Vec::new();
    let is_under = |name: &str, prefix: &str| name.starts_with(prefix);
    for prefix in &plan.trees {
        let kept = plan
            .changes
            .iter()
            .any(|(name, pair)| pair.is_some() && is_under(name.as_str(), prefix));
        if !kept {
            ops.push(Op::delete_range(keys::consul_pairs(prefix)));
            continue;
        }
        // A batch may not delete a range and put into it, so what is there goes one by one.
        let there = read.pairs.iter().filter(|(name, pair)| {
            pair.is_some() && is_under(name.as_str(), prefix) && !plan.changes.contains_key(name)
        });
        ops.extend(there.map(|(name, _)| Op::delete(&name.pair())));
    }
    for (name, pair) in &plan.changes {
        ops.push(match pair {
            Some(pair) => Put::new(name.pair(), pair.record()).into(),
            None => Op::delete(&name.pair()),
        });
    }
    for (session, name) in &plan.holds {
        if let Some(id) = ConsulSessionId::new(session) {
            ops.push(Put::new(id.hold(name), "{\"v\":1}").into());
        }
    }
    for (session, name) in &plan.frees {
        if let Some(id) = ConsulSessionId::new(session) {
            ops.push(Op::delete(&id.hold(name)));
        }
    }
    ops
}
