//! Who is late.
//!
//! A connection writes down what passes through it, in plain cells; the worker's ticker compares
//! that with what it saw before and gives an order. [`Watch::judge`] is the whole decision: it has
//! no clock, the ticker's count is its time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::Limits;
use crate::body::Meter;

/// The unit of time here.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// What a connection must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    /// Finish what is under way, then close.
    Finish,
    /// Say 408 and close.
    HeadTimeout,
    /// Close now.
    Cut,
}

/// What a connection notes about itself.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Bytes that came in, and went out.
    pub(super) read: Cell<u64>,
    pub(super) written: Cell<u64>,
    /// The last write found no room.
    pub(super) blocked: Cell<bool>,
    /// Requests begun, and those whose answer is not written yet.
    pub(super) requests: Cell<u64>,
    pub(super) in_flight: Cell<u32>,
    /// `read` when the last answer was over: what came since belongs to the next head.
    pub(super) read_mark: Cell<u64>,
    /// HTTP/2 streams given up by the peer before their answer was over.
    pub(super) resets: Cell<u64>,
    /// It reset so many streams that it was told to go.
    pub(super) abusive: Cell<bool>,
    /// The worker drains: answers say `Connection: close`.
    pub(super) closing: Cell<bool>,
    pub(super) http2: Cell<bool>,
    pub(super) tunnelling: Cell<bool>,
    /// The client of the tunnel is to be told that we go.
    pub(super) leaving: Cell<bool>,
    /// Request bodies that are not over.
    pub(super) bodies: RefCell<Vec<Body>>,
    /// Answers over HTTP/2 that are not over.
    answers: RefCell<Vec<Answer>>,
    /// What belongs to the stream that HTTP/2 is about to start the task of.
    pub(super) entering: RefCell<Option<Rc<Outflow>>>,
    order: Cell<Option<Order>>,
    task: RefCell<Option<Waker>>,
}

/// A request body under watch.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) meter: Arc<Meter>,
    pub(super) seen: u64,
    pub(super) quiet: u64,
    pub(super) waited: u64,
}

impl Pace {
    /// Gives an order; a stronger one stands.
    pub(super) fn order(&self, order: Order) {
        self.order.set(self.order.get().max(Some(order)));
        if let Some(task) = self.task.borrow_mut().take() {
            task.wake();
        }
    }

    /// The order given since last asked. Woken for the next.
    pub(super) fn poll_order(&self, cx: &Context<'_>) -> Poll<Order> {
        if let Some(order) = self.order.take() {
            return Poll::Ready(order);
        }
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// One request has begun.
    pub(super) fn begin(self: &Rc<Self>, body: Option<Arc<Meter>>) -> Flight {
        self.requests.set(self.requests.get() + 1);
        self.in_flight.set(self.in_flight.get() + 1);
        if let Some(meter) = body {
            let mut bodies = self.bodies.borrow_mut();
            if bodies.len() == bodies.capacity() {
                bodies.retain(|body| body.meter.read().is_some()); // The ticker may be far off.
            }
            bodies.push(Body { meter, seen: 0, quiet: 0, waited: 0 });
        }
        Flight { pace: Rc::clone(self), complete: false }
    }

    /// Watches how an answer passes until nobody passes it on any more.
    pub(super) fn watch(&self, outflow: &Rc<Outflow>) {
        let mut answers = self.answers.borrow_mut();
        if answers.len() == answers.capacity() {
            answers.retain(Answer::is_on); // The ticker may be far off.
        }
        answers.push(Answer { outflow: Rc::clone(outflow), seen: 0, quiet: 0 });
    }
}

/// How the body of an answer passes to HTTP/2, which asks for the next part once the peer has
/// made room for the last one. The body notes it, the ticker reads it, the stream's task obeys.
#[derive(Debug, Default)]
pub(super) struct Outflow {
    /// Parts handed over.
    parts: Cell<u64>,
    /// The last part may still wait for room.
    held: Cell<bool>,
    stalled: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

impl Outflow {
    /// Notes that a part was handed over, or that there is none yet.
    pub(super) fn note(&self, handed: bool) {
        self.held.set(handed);
        self.parts.set(self.parts.get() + u64::from(handed));
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.get()
    }

    /// Ready once the stream is to end.
    pub(super) fn poll_stalled(&self, cx: &Context<'_>) -> Poll<()> {
        if self.stalled.get() {
            return Poll::Ready(());
        }
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn stall(&self) {
        self.stalled.set(true);
        if let Some(task) = self.task.borrow_mut().take() {
            task.wake();
        }
    }
}

/// An answer under watch.
#[derive(Debug)]
struct Answer {
    outflow: Rc<Outflow>,
    seen: u64,
    quiet: u64,
}

impl Answer {
    /// Whether anybody still passes it on.
    fn is_on(&self) -> bool {
        1 < Rc::strong_count(&self.outflow) && !self.outflow.is_stalled()
    }

    fn judge(&mut self, patience: &Patience) {
        let parts = self.outflow.parts.get();
        let stands = self.outflow.held.get() && parts == self.seen;
        self.quiet = if stands { self.quiet + 1 } else { 0 };
        self.seen = parts;
        if patience.write_stall <= self.quiet {
            self.outflow.stall();
        }
    }
}

/// One request under way, until its answer is over or given up.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) pace: Rc<Pace>,
    /// The answer was read to its end.
    pub(super) complete: bool,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let pace = &self.pace;
        pace.in_flight.set(pace.in_flight.get() - 1);
        pace.read_mark.set(pace.read.get());
        if !self.complete && pace.http2.get() {
            pace.resets.set(pace.resets.get() + 1);
        }
    }
}

/// What the ticker remembers of a connection.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) pace: Rc<Pace>,
    opened: u64,
    phase: (Phase, u64),
    phase_since: u64,
    written: u64,
    written_since: u64,
    /// Start, streams and resets of the current ten seconds.
    resets: (u64, u64, u64),
    asked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Head,
    Busy,
    Tunnel,
}

/// [`Limits`] in ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    head: u64,
    body_gap: u64,
    body_rate_min_bytes: u64,
    write_stall: u64,
    keepalive: u64,
    connection_age: u64,
    tunnel_idle: u64,
}

impl From<&Limits> for Patience {
    fn from(limits: &Limits) -> Self {
        Self {
            head: ticks(limits.head),
            body_gap: ticks(limits.body_gap),
            body_rate_min_bytes: limits.body_rate_min_bytes,
            write_stall: ticks(limits.write_stall),
            keepalive: ticks(limits.keepalive),
            connection_age: ticks(limits.connection_age),
            tunnel_idle: ticks(limits.tunnel_idle),
        }
    }
}

/// Whole ticks, rounded up and at least one.
const fn ticks(span: Duration) -> u64 {
    let ticks = span.as_secs().saturating_mul(TICKS_PER_SECOND)
        + span.subsec_nanos().div_ceil(TICK.subsec_nanos()) as u64;
    if ticks == 0 { 1 } else { ticks }
}

const TICKS_PER_SECOND: u64 = 1_000_000_000 / TICK.subsec_nanos() as u64;

/// A body is not judged by its rate before it was waited for this long.
const RATE_AFTER: u64 = ticks(Duration::from_secs(5));

/// How long an idle connection may still send its next request once the worker drains.
const DRAIN_IDLE: u64 = ticks(Duration::from_secs(1));

/// Rapid reset (CVE-2023-44487): more resets than this in the window, and more than half of all
/// streams, are no browser's impatience.
const RESETS_MAX: u64 = 100;
const RESETS_WINDOW: u64 = ticks(Duration::from_secs(10));

impl Watch {
    pub(super) fn new(pace: Rc<Pace>, now: u64) -> Self {
        Self {
            pace,
            opened: now,
            phase: (Phase::Idle, 0),
            phase_since: now,
            written: 0,
            written_since: now,
            resets: (now, 0, 0),
            asked: false,
        }
    }

    /// What the connection must do at tick `now`; asked once a tick.
    pub(super) fn judge(&mut self, now: u64, patience: &Patience) -> Option<Order> {
        self.note(now);
        let pace = &self.pace;
        for body in pace.bodies.borrow_mut().iter_mut() {
            body.judge(patience);
        }
        pace.bodies.borrow_mut().retain(|body| body.meter.read().is_some());
        for answer in pace.answers.borrow_mut().iter_mut() {
            answer.judge(patience);
        }
        pace.answers.borrow_mut().retain(Answer::is_on);
        let late = |since: u64, limit: u64| limit <= now - since;
        if pace.blocked.get() && late(self.written_since, patience.write_stall) {
            return Some(Order::Cut);
        }
        let order = match self.phase.0 {
            Phase::Head if !pace.http2.get() && late(self.phase_since, patience.head) => {
                Some(Order::HeadTimeout)
            }
            Phase::Idle if pace.requests.get() == 0 && late(self.phase_since, patience.head) => {
                Some(Order::Cut) // It never said anything.
            }
            // Told to go, and some stream's last bytes are still not taken.
            Phase::Idle
                if pace.http2.get()
                    && late(self.phase_since, patience.keepalive + patience.write_stall) =>
            {
                Some(Order::Cut)
            }
            Phase::Idle | Phase::Head if late(self.phase_since, patience.keepalive) => {
                Some(Order::Finish)
            }
            Phase::Idle if pace.closing.get() && late(self.phase_since, DRAIN_IDLE) => {
                Some(Order::Finish)
            }
            Phase::Tunnel if late(self.phase_since, patience.tunnel_idle) => Some(Order::Cut),
            Phase::Tunnel if pace.closing.get() && !pace.leaving.replace(true) => {
                Some(Order::Finish)
            }
            _ => None,
        };
        if order.is_some() {
            return order;
        }
        let aged = late(self.opened, patience.connection_age) && self.phase.0 != Phase::Tunnel;
        let closing = pace.closing.get() && pace.http2.get();
        if self.resets_too_much() {
            // A client may ignore that it was told to go; it is counted anew, and not told again.
            self.resets = (now, self.pace.requests.get(), self.pace.resets.get());
            let told = self.pace.abusive.replace(true);
            return Some(if told { Order::Cut } else { Order::Finish });
        }
        ((aged || closing) && !std::mem::replace(&mut self.asked, true)).then_some(Order::Finish)
    }

    /// Writes down what changed since the last tick.
    fn note(&mut self, now: u64) {
        let pace = &self.pace;
        let (read, written) = (pace.read.get(), pace.written.get());
        let phase = if pace.tunnelling.get() {
            (Phase::Tunnel, read.wrapping_add(written))
        } else if pace.in_flight.get() != 0 {
            (Phase::Busy, pace.requests.get())
        } else if pace.read_mark.get() < read && !pace.http2.get() {
            (Phase::Head, pace.requests.get())
        } else {
            (Phase::Idle, pace.requests.get())
        };
        if phase != self.phase {
            (self.phase, self.phase_since) = (phase, now);
        }
        if written != self.written || !pace.blocked.get() {
            (self.written, self.written_since) = (written, now);
        }
        if RESETS_WINDOW <= now - self.resets.0 {
            self.resets = (now, pace.requests.get(), pace.resets.get());
        }
    }

    fn resets_too_much(&self) -> bool {
        let (_, streams, resets) = self.resets;
        let streams = self.pace.requests.get() - streams;
        let resets = self.pace.resets.get() - resets;
        RESETS_MAX < resets && streams < resets.saturating_mul(2)
    }
}

impl Body {
    fn judge(&mut self, patience: &Patience) {
        let Some((bytes, waiting)) = self.meter.read() else { return };
        if !waiting {
            return self.quiet = 0; // We are the slow side, or upstream is.
        }
        self.waited += 1;
        self.quiet = if bytes == self.seen { self.quiet + 1 } else { 0 };
        self.seen = bytes;
        let rate = RATE_AFTER <= self.waited
            && bytes < patience.body_rate_min_bytes.saturating_mul(self.waited) / TICKS_PER_SECOND;
        if rate || patience.body_gap <= self.quiet {
            self.meter.expire();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays `script` to a connection, one tick a character, and returns the order after the last.
    ///
    /// `r` bytes come in, `(` a request begins, `)` its answer ends, `x` it is reset, `w` a write
    /// is stuck, `c` the worker drains, `t` a tunnel begins, `.` nothing happens.
    fn orders(script: &str) -> Vec<(usize, Order)> {
        let limits = Limits {
            head: TICK * 4,
            keepalive: TICK * 8,
            write_stall: TICK * 3,
            tunnel_idle: TICK * 3,
            connection_age: TICK * 30,
            ..Limits::default()
        };
        let patience = Patience::from(&limits);
        let pace = Rc::new(Pace::default());
        let mut watch = Watch::new(Rc::clone(&pace), 0);
        let mut flights = Vec::new();
        let mut given = Vec::new();
        for (tick, op) in script.chars().enumerate() {
            match op {
                'r' => pace.read.set(pace.read.get() + 1),
                '(' => flights.push(pace.begin(None)),
                ')' | 'x' => {
                    let mut flight = flights.remove(0);
                    flight.complete = op == ')';
                }
                'w' => pace.blocked.set(true),
                'c' => pace.closing.set(true),
                't' => pace.tunnelling.set(true),
                _ => (),
            }
            given.extend(watch.judge(tick as u64, &patience).map(|order| (tick, order)));
        }
        given
    }

    #[track_caller]
    fn check(script: &str, want: &[(usize, Order)]) {
        assert_eq!(orders(script), want, "{script}");
    }

    #[test]
    fn a_connection_that_says_nothing_is_cut() {
        check("...", &[]);
        check(".....", &[(4, Order::Cut)]);
    }

    #[test]
    fn a_head_has_its_time_from_its_first_byte() {
        check("rrrr", &[]);
        check("rrrrr", &[(4, Order::HeadTimeout)]);
        check("r().....r...", &[]);
        check("r().....r...r", &[(12, Order::HeadTimeout)]);
    }

    #[test]
    fn an_idle_connection_is_kept_for_a_while() {
        check("r().......", &[]);
        check("r()........", &[(10, Order::Finish)]);
        check("r()..c.", &[(6, Order::Finish)]);
        check("r(................", &[]);
    }

    #[test]
    fn a_tunnel_is_told_once_that_the_worker_drains() {
        check("r(tr.cr.r", &[(5, Order::Finish)]);
    }

    #[test]
    fn a_stuck_write_is_cut_and_a_silent_tunnel() {
        check("r(w..", &[(4, Order::Cut)]);
        check("r(t..r..", &[]);
        check("r(t...", &[(5, Order::Cut)]);
    }

    #[test]
    fn only_an_answer_that_waits_for_its_client_stalls() {
        let pace = Rc::new(Pace::default());
        pace.http2.set(true);
        let _flight = pace.begin(None);
        let mut watch = Watch::new(Rc::clone(&pace), 0);
        let patience = Patience::from(&Limits { write_stall: TICK * 3, ..Limits::default() });
        let [slow_client, slow_service, gone] = [(); 3].map(|()| Rc::<Outflow>::default());
        for outflow in [&slow_client, &slow_service, &gone] {
            pace.watch(outflow);
        }
        drop(gone);
        for tick in 1..=9 {
            slow_service.note(false);
            if tick < 6 {
                slow_client.note(true);
            }
            assert_eq!(watch.judge(tick, &patience), None, "the connection goes on");
            assert_eq!(slow_client.is_stalled(), 8 <= tick, "{tick}");
        }
        assert!(!slow_service.is_stalled());
        assert_eq!(pace.answers.borrow().len(), 1, "neither the gone nor the stalled are kept");
    }

    #[test]
    fn an_http2_connection_that_was_told_to_go_and_does_not_is_cut() {
        let pace = Rc::new(Pace::default());
        pace.http2.set(true);
        drop(pace.begin(None));
        let mut watch = Watch::new(Rc::clone(&pace), 0);
        let limits = Limits { keepalive: TICK * 8, write_stall: TICK * 3, ..Limits::default() };
        let patience = Patience::from(&limits);
        let orders = (1..=12).map(|tick| watch.judge(tick, &patience)).collect::<Vec<_>>();
        assert_eq!(orders[7], None);
        assert_eq!(orders[8..11], [Some(Order::Finish); 3]);
        assert_eq!(orders[11], Some(Order::Cut));
    }

    #[test]
    fn age_asks_once() {
        let script = format!("r({}", ".".repeat(40));
        check(&script, &[(30, Order::Finish)]);
    }

    #[test]
    fn only_many_resets_in_a_short_time_are_too_many() {
        let pace = Rc::new(Pace::default());
        pace.http2.set(true);
        let mut watch = Watch::new(Rc::clone(&pace), 0);
        let patience = Patience::from(&Limits::default());
        let mut play = |tick, resets, complete| {
            for number in 0..resets + complete {
                let mut flight = pace.begin(None);
                flight.complete = resets <= number;
            }
            watch.judge(tick, &patience)
        };
        assert_eq!(play(1, 100, 0), None);
        assert_eq!(play(RESETS_WINDOW, 100, 0), None, "another window");
        assert_eq!(play(RESETS_WINDOW + 1, 100, 150), None, "not the greater part");
        assert_eq!(play(RESETS_WINDOW + 2, 100, 0), Some(Order::Finish));
        assert_eq!(play(RESETS_WINDOW + 3, 100, 0), None, "it is going");
        assert_eq!(play(RESETS_WINDOW + 4, 1, 0), Some(Order::Cut), "it is not");
    }
}
