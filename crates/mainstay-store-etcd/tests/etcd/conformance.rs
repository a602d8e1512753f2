//! The exam every backend passes, each case on an etcd of its own: revisions are those of the whole
//! etcd, and a lease that one case leaves behind would end in another.

use std::sync::Arc;
use std::time::Duration;

use mainstay_store::conformance::{CASES, Doing, Exam, Time};
use mainstay_store_etcd::FanOut;

use crate::cluster::{Cluster, PATIENCE, open};

/// Waits.
struct Waiting;

impl Time for Waiting {
    fn pass(&self, span: Duration) -> Doing<'_, ()> {
        Box::pin(tokio::time::sleep(span))
    }
}

/// Runs the cases numbered `first`, `first` + 4, and so on.
async fn quarter(first: usize, fan_out: FanOut, leaving_out: &[&str]) {
    for (name, case) in CASES.iter().skip(first).step_by(4) {
        if leaving_out.contains(name) {
            continue;
        }
        println!("case: {name}");
        let cluster = Cluster::one().await;
        let options = || cluster.options("/exam/").fan_out(fan_out);
        let exam = Exam {
            store: open(options()),
            second: open(options()),
            time: Arc::new(Waiting),
            // etcd looks for ended leases twice a second, and its leader may be a second late.
            slack: Duration::from_secs(2),
        };
        let done = tokio::time::timeout(3 * PATIENCE, case(&exam)).await;
        assert!(done.is_ok(), "no end of: {name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_first_quarter() {
    quarter(0, FanOut::Auto, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_second_quarter() {
    quarter(1, FanOut::Auto, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_third_quarter() {
    quarter(2, FanOut::Auto, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_fourth_quarter() {
    quarter(3, FanOut::Auto, &[]).await;
}

/// The cases about watches once more, with a watch of etcd for each area.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_with_a_watch_for_each_area() {
    let others: Vec<&str> = CASES.iter().map(|(name, _)| *name).collect();
    let without_watches: Vec<&str> = others
        .into_iter()
        .filter(|name| !name.contains("watch") && !name.contains("stream"))
        .collect();
    let progress = "an idle watch is told how far it is";
    for first in 0..4 {
        let mut left_out = without_watches.clone();
        // An etcd this old tells the progress of an area only by its events.
        left_out.push(progress);
        quarter(first, FanOut::Areas, &left_out).await;
    }
}
