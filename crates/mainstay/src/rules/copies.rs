//! This node's copy of the rules: one of each kind, followed from the store.

use std::sync::Arc;

use mainstay_coord::Revisions;
use mainstay_coord::keys::{RuleKind, RuleRef};
use mainstay_coord::revisions::{Followed, Kept};
use mainstay_store::Revision;

use super::KINDS;

/// A rule as the store has it: who wrote it, and its text.
pub type KeptRule = Kept<Arc<str>>;

/// The copy. Clones share it.
#[derive(Clone, Debug)]
pub struct Copies {
    kinds: [Followed<Arc<str>>; KINDS.len()],
}

impl Copies {
    /// Follows all kinds until [`Revisions::shutdown`]. Must be called within a tokio runtime.
    pub fn start(revisions: &Revisions) -> Self {
        let kinds = KINDS.map(|kind| {
            revisions.follow(kind.key, |content| content.as_str().map(Arc::<str>::from))
        });
        Self { kinds }
    }

    /// Waits until everything has been read once.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn ready(&self) {
        for kind in &self.kinds {
            kind.ready().await;
        }
    }

    /// The copy of one kind; `None` of a kind of other parts.
    pub fn of(&self, kind: RuleKind) -> Option<&Followed<Arc<str>>> {
        let at = KINDS.iter().position(|known| known.key == kind)?;
        self.kinds.get(at)
    }

    /// One rule, as this node knows it.
    pub fn get(&self, rule: &RuleRef) -> Option<Arc<KeptRule>> {
        self.of(rule.kind)?.snapshot().get(rule).cloned()
    }

    /// Every rule there is; `None` before everything was read once.
    pub fn all(&self) -> Option<Vec<(RuleRef, Arc<KeptRule>)>> {
        let mut all = Vec::new();
        for kind in &self.kinds {
            let snapshot = kind.snapshot();
            if !snapshot.is_loaded() {
                return None;
            }
            all.extend(snapshot.iter().map(|(rule, kept)| (rule.clone(), Arc::clone(kept))));
        }
        Some(all)
    }

    /// Waits until the copy has what `revision` of the store wrote to `kind`; `false` when it has
    /// not within 5 s.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn reached(&self, kind: RuleKind, revision: u64) -> bool {
        match self.of(kind) {
            Some(followed) => followed.reached(Revision::new(revision)).await,
            None => false,
        }
    }

    /// Hears of changes from now on.
    pub fn listen(&self) -> Changes {
        Changes { kinds: self.kinds.each_ref().map(Followed::subscribe) }
    }
}

/// What tells of changes of a copy.
#[derive(Debug)]
pub struct Changes {
    kinds: [tokio::sync::watch::Receiver<Arc<Seen>>; KINDS.len()],
}

/// What is seen of one kind.
type Seen = mainstay_coord::revisions::Snapshot<Arc<str>>;

impl Changes {
    /// Waits for the next change of any kind; of several at once, one is told.
    ///
    /// # Cancel safety
    ///
    /// Safe: a change that came meanwhile is told next time.
    pub async fn next(&mut self) {
        let [route, upstream, circuit, limit, fallback] = &mut self.kinds;
        // A copy that has ended tells nothing more, and its process ends too.
        tokio::select! {
            Ok(()) = route.changed() => (),
            Ok(()) = upstream.changed() => (),
            Ok(()) = circuit.changed() => (),
            Ok(()) = limit.changed() => (),
            Ok(()) = fallback.changed() => (),
            else => std::future::pending().await,
        }
    }
}
