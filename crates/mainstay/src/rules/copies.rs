//! The copy of the rules that a process serves by: one of each kind, of its own store or of a
//! control plane elsewhere.

use std::sync::Arc;
use std::time::Duration;

use mainstay_coord::Revisions;
use mainstay_coord::keys::{RuleKind, RuleRef};
use mainstay_coord::revisions::{Kept, Snapshot};
use mainstay_store::Revision;
use tokio::sync::watch::Receiver;

use super::KINDS;

/// A rule as the store has it: who wrote it, and its text.
pub type KeptRule = Kept<Arc<str>>;

/// How long a change waits for the copy.
const REACHED_WITHIN: Duration = Duration::from_secs(5);

/// What is seen of one kind.
type Seen = Receiver<Arc<Snapshot<Arc<str>>>>;

/// The copy. Clones share it.
#[derive(Clone, Debug)]
pub struct Copies {
    kinds: [Seen; KINDS.len()],
}

impl Copies {
    /// Follows all kinds until [`Revisions::shutdown`]. Must be called within a tokio runtime.
    pub fn start(revisions: &Revisions) -> Self {
        let kinds = KINDS.map(|kind| {
            let text = |content: &serde_json::Value| content.as_str().map(Arc::<str>::from);
            revisions.follow(kind.key, text).subscribe()
        });
        Self { kinds }
    }

    /// The copies of [`KINDS`], in their order.
    pub const fn of_kinds(kinds: [Seen; KINDS.len()]) -> Self {
        Self { kinds }
    }

    /// Waits until everything has been read once.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn ready(&self) {
        for mut kind in self.kinds.clone() {
            // Ends too when nobody follows any more.
            drop(kind.wait_for(|snapshot| snapshot.is_loaded()).await);
        }
    }

    /// The copy of one kind; `None` of a kind of other parts.
    pub fn of(&self, kind: RuleKind) -> Option<&Seen> {
        let at = KINDS.iter().position(|known| known.key == kind)?;
        self.kinds.get(at)
    }

    /// One kind as it is now; `None` of a kind of other parts.
    pub fn snapshot(&self, kind: RuleKind) -> Option<Arc<Snapshot<Arc<str>>>> {
        Some(Arc::clone(&self.of(kind)?.borrow()))
    }

    /// One rule, as this process knows it.
    pub fn get(&self, rule: &RuleRef) -> Option<Arc<KeptRule>> {
        self.snapshot(rule.kind)?.get(rule).cloned()
    }

    /// Every rule there is; `None` before everything was read once.
    pub fn all(&self) -> Option<Vec<(RuleRef, Arc<KeptRule>)>> {
        let mut all = Vec::new();
        for kind in &self.kinds {
            let snapshot = Arc::clone(&kind.borrow());
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
        let Some(mut copy) = self.of(kind).cloned() else { return false };
        let wanted = Revision::new(revision);
        let reached = copy.wait_for(|snapshot| wanted <= snapshot.revision);
        tokio::time::timeout(REACHED_WITHIN, reached).await.is_ok_and(|reached| reached.is_ok())
    }

    /// Hears of changes from now on.
    pub fn listen(&self) -> Changes {
        let mut kinds = self.kinds.clone();
        kinds.iter_mut().for_each(Receiver::mark_unchanged);
        Changes { kinds }
    }
}

/// What tells of changes of a copy.
#[derive(Debug)]
pub struct Changes {
    kinds: [Seen; KINDS.len()],
}

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
