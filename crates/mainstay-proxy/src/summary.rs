//! What calls of the last minutes were, in a few words each: what a proposed rule is tried with.
//!
//! Every call has a summary, not one in so many: a limit that is asked about a sample of calls says
//! nothing about all of them. So a busy process remembers a shorter time, and says how long.
//!
//! Each thread that serves keeps its own, under a lock that nobody else takes but who asks, and a
//! call that is kept costs what it takes to copy it: names are those that routes, services and
//! instances have already, and addresses are hashed when somebody asks.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Instant;
use mainstay_resilience::Outcome;
use parking_lot::Mutex;

use crate::thread;

/// Summaries of this age are forgotten.
pub const AGE_MAX: Duration = Duration::from_mins(15);

/// Most of them, of all threads together: 80 bytes each, 16 MB.
pub const SUMMARIES_MAX: usize = 200_000;

/// Most that are looked at before a thread that serves gets its lock back: some 20 µs.
const SCAN: usize = 1_024;

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

/// A call that has just been answered, as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) at: Instant,
    pub(crate) took_micros: u32,
    pub(crate) fate: Fate,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) client: IpAddr,
    pub(crate) route: Option<Arc<str>>,
    pub(crate) service: Option<Arc<str>>,
    pub(crate) instance: Option<Arc<str>>,
}

/// The summaries of a process.
#[derive(Debug)]
pub struct Summaries {
    secret: RandomState,
    rings: Box<[Mutex<Ring>]>,
}

/// Calls of one thread, in the order in which they were answered.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Ring {
    calls: VecDeque<Call>,
    /// Number of the first one, counted from the start.
    first: usize,
    /// From here on none had to go for want of room.
    whole_from: Instant,
}

impl Summaries {
    /// Summaries of calls that `threads` serve. More may, at the price of waiting for each other.
    pub fn new(threads: NonZeroUsize) -> Self {
        let rings = (0..threads.get()).map(|_| Mutex::default()).collect();
        Self { secret: RandomState::new(), rings }
    }

    /// Keeps what was answered at `now`.
    pub(crate) fn keep(&self, now: Instant, call: Call) {
        let ring = &self.rings[thread::number() % self.rings.len()];
        ring.lock().push(now, SUMMARIES_MAX / self.rings.len(), call);
    }

    /// Those from `since` on that `wanted` takes, in order of when they came. They begin where all
    /// threads have kept every call.
    pub fn since(&self, since: Instant, wanted: impl Fn(&Summary) -> bool) -> Vec<Summary> {
        let mut found = Vec::new();
        let mut from = since;
        for ring in &self.rings {
            let mut next = 0;
            loop {
                let part = ring.lock().part(&mut next);
                let is_last = part.len() < SCAN;
                let young = part.into_iter().filter(|call| since <= call.at);
                found.extend(young.map(|call| self.summary(call)).filter(&wanted));
                if is_last {
                    break;
                }
            }
            from = from.max(ring.lock().whole_from);
        }
        found.retain(|summary| from <= summary.at);
        found.sort_by_key(|summary| summary.at);
        found
    }

    fn summary(&self, call: Call) -> Summary {
        let Call { at, took_micros, fate, outcome, client, route, service, instance } = call;
        let client = self.secret.hash_one(client);
        Summary { at, took_micros, fate, outcome, route, service, instance, client }
    }
}

impl Ring {
    /// Adds `call`, and lets go of what is old. Two at most: a thread that has served nothing for
    /// long must not make its next caller wait.
    fn push(&mut self, now: Instant, max: usize, call: Call) {
        let oldest = now.minus(AGE_MAX);
        for _ in 0..2 {
            let is_full = max <= self.calls.len();
            let goes = |first: &mut Call| is_full || first.at < oldest;
            let Some(gone) = self.calls.pop_front_if(goes) else { break };
            self.first += 1;
            if is_full {
                self.whole_from = self.whole_from.max(gone.at.plus(Duration::from_nanos(1)));
            }
        }
        let len = self.calls.len();
        if len == self.calls.capacity() {
            // Twice as much would be more than the limit.
            self.calls.reserve_exact(len.max(1_024).min(max - len));
        }
        self.calls.push_back(call);
    }

    /// The next few from number `next` on; none when there are no more.
    fn part(&self, next: &mut usize) -> Vec<Call> {
        let start = next.saturating_sub(self.first).min(self.calls.len());
        let end = (start + SCAN).min(self.calls.len());
        *next = self.first + end;
        self.calls.range(start..end).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call by `route` that was answered at second `n`, `took` seconds after it came.
    fn call(n: u64, took: u64, route: &str) -> Call {
        Call {
            at: second(n - took),
            took_micros: u32::try_from(took * 1_000_000).unwrap(),
            fate: Fate::Permitted,
            outcome: Some(Outcome::Success),
            client: IpAddr::from([127, 0, 0, 1]),
            route: Some(route.into()),
            service: None,
            instance: None,
        }
    }

    fn second(n: u64) -> Instant {
        Instant::ZERO.plus(Duration::from_secs(n))
    }

    /// What one thread keeps.
    fn of_one() -> Summaries {
        Summaries::new(NonZeroUsize::MIN)
    }

    #[test]
    fn they_come_back_in_the_order_of_their_calls_and_grow_old() {
        let summaries = of_one();
        summaries.keep(second(10), call(10, 1, "b"));
        summaries.keep(second(11), call(11, 5, "a"));
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
        let later = 10 + 15 * 60;
        summaries.keep(second(later), call(later, 0, "c"));
        assert_eq!(summaries.since(Instant::ZERO, |_| true).len(), 1, "the old ones are forgotten");
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let summaries = of_one();
        for _ in 0..SUMMARIES_MAX + 10 {
            summaries.keep(second(1), call(1, 0, "a"));
        }
        let ring = summaries.rings[0].lock();
        assert_eq!(ring.calls.len(), SUMMARIES_MAX);
        assert_eq!(ring.calls.capacity() * size_of::<Call>(), 16_000_000);
    }

    #[test]
    fn they_begin_where_no_thread_has_forgotten_any() {
        let summaries = Summaries::new(NonZeroUsize::new(2).unwrap());
        let [idle, busy] = &*summaries.rings else { panic!("two") };
        for n in [1, 8, 9] {
            idle.lock().push(second(n), 4, call(n, 0, "idle"));
        }
        for n in 2..=10 {
            busy.lock().push(second(n), 4, call(n, 0, "busy"));
        }
        let at = |summary: &Summary| summary.at.since(Instant::ZERO).as_secs();
        let all: Vec<u64> = summaries.since(Instant::ZERO, |_| true).iter().map(at).collect();
        assert_eq!(all, [7, 8, 8, 9, 9, 10], "of second 6 the busy one knows no more");
    }
}
