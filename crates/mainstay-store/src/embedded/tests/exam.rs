//! The exam, on the reference and on the embedded store.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::ManualClock;

use super::super::simulated::Simulated;
use super::super::{Embedded, Options};
use super::{by_hand, start};
use crate::conformance::{CASES, Doing, Exam, Time};
use crate::memory::Memory;
use crate::store::Store;

const STEP: Duration = Duration::from_millis(200);

fn steps(span: Duration) -> u128 {
    span.as_millis().div_ceil(STEP.as_millis())
}

struct MemoryTime {
    clock: ManualClock,
    store: Memory,
}

impl Time for MemoryTime {
    fn pass(&self, span: Duration) -> Doing<'_, ()> {
        Box::pin(async move {
            for _ in 0..steps(span) {
                self.clock.advance(STEP);
                self.store.tick();
            }
        })
    }
}

struct EmbeddedTime {
    clock: ManualClock,
    store: Arc<Embedded>,
}

impl Time for EmbeddedTime {
    fn pass(&self, span: Duration) -> Doing<'_, ()> {
        Box::pin(async move {
            for _ in 0..steps(span) {
                self.clock.advance(STEP);
                self.store.tick().await;
            }
        })
    }
}

fn exam(store: Arc<dyn Store>, time: impl Time + 'static) -> Exam {
    Exam { second: Arc::clone(&store), store, time: Arc::new(time), slack: Duration::from_secs(1) }
}

#[tokio::test]
async fn the_reference_passes() {
    for (name, case) in CASES {
        println!("{name}");
        let clock = ManualClock::default();
        let store = Memory::new(clock.clone());
        case(&exam(Arc::new(store.clone()), MemoryTime { clock, store })).await;
    }
}

#[tokio::test]
async fn the_embedded_store_passes() {
    for (name, case) in CASES {
        println!("{name}");
        let clock = ManualClock::default();
        let store = start(&Simulated::default(), &clock, by_hand());
        let time = EmbeddedTime { clock, store: Arc::clone(&store) };
        case(&exam(store, time)).await;
    }
}

#[tokio::test]
async fn the_embedded_store_passes_in_a_folder() {
    for (name, case) in CASES.iter().filter(|(name, _)| !name.contains("100,000")) {
        println!("{name}");
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::default();
        let options = Options { path: folder.path().join("store"), ..by_hand() };
        let store = Arc::new(Embedded::open(options, clock.clone()).unwrap());
        let time = EmbeddedTime { clock, store: Arc::clone(&store) };
        case(&exam(store, time)).await;
    }
}
