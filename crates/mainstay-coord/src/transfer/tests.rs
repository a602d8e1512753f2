use std::time::Duration;

use mainstay_core::ManualClock;
use mainstay_store::{Get, Memory};

use super::*;
use crate::format::{self, Found};

fn entry(key: &str, value: &str) -> Entry {
    let at = Revision::new(7);
    Entry {
        key: key.try_into().unwrap(),
        value: value.to_owned().into(),
        create_revision: at,
        mod_revision: at,
        version: 1,
        lease: None,
    }
}

#[test]
fn what_belongs_to_a_living_process_is_left_out() {
    let place = |rest: &str| {
        format!(
            r#"{{"v":1,"mode":"exclusive","count":1,"fence_base":0,"owner":{{"host":"h","pid":1,
            "name":"n"}},"asked_unix_ms":0,"requests":[]{rest}}}"#
        )
    };
    let instance = |kind: &str| {
        format!(
            r#"{{"v":1,"address":"a","port":1,"kind":"{kind}","weight":1,"state":"up",
            "health":"passing","own":"passing","ttl_seconds":15,"owner":"n","registration":"r",
            "registered_unix_ms":0,"changed_unix_ms":0}}"#
        )
    };
    let slot = "lock/default/jobs/q/00000000000000ab";
    let cases = [
        (slot, place(""), false),
        (slot, place(r#","token":9,"bound_gid":"g-1""#), true),
        ("lock/default/jobs/last", "{}".to_owned(), true),
        ("duty/default/sweep/q/00000000000000ab", place(""), false),
        ("ses/00000000000000ab", "{}".to_owned(), false),
        ("ins/default/web/a%3A1", instance("ephemeral"), false),
        ("ins/default/web/a%3A1", instance("persistent"), true),
        ("ins/default/web/a%3A1", "what a newer version wrote".to_owned(), true),
        ("svc/default/web", "{}".to_owned(), true),
        ("node/n1", "{}".to_owned(), false),
        ("obs/default/web/a%3A1/me", "{}".to_owned(), false),
        ("hold/n1/default/g/0", "{}".to_owned(), false),
        ("cfg/default/g/head", "{}".to_owned(), true),
        ("ckv/some/pair", "value".to_owned(), true),
        ("txn/1", "{}".to_owned(), true),
        ("aud/out/0000000000000001-0000000000000001", "{}".to_owned(), true),
        ("aud/seen/0000000000000001-0000000000000001", "{}".to_owned(), false),
        ("aud/head/n1", "a head".to_owned(), false),
        ("aud/log", "{}".to_owned(), false),
        ("meta/fence_base", "5".to_owned(), true),
    ];
    for (key, value, want) in cases {
        assert_eq!(outlives(&entry(key, &value)), want, "{key} {value}");
    }
}

fn put(key: &str, value: &str) -> Put {
    Put::new(key.try_into().unwrap(), value.to_owned())
}

async fn source() -> Memory {
    let store = Memory::new(ManualClock::default());
    let lease = store.grant(Duration::from_secs(30), None).await.unwrap().id;
    for number in 0..300 {
        store.apply(Batch::new().then(put(&format!("ckv/{number:03}"), "v"))).await.unwrap();
    }
    let large = "x".repeat(1_000_000);
    for number in 0..3 {
        store.apply(Batch::new().then(put(&format!("ckv/l{number}"), &large))).await.unwrap();
    }
    store.apply(Batch::new().then(put("clife/1", "").lease(lease))).await.unwrap();
    store.apply(Batch::new().then(put("ses/00000000000000ab", "{}"))).await.unwrap();
    store.apply(Batch::new().then(put("meta/fence_base", "40"))).await.unwrap();
    store.apply(Batch::new().then(put("meta/format", "1"))).await.unwrap();
    store
}

/// Fills `to` with what `from` holds; `disturb` is called half way.
async fn fill(
    from: &Memory,
    to: &Memory,
    disturb: impl AsyncFn(),
) -> Result<Filled, TransferError> {
    let mut filling = Filling::begin(to).await?;
    let mut snapshot = from.snapshot().await.unwrap();
    let mut number = 0;
    while let Some(item) = snapshot.next().await {
        filling.push(item.unwrap()).await?;
        number += 1;
        if number == 150 {
            disturb().await;
        }
    }
    filling.finish(snapshot.head().revision).await
}

#[tokio::test]
async fn a_filled_store_has_the_same_content_and_larger_tokens() {
    let (from, to) = (source().await, Memory::new(ManualClock::default()));
    let revision = from.status().await.unwrap().revision.get();
    let filled = fill(&from, &to, async || {}).await.unwrap();
    assert_eq!((filled.left_out, filled.leases), (1, 1));
    assert_eq!(filled.fence_base, 40 + revision + LEAP);
    let there = content(&to, None).await.unwrap();
    assert_eq!((there.entries, hex(&there.sha256)), (303, filled.sha256));
    assert_eq!(content(&from, None).await.unwrap().sha256, there.sha256);
    assert_eq!(format::look(&to).await.unwrap(), Found::Current);
    let life = to.get(Get::new("clife/1".try_into().unwrap())).await.unwrap().entry.unwrap();
    assert!(life.lease.is_some());
    let again = fill(&from, &to, async || {}).await;
    assert!(matches!(again, Err(TransferError::NotEmpty { .. })), "{again:?}");
}

#[tokio::test]
async fn a_node_that_begins_meanwhile_ends_it_and_the_half_is_no_store() {
    let from = source().await;
    let to = Memory::new(ManualClock::default());
    let disturbed = fill(&from, &to, async || {
        to.apply(Batch::new().then(put("meta/format", "1"))).await.unwrap();
    });
    let disturbed = disturbed.await;
    assert!(matches!(disturbed, Err(TransferError::Disturbed)), "{disturbed:?}");
    let to = Memory::new(ManualClock::default());
    let changed = fill(&from, &to, async || {
        to.apply(Batch::new().then(put("ckv/000", "other"))).await.unwrap();
    });
    let changed = changed.await;
    assert!(matches!(changed, Err(TransferError::Differs { .. })), "{changed:?}");
    assert_eq!(format::look(&to).await.unwrap(), Found::Unmarked);
}
