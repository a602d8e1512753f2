//! What calls of the last minutes were, in a few words each: what a proposed rule is tried with.
//!
//! Every call has a summary, not one in so many: a limit that is asked about a sample of calls says
//! nothing about all of them. So a busy process remembers a shorter time, and says how long.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Instant;
use mainstay_resilience::Outcome;
use parking_lot::Mutex;

/// Summaries of this age are forgotten.
pub const AGE_MAX: Duration = Duration::from_mins(15);

/// Most of them: with their names less than 16 MiB.
pub const SUMMARIES_MAX: usize = 200_000;

/// Names of routes, services and instances that are held once each; more are forgotten together,
/// and held again as they come.
const NAMES_MAX: usize = 16_384;

/// What one call was.
#[derive(Clone, Debug)]
pub struct Summary {
    /// When its head had arrived.
    pub at: Instant,
    /// Microseconds to the head of the answer, at most 71 minutes.
    took_micros: u32,
    /// What became of it.
    pub fate: Fate,
    /// How the service did; `None` where none was asked.
    pub outcome: Option<Outcome>,
    /// The route it came by.
    pub route: Option<Arc<str>>,
    /// The service it was for.
    pub service: Option<Arc<str>>,
    /// The instance that was asked last.
    pub instance: Option<Arc<str>>,
    /// A hash of the address it came from, with a secret of this process.
    pub client: u64,
}

impl Summary {
    /// How long it took to the head of the answer.
    pub const fn took(&self) -> Duration {
        Duration::from_micros(self.took_micros as u64)
    }
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It went to a service, or was answered here.
    Permitted,
    /// A limit refused it.
    Denied,
    /// A circuit refused it.
    RejectedOpen,
}

/// A call that has just been answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered<'a> {
    pub(crate) took: Duration,
    pub(crate) fate: Fate,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) route: Option<&'a str>,
    pub(crate) service: Option<&'a str>,
    pub(crate) instance: Option<&'a str>,
    pub(crate) client: IpAddr,
}

/// The summaries of a process.
#[derive(Debug, Default)]
pub struct Summaries {
    secret: RandomState,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    names: HashSet<Arc<str>>,
    ring: VecDeque<Summary>,
}

impl Summaries {
    /// Keeps what an answer at `now` was.
    pub(crate) fn keep(&self, now: Instant, answered: &Answered<'_>) {
        let client = self.secret.hash_one(answered.client);
        let Answered { took, fate, outcome, route, service, instance, .. } = *answered;
        let mut kept = self.kept.lock();
        let summary = Summary {
            at: now.minus(took),
            took_micros: u32::try_from(took.as_micros()).unwrap_or(u32::MAX),
            fate,
            outcome,
            route: route.map(|name| kept.name(name)),
            service: service.map(|name| kept.name(name)),
            instance: instance.map(|name| kept.name(name)),
            client,
        };
        let oldest = now.minus(AGE_MAX);
        while kept
            .ring
            .front()
            .is_some_and(|first| first.at < oldest || SUMMARIES_MAX <= kept.ring.len())
        {
            kept.ring.pop_front();
        }
        let len = kept.ring.len();
        if len == kept.ring.capacity() {
            // Twice as much would be more than the limit.
            kept.ring.reserve_exact(len.clamp(1_024, (SUMMARIES_MAX - len).max(1)));
        }
        kept.ring.push_back(summary);
    }

    /// Those from `since` on that `wanted` takes, in order of when they came.
    pub fn since(&self, since: Instant, wanted: impl Fn(&Summary) -> bool) -> Vec<Summary> {
        let kept = self.kept.lock();
        let mut found: Vec<Summary> = kept
            .ring
            .iter()
            .filter(|summary| since <= summary.at && wanted(summary))
            .cloned()
            .collect();
        drop(kept);
        // They lie in the order in which they were answered.
        found.sort_by_key(|summary| summary.at);
        found
    }
}

impl Kept {
    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        if NAMES_MAX <= self.names.len() {
            self.names.clear();
        }
        let new: Arc<str> = Arc::from(name);
        self.names.insert(Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(took: u64, route: &str) -> Answered<'_> {
        Answered {
            took: Duration::from_millis(took),
            fate: Fate::Permitted,
            outcome: Some(Outcome::Success),
            route: Some(route),
            service: None,
            instance: None,
            client: IpAddr::from([127, 0, 0, 1]),
        }
    }

    fn second(n: u64) -> Instant {
        Instant::ZERO.plus(Duration::from_secs(n))
    }

    #[test]
    fn they_come_back_in_the_order_of_their_calls_and_grow_old() {
        let summaries = Summaries::default();
        summaries.keep(second(10), &answered(1_000, "b"));
        summaries.keep(second(11), &answered(5_000, "a"));
        let all = summaries.since(Instant::ZERO, |_| true);
        let routes: Vec<&str> = all.iter().filter_map(|one| one.route.as_deref()).collect();
        assert_eq!(routes, ["a", "b"]);
        assert_eq!(all[0].took(), Duration::from_secs(5));
        assert_eq!(all[0].client, all[1].client);
        assert_eq!(summaries.since(second(8), |_| true).len(), 1);
        assert_eq!(
            summaries.since(Instant::ZERO, |one| one.route.as_deref() == Some("a")).len(),
            1
        );
        summaries.keep(second(10 + 15 * 60), &answered(0, "c"));
        assert_eq!(summaries.since(Instant::ZERO, |_| true).len(), 1, "the old ones are forgotten");
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let summaries = Summaries::default();
        for _ in 0..SUMMARIES_MAX + 10 {
            summaries.keep(second(1), &answered(0, "a"));
        }
        let kept = summaries.kept.lock();
        assert_eq!(kept.ring.len(), SUMMARIES_MAX);
        assert!(
            kept.ring.capacity() * size_of::<Summary>() <= 16 << 20,
            "{}",
            kept.ring.capacity()
        );
        assert_eq!(kept.names.len(), 1);
    }
}
