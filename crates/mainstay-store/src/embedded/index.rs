//! Which version of a key stands where in the log.
//!
//! Kept in memory and rebuilt at open by one pass over the log: 48 bytes a version, and a key once.
//! All but values is here, so only values are read from disk.

use std::collections::{BTreeMap, VecDeque};

use crate::entry::{Entry, LeaseId, Revision};
use crate::key::{Key, Range};

use super::record::{Position, Record};

/// One version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) position: Position,
    /// `None` after a delete.
    pub(super) life: Option<Life>,
    /// Bytes of its record in the log.
    pub(super) bytes: u32,
}

/// What is known of a key that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) create: Revision,
    pub(super) version: u64,
    pub(super) lease: Option<LeaseId>,
}

impl Place {
    pub(super) fn of(position: Position, record: &Record) -> Self {
        let life = match record {
            Record::Put(entry) => Some(Life {
                create: entry.create_revision,
                version: entry.version,
                lease: entry.lease,
            }),
            Record::Delete(_) => None,
        };
        // A record is far smaller than 4 GiB.
        let bytes = u32::try_from(record.log_bytes()).unwrap_or(u32::MAX);
        Self { position, life, bytes }
    }

    /// The entry it stands for, without its value.
    pub(super) fn entry(&self, key: &Key) -> Option<Entry> {
        let Life { create, version, lease } = self.life?;
        Some(Entry {
            key: key.clone(),
            value: bytes::Bytes::new(),
            create_revision: create,
            mod_revision: self.position.revision,
            version,
            lease,
        })
    }
}

/// All versions of all keys.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Of each key, oldest first.
    keys: BTreeMap<Key, VecDeque<Place>>,
    /// Bytes of all records.
    bytes: u64,
}

impl Index {
    /// Takes up the newest version of `key`.
    pub(super) fn push(&mut self, key: Key, place: Place) {
        self.bytes += u64::from(place.bytes);
        // Most keys are written once or twice, so they start with room for one.
        self.keys.entry(key).or_insert_with(|| VecDeque::with_capacity(1)).push_back(place);
    }

    /// Bytes of all records in the log.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What `key` was at revision `at`, if it was there.
    pub(super) fn at(&self, key: &Key, at: Revision) -> Option<Place> {
        self.keys.get(key).and_then(|places| live(places, at))
    }

    /// What was in `range` at revision `at`, in order.
    pub(super) fn range<'a>(
        &'a self,
        range: &Range,
        at: Revision,
    ) -> impl Iterator<Item = (&'a Key, Place)> + use<'a> {
        let keys = self.keys.range::<[u8], _>(range.bounds());
        keys.filter_map(move |(key, places)| Some((key, live(places, at)?)))
    }

    /// Up to `max` versions that nobody can ask for once history begins at `floor`, of keys after
    /// `after`; and the last key looked at, or `None` when that was the last there is.
    ///
    /// Oldest first within a key: were it the other way round, a crash between two slices could
    /// leave an old value without the delete that ended it. A delete at `floor` itself stays.
    pub(super) fn forgettable(
        &self,
        after: Option<&Key>,
        floor: Revision,
        max: usize,
    ) -> (Vec<(Key, Position)>, Option<Key>) {
        let rest = after.map_or_else(Range::all, |key| Range::all().after(key));
        let mut found = Vec::new();
        let mut done = after;
        for (looked, (key, places)) in self.keys.range::<[u8], _>(rest.bounds()).enumerate() {
            let dead = dead(places, floor);
            let room = max - found.len();
            let positions = places.iter().take(dead.min(room)).map(|place| place.position);
            found.extend(positions.map(|position| (key.clone(), position)));
            if room < dead || KEYS_LOOKED_AT_MAX <= looked {
                // The rest of this key is for the next slice.
                return (found, Some(done.unwrap_or(key).clone()));
            }
            done = Some(key);
        }
        (found, None)
    }

    /// Forgets versions that are gone from the log; they are the oldest of their keys.
    pub(super) fn forget(&mut self, removed: &[(Key, Position)]) {
        for (key, position) in removed {
            let Some(places) = self.keys.get_mut(key) else { continue };
            if let Some(oldest) = places.pop_front_if(|place| place.position == *position) {
                self.bytes -= u64::from(oldest.bytes);
            }
            if places.is_empty() {
                self.keys.remove(key);
            }
        }
    }
}

/// How many of the oldest versions of a key nobody can ask for once history begins at `floor`.
fn dead(places: &VecDeque<Place>, floor: Revision) -> usize {
    let old = places.partition_point(|place| place.position.revision <= floor);
    // The newest of them is what the key is at `floor`, unless it has been deleted before.
    let current = old.checked_sub(1).and_then(|last| places.get(last));
    let is_needed = |place: &Place| place.life.is_some() || place.position.revision == floor;
    old - usize::from(current.is_some_and(is_needed))
}

/// The version of a key that was current at revision `at`, unless it was deleted then.
fn live(places: &VecDeque<Place>, at: Revision) -> Option<Place> {
    let newest = places.back().filter(|place| place.position.revision <= at);
    let current = newest.or_else(|| {
        let later = places.partition_point(|place| place.position.revision <= at);
        places.get(later.checked_sub(1)?)
    });
    current.filter(|place| place.life.is_some()).copied()
}

/// Keys looked at for one slice: a millisecond or two of a commit, however few can be forgotten.
const KEYS_LOOKED_AT_MAX: usize = 20_000;
