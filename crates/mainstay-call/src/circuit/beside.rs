//! Successes counted beside the lock of a circuit.
//!
//! A circuit that fares well has nothing to decide (see [`Quiet`]). Then a call is admitted by one
//! load, and its success is counted in the shard of its thread, whose lock nobody else wants.
//! Whatever else happens takes the circuit's own lock and begins by [`Beside::close`], which
//! collects the shards; so the circuit hears of everything in an order that it could have happened
//! in. [`Beside::open`] ends it, if the circuit is still quiet, or quiet again.
//!
//! The order of locks is circuit, then shard, one shard at a time; the holder of a shard takes no
//! other.

use std::time::Duration;

use mainstay_core::Instant;
use mainstay_resilience::circuit::{Aside, Quiet};

use crate::sync::{AtomicU64, Mutex, Ordering, SHARDS, shard};

/// The shards, and the word that says whether they are open.
#[derive(Debug)]
pub(super) struct Beside {
    /// The number of the quiet state plus one, or zero when the circuit must be asked.
    gate: AtomicU64,
    shards: [Shard; SHARDS],
}

/// Aligned to two cache lines, since the processor fetches them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Shard(Mutex<Aside>);

impl Beside {
    /// Shut.
    pub(super) fn new() -> Self {
        let shards = std::array::from_fn(|_| Shard(Mutex::new(Aside::default())));
        Self { gate: AtomicU64::new(0), shards }
    }

    /// The number of the state in which every call is admitted, if that is so.
    #[inline]
    pub(super) fn quiet(&self) -> Option<u64> {
        self.gate.load(Ordering::Acquire).checked_sub(1)
    }

    /// Counts a success under a permit of the state `number`; false if the circuit must hear of it.
    #[inline]
    pub(super) fn count(&self, now: Instant, number: u64, latency: Duration) -> bool {
        self.shards[shard()].0.lock().count(now, number, latency)
    }

    /// Closes every shard and gives what it counted to `take`. The gate stays as it is until the
    /// circuit has been worked on: whoever reads it meanwhile comes before that work.
    pub(super) fn close(&self, mut take: impl FnMut(&Aside)) {
        for shard in &self.shards {
            let aside = std::mem::take(&mut *shard.0.lock());
            take(&aside);
        }
    }

    /// Opens every shard, and the gate.
    pub(super) fn open(&self, quiet: Quiet) {
        for shard in &self.shards {
            *shard.0.lock() = Aside::new(quiet);
        }
        let word = quiet.number() + 1;
        // Not written when it says so already: other threads have it in their caches.
        if self.gate.load(Ordering::Relaxed) != word {
            self.gate.store(word, Ordering::Release);
        }
    }

    /// Shuts the gate: the circuit must be asked.
    pub(super) fn shut(&self) {
        self.gate.store(0, Ordering::Release);
    }
}
