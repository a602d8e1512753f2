//! Clients, a thread each, that do one thing after the other.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::process::Used;

/// What came of one round.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    /// Of the server, for each operation.
    pub cpu_micros: f64,
    pub written_bytes: f64,
    pub resident_mib: f64,
    /// Operations, also those before counting began.
    pub all: u64,
}

/// Lets `clients` do `once` for `span`, when all of them have been made by `client`; a quarter of
/// it goes before and does not count. `used` says what the server has used so far.
pub fn closed_loop<C>(
    clients: usize,
    span: Duration,
    client: impl Fn(usize) -> C + Sync,
    once: impl Fn(&mut C) + Sync,
    used: impl Fn() -> Used,
) -> Round {
    let (over, counting) = (AtomicBool::new(false), AtomicBool::new(false));
    let (done, all) = (AtomicU64::new(0), AtomicU64::new(0));
    let prepared = Barrier::new(clients + 1);
    std::thread::scope(|scope| {
        let players: Vec<_> = (0..clients)
            .map(|number| {
                let (over, counting, prepared) = (&over, &counting, &prepared);
                let (done, all, client, once) = (&done, &all, &client, &once);
                scope.spawn(move || {
                    let mut own = client(number);
                    prepared.wait();
                    let mut times = Vec::new();
                    while !over.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        once(&mut own);
                        all.fetch_add(1, Ordering::Relaxed);
                        if counting.load(Ordering::Relaxed) {
                            done.fetch_add(1, Ordering::Relaxed);
                            times.push(began.elapsed());
                        }
                    }
                    times
                })
            })
            .collect();
        prepared.wait();
        std::thread::sleep(span / 4);
        let (before, began) = (used(), Instant::now());
        counting.store(true, Ordering::Relaxed);
        std::thread::sleep(span);
        let (count, took, after) = (done.load(Ordering::Relaxed), began.elapsed(), used());
        over.store(true, Ordering::Relaxed);
        let times = players.into_iter().map(|player| player.join().expect("a client"));
        let mut times: Vec<Duration> = times.flatten().collect();
        times.sort_unstable();
        let at = |share: f64| {
            let at = (times.len() as f64 * share) as usize;
            times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        let each = |total: f64| total / (count as f64).max(1.0);
        Round {
            per_second: count as f64 / took.as_secs_f64(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            cpu_micros: each((after.cpu_seconds - before.cpu_seconds) * 1e6),
            written_bytes: each(after.written_bytes.saturating_sub(before.written_bytes) as f64),
            resident_mib: after.resident_kib as f64 / 1024.0,
            all: all.load(Ordering::Relaxed),
        }
    })
}
