//! Secrets: sealed in the store, shown to nobody who may not read them.

use mainstay_core::problem::Code;
use mainstay_store::{Put, Range, RangeRequest, Select, Store};
use serde_json::json;

use super::stage::{World, anna, by, gets, payment, publication, publish, said};
use crate::centre::Centre;
use crate::keyring::Keyring;
use crate::keys::{CentreKey, parse_centre};

const HUSH: &str = "swordfish, and no other fish";

async fn with_secret(node: &Centre, content: &str) -> u64 {
    let items = json!({ "items": { "key": { "content": content, "secret": true } } });
    node.publish(&payment(), &publication(items), &anna()).await.unwrap().release
}

async fn secret(node: &Centre) -> Result<String, Code> {
    let got = node.fetch(&payment(), None, true).await.map_err(|error| error.code())?;
    Ok(got.items["key"].content.as_deref().unwrap().to_owned())
}

/// Every byte the store holds.
async fn everything(store: &dyn Store) -> Vec<(mainstay_store::Key, Vec<u8>)> {
    let page = store.range(RangeRequest::new(Select::new(Range::all()))).await.unwrap();
    assert!(!page.more);
    page.entries.into_iter().map(|entry| (entry.key, entry.value.to_vec())).collect()
}

#[tokio::test]
async fn a_secret_is_read_by_who_may_and_lies_nowhere_in_the_open() {
    for world in [World::memory(), World::embedded()] {
        let node = world.node("n1").await;
        publish(&node, &payment(), &["a=1"]).await.unwrap();
        with_secret(&node, HUSH).await;
        let draft = json!({ "content": HUSH, "secret": true });
        let draft = serde_json::from_value(draft).unwrap();
        node.edit_draft(&payment(), "key", Some(draft), &by("bo")).await.unwrap();
        assert_eq!(secret(&node).await.unwrap(), HUSH);
        assert_eq!(gets(&node, &payment()).await, "2: a=1 key=?");
        let (shown, items) = node.release(&payment(), 2, false).await.unwrap();
        assert!(shown.items["key"].secret && items["key"].content.is_none());

        with_secret(&node, "another").await;
        let diff = node.diff(&payment(), 2, 3).await.unwrap();
        assert!(diff.items[0].secret && diff.items[0].unified.is_none());
        let told = json!({ "items": { "key": { "content": HUSH, "secret": true } } });
        let preview = node.preview(&payment(), &publication(told), &anna()).await.unwrap();
        assert_eq!(preview.items[0].unified, None);
        let opened = json!({ "items": { "key": { "content": HUSH } } });
        let preview = node.preview(&payment(), &publication(opened), &anna()).await.unwrap();
        assert_eq!(preview.items[0].unified, None, "nor when it ceases to be one");

        let history = node.history(&payment(), None, 10).await.unwrap();
        let shown = format!("{diff:?}{preview:?}{history:?}{:?}", node.head(&payment()));
        assert!(!shown.contains("swordfish"));
        for (key, value) in everything(&*world.stage.store).await {
            let holds = value.windows(9).any(|part| part == b"swordfish");
            assert!(!holds, "{key} holds it in the open");
        }
    }
}

#[tokio::test]
async fn the_same_secret_is_no_change_and_older_ones_stay_as_they_were_sealed() {
    let world = World::memory();
    let node = world.node("n1").await;
    assert_eq!(with_secret(&node, HUSH).await, 1);
    assert_eq!(with_secret(&node, HUSH).await, 1);
    publish(&node, &payment(), &["a=1"]).await.unwrap();
    let (shown, _) = node.release(&payment(), 2, false).await.unwrap();
    assert_eq!(shown.items["key"].since, 1);
    assert_eq!(secret(&node).await.unwrap(), HUSH);
    assert!(node.diff(&payment(), 1, 2).await.unwrap().items.iter().all(|it| it.item == "a"));
    with_secret(&node, "another").await;
    node.roll_back(&payment(), 1, "", &anna()).await.unwrap();
    assert_eq!(secret(&node).await.unwrap(), HUSH);
}

#[tokio::test]
async fn equal_secrets_cannot_be_told_by_their_names() {
    let world = World::memory();
    let node = world.node("n1").await;
    let twice = json!({ "items": {
        "one": { "content": HUSH, "secret": true },
        "two": { "content": HUSH, "secret": true },
    } });
    node.publish(&payment(), &publication(twice), &anna()).await.unwrap();
    let all = everything(&*world.stage.store).await;
    let is_blob =
        |key: &&mainstay_store::Key| matches!(parse_centre(key), Some(CentreKey::Blob(_)));
    let blobs: Vec<_> = all.iter().map(|(key, _)| key).filter(is_blob).collect();
    assert_eq!(blobs.len(), 2);
    let hash = crate::random::to_hex(&<sha2::Sha256 as sha2::Digest>::digest(HUSH));
    assert!(blobs.iter().all(|key| !key.to_string().contains(&hash)));
}

#[tokio::test]
async fn a_sealed_value_moved_elsewhere_does_not_open() {
    let world = World::memory();
    let node = world.node("n1").await;
    with_secret(&node, "one").await;
    with_secret(&node, "two").await;
    let all = everything(&*world.stage.store).await;
    let is_blob = |key: &mainstay_store::Key| matches!(parse_centre(key), Some(CentreKey::Blob(_)));
    let blobs: Vec<_> = all.iter().filter(|(key, _)| is_blob(key)).collect();
    let [(a, of_a), (b, of_b)] = &blobs[..] else { panic!("two contents") };
    let swapped = mainstay_store::Batch::new()
        .then(Put::new(a.clone(), of_b.clone()))
        .then(Put::new(b.clone(), of_a.clone()));
    world.stage.store.apply(swapped).await.unwrap();
    assert_eq!(secret(&node).await, Err(Code::SecretUnreadable));
    let record = payment().release(2);
    let (_, other) = all.iter().find(|(key, _)| *key == payment().release(1)).unwrap();
    let moved = mainstay_store::Batch::new().then(Put::new(record, other.clone()));
    world.stage.store.apply(moved).await.unwrap();
}

#[tokio::test]
async fn after_wrapping_anew_the_old_key_can_be_forgotten() {
    for mut world in [World::memory(), World::embedded()] {
        let node = world.node("n1").await;
        with_secret(&node, "one").await;
        with_secret(&node, HUSH).await;
        let draft = json!({ "content": "drafted", "secret": true });
        let draft = serde_json::from_value(draft).unwrap();
        node.edit_draft(&payment(), "key", Some(draft), &by("bo")).await.unwrap();

        let old = world.keyring.current().to_owned();
        world.keyring.rotate(1);
        node.use_keyring(world.keyring.clone());
        assert_eq!(secret(&node).await.unwrap(), HUSH, "a retired key opens");
        assert_eq!(node.rewrap(&by("anna")).await.unwrap(), 3);
        assert_eq!(node.rewrap(&by("anna")).await.unwrap(), 0);
        world.keyring.forget(&old).unwrap();
        node.use_keyring(world.keyring.clone());
        assert_eq!(secret(&node).await.unwrap(), HUSH);
        node.roll_back(&payment(), 1, "", &anna()).await.unwrap();
        assert_eq!(secret(&node).await.unwrap(), "one");
        let drafted = publication(json!({ "from_drafts": true }));
        node.publish(&payment(), &drafted, &anna()).await.unwrap();
        assert_eq!(secret(&node).await.unwrap(), "drafted");
    }
}

#[tokio::test]
async fn a_node_with_another_keyring_says_so_and_serves_the_rest() {
    let world = World::memory();
    let node = world.node("n1").await;
    with_secret(&node, HUSH).await;
    publish(&node, &payment(), &["a=1"]).await.unwrap();
    node.use_keyring(Keyring::fresh(9));
    assert_eq!(secret(&node).await, Err(Code::SecretUnreadable));
    let error = node.fetch(&payment(), None, true).await.unwrap_err();
    assert!(!error.to_string().contains(HUSH));
    assert_eq!(gets(&node, &payment()).await, "2: a=1 key=?");
    assert_eq!(node.rewrap(&by("anna")).await.unwrap_err().code(), Code::SecretUnreadable);
    // What cannot be read can still be replaced.
    with_secret(&node, "new").await;
    assert_eq!(said(&node.fetch(&payment(), None, true).await.unwrap()), "3: a=1 key=new");
}
