//! How long is remembered how transactions ended.
//!
//! History answers whoever asks late, so it is kept for days; it must not fill the store, so the
//! oldest goes when there is too much. Live transactions are never part of it, and none leaves it
//! before its own deadline has passed: until then a submit may come whose begin nobody knows any
//! more, and it must find how the transaction ended.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::moment::Moment;
use crate::name::{Gid, Shard, Shards};

/// How much history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// For how long.
    pub span: Duration,
    /// Most transactions.
    pub count_max: usize,
    /// Most bytes of their records.
    pub bytes_max: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { span: Duration::from_hours(7 * 24), count_max: 200_000, bytes_max: 1 << 30 }
    }
}

/// One transaction that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub finished_at: Moment,
    /// Until when it has to be remembered.
    pub kept_until: Moment,
    /// Bytes of its records.
    pub bytes: u64,
}

/// What is remembered by this node.
#[derive(Debug, Default)]
pub struct History {
    order: BTreeSet<(Moment, Gid)>,
    of: HashMap<Gid, Ended>,
    bytes: u64,
}

impl History {
    /// `gid` has ended.
    pub fn add(&mut self, gid: &Gid, ended: Ended) {
        self.remove(gid);
        self.order.insert((ended.finished_at, gid.clone()));
        self.bytes = self.bytes.saturating_add(ended.bytes);
        self.of.insert(gid.clone(), ended);
    }

    /// `gid` is not kept by this node any more.
    pub fn remove(&mut self, gid: &Gid) {
        if let Some(known) = self.of.remove(gid) {
            self.order.remove(&(known.finished_at, gid.clone()));
            self.bytes = self.bytes.saturating_sub(known.bytes);
        }
    }

    /// Another node owns `shard`, and remembers what lies in it.
    pub fn hand_over(&mut self, shard: Shard, shards: Shards) {
        let gone: Vec<Gid> = self
            .order
            .iter()
            .map(|(_, gid)| gid)
            .filter(|gid| gid.shard(shards) == shard)
            .cloned()
            .collect();
        for gid in gone {
            self.remove(&gid);
        }
    }

    /// The oldest that are too old or too much, at most `most`; they stay until
    /// [`History::remove`].
    pub fn excess(&self, now: Moment, retention: &Retention, most: usize) -> Vec<Gid> {
        let (mut count, mut bytes) = (self.order.len(), self.bytes);
        let mut excess = Vec::new();
        for (finished_at, gid) in &self.order {
            let is_old = retention.span <= now.since(*finished_at);
            let is_much = retention.count_max < count || retention.bytes_max < bytes;
            if most <= excess.len() || !(is_old || is_much) {
                break;
            }
            let Some(ended) = self.of.get(gid) else { continue };
            if ended.kept_until <= now {
                excess.push(gid.clone());
                count -= 1;
                bytes = bytes.saturating_sub(ended.bytes);
            }
        }
        excess
    }

    /// At most `most` of those that ended before `mark`, or of all; the newest first.
    pub fn before(&self, mark: Option<&(Moment, Gid)>, most: usize) -> Vec<(Moment, Gid)> {
        let earlier = match mark {
            Some(mark) => self.order.range(..mark),
            None => self.order.range::<(Moment, Gid), _>(..),
        };
        earlier.rev().take(most).cloned().collect()
    }

    /// How many are remembered, and in how many bytes.
    pub fn figures(&self) -> (usize, u64) {
        (self.order.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gid(n: u64) -> Gid {
        Gid::new(&format!("g{n}")).unwrap()
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_unix_millis(seconds * 1_000)
    }

    /// Transaction `n` ends at second `n`; those of `kept` have a deadline far away.
    fn history(kept: &[u64]) -> History {
        let mut history = History::default();
        for n in 0..10 {
            let kept_until = if kept.contains(&n) { at(1_000) } else { at(n) };
            history.add(&gid(n), Ended { finished_at: at(n), kept_until, bytes: 100 });
        }
        history
    }

    #[track_caller]
    fn check(kept: &[u64], retention: Retention, now: u64, want: &[u64]) {
        let excess = history(kept).excess(at(now), &retention, 100);
        assert_eq!(excess, want.iter().map(|n| gid(*n)).collect::<Vec<_>>());
    }

    #[test]
    fn the_oldest_go_by_age_number_and_size_and_none_before_its_deadline() {
        let all = Retention::default();
        check(&[], all, 10, &[]);
        let span = Duration::from_secs(8);
        check(&[], Retention { span, ..all }, 10, &[0, 1, 2]);
        check(&[], Retention { count_max: 8, ..all }, 10, &[0, 1]);
        check(&[], Retention { bytes_max: 750, ..all }, 10, &[0, 1, 2]);
        check(&[0, 2], Retention { count_max: 8, ..all }, 10, &[1, 3]);
        check(&[0], Retention { span, ..all }, 10, &[1, 2]);
        check(&[], Retention { count_max: 0, ..all }, 10, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn the_newest_are_listed_first_and_on_from_where_a_page_ended() {
        let history = history(&[]);
        let first = history.before(None, 4);
        assert_eq!(first, [9, 8, 7, 6].map(|n| (at(n), gid(n))));
        let rest = history.before(first.last(), 100);
        assert_eq!(rest, [5, 4, 3, 2, 1, 0].map(|n| (at(n), gid(n))));
        assert_eq!(history.before(rest.last(), 100), []);
    }

    #[test]
    fn what_is_forgotten_or_handed_over_is_not_counted() {
        let mut history = history(&[]);
        history.remove(&gid(3));
        history.add(&gid(4), Ended { finished_at: at(4), kept_until: at(4), bytes: 50 });
        assert_eq!(history.figures(), (9, 850));
        for shard in Shards::DEFAULT.all() {
            history.hand_over(shard, Shards::DEFAULT);
        }
        assert_eq!(history.figures(), (0, 0));
    }
}
