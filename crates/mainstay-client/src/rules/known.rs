//! A state of rules, and what the next one is.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_api::rules::{Named, Object, Update};

/// Rules and switches followed at once: a few hundred bytes each, and a configuration has
/// thousands at most.
const OBJECTS_MAX: usize = 100_000;

/// What is known of rules and switches, as of one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    revision: u64,
    is_old: bool,
    objects: BTreeMap<Named, Arc<Object>>,
}

/// There are more than are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are more than {OBJECTS_MAX} rules and switches")]
pub(super) struct TooMany;

/// What the events of one change have told so far.
#[derive(Debug, Default)]
pub(super) struct Draft(Option<BTreeMap<Named, Arc<Object>>>);

impl Known {
    /// What was kept.
    pub(super) fn kept(revision: u64, objects: Vec<Object>) -> Self {
        let objects = objects.into_iter().map(|object| (object.named.clone(), Arc::new(object)));
        Self { revision, is_old: true, objects: objects.collect() }
    }

    /// The revision of the store it is as of; 0 while nothing is known.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether anything has been heard yet.
    pub const fn is_loaded(&self) -> bool {
        self.revision != 0
    }

    /// Whether no server confirms it any more, or none has yet: it is as good as any, but there may
    /// be something newer.
    pub const fn is_old(&self) -> bool {
        self.is_old
    }

    /// One of them.
    pub fn get(&self, named: &Named) -> Option<&Arc<Object>> {
        self.objects.get(named)
    }

    /// All of them, by kind, namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// Whether a server confirms it.
    pub(super) const fn confirmed(&mut self, is_it: bool) {
        self.is_old = !is_it;
    }

    /// Nothing up to `revision` is missing.
    pub(super) fn bookmark(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }
}

impl Draft {
    /// Takes an event: a `snapshot`, or a change of `known`. Returns the next state once it is
    /// whole.
    pub(super) fn take(
        &mut self,
        known: &Known,
        is_snapshot: bool,
        update: Update,
    ) -> Result<Option<Known>, TooMany> {
        let Update { revision, put, removed, more } = update;
        if is_snapshot {
            self.0 = Some(BTreeMap::new());
        }
        let objects = self.0.get_or_insert_with(|| known.objects.clone());
        objects.extend(put.into_iter().map(|object| (object.named.clone(), Arc::new(object))));
        for named in &removed {
            objects.remove(named);
        }
        if OBJECTS_MAX < objects.len() {
            return Err(TooMany);
        }
        if more {
            return Ok(None);
        }
        Ok(self.0.take().map(|objects| Known { revision, is_old: false, objects }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(name: &str) -> Named {
        let text = |text: &str| text.to_owned();
        Named { kind: text("switch"), namespace: text("shop"), name: text(name) }
    }

    fn update(revision: u64, put: &[(&str, u64)], removed: &[&str], more: bool) -> Update {
        let object = |(name, revision): &(&str, u64)| Object {
            named: named(name),
            revision: *revision,
            at: "2026-01-01T00:00:00Z".to_owned(),
            who: "anna".to_owned(),
            why: None,
            content: json!({}),
        };
        Update {
            revision,
            put: put.iter().map(object).collect(),
            removed: removed.iter().map(|name| named(name)).collect(),
            more,
        }
    }

    fn shown(known: &Known) -> Vec<(&str, u64)> {
        known.iter().map(|object| (&*object.named.name, object.revision)).collect()
    }

    #[test]
    fn a_state_is_replaced_whole_or_not_at_all() {
        let (mut draft, nothing) = (Draft::default(), Known::default());
        let first = draft.take(&nothing, true, update(7, &[("a", 1), ("b", 1)], &[], true));
        assert_eq!(first, Ok(None));
        let first = draft.take(&nothing, false, update(7, &[("c", 3)], &[], false));
        let first = first.unwrap().unwrap();
        assert_eq!((first.revision(), first.is_old()), (7, false));
        assert_eq!(shown(&first), [("a", 1), ("b", 1), ("c", 3)]);

        let next = draft.take(&first, false, update(9, &[("b", 2)], &["a"], false));
        let next = next.unwrap().unwrap();
        assert_eq!(shown(&next), [("b", 2), ("c", 3)]);

        // A change that was cut off, and the whole on the next stream.
        let cut = draft.take(&next, false, update(10, &[("x", 1)], &[], true));
        assert_eq!(cut, Ok(None));
        let whole = draft.take(&next, true, update(4, &[("y", 1)], &[], false));
        assert_eq!(shown(&whole.unwrap().unwrap()), [("y", 1)]);
    }
}
