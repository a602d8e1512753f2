//! What goes, and what stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_store::{Range, RangeRequest, Select, Store};
use proptest::prelude::*;
use serde_json::json;

use super::stage::{World, anna, by, gets, payment, publication, publish};
use crate::centre::record::Head;
use crate::centre::sweep::{Retention, Swept, removable};
use crate::centre::{Centre, Options};
use crate::name::NodeName;

const DAY_MS: u64 = 24 * 3_600 * 1_000;

async fn blobs(store: &dyn Store) -> u64 {
    let select = Select::new(Range::prefix("blob/")).count_only();
    store.range(RangeRequest::new(select)).await.unwrap().count
}

async fn node(world: &World, days: u32, releases_min: u32) -> Centre {
    let mut options = Options::new(NodeName::new("n1").unwrap());
    options.retention = Retention { days, releases_min };
    let timer = Arc::new(world.stage.clock.clone());
    let outbox = world.stage.outbox(world.stage.store.clone());
    let node =
        Centre::start(world.stage.store.clone(), timer, outbox, world.keyring.clone(), options);
    node.ready().await;
    node
}

#[tokio::test]
async fn old_releases_go_and_then_what_only_they_named() {
    for world in [World::memory(), World::embedded()] {
        let node = node(&world, 30, 2).await;
        for n in 1..=5 {
            publish(&node, &payment(), &["same=x", &format!("a={n}")]).await.unwrap();
        }
        let now = crate::clock::Timer::unix_millis(&world.stage.clock);
        assert_eq!(node.sweep(now + 29 * DAY_MS).await.unwrap(), Swept::default());
        let swept = node.sweep(now + 30 * DAY_MS).await.unwrap();
        assert_eq!(swept, Swept { releases: 3, contents: 3 });
        let left = node.history(&payment(), None, 10).await.unwrap();
        assert_eq!(left.iter().map(|it| it.release).collect::<Vec<_>>(), [5, 4]);
        assert_eq!(blobs(&*world.stage.store).await, 3);
        assert_eq!(gets(&node, &payment()).await, "5: a=5 same=x");
        assert_eq!(node.release(&payment(), 4, false).await.unwrap().1.len(), 2);
        // Numbers go on where they were.
        assert_eq!(publish(&node, &payment(), &["a=9"]).await.unwrap().release, 6);
    }
}

#[tokio::test]
async fn a_content_nobody_names_is_kept_for_a_day_and_one_put_anew_for_another() {
    let world = World::memory();
    let node = node(&world, 365, 100).await;
    publish(&node, &payment(), &["a=1"]).await.unwrap();
    let item = |text: &str| Some(serde_json::from_value(json!({ "content": text })).unwrap());
    node.edit_draft(&payment(), "a", item("first"), &by("bo")).await.unwrap();
    node.edit_draft(&payment(), "a", item("second"), &by("bo")).await.unwrap();
    let now = crate::clock::Timer::unix_millis(&world.stage.clock);
    assert_eq!(blobs(&*world.stage.store).await, 3);
    assert_eq!(node.sweep(now + DAY_MS - 1).await.unwrap().contents, 0);
    assert_eq!(node.sweep(now + DAY_MS).await.unwrap().contents, 1, "the first draft's");
    let drafted = publication(json!({ "from_drafts": true }));
    node.publish(&payment(), &drafted, &anna()).await.unwrap();
    assert_eq!(gets(&node, &payment()).await, "2: a=second");
    assert_eq!(node.sweep(now + 2 * DAY_MS).await.unwrap().contents, 0);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_keeps_every_content() {
    let world = World::memory();
    let node = node(&world, 30, 1).await;
    publish(&node, &payment(), &["a=1"]).await.unwrap();
    let foreign = mainstay_store::Put::new(super::stage::group("new").release(1), "{\"v\":2}");
    let batch = mainstay_store::Batch::new().then(foreign);
    world.stage.store.apply(batch).await.unwrap();
    let later = crate::clock::Timer::unix_millis(&world.stage.clock) + 400 * DAY_MS;
    assert!(node.sweep(later).await.is_err());
    assert_eq!(blobs(&*world.stage.store).await, 1);
}

proptest! {
    /// What is in force, under way, new or young stays, whatever the clock says.
    #[test]
    fn what_may_go_is_old_in_both_ways_and_named_by_nobody(
        published in prop::collection::vec(0u64..1_000, 0..40),
        (now, days, newest) in (0u64..2_000, 0u32..800, 0u32..30),
        (release, last) in (0u64..40, 0u64..40),
    ) {
        let releases: BTreeMap<u64, u64> =
            (1..).zip(published.iter().map(|day| day * DAY_MS)).collect();
        let head = Head { release, last, ..Head::default() };
        let gone = removable(&head, &releases, Retention { days, releases_min: newest }, now * DAY_MS);
        let count = u64::try_from(releases.len()).unwrap();
        for number in releases.keys() {
            let is_new = count < number + u64::from(newest);
            let age = now.saturating_sub(releases[number] / DAY_MS);
            let stays = is_new || *number == release || age < u64::from(days);
            prop_assert_eq!(stays, !gone.contains(number), "release {}", number);
        }
    }
}
