//! System protection, for all workers.
//!
//! Who decides is the machine in [`mainstay_resilience::system`], behind one lock. While the
//! computer has enough of everything, which is nearly always, there is nothing to decide, and a
//! call only counts itself: in cells of its own thread, so that no two cores share a line of cache.
//! Once a second the cells are added up and handed to the machine, which so knows what the process
//! carries when a shortage begins. Only while one lasts does a call take the lock.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use mainstay_core::problem::Code;
use mainstay_core::{Instant, Problem, Rejection};
use mainstay_resilience::system::{Priority, Reading, Shed, Short, System, SystemPolicy};
use parking_lot::Mutex;

use crate::events::ShortageChanged;
use crate::thread;

/// Lets calls in by their priority while the machine is short of something.
#[derive(Debug)]
pub struct Protection {
    /// A shortage lasts, or may: the lock tells.
    over: AtomicBool,
    system: Mutex<System>,
    cells: [Cell; CELLS],
}

/// What the calls of one thread, or a few, come to.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Cell {
    in_flight: [AtomicU32; 4],
    /// Calls that came back since the last look.
    calls: AtomicU64,
    /// The sum of their latencies.
    latency_nanos: AtomicU64,
}

/// More threads than this share cells, which is slower and not wrong.
const CELLS: usize = 32;

/// A call that was let in; it counts as in flight until this is dropped.
#[derive(Debug)]
pub(super) struct Admitted<'p> {
    cell: &'p Cell,
    priority: Priority,
}

impl Protection {
    /// Sheds by `policy` from the next look on.
    pub(super) fn set_policy(&self, policy: SystemPolicy) {
        self.system.lock().set_policy(policy);
    }

    /// Takes what was found of the machine, once a second; `None` when it could not be found out,
    /// upon which a shortage ends by itself.
    pub fn observe(&self, now: Instant, reading: Option<Reading>) {
        let take = |of: fn(&Cell) -> &AtomicU64| -> u64 {
            self.cells.iter().map(|cell| of(cell).swap(0, Ordering::Relaxed)).sum()
        };
        let calls = take(|cell| &cell.calls);
        let latency = Duration::from_nanos(take(|cell| &cell.latency_nanos));
        let mut system = self.system.lock();
        system.learn(now, calls, latency);
        let change = match reading {
            Some(reading) => system.observe(now, reading),
            None => system.poll(now),
        };
        self.over.store(system.over().is_some(), Ordering::Relaxed);
        drop(system);
        if let Some(change) = change {
            ShortageChanged(change).emit();
        }
    }

    /// Lets a call in.
    ///
    /// # Errors
    ///
    /// `shed`, with the evidence.
    #[inline]
    pub(super) fn admit(&self, now: Instant, priority: Priority) -> Result<Admitted<'_>, Problem> {
        if self.over.load(Ordering::Relaxed) {
            self.weigh(now, priority)?;
        }
        let cell = &self.cells[thread::number() % CELLS];
        cell.in_flight[priority as usize].fetch_add(1, Ordering::Relaxed);
        Ok(Admitted { cell, priority })
    }

    #[cold]
    fn weigh(&self, now: Instant, priority: Priority) -> Result<(), Problem> {
        let mut in_flight = [0_u32; 4];
        for cell in &self.cells {
            for (sum, count) in in_flight.iter_mut().zip(&cell.in_flight) {
                *sum = sum.saturating_add(count.load(Ordering::Relaxed));
            }
        }
        let weighed = self.system.lock().weigh(now, priority, in_flight);
        weighed.map_err(|shed| problem(now, shed))
    }
}

impl Default for Protection {
    /// Protection that has seen nothing yet and lets everything in.
    fn default() -> Self {
        Self {
            over: AtomicBool::new(false),
            system: Mutex::new(System::new(SystemPolicy::default(), Instant::ZERO)),
            cells: std::array::from_fn(|_| Cell::default()),
        }
    }
}

impl Admitted<'_> {
    /// It was answered after `latency`, by a service; refusals say nothing of what is carried.
    #[inline]
    pub(super) fn answered(&self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.cell.calls.fetch_add(1, Ordering::Relaxed);
        self.cell.latency_nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.cell.in_flight[self.priority as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a caller is told whose call was shed.
fn problem(now: Instant, shed: Shed) -> Problem {
    let Shed { over, in_flight, carries, retry_after } = shed;
    let (rule, what, unit) = match over.short {
        Short::Cpu => ("cpu_percent_max", "processor", " %"),
        Short::Memory => ("memory_percent_max", "memory", " %"),
        Short::Load => ("load_per_core_max", "load per processor", ""),
    };
    let observed = format!(
        "{what} {:.1}{unit}; {in_flight} calls of this priority or above in flight, {carries} carried",
        over.observed
    );
    let mut problem = Problem::new(Code::Shed, "the gateway is overloaded");
    problem.retry_after = Some(retry_after);
    problem.rejection = Some(Box::new(Rejection {
        stage: "system",
        rule: rule.to_owned(),
        revision: None,
        observed: Cow::Owned(observed),
        threshold: Cow::Owned(format!("{}{unit}", over.threshold)),
        since: now.since(over.since),
        clears_when: Cow::Borrowed("fewer calls are in flight, or the machine has room again"),
    }));
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO.plus(Duration::from_secs(seconds))
    }

    /// Protection that carries 2 calls, with its processor at `cpu_percent` since second 1.
    fn busy(cpu_percent: f64) -> Protection {
        let protection = Protection::default();
        for _ in 0..20 {
            let admitted = protection.admit(at(0), Priority::Normal).expect("nothing is known yet");
            admitted.answered(Duration::from_millis(100));
        }
        protection.observe(at(1), Some(Reading { cpu_percent, ..Reading::default() }));
        protection
    }

    /// How many of ten calls are in flight at once at `second`.
    #[track_caller]
    fn check(protection: &Protection, second: u64, priority: Priority, want: usize) {
        let calls: Vec<_> = (0..10).map(|_| protection.admit(at(second), priority)).collect();
        assert_eq!(calls.iter().filter(|call| call.is_ok()).count(), want, "{priority:?}");
    }

    #[test]
    fn only_a_shortage_sheds_and_never_what_is_critical() {
        check(&busy(50.0), 2, Priority::Low, 10);
        check(&busy(95.0), 2, Priority::Low, 3);
        check(&busy(95.0), 2, Priority::Critical, 10);
        let idle_again = busy(95.0);
        idle_again.observe(at(2), Some(Reading::default()));
        check(&idle_again, 2, Priority::Low, 10);
    }

    #[test]
    fn what_nobody_confirms_does_not_shed_for_ever() {
        let unseen = busy(95.0);
        check(&unseen, 7, Priority::Normal, 10);
        unseen.observe(at(7), None);
        assert!(!unseen.over.load(Ordering::Relaxed), "calls take the lock for nothing");
    }

    #[test]
    fn who_was_shed_is_told_why() {
        let protection = busy(95.0);
        let _three: Vec<_> =
            (0..3).map(|_| protection.admit(at(3), Priority::Normal).expect("room")).collect();
        let problem = protection.admit(at(3), Priority::Low).expect_err("no room is left");
        let rejection = problem.rejection.expect("evidence");
        assert_eq!((problem.status, problem.retry_after), (503, Some(Duration::from_secs(1))));
        assert_eq!((rejection.rule.as_str(), &*rejection.threshold), ("cpu_percent_max", "85 %"));
        assert_eq!(rejection.since, Duration::from_secs(2));
        assert!(rejection.observed.contains("95.0 %; 3 calls"), "{}", rejection.observed);
    }
}
