//! The index of a set of results: the revision of its last change, deletions included.
//!
//! What is there says itself when it changed; what is gone does not, so deletions are remembered.
//! A memory has an end: past 100,000 the oldest go, and the *floor* rises to them, below which
//! nobody is told an index. What happened before this process watched counts as its first
//! revision, for the same reason.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_store::{Key, Range, Revision};

/// Deletions remembered. A key of 100 bytes, twice, is about 30 MB when full.
const DELETIONS_MAX: usize = 100_000;

/// When what is gone went.
#[derive(Debug)]
pub struct Deletions {
    floor: Revision,
    /// Everything up to here was taken in.
    seen: Revision,
    by_key: BTreeMap<Key, Revision>,
    /// One revision may delete many keys.
    by_age: BTreeSet<(Revision, Key)>,
    max: usize,
}

impl Default for Deletions {
    fn default() -> Self {
        Self::new(DELETIONS_MAX)
    }
}

impl Deletions {
    fn new(max: usize) -> Self {
        Self {
            floor: Revision::FIRST,
            seen: Revision::NEVER,
            by_key: BTreeMap::new(),
            by_age: BTreeSet::new(),
            max,
        }
    }

    /// Nothing is known of what happened up to `revision`.
    pub fn begin(&mut self, revision: Revision) {
        self.floor = self.floor.max(revision);
        self.seen = self.seen.max(revision);
    }

    /// Takes in that `keys` were deleted at `revision`, and nothing else up to it.
    pub fn take(&mut self, revision: Revision, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            if let Some(before) = self.by_key.insert(key.clone(), revision) {
                self.by_age.remove(&(before, key.clone()));
            }
            self.by_age.insert((revision, key));
        }
        self.seen = self.seen.max(revision);
        while self.max < self.by_age.len()
            && let Some((gone, key)) = self.by_age.pop_first()
        {
            self.by_key.remove(&key);
            self.floor = self.floor.max(gone);
        }
    }

    /// Everything up to here was taken in.
    pub const fn seen(&self) -> Revision {
        self.seen
    }

    /// The index of what lies in `ranges` as it was read at `read`; `newest` is the revision of
    /// the last change of what is there. `None` when something was deleted since: read again.
    pub fn index(&self, ranges: &[Range], newest: Revision, read: Revision) -> Option<Revision> {
        let mut index = self.floor.max(newest);
        for range in ranges {
            let from = Key::new(range.from().clone()).ok()?;
            for (key, revision) in self.by_key.range(from..) {
                if !range.contains(key) {
                    break;
                }
                index = index.max(*revision);
            }
        }
        // The floor may lie above a read that is older than this process' watch.
        (index <= read.max(self.floor)).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text.to_owned()).unwrap()
    }

    fn index(deletions: &Deletions, range: Range, newest: u64) -> Option<u64> {
        let read = deletions.seen();
        deletions.index(&[range], Revision::new(newest), read).map(Revision::get)
    }

    #[test]
    fn the_table_of_blocking_queries_holds() {
        let mut deletions = Deletions::default();
        deletions.begin(Revision::new(90));
        deletions.take(Revision::new(100), []);
        deletions.take(Revision::new(101), []);
        let (a, b) = (Range::key(&key("ckv/a")), Range::key(&key("ckv/b")));
        assert_eq!(index(&deletions, a.clone(), 100), Some(100));
        assert_eq!(index(&deletions, b.clone(), 101), Some(101));
        assert_eq!(index(&deletions, Range::prefix("ckv/"), 101), Some(101));
        assert_eq!(index(&deletions, Range::key(&key("ckv/c")), 0), Some(90));
        deletions.take(Revision::new(102), []);
        assert_eq!(index(&deletions, a.clone(), 100), Some(100));
        deletions.take(Revision::new(103), [key("ckv/a")]);
        assert_eq!(index(&deletions, a, 0), Some(103));
        assert_eq!(index(&deletions, b, 102), Some(102));
        assert_eq!(index(&deletions, Range::prefix("ckv/"), 102), Some(103));
    }

    #[test]
    fn a_read_older_than_a_deletion_is_done_again() {
        let mut deletions = Deletions::default();
        deletions.take(Revision::new(7), [key("ckv/a")]);
        let range = [Range::prefix("ckv/")];
        assert_eq!(deletions.index(&range, Revision::new(5), Revision::new(6)), None);
        assert_eq!(
            deletions.index(&range, Revision::new(5), Revision::new(7)),
            Some(Revision::new(7))
        );
    }

    #[test]
    fn what_is_forgotten_raises_the_floor_and_never_lowers_an_index() {
        let mut deletions = Deletions::new(2);
        let all = || Range::prefix("k");
        let mut before = 0;
        for (revision, name) in [(2, "ka"), (3, "kb"), (4, "ka"), (5, "kc"), (6, "kd")] {
            deletions.take(Revision::new(revision), [key(name)]);
            let now = index(&deletions, all(), 0).unwrap();
            assert!(before <= now && now == revision);
            before = now;
        }
        // `kb` at 3 and `ka` at 4 were forgotten.
        assert_eq!(index(&deletions, Range::key(&key("kx")), 0), Some(4));
        assert_eq!(deletions.by_age.len(), deletions.by_key.len());
    }
}
