//! All a call passes by default, as a proxy would call it: shared by threads, one clock read.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainstay_call::circuit::SharedCircuit;
use mainstay_core::Instant;
use mainstay_resilience::Outcome;
use mainstay_resilience::balance::{Estimate, Kind, Load, Picker};
use mainstay_resilience::budget::{Budget, Ended};
use mainstay_resilience::circuit::RawCircuit;
use mainstay_resilience::deadline::{Deadline, Digits, Patience};
use mainstay_resilience::limit::{Cost, Decision, Limiter};
use parking_lot::Mutex;

use crate::circuits::shared;
use crate::limits::limiter;
use crate::picks::{Draws, INSTANCES, ask, default_budget, picker};
use crate::rounds::{Case, now};

struct Stack {
    limit: Mutex<Limiter>,
    budget: Mutex<Budget>,
    picker: Picker,
    instances: Vec<Instance>,
}

struct Instance {
    circuit: SharedCircuit,
    in_flight: AtomicU32,
}

pub fn cases() -> Vec<Case> {
    const NAME: &str = "deadline, limit, budget, pick of 100, circuit, timeout, record";
    let stack = Stack::new();
    let mut draws = Draws(9);
    vec![
        Case::ours("whole default stack, one thread", NAME, Some(250.0))
            .op(move |now| stack.call(now, &mut draws)),
        Case::ours("whole default stack, two threads sharing it", NAME, None).two(
            Stack::new(),
            |stack, now| {
                thread_local! {
                    static DRAWS: std::cell::Cell<u64> = const { std::cell::Cell::new(11) };
                }
                let mut draws = Draws(DRAWS.get());
                stack.call(now, &mut draws);
                DRAWS.set(draws.0);
            },
        ),
    ]
}

impl Stack {
    fn new() -> Self {
        let instance =
            |_| Instance { circuit: shared(RawCircuit::default()), in_flight: AtomicU32::new(0) };
        Self {
            limit: Mutex::new(limiter()),
            budget: Mutex::new(Budget::new(default_budget(), now())),
            picker: picker(Kind::LeastRequest),
            instances: (0..INSTANCES).map(instance).collect(),
        }
    }

    #[inline]
    fn call(&self, now: Instant, draws: &mut Draws) {
        let deadline = Deadline::resolve(now, None, false, Patience::default());
        let decision = self.limit.lock().ask_by(now, Cost::ONE, deadline.at);
        assert!(matches!(black_box(decision), Decision::Granted { .. }));
        self.budget.lock().first_attempt(now);
        let load = |n: usize| Load {
            in_flight: self.instances[n].in_flight.load(Ordering::Relaxed),
            estimate: Estimate::default(),
            curious: self.instances[n].circuit.is_curious(now),
        };
        let admits = |n: usize| self.instances[n].circuit.admits(now);
        let picked = self.picker.pick(&ask(now, draws, None), load, admits).expect("usable");
        let instance = &self.instances[picked];
        let permit = instance.circuit.admit(now).expect("closed");
        instance.in_flight.fetch_add(1, Ordering::Relaxed);
        let timeout = deadline.attempt_timeout(now, None);
        let outgoing = deadline.outgoing(now, Duration::from_millis(5));
        black_box((now.plus(timeout), Digits::timeout_ms(outgoing)));
        // Here the call would be sent, and its answer awaited.
        let latency = black_box(Duration::from_micros(300));
        instance.in_flight.fetch_sub(1, Ordering::Relaxed);
        instance.circuit.record(now, permit, black_box(Outcome::Success), latency);
        let mut budget = self.budget.lock();
        budget.done(Ended::Well, None);
        budget.call_ended();
    }
}
