//! One instance as its callers know it: what is in flight, how long it takes, whether it is open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use mainstay_core::Instant;
use mainstay_resilience::Outcome;
use mainstay_resilience::balance::{Estimate, Load};
use mainstay_resilience::outlier::Tally;
use parking_lot::Mutex;

use crate::circuit::SharedCircuit;

/// What this process has learnt of one instance. It outlives changes of weight, zone and health,
/// which belong to the set; it ends when the instance leaves.
#[derive(Debug)]
pub struct Endpoint {
    id: u32,
    name: Arc<str>,
    address: Arc<str>,
    /// Registered, as far as this process knows.
    since: Instant,
    in_flight: AtomicU32,
    /// [`Estimate`], as words. Two threads may overwrite each other's sample; an estimate of a
    /// running average survives that, and a lock for each pick would cost more than it is worth.
    estimate: [AtomicU64; 3],
    tally: Mutex<Tally>,
    /// A run of failures is complete and nobody has looked yet.
    run: AtomicBool,
    circuits: Box<[Arc<SharedCircuit>]>,
}

impl Endpoint {
    /// An instance met at `since`, guarded by `circuits`.
    pub fn new(
        name: Arc<str>,
        address: Arc<str>,
        since: Instant,
        circuits: Box<[Arc<SharedCircuit>]>,
    ) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name,
            address,
            since,
            in_flight: AtomicU32::new(0),
            estimate: Estimate::default().to_words().map(AtomicU64::new),
            tally: Mutex::default(),
            run: AtomicBool::new(false),
            circuits,
        }
    }

    /// A number that no other endpoint of this process has.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Name of the instance.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// `host:port`.
    pub fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// When this process first met it.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Its own circuits.
    pub fn circuits(&self) -> &[Arc<SharedCircuit>] {
        &self.circuits
    }

    /// Calls in flight and latency.
    pub fn load(&self) -> Load {
        Load { in_flight: self.in_flight.load(Ordering::Relaxed), estimate: self.estimate() }
    }

    /// Whether all its circuits would let a call through.
    pub fn admits(&self, now: Instant) -> bool {
        self.circuits.iter().all(|circuit| circuit.admits(now))
    }

    /// Tells its circuits that a call went elsewhere because of them.
    pub(crate) fn pass_over(&self, now: Instant) {
        for circuit in self.circuits.iter().filter(|circuit| !circuit.admits(now)) {
            circuit.pass_over(now);
        }
    }

    /// Counts one call in flight for as long as the guard lives, however the call ends.
    pub(crate) fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Takes a finished call into the estimate.
    pub(crate) fn learn(&self, now: Instant, sample: Duration) {
        self.put(self.estimate().observe(now, sample));
    }

    /// The instance asked to be left alone for `after`.
    pub(crate) fn ask_later(&self, now: Instant, after: Duration) {
        self.put(self.estimate().retry_after(now, after));
    }

    /// Counts a result for outlier ejection; whether it completed a run of `consecutive`.
    pub(crate) fn count(&self, outcome: Outcome, latency: Duration, consecutive: u32) -> bool {
        let complete = self.tally.lock().record(outcome, latency, consecutive);
        if complete {
            self.run.store(true, Ordering::Relaxed);
        }
        complete
    }

    /// Whether a run of failures was completed since the last time this was asked.
    pub(crate) fn take_run(&self) -> bool {
        self.run.load(Ordering::Relaxed) && self.run.swap(false, Ordering::Relaxed)
    }

    /// The results since the last look.
    pub(crate) fn take_tally(&self) -> Tally {
        self.tally.lock().take()
    }

    fn estimate(&self) -> Estimate {
        let word = |n: usize| self.estimate[n].load(Ordering::Relaxed);
        Estimate::from_words([word(0), word(1), word(2)])
    }

    fn put(&self, estimate: Estimate) {
        for (slot, word) in self.estimate.iter().zip(estimate.to_words()) {
            slot.store(word, Ordering::Relaxed);
        }
    }
}

/// One call in flight.
#[derive(Debug)]
pub struct InFlight(Arc<Endpoint>);

impl InFlight {
    /// Where the call is.
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
