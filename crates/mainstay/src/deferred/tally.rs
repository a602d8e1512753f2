//! How much waits in each queue.
//!
//! The coordinator knows what is live, so nothing is counted beside it for good. Its transactions
//! are looked through at most every [`EVERY`]; what was kept since, or is being kept, is added.
//! So a queue never holds more than it may, and may be held to be full for a moment after it is
//! not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_call::clock::MonotonicClock;
use mainstay_call::deferred::NotDeferred;
use mainstay_core::name::PolicyName;
use mainstay_core::{Clock as _, Instant};
use mainstay_resilience::fallback::DeferredPolicy;
use mainstay_txn::Coordinator;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::message::{self, LABEL, NAME};

/// How often the coordinator's transactions are looked through at most.
const EVERY: Duration = Duration::from_millis(250);

/// How long it is waited at most until all that waits has been read after a start. What takes
/// longer cannot be read, or is begun again and again: neither may keep requests from being taken.
const READING_MAX: Duration = Duration::from_secs(2);

/// Requests, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) items: u64,
    pub(super) bytes: u64,
}

impl Amount {
    const fn plus(self, other: Self) -> Self {
        Self {
            items: self.items.saturating_add(other.items),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    const fn minus(self, other: Self) -> Self {
        Self {
            items: self.items.saturating_sub(other.items),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// What waits, by queue.
pub(super) type Waiting = BTreeMap<Box<str>, Amount>;

/// What a request needs.
pub(super) struct Room<'a> {
    /// The queue.
    pub(super) queue: &'a PolicyName,
    /// How large it is.
    pub(super) bytes: u64,
    /// What holds for the queue.
    pub(super) policy: &'a DeferredPolicy,
}

/// How much waits in each queue.
#[derive(Debug, Default)]
pub(super) struct Tally(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    asked_at: Option<Instant>,
    looked_at: Option<Instant>,
    waiting: Waiting,
    /// Kept since it was looked.
    since: Waiting,
    /// Being kept.
    entering: Waiting,
}

/// A place in a queue, until the request is kept or not.
pub(super) struct Place {
    tally: Arc<Mutex<State>>,
    queue: Box<str>,
    amount: Amount,
}

impl Tally {
    /// A place for a request.
    ///
    /// # Errors
    ///
    /// [`NotDeferred::Full`]; [`NotDeferred::Away`] until it is known what waits.
    pub(super) fn reserve(
        &self,
        coordinator: &Coordinator,
        room: &Room<'_>,
    ) -> Result<Place, NotDeferred> {
        let now = MonotonicClock.now();
        let mut state = self.0.lock();
        if state.is_old(now) && !state.look(count(coordinator), now) {
            return Err(NotDeferred::Away("what waits is being read".to_owned()));
        }
        let amount = Amount { items: 1, bytes: room.bytes };
        let queue = room.queue.as_str();
        if !state.has_room(queue, amount, room.policy) {
            return Err(NotDeferred::Full(room.queue.clone()));
        }
        let entering = state.entering.entry(queue.into()).or_default();
        *entering = entering.plus(amount);
        drop(state);
        Ok(Place { tally: Arc::clone(&self.0), queue: queue.into(), amount })
    }
}

impl State {
    fn is_old(&self, now: Instant) -> bool {
        self.looked_at.is_none_or(|at| EVERY <= now.since(at))
    }

    /// Goes by what is `waiting` from now on, unless some of it is not known yet.
    fn look(&mut self, (waiting, partial): (Waiting, bool), now: Instant) -> bool {
        let asked_at = *self.asked_at.get_or_insert(now);
        // Later those that are not seen are being begun, and are counted as entering, or are read
        // after a takeover and seen within moments.
        if partial && self.looked_at.is_none() && now.since(asked_at) < READING_MAX {
            return false;
        }
        self.waiting = waiting;
        self.since.clear();
        self.looked_at = Some(now);
        true
    }

    fn has_room(&self, queue: &str, amount: Amount, policy: &DeferredPolicy) -> bool {
        let all = [&self.waiting, &self.since, &self.entering];
        let held = all.into_iter().filter_map(|part| part.get(queue)).copied();
        let total = held.fold(amount, Amount::plus);
        total.items <= u64::from(policy.items_max) && total.bytes <= policy.bytes_max
    }

    fn leave(&mut self, queue: &str, amount: Amount) {
        if let Some(entering) = self.entering.get_mut(queue) {
            *entering = entering.minus(amount);
        }
    }
}

impl Place {
    /// The request `is_kept`, or is not.
    pub(super) fn settle(self, is_kept: bool) {
        if is_kept {
            let mut state = self.tally.lock();
            let since = state.since.entry(self.queue.clone()).or_default();
            *since = since.plus(self.amount);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tally.lock().leave(&self.queue, self.amount);
    }
}

/// What waits for its end, and whether some was not seen: it is being begun, or read after a
/// takeover.
pub(super) fn count(coordinator: &Coordinator) -> (Waiting, bool) {
    let waiting = RefCell::new(Waiting::new());
    let glances = coordinator.glances(
        None,
        |glance| {
            let begin = &glance.begin;
            if begin.name.as_deref() == Some(NAME)
                && let Some(queue) = begin.labels.get(LABEL)
            {
                let mut waiting = waiting.borrow_mut();
                let amount = waiting.entry(queue.as_str().into()).or_default();
                *amount = amount.plus(Amount { items: 1, bytes: message::bytes(begin) });
            }
            false
        },
        0,
    );
    (waiting.into_inner(), glances.partial)
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    queue: String,
    state: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    queue: String,
    reason: &'static str,
}

/// What is told of queues.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    items: Family<ByState, Gauge>,
    refused: Family<ByReason, Counter>,
}

impl Figures {
    /// Puts them into `registry`, whose prefix is `mainstay`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Deferred requests that have not ended, by queue and state";
        registry.register("deferred_items", help, self.items.clone());
        let help = "Requests that a queue did not take, by queue and reason";
        registry.register("deferred_refused", help, self.refused.clone());
    }

    /// Makes every family show, with labels of nothing: the reference is printed from the
    /// exposition, and an empty family is not in that.
    pub(crate) fn show_all(&self) {
        drop(self.items.get_or_create(&ByState::default()));
        drop(self.refused.get_or_create(&ByReason::default()));
    }

    /// A request for `queue` was not taken on.
    pub(super) fn refused(&self, queue: &PolicyName, error: &NotDeferred) {
        let reason = match error {
            NotDeferred::Nobody | NotDeferred::Away(_) => "away",
            NotDeferred::Full(_) => "full",
            NotDeferred::Unfit(_) => "unfit",
            NotDeferred::KeyTaken => "key-taken",
            NotDeferred::GivenUp => "given-up",
        };
        self.refused.get_or_create(&ByReason { queue: queue.to_string(), reason }).inc();
    }

    /// So much waits in the queues that are `known`, and in others.
    pub(super) fn look(
        &self,
        known: &[PolicyName],
        waiting: &Waiting,
        under_way: impl Fn(&str) -> u32,
    ) {
        self.items.clear();
        let known = known.iter().map(PolicyName::as_str);
        for queue in known.chain(waiting.keys().map(|queue| &**queue)) {
            let all = waiting.get(queue).map_or(0, |amount| amount.items);
            let sent = u64::from(under_way(queue)).min(all);
            for (state, count) in [("queued", all - sent), ("delivering", sent)] {
                let labels = ByState { queue: queue.to_owned(), state };
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                self.items.get_or_create(&labels).set(count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_after_a_start_is_not_waited_for_for_ever() {
        let (mut state, now) = (State::default(), MonotonicClock.now());
        let amount = Amount { items: 3, bytes: 30 };
        let seen = || Waiting::from([("q".into(), amount)]);
        assert!(!state.look((seen(), true), now), "more may be read");
        assert!(!state.look((seen(), true), now.plus(READING_MAX / 2)));
        assert!(state.is_old(now.plus(READING_MAX / 2)));
        let later = now.plus(READING_MAX);
        assert!(state.look((seen(), true), later));
        assert_eq!((state.waiting.get("q"), state.is_old(later)), (Some(&amount), false));
        // From then on some are always being begun.
        assert!(state.look((seen(), true), later.plus(EVERY)));
        let mut state = State::default();
        assert!(state.look((seen(), false), now), "all of it is known");
    }

    #[test]
    fn a_queue_holds_no_more_than_it_may_and_a_place_that_is_given_up_is_free() {
        let policy = DeferredPolicy { items_max: 3, bytes_max: 100, ..DeferredPolicy::default() };
        let tally = Tally::default();
        let amount = |bytes| Amount { items: 1, bytes };
        tally.0.lock().waiting.insert("q".into(), amount(10));
        let enter = |bytes| {
            let mut state = tally.0.lock();
            if !state.has_room("q", amount(bytes), &policy) {
                return None;
            }
            let entering = state.entering.entry("q".into()).or_default();
            *entering = entering.plus(amount(bytes));
            Some(Place { tally: Arc::clone(&tally.0), queue: "q".into(), amount: amount(bytes) })
        };
        assert!(enter(91).is_none(), "too many bytes");
        let first = enter(10).unwrap();
        let second = enter(10).unwrap();
        assert!(enter(1).is_none(), "too many items");
        first.settle(true);
        assert!(enter(1).is_none(), "it is kept");
        second.settle(false);
        let third = enter(1).unwrap();
        drop(third);
        assert!(enter(1).is_some());
    }
}
