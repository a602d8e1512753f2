//! A node's copy of what is in force.
//!
//! Of each group it keeps the head and the releases the head names, without contents. It takes
//! changes as a watch delivers them, and whole lists where history was lost; a head is taken
//! before the releases of the same revision, so that nothing is kept that no head names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mainstay_store::{Entry, Event, Key, Revision};

use super::canary::{Client, effective};
use super::record::{self, Head, Release};
use crate::keys::{CentreKey, GroupRef, parse_centre};

/// A group as this node knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Group {
    pub(super) head: Head,
    /// When the head was written.
    pub(super) revision: Revision,
    /// Those the head names, by number.
    releases: BTreeMap<u64, Arc<Release>>,
}

impl Group {
    /// The release `client` gets; `None` only while a copy is between two revisions.
    pub(super) fn effective(
        &self,
        group: &GroupRef,
        client: Option<&Client>,
    ) -> Option<&Arc<Release>> {
        self.releases.get(&effective(group, &self.head, client))
    }

    /// Release `number`, if the head names it.
    pub(super) fn release(&self, number: u64) -> Option<&Arc<Release>> {
        self.releases.get(&number)
    }
}

/// What a change touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Touched {
    /// What is in force in a group.
    Group(GroupRef),
    /// What is written there cannot be read, and is left out.
    Unreadable(Key),
}

/// All groups.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Copy {
    groups: BTreeMap<GroupRef, Arc<Group>>,
    revision: Option<Revision>,
}

impl Copy {
    /// Whether it has been read once.
    pub(super) const fn is_loaded(&self) -> bool {
        self.revision.is_some()
    }

    /// The revision it stands at.
    pub(super) fn revision(&self) -> Revision {
        self.revision.unwrap_or(Revision::NEVER)
    }

    pub(super) fn group(&self, group: &GroupRef) -> Option<&Arc<Group>> {
        self.groups.get(group)
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = (&GroupRef, &Arc<Group>)> {
        self.groups.iter()
    }

    /// Takes the changes of one revision; none when there were none up to it.
    pub(super) fn apply(&mut self, revision: Revision, events: &[Event]) -> Vec<Touched> {
        let mut touched = Vec::new();
        for event in events {
            if let Some(CentreKey::Head(group)) = parse_centre(event.key()) {
                touched.extend(self.set_head(group, event.key(), event.entry()));
            }
        }
        for event in events {
            if let Some(CentreKey::Release(group, number)) = parse_centre(event.key()) {
                touched.extend(self.set_release(&group, number, event.entry()));
            }
        }
        self.revision = self.revision.max(Some(revision));
        touched
    }

    /// Takes the whole as of `revision`: another copy, made by [`add`](Copy::add) from a list.
    /// Touches only what differs. Of a group whose head was `unreadable` the last good one stays.
    pub(super) fn replace(
        &mut self,
        revision: Revision,
        mut fresh: Self,
        unreadable: &[Key],
    ) -> Vec<Touched> {
        for key in unreadable {
            if let Some(CentreKey::Head(group)) = parse_centre(key)
                && let Some(last_good) = self.groups.get(&group)
            {
                fresh.groups.insert(group, Arc::clone(last_good));
            }
        }
        let names: BTreeSet<GroupRef> =
            self.groups.keys().chain(fresh.groups.keys()).cloned().collect();
        let differs = |name: &GroupRef| self.groups.get(name) != fresh.groups.get(name);
        let touched = names.into_iter().filter(differs).map(Touched::Group).collect();
        fresh.revision = self.revision.max(Some(revision));
        *self = fresh;
        touched
    }

    /// Takes an entry of a list in order of keys, in which a head comes before its releases.
    pub(super) fn add(&mut self, entry: &Entry) -> Option<Touched> {
        match parse_centre(&entry.key)? {
            CentreKey::Head(group) => self.set_head(group, &entry.key, Some(entry)),
            CentreKey::Release(group, number) => self.set_release(&group, number, Some(entry)),
            _ => None,
        }
    }

    fn set_head(&mut self, group: GroupRef, key: &Key, entry: Option<&Entry>) -> Option<Touched> {
        let Some(entry) = entry else {
            return self.groups.remove(&group).map(|_| Touched::Group(group));
        };
        let Some(head) = record::read::<Head>(&entry.value) else {
            // The last good one stays in force.
            return Some(Touched::Unreadable(key.clone()));
        };
        let kept = Arc::make_mut(self.groups.entry(group.clone()).or_default());
        kept.releases.retain(|number, _| head.names(*number));
        (kept.head, kept.revision) = (head, entry.mod_revision);
        Some(Touched::Group(group))
    }

    fn set_release(
        &mut self,
        group: &GroupRef,
        number: u64,
        entry: Option<&Entry>,
    ) -> Option<Touched> {
        let kept = self.groups.get_mut(group).filter(|kept| kept.head.names(number))?;
        let entry = entry?;
        let Some(release) = record::read::<Release>(&entry.value) else {
            return Some(Touched::Unreadable(entry.key.clone()));
        };
        Arc::make_mut(kept).releases.insert(number, Arc::new(release));
        Some(Touched::Group(group.clone()))
    }
}
