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

/// One instance, guarded by its circuits. It outlives changes of weight, zone and health, which
/// belong to the set; it ends when the instance leaves.
#[derive(Debug)]
pub struct Endpoint {
    name: Arc<str>,
    address: Arc<str>,
    circuits: Box<[Arc<SharedCircuit>]>,
    learnt: Arc<Learnt>,
}

/// What this process has learnt of one instance. A new configuration that guards the instance by
/// other circuits shares it with the one before, whose calls are still under way.
#[derive(Debug)]
struct Learnt {
    id: u32,
    /// Registered, as far as this process knows.
    since: Instant,
    in_flight: AtomicU32,
    /// [`Estimate`], as words. Two threads may overwrite each other's sample; an estimate of a
    /// running average survives that, and a lock for each pick would cost more than it is worth.
    estimate: [AtomicU64; 3],
    tally: Mutex<Tally>,
    /// A run of failures is complete and nobody has looked yet.
    run: AtomicBool,
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
        let learnt = Arc::new(Learnt {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            since,
            in_flight: AtomicU32::new(0),
            estimate: Estimate::default().to_words().map(AtomicU64::new),
            tally: Mutex::default(),
            run: AtomicBool::new(false),
        });
        Self { name, address, circuits, learnt }
    }

    /// The same instance guarded by `circuits`, with all that was learnt of it.
    pub fn guarded_by(self: &Arc<Self>, circuits: Box<[Arc<SharedCircuit>]>) -> Arc<Self> {
        let same = self.circuits.len() == circuits.len()
            && self.circuits.iter().zip(&circuits).all(|(a, b)| Arc::ptr_eq(a, b));
        if same {
            return Arc::clone(self);
        }
        Arc::new(Self {
            name: Arc::clone(&self.name),
            address: Arc::clone(&self.address),
            circuits,
            learnt: Arc::clone(&self.learnt),
        })
    }

    /// A number that no other endpoint of this process has.
    pub fn id(&self) -> u32 {
        self.learnt.id
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
        self.learnt.since
    }

    /// Its own circuits.
    pub fn circuits(&self) -> &[Arc<SharedCircuit>] {
        &self.circuits
    }

    /// Calls in flight and latency, and whether it should be asked for the sake of its circuits.
    pub fn load(&self, now: Instant) -> Load {
        Load {
            in_flight: self.learnt.in_flight.load(Ordering::Relaxed),
            estimate: self.estimate(),
            curious: self.is_curious(now),
        }
    }

    /// Whether one of its circuits waits for a call to find out how it is.
    pub(crate) fn is_curious(&self, now: Instant) -> bool {
        self.circuits.iter().any(|circuit| circuit.is_curious(now))
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
        self.learnt.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Takes a finished call into the estimate.
    pub(crate) fn learn(&self, now: Instant, sample: Duration) {
        self.put(self.estimate().observe(now, sample));
    }

    /// Takes a call into the estimate that found it well again.
    pub(crate) fn relearn(&self, now: Instant, sample: Duration) {
        self.put(self.estimate().relearn(now, sample));
    }

    /// How much longer at `now` the instance wants to be left alone.
    pub fn asked_to_wait(&self, now: Instant) -> Option<Duration> {
        self.estimate().asked_to_wait(now)
    }

    /// The instance asked to be left alone for `after`.
    pub fn ask_later(&self, now: Instant, after: Duration) {
        self.put(self.estimate().retry_after(now, after));
    }

    /// Counts a result for outlier ejection; whether it completed a run of `consecutive`.
    pub(crate) fn count(&self, outcome: Outcome, latency: Duration, consecutive: u32) -> bool {
        let complete = self.learnt.tally.lock().record(outcome, latency, consecutive);
        if complete {
            self.learnt.run.store(true, Ordering::Relaxed);
        }
        complete
    }

    /// Whether a run of failures was completed since the last time this was asked.
    pub(crate) fn take_run(&self) -> bool {
        self.learnt.run.load(Ordering::Relaxed) && self.learnt.run.swap(false, Ordering::Relaxed)
    }

    /// The results since the last look.
    pub(crate) fn take_tally(&self) -> Tally {
        self.learnt.tally.lock().take()
    }

    fn estimate(&self) -> Estimate {
        let word = |n: usize| self.learnt.estimate[n].load(Ordering::Relaxed);
        Estimate::from_words([word(0), word(1), word(2)])
    }

    fn put(&self, estimate: Estimate) {
        for (slot, word) in self.learnt.estimate.iter().zip(estimate.to_words()) {
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
        self.0.learnt.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
