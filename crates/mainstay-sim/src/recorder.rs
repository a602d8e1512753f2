//! Everything that ever happened in the store, as somebody saw it who was told first.
//!
//! It is told of each revision when it is published, before anybody is answered, and works out for
//! itself what each key was before: so it is what watches, reads and acknowledgements are compared
//! with. That it goes on without a gap over every crash is itself a check.

use std::collections::BTreeMap;

use mainstay_store::{Change, Entry, Event, Key, Range, Revision, WatchItem};

/// What happened so far.
#[derive(Debug, Default)]
pub struct Recorder {
    history: Vec<(Revision, Vec<Event>)>,
    /// When each revision of `history` was seen, in the order of everything.
    seen: Vec<i64>,
    state: BTreeMap<Key, Entry>,
    /// History before this may have been compacted.
    compacted: Revision,
}

impl Recorder {
    /// The last revision that was seen.
    pub fn last(&self) -> Revision {
        self.history.last().map_or(Revision::FIRST, |(revision, _)| *revision)
    }

    /// Every change, by revision, with the entries of just before.
    pub fn history(&self) -> &[(Revision, Vec<Event>)] {
        &self.history
    }

    /// What is there now.
    pub const fn state(&self) -> &BTreeMap<Key, Entry> {
        &self.state
    }

    /// History before `revision` may be compacted from now on.
    pub fn compacts(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision);
    }

    /// `items` of a watch with the previous entries that were compacted when it read them, and
    /// that it may leave out.
    pub fn complete(&self, items: &[WatchItem]) -> Vec<WatchItem> {
        let mut items = items.to_vec();
        for item in &mut items {
            let WatchItem::Changes { revision, events } = item else { continue };
            if self.compacted < *revision {
                continue;
            }
            let happened = self.changes(*revision).unwrap_or_default();
            for event in events.iter_mut().filter(|event| event.previous.is_none()) {
                let same = happened.iter().find(|happened| happened.key() == event.key());
                event.previous = same.and_then(|same| same.previous.clone());
            }
        }
        items
    }

    /// What was there at `revision`, within `range`.
    pub fn at(&self, revision: Revision, range: &Range) -> BTreeMap<Key, Entry> {
        let mut state = BTreeMap::new();
        let events = self.history.iter().take_while(|(then, _)| *then <= revision);
        for event in events.flat_map(|(_, events)| events) {
            if range.contains(event.key()) {
                match &event.change {
                    Change::Put(entry) => drop(state.insert(entry.key.clone(), entry.clone())),
                    Change::Delete(key) => drop(state.remove(key)),
                }
            }
        }
        state
    }

    /// The changes of `revision`.
    pub fn changes(&self, revision: Revision) -> Option<&[Event]> {
        let at = self.history.binary_search_by_key(&revision, |(then, _)| *then).ok()?;
        self.history.get(at).map(|(_, events)| events.as_slice())
    }

    /// Each put below `prefix`: when it was seen, its revision, its entry.
    pub fn puts<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (i64, Revision, &'a Entry)> {
        let stamped = self.history.iter().zip(&self.seen);
        stamped.flat_map(move |((revision, events), seen)| {
            let entries = events.iter().filter_map(Event::entry);
            let ours = entries.filter(move |entry| entry.key.starts_with(prefix.as_bytes()));
            ours.map(move |entry| (*seen, *revision, entry))
        })
    }

    /// Takes the changes of the next revision, seen at `now`.
    ///
    /// # Errors
    ///
    /// What cannot be, after all that happened before.
    pub fn take(
        &mut self,
        revision: Revision,
        mut events: Vec<Event>,
        now: i64,
    ) -> Result<(), String> {
        if revision != self.last().next() {
            return Err(format!("revision {revision} was published after {}", self.last()));
        }
        for event in &mut events {
            event.previous = self.state.get(event.key()).cloned();
            let previous = event.previous.as_ref();
            let right = match &event.change {
                Change::Put(entry) => {
                    entry.mod_revision == revision
                        && entry.version == previous.map_or(0, |old| old.version) + 1
                        && entry.create_revision
                            == previous.map_or(revision, |old| old.create_revision)
                }
                Change::Delete(_) => previous.is_some(),
            };
            if !right {
                return Err(format!("{event:?} cannot happen at {revision}"));
            }
            match &event.change {
                Change::Put(entry) => drop(self.state.insert(entry.key.clone(), entry.clone())),
                Change::Delete(key) => drop(self.state.remove(key)),
            }
        }
        self.history.push((revision, events));
        self.seen.push(now);
        Ok(())
    }
}
