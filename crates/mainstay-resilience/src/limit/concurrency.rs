//! Calls in flight, and a bounded queue of those waiting to be.
//!
//! A permit goes from the call that ends straight to one that waits, so a newcomer never overtakes
//! the queue and no permit lies idle while somebody waits. First in first out is fair; last in
//! first out serves some calls in time when the queue is longer than their patience, instead of
//! all of them too late (Ben Maurer, "Fail at Scale", ACM Queue 2015).
//!
//! The maximum can be moved at any time, which is what an adaptive limit does. Lowering it takes no
//! permit away; the next are handed out when enough have come back.

use std::collections::VecDeque;
use std::time::Duration;

use mainstay_core::Instant;

use super::decision::{Denied, Tally, Usage};
use super::policy::{Kind, LimitPolicy, Mode, Order, Waiting};

/// A limit on calls in flight.
#[derive(Clone, Debug)]
pub struct Semaphore {
    max: u32,
    /// Permits out, those handed to a waiter that has not claimed them included.
    in_flight: u32,
    /// In the order they came.
    queue: VecDeque<Waiter>,
    /// Waiters that may go and have not come to know yet.
    handed: Vec<TicketId>,
    /// No waiter's time is up before this moment.
    earliest: Instant,
    tickets: u64,
    settings: Settings,
    tally: Tally,
    refusing_since: Option<Instant>,
    last: Instant,
    percent: u32,
}

/// The answer to a call that asks for a permit.
#[derive(Debug)]
#[must_use = "a call that was not granted must not be made"]
pub enum Admission {
    /// The call may go.
    Granted(Permit),
    /// The call waits its turn: [`Semaphore::claim`] when woken, or when its time is up.
    Queued(Ticket),
    /// The call may not go; its `retry_after` is zero, since nobody knows when a call will end.
    Denied(Denied),
}

/// What has become of a waiter.
#[derive(Debug)]
#[must_use = "a permit that is dropped is lost to all others"]
pub enum Claim {
    /// The call may go.
    Granted(Permit),
    /// Not yet.
    Waiting(Ticket),
    /// The wait took too long.
    Expired(Denied),
}

/// Permission to be in flight. Hand it back with [`Semaphore::release`], however the call ends.
#[derive(Debug)]
#[must_use = "a permit that is dropped is lost to all others"]
pub struct Permit(());

/// A place in the queue. Spend it on [`Semaphore::claim`] or [`Semaphore::cancel`].
#[derive(Debug)]
#[must_use = "a permit may be handed to this ticket, and would be lost with it"]
pub struct Ticket {
    id: TicketId,
    until: Instant,
}

impl Ticket {
    /// Names the ticket, so that whoever is told to wake its holder can find them.
    pub const fn id(&self) -> TicketId {
        self.id
    }

    /// When the wait is over.
    pub const fn until(&self) -> Instant {
        self.until
    }
}

/// Names a [`Ticket`]; no two of one semaphore have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId(u64);

#[derive(Clone, Copy, Debug)]
struct Waiter {
    id: TicketId,
    until: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    mode: Mode,
    waiting: Waiting,
    order: Order,
    /// Bounds of the maximum as written.
    floor: u32,
    ceiling: u32,
    initial: u32,
}

impl Settings {
    fn new(policy: &LimitPolicy, percent: u32) -> Option<Self> {
        let mode = policy.mode;
        Some(match policy.kind.scaled(percent) {
            Kind::Concurrency { max, waiting, order } => {
                let max = max.get();
                Self { mode, waiting, order, floor: max, ceiling: max, initial: max }
            }
            Kind::Adaptive { floor, ceiling, initial, waiting, order, .. } => {
                let (floor, ceiling, initial) = (floor.get(), ceiling.get(), initial.get());
                Self { mode, waiting, order, floor, ceiling, initial }
            }
            _ => return None,
        })
    }
}

impl Semaphore {
    /// A semaphore with all its permits; `None` for the kinds that tell time, which are a
    /// [`Limiter`](super::Limiter).
    pub fn new(policy: &LimitPolicy) -> Option<Self> {
        let settings = Settings::new(policy, 100)?;
        Some(Self {
            max: settings.initial,
            in_flight: 0,
            queue: VecDeque::new(),
            handed: Vec::new(),
            earliest: Instant::MAX,
            tickets: 0,
            settings,
            tally: Tally::default(),
            refusing_since: None,
            last: Instant::ZERO,
            percent: 100,
        })
    }

    /// Asks for a permit at `now`; a wait ends at `deadline` if not earlier.
    pub fn ask(&mut self, now: Instant, deadline: Instant) -> Admission {
        let now = self.see(now);
        if self.in_flight < self.max {
            self.tally.granted += 1;
            return Admission::Granted(self.issue());
        }
        if self.settings.mode == Mode::Observe {
            self.tally.granted += 1;
            self.tally.would_reject += 1;
            return Admission::Granted(self.issue());
        }
        let until = now.plus(self.settings.waiting.wait_max).min(deadline);
        if now < until && self.queue.len() < self.settings.waiting.queue_max as usize {
            self.tally.waited += 1;
            self.tickets += 1;
            let id = TicketId(self.tickets);
            self.queue.push_back(Waiter { id, until });
            self.earliest = self.earliest.min(until);
            return Admission::Queued(Ticket { id, until });
        }
        self.tally.denied += 1;
        Admission::Denied(self.denied(now))
    }

    /// Takes back the permit of a call that has ended; returns whom to wake, who now holds it.
    pub fn release(&mut self, now: Instant, permit: Permit) -> Option<TicketId> {
        let Permit(()) = permit;
        self.see(now);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.hand_over()
    }

    /// Asks what has become of a waiter. A permit handed over before the time was up is granted
    /// even when it is claimed later.
    pub fn claim(&mut self, now: Instant, ticket: Ticket) -> Claim {
        let now = self.see(now);
        if let Some(at) = self.handed.iter().position(|&id| id == ticket.id) {
            self.handed.swap_remove(at);
            return Claim::Granted(Permit(()));
        }
        // Only time and a permit take a ticket out of the queue without its holder knowing.
        if now < ticket.until { Claim::Waiting(ticket) } else { Claim::Expired(self.denied(now)) }
    }

    /// Gives up waiting. If a permit had just been handed to this ticket it goes on; returns whom
    /// to wake then.
    pub fn cancel(&mut self, now: Instant, ticket: Ticket) -> Option<TicketId> {
        self.see(now);
        if let Some(at) = self.handed.iter().position(|&id| id == ticket.id) {
            self.handed.swap_remove(at);
            self.in_flight = self.in_flight.saturating_sub(1);
            return self.hand_over();
        }
        // Tickets are numbered in the order of the queue.
        if let Ok(at) = self.queue.binary_search_by_key(&ticket.id, |waiter| waiter.id) {
            self.queue.remove(at);
        }
        None
    }

    /// Moves the maximum, to at least 1; returns whom to wake. Calls in flight above a lower maximum
    /// stay.
    pub fn set_max(&mut self, now: Instant, max: u32) -> Vec<TicketId> {
        self.see(now);
        self.max = max.max(1);
        self.hand_over_all()
    }

    /// Takes over a changed policy, keeping calls in flight and those waiting; returns whom to wake.
    /// A learned maximum stays, within the new bounds. Waiters keep the time they were given.
    ///
    /// A kind that tells time changes nothing.
    pub fn set_policy(&mut self, now: Instant, policy: &LimitPolicy) -> Vec<TicketId> {
        self.see(now);
        if let Some(settings) = Settings::new(policy, self.percent) {
            self.settings = settings;
            self.max = self.max.clamp(settings.floor, settings.ceiling);
        }
        self.hand_over_all()
    }

    /// Scales the written maximum of `policy` to `percent`, rounded down, at least 1; returns whom
    /// to wake.
    pub fn set_scale(&mut self, now: Instant, percent: u32, policy: &LimitPolicy) -> Vec<TicketId> {
        self.percent = percent;
        self.set_policy(now, policy)
    }

    /// Calls in flight out of the maximum, and the answers so far. `reset` is zero: nobody knows.
    pub fn usage(&self) -> Usage {
        Usage {
            used: u64::from(self.in_flight),
            capacity: u64::from(self.max),
            reset: Duration::ZERO,
            tally: self.tally,
        }
    }

    /// Calls in flight.
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Most calls in flight.
    pub const fn max(&self) -> u32 {
        self.max
    }

    /// Calls waiting.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Moves time on: waiters whose time is up leave the queue, and learn it when they claim.
    pub fn poll(&mut self, now: Instant) {
        self.see(now);
    }

    /// When the next waiter's time is up.
    pub fn next_wake(&self) -> Option<Instant> {
        self.queue.iter().map(|waiter| waiter.until).min()
    }

    fn issue(&mut self) -> Permit {
        self.refusing_since = None;
        self.in_flight += 1;
        Permit(())
    }

    /// Gives a free permit to whoever is next.
    fn hand_over(&mut self) -> Option<TicketId> {
        if self.max <= self.in_flight {
            return None;
        }
        let next = match self.settings.order {
            Order::Fifo => self.queue.pop_front(),
            Order::Lifo => self.queue.pop_back(),
        };
        let Waiter { id, .. } = next?;
        let Permit(()) = self.issue();
        self.handed.push(id);
        Some(id)
    }

    fn hand_over_all(&mut self) -> Vec<TicketId> {
        std::iter::from_fn(|| self.hand_over()).collect()
    }

    fn denied(&mut self, now: Instant) -> Denied {
        Denied {
            retry_after: Duration::ZERO,
            observed: u64::from(self.in_flight),
            threshold: u64::from(self.max),
            since: *self.refusing_since.get_or_insert(now),
        }
    }

    /// Moves time on, and out of the queue whoever has waited long enough.
    fn see(&mut self, now: Instant) -> Instant {
        self.last = self.last.max(now);
        if self.earliest <= self.last {
            let before = self.queue.len();
            self.queue.retain(|waiter| self.last < waiter.until);
            self.tally.denied += (before - self.queue.len()) as u64;
            self.earliest = self.next_wake().unwrap_or(Instant::MAX);
        }
        self.last
    }
}
