//! Forgetting what is old.
//!
//! Of each object the newest 100 revisions are kept, and all that are younger than a year. What
//! goes is always a run from the oldest on, so numbers have no gaps. Of an object that was removed
//! a year ago nothing is kept.

use std::num::NonZeroU32;
use std::time::Duration;

use mainstay_store::{Batch, Compare, Op, RangeRequest, Revision, Select};

use super::Revisions;
use super::edition::Edition;
use super::error::RuleError;
use super::terms::Kind;
use crate::audit::{Actor, Author, Record, Target};
use crate::keys::RuleRef;
use crate::moment::Moment;
use crate::registry::listing::list_all;

/// How much of the past is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Revisions of each object that are kept however old they are.
    pub newest: u64,
    /// Revisions younger than this are kept however many they are.
    pub younger_than: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { newest: 100, younger_than: Duration::from_hours(365 * 24) }
    }
}

impl Retention {
    /// Up to which revision an object's past may go at `now`, when `newest` is its newest and
    /// `oldest` are its oldest ones, in order; 0 is none.
    pub fn swept(self, now: Moment, newest: u64, oldest: &[(u64, Moment)]) -> u64 {
        let last = newest.saturating_sub(self.newest);
        let goes =
            |(number, at): &&(u64, Moment)| *number <= last && self.younger_than <= now.since(*at);
        oldest.iter().take_while(goes).last().map_or(0, |(number, _)| *number)
    }
}

/// Revisions of one object swept by one batch.
const SWEPT_AT_ONCE: u32 = 1_000;

impl Revisions {
    /// Deletes the revisions of a kind that `retention` no longer keeps at `now`; returns how many.
    /// Run by a duty, about once a day; running it twice does no harm.
    ///
    /// # Errors
    ///
    /// What the store said; what was swept before stays so.
    ///
    /// # Cancel safety
    ///
    /// Safe: each object is swept by batches of its own.
    pub async fn sweep(
        &self,
        kind: &Kind,
        retention: Retention,
        now: Moment,
    ) -> Result<u64, RuleError> {
        let (_, heads) = list_all(self.store(), kind.key.heads(None)).await?;
        let mut swept = 0;
        for entry in heads {
            let Some(rule) = kind.key.parse(&entry.key) else { continue };
            let Some(head) = Edition::read(&entry.value) else { continue };
            if head.removed && retention.younger_than <= now.since(head.at) {
                swept += self.forget(kind, &rule, &head, entry.mod_revision, now).await?;
            } else if head.revision > retention.newest {
                swept += self.sweep_one(kind, &rule, head.revision, retention, now).await?;
            }
        }
        Ok(swept)
    }

    /// Deletes what is left of an object that was removed long ago. Should it come back meanwhile,
    /// nothing happens.
    async fn forget(
        &self,
        kind: &Kind,
        rule: &RuleRef,
        head: &Edition,
        written: Revision,
        now: Moment,
    ) -> Result<u64, RuleError> {
        let read_at = self.head(rule).await?.read_at;
        let record = record(kind, rule, now, "it was removed long ago".to_owned());
        let batch = Batch::new()
            .when(Compare::unchanged_since(&rule.head(), written))
            .then(Op::delete(&rule.head()))
            .then(Op::delete_range(rule.revisions(1, head.revision)))
            .then(self.outbox().put(read_at, &record));
        let applied = self.store().apply(batch).await?;
        Ok(if applied.succeeded { head.revision } else { 0 })
    }

    async fn sweep_one(
        &self,
        kind: &Kind,
        rule: &RuleRef,
        newest: u64,
        retention: Retention,
        now: Moment,
    ) -> Result<u64, RuleError> {
        let limit = NonZeroU32::new(SWEPT_AT_ONCE).expect("1,000");
        let range = rule.revisions(1, newest.saturating_sub(retention.newest));
        let mut swept = 0;
        loop {
            let select = Select::new(range.clone()).limit(limit);
            let page = self.store().range(RangeRequest::new(select)).await?;
            let read = page.entries.iter().map_while(|entry| Edition::read(&entry.value));
            let oldest: Vec<(u64, Moment)> = read.map(|old| (old.revision, old.at)).collect();
            let last = retention.swept(now, newest, &oldest);
            let Some(first) = oldest.first().map(|(number, _)| *number).filter(|_| last > 0) else {
                return Ok(swept);
            };
            let why = format!("revisions {first} to {last} are too old");
            let record = record(kind, rule, now, why);
            let batch = Batch::new()
                .then(Op::delete_range(rule.revisions(first, last)))
                .then(self.outbox().put(page.revision, &record));
            self.store().apply(batch).await?;
            swept += last - first + 1;
            if !page.more {
                return Ok(swept);
            }
        }
    }
}

fn record(kind: &Kind, rule: &RuleRef, now: Moment, why: String) -> Record {
    let target = Target { kind: kind.key.to_string(), id: rule.to_string(), ..Target::default() };
    let author = Author::new(Actor::system("sweeper")).because(why);
    Record::done(now, &format!("{}:sweep", kind.key), target, &author)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the past: what is among the newest, or young, stays; what goes is a run from
        /// the oldest on, and nothing that could go is left behind it.
        #[test]
        fn only_what_is_old_and_not_among_the_newest_goes(
            ages in prop::collection::vec(0u64..800, 1..300),
            newest_kept in 1u64..120,
        ) {
            let now = Moment::from_unix_millis(1_800_000_000_000);
            let day = Duration::from_hours(24);
            let mut ages = ages;
            ages.sort_unstable_by(|a, b| b.cmp(a));
            let at = |age: u64| {
                let span = u64::try_from(day.as_millis()).unwrap() * age;
                Moment::from_unix_millis(now.unix_millis() - span)
            };
            let past: Vec<(u64, Moment)> = (1..).zip(ages.iter().map(|age| at(*age))).collect();
            let newest = past.len() as u64;
            let retention = Retention { newest: newest_kept, younger_than: day * 365 };
            let swept = retention.swept(now, newest, &past);
            for (number, at) in past {
                let is_old = day * 365 <= now.since(at);
                let may_go = is_old && number + newest_kept <= newest;
                prop_assert_eq!(number <= swept, may_go, "{} of {}", number, newest);
            }
        }
    }
}
