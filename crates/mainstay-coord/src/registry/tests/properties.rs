//! Whatever happens in whatever order, a followed view equals a fresh list.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Instant;
use proptest::prelude::*;

use super::stage::{Fault, Faulty, Stage, instance, plain, registration, service};
use crate::audit::Author;
use crate::health::Health;
use crate::health::check::Check;
use crate::keys::InstanceRef;
use crate::registry::owned::{Beat, Duty, Owned};
use crate::registry::{Change, Changes, Instance, Listed, Registry, Settings, View};

#[derive(Clone, Debug)]
enum Step {
    Register(usize, u8),
    Deregister(usize, u8),
    Weigh(usize, u8, u16),
    Drain(usize, u8),
    Maintain(usize, u8),
    Beat(usize, u8),
    Pass(u64),
    CutAndCompact,
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0usize..2;
    let id = 0u8..4;
    prop_oneof![
        4 => (node.clone(), id.clone()).prop_map(|(n, i)| Step::Register(n, i)),
        1 => (node.clone(), id.clone()).prop_map(|(n, i)| Step::Deregister(n, i)),
        1 => (node.clone(), id.clone(), 0u16..5).prop_map(|(n, i, w)| Step::Weigh(n, i, w)),
        1 => (node.clone(), id.clone()).prop_map(|(n, i)| Step::Drain(n, i)),
        1 => (node.clone(), id.clone()).prop_map(|(n, i)| Step::Maintain(n, i)),
        2 => (node, id).prop_map(|(n, i)| Step::Beat(n, i)),
        2 => (100u64..9_000).prop_map(Step::Pass),
        1 => Just(Step::CutAndCompact),
    ]
}

/// All of a view but when it was seen to change.
fn shown(view: &View) -> Vec<(String, Health, Arc<Instance>)> {
    let of = |one: &Listed| (one.id.as_str().to_owned(), one.health, Arc::clone(&one.instance));
    view.instances.iter().map(of).collect()
}

async fn act(stage: &Stage, faulty: &Faulty, nodes: &[Registry; 2], step: Step) {
    let order = service("order");
    let at = |id: u8| instance("order", &id.to_string());
    // Whatever is refused is refused; what matters is what all see afterwards.
    match step {
        Step::Register(node, id) => {
            drop(nodes[node].register(&order, &plain(&id.to_string())).await);
        }
        Step::Deregister(node, id) => drop(nodes[node].deregister(&at(id), None).await),
        Step::Weigh(node, id, weight) => {
            drop(nodes[node].weigh(&at(id), weight, &Author::default()).await);
        }
        Step::Drain(node, id) => drop(nodes[node].drain(&at(id), 3, &Author::default()).await),
        Step::Maintain(node, id) => {
            drop(nodes[node].maintain(&at(id), "x", &Author::default()).await);
        }
        Step::Beat(node, id) => drop(nodes[node].heartbeat(&at(id)).await),
        Step::Pass(millis) => stage.pass(Duration::from_millis(millis)).await,
        Step::CutAndCompact => {
            faulty.set(Fault::Away);
            stage.settle().await;
            drop(nodes[1].weigh(&at(0), 99, &Author::default()).await);
            let revision = stage.store.status().await.unwrap().revision;
            drop(stage.store.compact(revision).await);
            faulty.set(Fault::None);
            stage.pass(Duration::from_millis(500)).await;
        }
    }
}

/// Follows the changes that are there already.
async fn mirror(changes: &mut Changes) -> Vec<Arc<Instance>> {
    let mut mirror = BTreeMap::new();
    while let std::task::Poll::Ready(next) = futures_util::poll!(Box::pin(changes.next())) {
        for change in next.unwrap().1 {
            match change {
                Change::Put(listed) => drop(mirror.insert(listed.id.clone(), listed.instance)),
                Change::Removed(id) => drop(mirror.remove(&id)),
                Change::Resync(all) => {
                    mirror = all.into_iter().map(|one| (one.id.clone(), one.instance)).collect();
                }
            }
        }
    }
    mirror.into_values().collect()
}

async fn play(steps: Vec<Step>) {
    let stage = Stage::memory();
    let faulty = Faulty::new(stage.store.clone());
    let nodes = [stage.node_on(faulty.clone(), "n1", |_options| {}).await, stage.node("n2").await];
    let order = service("order");
    let told = nodes[0].watch(&order).unwrap();
    let mut changes = nodes[1].changes(&order, nodes[1].revision()).unwrap();
    for step in steps {
        act(&stage, &faulty, &nodes, step).await;
    }
    // Until whoever was cut off follows again, and nothing is under way.
    stage.pass(Duration::from_secs(12)).await;
    let fresh = stage.node("n3").await;
    let want = fresh.view(&order).unwrap();
    for node in &nodes {
        let view = node.view(&order).unwrap();
        assert_eq!(shown(&view), shown(&want));
        assert_eq!(view.empty_because, want.empty_because);
        assert!(view.stale_since_unix_ms.is_none());
    }
    // A change of this very moment is still being gathered.
    let is_told = || shown(&told.borrow()) == shown(&nodes[0].view(&order).unwrap());
    stage.within(5, "it is pushed as well", is_told).await;
    let want = fresh.view(&order).unwrap();
    let want: Vec<_> = want.instances.iter().map(|one| Arc::clone(&one.instance)).collect();
    assert_eq!(mirror(&mut changes).await, want, "step by step as well");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_followed_view_equals_a_fresh_list(steps in prop::collection::vec(step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(play(steps));
    }
}

fn moment(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn ward(is_late: bool) -> Arc<Instance> {
    let json = r#"{"id": "a", "ttl_seconds": 5, "remove_after_seconds": 8}"#;
    let mut record = registration(json).record("n", "r", 0, &Settings::default(), None);
    record.is_late = is_late;
    Arc::new(record)
}

fn follow(owned: &mut Owned, now: u64, at: &InstanceRef, record: Option<&Arc<Instance>>) {
    let none: &[Check] = &[];
    owned.follow(moment(now), at, record.map(|record| (record, none)));
}

proptest! {
    /// An instance is told late exactly when its ttl has passed without a beat, is told again until
    /// the record says so, and goes when it stays silent.
    #[test]
    fn an_instance_is_late_when_it_is_and_not_before(
        steps in prop::collection::vec((0u64..4_000, 0u8..4), 1..80),
    ) {
        let (mut owned, at) = (Owned::default(), instance("order", "a"));
        let (mut now, mut beat, mut is_late, mut told) = (0, 0, false, None::<u64>);
        follow(&mut owned, now, &at, Some(&ward(false)));
        for (gap, what) in steps {
            now += gap;
            match what {
                0 => {
                    beat = now;
                    let want = if is_late { Beat::Back } else { Beat::Fresh };
                    prop_assert_eq!(owned.beat(moment(now), &at), Some(want));
                    if is_late {
                        is_late = false;
                        told = None;
                        follow(&mut owned, now, &at, Some(&ward(false)));
                    }
                }
                _ => {
                    let duties = owned.due(moment(now));
                    let after = if is_late { 8_000 } else { 5_000 };
                    let is_due = beat + after <= now && told.is_none_or(|told| told + 1_000 <= now);
                    let want = if is_late { Duty::Expire } else { Duty::MarkLate };
                    let want: Vec<_> = is_due.then(|| (at.clone(), want)).into_iter().collect();
                    prop_assert_eq!(&duties, &want);
                    if is_due {
                        told = Some(now);
                        // Every other write fails.
                        if what == 1 && !is_late {
                            (is_late, told) = (true, None);
                            follow(&mut owned, now, &at, Some(&ward(true)));
                        }
                    }
                }
            }
        }
        follow(&mut owned, now, &at, None);
        prop_assert!(owned.is_empty() && owned.next().is_none());
        prop_assert_eq!(owned.beat(moment(now), &at), None);
    }
}

#[test]
fn one_whose_removal_is_held_is_looked_at_less_often() {
    let (mut owned, at) = (Owned::default(), instance("order", "a"));
    let mut record = (*ward(true)).clone();
    record.removal_held = true;
    follow(&mut owned, 0, &at, Some(&Arc::new(record)));
    let mut told = Vec::new();
    for second in 0..25 {
        if !owned.due(moment(second * 1_000)).is_empty() {
            told.push(second);
        }
    }
    assert_eq!(told, [8, 13, 18, 23]);
}
