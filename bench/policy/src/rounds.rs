//! Interleaved rounds: every case runs once a round, and each round begins with another case, so
//! that what else the machine does falls on all alike.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant as StdInstant};

use mainstay_core::Instant;

use crate::alloc;

/// Something that is measured.
pub struct Case {
    pub group: &'static str,
    pub name: &'static str,
    /// Whether it is ours or a peer's.
    pub ours: bool,
    /// Whether peers of the group are measured against this row of ours: the one that does most
    /// nearly what they do, in the form the product uses.
    pub basis: bool,
    /// The clock it reads inside, if any.
    pub clock: &'static str,
    /// The most nanoseconds it should take, ours only.
    pub target: Option<f64>,
    pub run: Box<dyn FnMut(Duration) -> Sample>,
}

/// What one round of one case gave.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Nanoseconds per operation of one thread.
    pub nanos: f64,
    /// Allocations per operation.
    pub allocations: f64,
}

/// All rounds of one case.
pub struct Figures {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    pub allocations: f64,
}

/// Operations between two looks at the clock. What takes the time as an argument is given the last
/// look, as a call that reads a clock once and hands it down.
const BATCH: u64 = 512;

impl Case {
    pub fn ours(group: &'static str, name: &'static str, target: Option<f64>) -> Self {
        Self {
            group,
            name,
            ours: true,
            basis: false,
            clock: "–",
            target,
            run: Box::new(|_| unreachable!()),
        }
    }

    pub fn peer(group: &'static str, name: &'static str, clock: &'static str) -> Self {
        Self { ours: false, clock, ..Self::ours(group, name, None) }
    }

    /// Makes this the row that peers are measured against.
    pub fn basis(self) -> Self {
        Self { basis: true, ..self }
    }

    /// One thread that does `op` over and over.
    pub fn op(mut self, mut op: impl FnMut(Instant) + 'static) -> Self {
        self.run = Box::new(move |span| timed(span, &mut op));
        self
    }

    /// Two threads that do `op` to the same value at once.
    pub fn two<T: Send + Sync + 'static>(
        mut self,
        shared: T,
        op: impl Fn(&T, Instant) + Copy + Send + 'static,
    ) -> Self {
        let shared = Arc::new(shared);
        self.run = Box::new(move |span| {
            let barrier = Arc::new(Barrier::new(2));
            let threads = [(); 2].map(|()| {
                let (shared, barrier) = (Arc::clone(&shared), Arc::clone(&barrier));
                std::thread::spawn(move || {
                    barrier.wait();
                    timed(span, &mut |now| op(&shared, now))
                })
            });
            let [a, b] = threads.map(|thread| thread.join().expect("the case ran"));
            let nanos = (a.nanos + b.nanos) / 2.0;
            Sample { nanos, allocations: a.allocations.max(b.allocations) }
        });
        self
    }
}

/// The moment on the clock of this process.
pub fn now() -> Instant {
    static ORIGIN: std::sync::OnceLock<StdInstant> = std::sync::OnceLock::new();
    let since = ORIGIN.get_or_init(StdInstant::now).elapsed();
    Instant::from_nanos(1).plus(since)
}

#[inline(never)]
fn timed(span: Duration, op: &mut impl FnMut(Instant)) -> Sample {
    let allocations = alloc::count();
    let started = now();
    let (mut at, mut operations) = (started, 0);
    while at.since(started) < span {
        for _ in 0..BATCH {
            op(at);
        }
        operations += BATCH;
        at = now();
    }
    let nanos = at.since(started).as_nanos() as f64 / operations as f64;
    let allocations = (alloc::count() - allocations) as f64 / operations as f64;
    Sample { nanos, allocations }
}

/// Warms every case up, then plays the rounds.
pub fn play(cases: &mut [Case], rounds: usize, span: Duration) -> Vec<Figures> {
    for case in cases.iter_mut() {
        (case.run)(span);
    }
    let mut samples = vec![Vec::with_capacity(rounds); cases.len()];
    for round in 0..rounds {
        for step in 0..cases.len() {
            // Begins elsewhere each round; every other round goes the other way.
            let step = if round % 2 == 0 { step } else { cases.len() - 1 - step };
            let place = (round * 7 + step) % cases.len();
            samples[place].push((cases[place].run)(span));
        }
    }
    samples.iter().map(|samples| Figures::of(samples)).collect()
}

impl Figures {
    fn of(samples: &[Sample]) -> Self {
        let mut nanos: Vec<f64> = samples.iter().map(|sample| sample.nanos).collect();
        nanos.sort_by(f64::total_cmp);
        Self {
            median: nanos[nanos.len() / 2],
            least: nanos[0],
            most: nanos[nanos.len() - 1],
            allocations: samples.iter().map(|sample| sample.allocations).fold(0.0, f64::max),
        }
    }
}
