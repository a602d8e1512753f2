//! Lists of what is live, and of what has ended.
//!
//! A list must not wait for transactions whose records are just being written, nor read a store's
//! worth of them: what is live shows a [`Glance`], and of what has ended the order is known.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Coordinator;
use crate::figures::Live;
use crate::moment::Moment;
use crate::name::{Gid, ResourceName};
use crate::transaction::{Begin, Part, Transaction};
use crate::word::State;

/// What is seen of a live transaction without asking it.
#[derive(Clone, Debug)]
pub struct Glance {
    /// What it was begun with.
    pub begin: Arc<Begin>,
    /// When.
    pub created_at: Moment,
    /// When it was decided.
    pub decided_at: Option<Moment>,
    /// Where it stands.
    pub state: State,
    /// It does not get on.
    pub stuck: bool,
    /// Databases that its branches lie in.
    pub resources: Vec<ResourceName>,
}

impl Glance {
    pub(super) fn of(transaction: &Transaction) -> Self {
        Self {
            begin: Arc::clone(&transaction.begin),
            created_at: transaction.created_at,
            decided_at: transaction.register.decided_at,
            state: transaction.state(),
            stuck: transaction.register.stuck,
            resources: resources(transaction),
        }
    }

    /// Where it stands in a list.
    pub fn mark(&self) -> (Moment, Gid) {
        (self.created_at, self.begin.gid.clone())
    }

    /// The same to compare by: a list looks at all that is live, while nothing begins or ends.
    fn place(&self) -> (Moment, &Gid) {
        (self.created_at, &self.begin.gid)
    }
}

/// Databases that branches of `transaction` lie in, each once.
fn resources(transaction: &Transaction) -> Vec<ResourceName> {
    let named = transaction.branches.iter().filter_map(|branch| match &branch.part {
        Part::Resource(resource) => Some(resource),
        Part::Endpoint { .. } => None,
    });
    let named: BTreeSet<_> = named.collect();
    named.into_iter().cloned().collect()
}

/// Some of what is live.
#[derive(Clone, Debug)]
pub struct Glances {
    /// The newest first.
    pub items: Vec<Glance>,
    /// Whether there are more behind the last.
    pub more: bool,
    /// Whether some were not read yet after a takeover, and so are missing.
    pub partial: bool,
}

/// Some of what has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// When each ended, and its name; the newest first.
    pub items: Vec<(Moment, Gid)>,
    /// Whether some are missing, since history is still being read.
    pub partial: bool,
}

impl Coordinator {
    /// At most `most` live transactions of this node that `wanted` picks and that were begun before
    /// `mark`, or of all.
    pub fn glances(
        &self,
        mark: Option<&(Moment, Gid)>,
        wanted: impl Fn(&Glance) -> bool,
        most: usize,
    ) -> Glances {
        let (mut items, mut partial) = (Vec::new(), false);
        self.each_glance(|glance| match glance {
            Some(glance) => {
                let is_behind = mark.is_none_or(|(at, gid)| glance.place() < (*at, gid));
                if is_behind && wanted(glance) {
                    items.push(glance.clone());
                }
            }
            None => partial = true,
        });
        items.sort_unstable_by(|one, other| other.place().cmp(&one.place()));
        let more = most < items.len();
        items.truncate(most);
        Glances { items, more, partial }
    }

    /// At most `most` transactions of this node that ended before `mark`, or of all.
    pub fn ended_before(&self, mark: Option<&(Moment, Gid)>, most: usize) -> Ended {
        let items = self.shared.history.lock().before(mark, most);
        Ended { items, partial: 0 < self.shared.indexing.load(Ordering::Acquire) }
    }

    /// Whether a live transaction of this node has a branch in `resource`, or may have one since it
    /// waits to be read.
    pub fn uses(&self, resource: &ResourceName) -> bool {
        let slots = self.shared.slots.lock();
        slots.values().any(|slot| match &*slot.glance.lock() {
            Some(glance) => !glance.state.is_final() && glance.resources.contains(resource),
            // One that is being begun has no branches yet.
            None => slot.was_logged,
        })
    }

    /// Databases in which the live transaction `gid` has branches.
    pub(crate) fn resources_of(&self, gid: &Gid) -> Vec<ResourceName> {
        let slots = self.shared.slots.lock();
        let Some(slot) = slots.get(gid) else { return Vec::new() };
        let glance = slot.glance.lock();
        glance.as_ref().map(|glance| glance.resources.clone()).unwrap_or_default()
    }

    /// Brings what is counted of this moment up to date.
    pub fn look(&self) {
        let now = self.shared.ports.surroundings.now();
        let mut live = Live::default();
        self.each_glance(|glance| {
            let Some(glance) = glance else { return };
            let at = State::ALL.iter().position(|state| *state == glance.state);
            if let Some(count) = at.and_then(|at| live.states.get_mut(at)) {
                *count += 1;
            }
            live.stuck += i64::from(glance.stuck);
            live.oldest = live.oldest.max(now.since(glance.created_at));
        });
        let lanes = self.shared.lanes.read();
        live.queued = lanes.iter().map(crate::commit::Lane::records).sum();
        live.shards = self.shared.owned.lock().len();
        live.history = self.shared.history.lock().figures();
        self.shared.settings.figures.look(&live);
    }

    /// Shows what is seen of each live transaction, in no order; nothing of those not read yet.
    fn each_glance(&self, mut look: impl FnMut(Option<&Glance>)) {
        let slots = self.shared.slots.lock();
        slots.values().for_each(|slot| look(slot.glance.lock().as_ref()));
    }
}
