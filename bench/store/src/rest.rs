//! Reads, keep-alives, watches, opening, memory.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_store::embedded::Options;
use mainstay_store::{
    Batch, Embedded, Get, Op, Put, Range, Store as _, WatchItem, WatchRequest,
};

use crate::load::{VALUE_BYTES, fresh, key};
use crate::{Arguments, Uptime};

type Measure = fn(&Path, &Arguments) -> f64;

/// Name, measurement, digits shown.
pub const ROWS: [(&str, Measure, usize); 7] = [
    ("linearizable gets of one key a second, one thread", gets, 0),
    ("keep-alives a second, one thread", keep_alives, 0),
    ("bytes written by 100,000 keep-alives", keep_alive_bytes, 0),
    ("1 change to 10,000 watches: last one told after, ms", fan_out, 1),
    ("memory of a watch, KiB", watch_memory, 2),
    ("open, empty, ms", open_empty, 1),
    ("open, `--revisions` in the log, s", open_full, 2),
];

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

async fn fill(store: &Embedded, keys: usize) {
    for hundred in 0..keys / 100 {
        let puts = (0..100).map(|number| {
            Op::Put(Put::new(key(hundred * 100 + number), vec![b'v'; VALUE_BYTES]))
        });
        let batch = Batch { then: puts.collect(), ..Batch::new() };
        store.apply(batch).await.expect("a batch is taken");
    }
}

fn gets(path: &Path, arguments: &Arguments) -> f64 {
    let store = fresh(path);
    wait(async {
        fill(&store, 10_000).await;
        rate(arguments.seconds / 4, async |number| {
            let got = store.get(Get::new(key(number * 7_919))).await.expect("a read");
            assert!(got.entry.is_some());
        })
        .await
    })
}

fn keep_alives(path: &Path, arguments: &Arguments) -> f64 {
    let store = fresh(path);
    wait(async {
        let lease = store.grant(Duration::from_secs(60), None).await.expect("a grant").id;
        rate(arguments.seconds / 4, async |_| {
            store.keep_alive(lease).await.expect("it lives");
        })
        .await
    })
}

fn keep_alive_bytes(path: &Path, _: &Arguments) -> f64 {
    let store = fresh(path);
    wait(async {
        let lease = store.grant(Duration::from_secs(60), None).await.expect("a grant").id;
        let before = written();
        for _ in 0..100_000 {
            store.keep_alive(lease).await.expect("it lives");
        }
        (written() - before) as f64
    })
}

async fn rate(span: Duration, mut once: impl AsyncFnMut(usize)) -> f64 {
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < span {
        for _ in 0..256 {
            once(count).await;
            count += 1;
        }
    }
    count as f64 / began.elapsed().as_secs_f64()
}

fn fan_out(path: &Path, _: &Arguments) -> f64 {
    const WATCHES: usize = 10_000;
    let store = fresh(path);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
    runtime.expect("a runtime").block_on(async {
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..WATCHES {
            let mut watch = store.watch(WatchRequest::new(Range::prefix("bench/"))).expect("a watch");
            let told = told.clone();
            assert!(matches!(watch.next().await, Some(WatchItem::Created { .. })));
            tokio::spawn(async move {
                if let Some(WatchItem::Changes { .. }) = watch.next().await {
                    told.send(Instant::now()).expect("somebody listens");
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        store.apply(Batch::new().then(Put::new(key(1), "x"))).await.expect("a put");
        let answered = Instant::now();
        let mut last = answered;
        for _ in 0..WATCHES {
            last = last.max(heard.recv().await.expect("every watch is told"));
        }
        last.duration_since(answered).as_secs_f64() * 1e3
    })
}

fn watch_memory(path: &Path, _: &Arguments) -> f64 {
    // So many that what earlier rows have given back does not hide them.
    const WATCHES: usize = 90_000;
    let store = fresh(path);
    let before = resident();
    let watches: Vec<_> = (0..WATCHES)
        .map(|_| store.watch(WatchRequest::new(Range::prefix("bench/"))).expect("a watch"))
        .collect();
    let after = resident();
    drop(watches);
    (after.saturating_sub(before)) as f64 / WATCHES as f64 / 1_024.0
}

fn open_empty(path: &Path, _: &Arguments) -> f64 {
    drop(fresh(path));
    let began = Instant::now();
    let store = Embedded::open(Options::new(path), Uptime(Instant::now())).expect("it opens");
    let took = began.elapsed().as_secs_f64() * 1e3;
    drop(store);
    took
}

fn open_full(path: &Path, arguments: &Arguments) -> f64 {
    let options = Options { revisions_max: u64::MAX, ..Options::new(path) };
    if path.exists() {
        std::fs::remove_dir_all(path).expect("the folder can be removed");
    }
    let open = || Embedded::open(options.clone(), Uptime(Instant::now())).expect("it opens");
    let store = Arc::new(open());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
    runtime.expect("a runtime").block_on(async {
        let writers: Vec<_> = (0..512u64)
            .map(|writer| {
                let (store, count) = (Arc::clone(&store), arguments.revisions / 512);
                tokio::spawn(async move {
                    for number in 0..count {
                        let number = usize::try_from(writer * count + number).unwrap_or(0);
                        let put = Put::new(key(number), "a short value");
                        store.apply(Batch::new().then(put)).await.expect("a put");
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.expect("a writer ends well");
        }
    });
    drop(store);
    let began = Instant::now();
    let store = open();
    let took = began.elapsed().as_secs_f64();
    drop(store);
    took
}

/// Bytes this process has had written to disk.
fn written() -> u64 {
    bench_measure::used(std::process::id()).written_bytes
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    bench_measure::used(std::process::id()).resident_kib * 1_024
}
