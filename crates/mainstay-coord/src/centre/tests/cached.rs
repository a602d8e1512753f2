//! What a client begins with while nobody answers.

use std::fs;
use std::sync::Arc;

use serde_json::json;

use super::stage::{World, anna, group, payment, publication, said};
use crate::centre::Fetched;
use crate::centre::cache::{Cache, CacheError};
use crate::keyring::Keyring;

async fn fetched() -> Fetched {
    let world = World::memory();
    let node = world.node("n1").await;
    let items = json!({ "items": {
        "a": { "content": "1", "format": "json" },
        "key": { "content": "swordfish", "secret": true },
    } });
    node.publish(&payment(), &publication(items), &anna()).await.unwrap();
    node.fetch(&payment(), None, true).await.unwrap()
}

#[tokio::test]
async fn a_kept_release_comes_back_whole_and_its_secrets_are_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let keyring = Arc::new(Keyring::fresh(1));
    let cache = Cache::new(folder.path(), Some(Arc::clone(&keyring)));
    assert!(cache.load(&payment()).unwrap().is_none());
    let fetched = fetched().await;
    cache.save(&payment(), &fetched, 7).unwrap();
    let path = folder.path().join("config/default/payment.json");
    assert!(!fs::read_to_string(&path).unwrap().contains("swordfish"));
    let back = cache.load(&payment()).unwrap().unwrap();
    assert_eq!((back.fetched, back.saved_unix_ms), (fetched.clone(), 7));
    let stranger = Cache::new(folder.path(), Some(Arc::new(Keyring::fresh(1))));
    assert!(matches!(stranger.load(&payment()), Err(CacheError::Secret { .. })));
    // Without a keyring the rest is there, and the secret is not.
    let none = Cache::new(folder.path(), None);
    assert_eq!(said(&none.load(&payment()).unwrap().unwrap().fetched), "1: a=1 key=?");
    none.save(&payment(), &fetched, 8).unwrap();
    assert!(!fs::read_to_string(&path).unwrap().contains("swordfish"));
    assert_eq!(said(&cache.load(&payment()).unwrap().unwrap().fetched), "1: a=1 key=?");
}

#[tokio::test]
async fn a_spoiled_file_is_told_from_a_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path(), None);
    cache.save(&payment(), &fetched().await, 7).unwrap();
    let path = cache.path(&payment());
    let text = fs::read_to_string(&path).unwrap();
    for spoiled in
        [text.replace("\"1\"", "\"2\""), text.split_at(text.len() - 9).0.to_owned(), String::new()]
    {
        fs::write(&path, spoiled).unwrap();
        assert!(matches!(cache.load(&payment()), Err(CacheError::Damaged { .. })));
    }
    fs::write(cache.path(&group("other")), text).unwrap();
    let error = cache.load(&group("other")).unwrap_err();
    assert!(error.to_string().ends_with("it is of another group"), "{error}");
}
