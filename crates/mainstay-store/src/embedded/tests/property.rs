//! The embedded store does what the reference does, operation by operation.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_core::ManualClock;
use proptest::prelude::*;

use super::super::simulated::Simulated;
use super::*;
use crate::conformance::scripts::{a_batch, a_key, a_range, a_select};
use crate::entry::{LeaseId, Revision};
use crate::limits::TICK_EVERY;
use crate::memory::Memory;
use crate::read::{Get, RangeRequest, Select};
use crate::watch::{Watch, WatchItem, WatchRequest};

/// One step of a script. Revisions and leases are small numbers, so that scripts meet.
#[derive(Clone, Debug)]
enum Step {
    Apply(Batch),
    Get { key: Key, at: Option<u64> },
    Range { select: Select, at: Option<u64> },
    Grant { seconds: u64, lease: u64 },
    KeepAlive(u64),
    Revoke(u64),
    Lease(u64),
    Compact(u64),
    Watch { range: Range, from: Option<u64>, previous: bool },
    Pass { ticks: u32 },
    Reopen,
}

fn a_step() -> impl Strategy<Value = Step> {
    let at = || prop::option::of(0u64..25);
    prop_oneof![
        12 => a_batch().prop_map(Step::Apply),
        2 => (a_key(), at()).prop_map(|(key, at)| Step::Get { key, at }),
        2 => (a_select(), at()).prop_map(|(select, at)| Step::Range { select, at }),
        2 => (1u64..6, 1u64..4).prop_map(|(seconds, lease)| Step::Grant { seconds, lease }),
        1 => (1u64..4).prop_map(Step::KeepAlive),
        1 => (1u64..4).prop_map(Step::Revoke),
        1 => (1u64..4).prop_map(Step::Lease),
        1 => (0u64..25).prop_map(Step::Compact),
        1 => (a_range(), at(), any::<bool>())
            .prop_map(|(range, from, previous)| Step::Watch { range, from, previous }),
        1 => (1u32..20).prop_map(|ticks| Step::Pass { ticks }),
        1 => Just(Step::Reopen),
    ]
}

/// Both stores, under one clock.
struct Both {
    clock: ManualClock,
    media: Simulated,
    reference: Memory,
    embedded: Option<Arc<Embedded>>,
    watches: BTreeMap<usize, (Watch, Watch)>,
}

impl Both {
    fn new() -> Self {
        let (clock, media) = (ManualClock::default(), Simulated::default());
        let reference = Memory::new(clock.clone());
        let embedded = Some(start(&media, &clock, by_hand()));
        let watches = BTreeMap::new();
        Self { clock, media, reference, embedded, watches }
    }

    fn stores(&self) -> (&dyn Store, &dyn Store) {
        (&self.reference, &**self.embedded.as_ref().expect("it is open"))
    }

    async fn step(&mut self, number: usize, step: Step) -> Result<(), TestCaseError> {
        let lease = |number| LeaseId::new(number).unwrap();
        let at = |at: Option<u64>| at.map(Revision::new);
        let (one, two) = self.stores();
        match step {
            Step::Apply(batch) => {
                prop_assert_eq!(one.apply(batch.clone()).await, two.apply(batch).await);
            }
            Step::Get { key, at: revision } => {
                let get = Get { at: at(revision), ..Get::new(key) };
                prop_assert_eq!(one.get(get.clone()).await, two.get(get).await);
            }
            Step::Range { select, at: revision } => {
                let request = RangeRequest { at: at(revision), ..RangeRequest::new(select) };
                prop_assert_eq!(one.range(request.clone()).await, two.range(request).await);
            }
            Step::Grant { seconds, lease: id } => {
                let ttl = Duration::from_secs(seconds);
                let granted = one.grant(ttl, Some(lease(id))).await;
                prop_assert_eq!(granted, two.grant(ttl, Some(lease(id))).await);
            }
            Step::KeepAlive(id) => {
                prop_assert_eq!(one.keep_alive(lease(id)).await, two.keep_alive(lease(id)).await);
            }
            Step::Revoke(id) => {
                prop_assert_eq!(one.revoke(lease(id)).await, two.revoke(lease(id)).await);
            }
            Step::Lease(id) => {
                prop_assert_eq!(one.lease(lease(id)).await, two.lease(lease(id)).await);
            }
            Step::Compact(revision) => self.compact(Revision::new(revision)).await?,
            Step::Watch { range, from, previous } => {
                let request =
                    WatchRequest { from: at(from), previous, ..WatchRequest::new(range).quiet() };
                let pair = (one.watch(request.clone()).unwrap(), two.watch(request).unwrap());
                self.watches.insert(number, pair);
            }
            Step::Pass { ticks } => self.pass(ticks).await,
            Step::Reopen => self.reopen().await?,
        }
        self.compare().await
    }

    /// What waits in a watch is delivered by the one and forgotten by the other; both may. So it
    /// is read first.
    async fn compact(&mut self, revision: Revision) -> Result<(), TestCaseError> {
        self.drain().await?;
        let (one, two) = self.stores();
        prop_assert_eq!(one.compact(revision).await, two.compact(revision).await);
        Ok(())
    }

    async fn pass(&self, ticks: u32) {
        for _ in 0..ticks {
            self.clock.advance(TICK_EVERY);
            self.reference.tick();
            self.embedded.as_ref().expect("it is open").tick().await;
        }
    }

    /// The embedded store restarts; the reference gives its leases what a restart gives.
    async fn reopen(&mut self) -> Result<(), TestCaseError> {
        self.drain().await?;
        self.watches.clear();
        drop(self.embedded.take());
        self.embedded = Some(start(&self.media, &self.clock, by_hand()));
        for number in 1..4 {
            // One that is not live is not brought back by this.
            drop(self.reference.keep_alive(LeaseId::new(number).expect("a lease id")).await);
        }
        Ok(())
    }

    /// Reads from every pair of watches what is there.
    async fn drain(&mut self) -> Result<(), TestCaseError> {
        let mut ended = Vec::new();
        for (number, (one, two)) in &mut self.watches {
            let (one, two) = (ready(one).await, ready(two).await);
            prop_assert_eq!(&one, &two, "watch {}", number);
            if one.last().is_some_and(WatchItem::is_last) {
                ended.push(*number);
            }
        }
        for number in ended {
            self.watches.remove(&number);
        }
        Ok(())
    }

    async fn compare(&mut self) -> Result<(), TestCaseError> {
        let (one, two) = self.stores();
        let (one, two) = (one.status().await.unwrap(), two.status().await.unwrap());
        prop_assert_eq!(one.revision, two.revision);
        prop_assert_eq!(one.compacted, two.compacted);
        prop_assert_eq!(one.leases, two.leases);
        let (one, two) = self.stores();
        prop_assert_eq!(everything(one).await, everything(two).await);
        self.drain().await
    }
}

/// What a watch yields without waiting.
async fn ready(watch: &mut Watch) -> Vec<WatchItem> {
    let mut items = Vec::new();
    loop {
        let next = std::pin::pin!(watch.next());
        let item = futures_util::future::select(next, std::future::ready(())).await;
        match item {
            futures_util::future::Either::Left((Some(item), _)) => items.push(item),
            futures_util::future::Either::Left((None, _))
            | futures_util::future::Either::Right(_) => return items,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("MAINSTAY_STORE_SCRIPTS").ok().and_then(|n| n.parse().ok()).unwrap_or(300),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_script_gives_the_same_answers_as_on_the_reference(
        script in prop::collection::vec(a_step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut both = Both::new();
            for (number, step) in script.into_iter().enumerate() {
                both.step(number, step).await?;
            }
            Ok::<_, TestCaseError>(())
        })?;
    }
}
