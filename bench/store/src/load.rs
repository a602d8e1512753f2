//! Clients that put, wait for the answer, and put again.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_store::embedded::Options;
use mainstay_store::{Batch, Embedded, Key, Put, Store as _};

use crate::Uptime;

pub const VALUE_BYTES: usize = 256;

/// Keys that are put in turn.
const KEYS: usize = 10_000;

pub struct Puts {
    pub per_second: f64,
    pub commits_per_second: f64,
    pub puts_a_commit: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

pub fn key(number: usize) -> Key {
    Key::new(format!("bench/{:05}", number % KEYS)).expect("a valid key")
}

/// A fresh store in `path`.
pub fn fresh(path: &Path) -> Arc<Embedded> {
    if path.exists() {
        std::fs::remove_dir_all(path).expect("the folder can be removed");
    }
    Arc::new(Embedded::open(Options::new(path), Uptime(Instant::now())).expect("it opens"))
}

pub fn puts(path: &Path, clients: usize, span: Duration) -> Puts {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
    let runtime = runtime.expect("a runtime");
    let store = fresh(path);
    // The first second is warm-up: the file grows, caches fill.
    runtime.block_on(drive(&store, clients, Duration::from_secs(1)));
    let before = store.counted();
    let began = Instant::now();
    let mut latencies = runtime.block_on(drive(&store, clients, span));
    let took = began.elapsed().as_secs_f64();
    let after = store.counted();
    latencies.sort_unstable();
    let at = |share: f64| {
        let index = (latencies.len() as f64 * share) as usize;
        latencies.get(index).map_or(f64::NAN, |span| span.as_secs_f64() * 1e3)
    };
    let commits = (after.commits - before.commits) as f64;
    Puts {
        per_second: latencies.len() as f64 / took,
        commits_per_second: commits / took,
        puts_a_commit: latencies.len() as f64 / commits,
        p50_ms: at(0.50),
        p99_ms: at(0.99),
    }
}

/// Returns how long each put took.
async fn drive(store: &Arc<Embedded>, clients: usize, span: Duration) -> Vec<Duration> {
    let end = Instant::now() + span;
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let mut number = client * 37;
                while Instant::now() < end {
                    let put = Put::new(key(number), vec![b'v'; VALUE_BYTES]);
                    let began = Instant::now();
                    store.apply(Batch::new().then(put)).await.expect("a put is taken");
                    latencies.push(began.elapsed());
                    number += clients;
                }
                latencies
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("a client ends well"));
    }
    all
}
