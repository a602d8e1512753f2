//! Calls in flight and their queue.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_core::Instant;
use mainstay_resilience::limit::{
    Admission, Claim, LimitPolicy, Permit, RawLimit, Semaphore, Ticket, TicketId,
};
use proptest::prelude::*;

fn semaphore(toml: &str) -> Semaphore {
    Semaphore::new(&policy(toml)).expect("a limit on calls in flight")
}

fn policy(toml: &str) -> LimitPolicy {
    let raw: RawLimit = toml::from_str(toml).expect("a limit");
    LimitPolicy::try_from(raw).expect("a valid limit")
}

/// A semaphore and the calls that met it. Checks after every step that no more are in flight than
/// may be and that nobody waits for a permit that is free.
struct Scene {
    semaphore: Semaphore,
    now: Instant,
    permits: Vec<Permit>,
    waiting: BTreeMap<TicketId, (String, Ticket)>,
    woken: Vec<TicketId>,
}

impl Scene {
    fn new(toml: &str) -> Self {
        let semaphore = semaphore(toml);
        let (permits, waiting, woken) = (Vec::new(), BTreeMap::new(), Vec::new());
        Self { semaphore, now: Instant::ZERO, permits, waiting, woken }
    }

    /// How the call `name` fares: `go`, `queue` or `no`.
    fn ask(&mut self, name: &str, deadline: Instant) -> &'static str {
        match self.semaphore.ask(self.now, deadline) {
            Admission::Granted(permit) => {
                self.permits.push(permit);
                "go"
            }
            Admission::Queued(ticket) => {
                self.waiting.insert(ticket.id(), (name.to_owned(), ticket));
                "queue"
            }
            Admission::Denied(_) => "no",
        }
    }

    fn release(&mut self) {
        let permit = self.permits.pop().expect("a call in flight");
        let woken = self.semaphore.release(self.now, permit);
        self.woken.extend(woken);
    }

    fn ticket_of(&mut self, name: &str) -> Ticket {
        let id = self.waiting.iter().find(|(_, (waiter, _))| waiter == name).map(|(&id, _)| id);
        self.waiting.remove(&id.expect("waits")).expect("just found").1
    }

    fn claim(&mut self, name: &str) -> &'static str {
        let ticket = self.ticket_of(name);
        let id = ticket.id();
        match self.semaphore.claim(self.now, ticket) {
            Claim::Granted(permit) => {
                self.woken.retain(|&woken| woken != id);
                self.permits.push(permit);
                "go"
            }
            Claim::Waiting(ticket) => {
                self.waiting.insert(id, (name.to_owned(), ticket));
                "queue"
            }
            Claim::Expired(_) => "no",
        }
    }

    fn cancel(&mut self, name: &str) {
        let ticket = self.ticket_of(name);
        self.woken.retain(|&woken| woken != ticket.id());
        let woken = self.semaphore.cancel(self.now, ticket);
        self.woken.extend(woken);
    }
}

/// Plays `script`: `a:go`, `a:queue`, `a:no` is a call and its fate, `a?go` what it learns when it
/// claims, `a!` gives up, `-` ends the latest call, `@20` sets the clock (ms), `max=3` moves the
/// maximum, `>a` says that `a` has just been woken.
#[track_caller]
fn check(toml: &str, script: &str) {
    let mut scene = Scene::new(toml);
    for (step, word) in script.split_whitespace().enumerate() {
        let at = format!("{word} at word {step} of {script:?}: {:?}", scene.semaphore);
        if let Some(moment) = word.strip_prefix('@') {
            let moment = Duration::from_millis(moment.parse().expect("milliseconds"));
            scene.now = Instant::ZERO.plus(moment);
        } else if let Some(max) = word.strip_prefix("max=") {
            let woken = scene.semaphore.set_max(scene.now, max.parse().expect("a number"));
            scene.woken.extend(woken);
        } else if let Some(name) = word.strip_prefix('>') {
            let id = scene.woken.iter().copied().find(|id| scene.waiting[id].0 == name);
            assert!(id.is_some(), "{at}");
        } else if word == "-" {
            scene.release();
        } else if let Some(name) = word.strip_suffix('!') {
            scene.cancel(name);
        } else if let Some((name, fate)) = word.split_once(':') {
            assert_eq!(scene.ask(name, Instant::MAX), fate, "{at}");
        } else if let Some((name, fate)) = word.split_once('?') {
            assert_eq!(scene.claim(name), fate, "{at}");
        }
    }
}

const QUEUE: &str = "kind = 'concurrency'\nmax = 2\nqueue_max = 2\nwait_max_seconds = 0.1";

#[test]
fn without_a_queue_what_does_not_fit_is_refused() {
    check("kind = 'concurrency'\nmax = 2", "a:go b:go c:no - c:go d:no");
}

#[test]
fn those_who_wait_go_in_order() {
    check(QUEUE, "a:go b:go c:queue d:queue e:no - >c c?go d?queue - >d d?go e:queue");
    let lifo = format!("{QUEUE}\norder = 'lifo'");
    check(&lifo, "a:go b:go c:queue d:queue e:no - >d d?go c?queue - >c c?go");
}

#[test]
fn a_newcomer_does_not_overtake_one_who_was_woken() {
    check(QUEUE, "a:go b:go c:queue - >c d:queue c?go d?queue");
}

#[test]
fn a_permit_handed_to_one_who_gave_up_goes_on() {
    check(QUEUE, "a:go b:go c:queue d:queue - >c c! >d d?go");
    check(QUEUE, "a:go b:go c:queue - >c c! d:go e:queue");
    check(QUEUE, "a:go b:go c:queue d:queue c! - >d d?go");
}

#[test]
fn a_wait_ends_in_time() {
    check(QUEUE, "a:go b:go c:queue @99 c?queue @100 c?no d:queue e:queue - >d");
    check(QUEUE, "a:go b:go c:queue @50 d:queue @100 e:queue f:no - >d");
    check(QUEUE, "a:go b:go c:queue @99 - >c @500 c?go");
}

#[test]
fn the_maximum_moves_while_calls_are_in_flight() {
    check(QUEUE, "a:go b:go c:queue d:queue max=4 >c >d c?go d?go e:queue");
    check(QUEUE, "a:go b:go c:queue max=1 - d:queue - >c c?go d?queue - >d");
    check("kind = 'adaptive'", "max=1 a:go b:no max=0 - c:go d:no");
}

#[test]
fn a_deadline_ends_a_wait_early() {
    let mut scene = Scene::new(QUEUE);
    scene.ask("a", Instant::MAX);
    scene.ask("b", Instant::MAX);
    assert_eq!(scene.ask("c", Instant::ZERO.plus(Duration::from_millis(20))), "queue");
    assert_eq!(scene.ask("d", Instant::ZERO), "no");
    let wake = Instant::ZERO.plus(Duration::from_millis(20));
    assert_eq!(scene.semaphore.next_wake(), Some(wake));
    scene.semaphore.poll(wake);
    assert_eq!((scene.semaphore.queued(), scene.semaphore.next_wake()), (0, None));
    assert_eq!(scene.semaphore.usage().tally.denied, 2);
}

#[test]
fn an_observing_semaphore_lets_everybody_go() {
    let mut scene = Scene::new("kind = 'concurrency'\nmax = 1\nmode = 'observe'");
    assert_eq!([(); 3].map(|()| scene.ask("a", Instant::MAX)), ["go"; 3]);
    assert_eq!((scene.semaphore.in_flight(), scene.semaphore.usage().tally.would_reject), (3, 2));
}

#[test]
fn a_policy_set_live_keeps_calls_waiters_and_what_was_learned() {
    let mut scene = Scene::new(QUEUE);
    for name in ["a", "b", "c", "d"] {
        scene.ask(name, Instant::MAX);
    }
    let wider = QUEUE.replace("max = 2\n", "max = 6\n");
    assert_eq!(scene.semaphore.set_policy(Instant::ZERO, &policy(&wider)).len(), 2);
    assert!(scene.semaphore.set_scale(Instant::ZERO, 50, &policy(&wider)).is_empty());
    assert_eq!((scene.semaphore.in_flight(), scene.semaphore.max()), (4, 3));

    let mut learned = semaphore("kind = 'adaptive'");
    assert!(learned.set_max(Instant::ZERO, 300).is_empty());
    let narrower = policy("kind = 'adaptive'\nceiling = 100");
    assert!(learned.set_policy(Instant::ZERO, &narrower).is_empty());
    assert_eq!(learned.max(), 100);
}

proptest! {
    /// Whatever happens in whatever order, no more are granted than the maximum, nobody waits for
    /// a permit that is free, and once all is over every permit is back.
    #[test]
    fn permits_are_neither_lost_nor_made(
        lifo: bool,
        steps in prop::collection::vec((0u8..6, 0usize..8, 0u64..60), 1..200),
    ) {
        let order = if lifo { "lifo" } else { "fifo" };
        let mut scene = Scene::new(&format!("{QUEUE}\norder = '{order}'"));
        for (n, (step, pick, gap)) in steps.into_iter().enumerate() {
            let before = scene.semaphore.in_flight();
            let max = scene.semaphore.max();
            let names: Vec<String> = scene.waiting.values().map(|(name, _)| name.clone()).collect();
            let name = names.get(pick % names.len().max(1)).cloned();
            match (step, name) {
                (0 | 1, _) => drop(scene.ask(&n.to_string(), Instant::MAX).to_owned()),
                (2, _) if !scene.permits.is_empty() => scene.release(),
                (3, Some(name)) => drop(scene.claim(&name).to_owned()),
                (4, Some(name)) => scene.cancel(&name),
                (5, _) => {
                    let woken = scene.semaphore.set_max(scene.now, 1 + u32::try_from(pick).unwrap());
                    scene.woken.extend(woken);
                }
                _ => scene.now = scene.now.plus(Duration::from_millis(gap)),
            }
            let (flying, max) = (scene.semaphore.in_flight(), max.max(scene.semaphore.max()));
            prop_assert!(flying <= max.max(before), "{flying} in flight of {max}");
            let all = scene.permits.len() + scene.woken.len();
            prop_assert_eq!(flying as usize, all, "in flight, and who holds a permit");
            scene.semaphore.poll(scene.now);
            prop_assert!(scene.semaphore.queued() == 0 || scene.semaphore.max() <= flying);
        }
        while let Some((name, _)) = scene.waiting.values().next() {
            let name = name.clone();
            scene.cancel(&name);
        }
        while !scene.permits.is_empty() {
            scene.release();
        }
        prop_assert_eq!((scene.semaphore.in_flight(), scene.semaphore.queued()), (0, 0));
    }
}
