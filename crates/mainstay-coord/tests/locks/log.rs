//! What the store saw of a lock.

use std::collections::BTreeMap;

use mainstay_store::{Change, Key, Range, Revision, Store, WatchItem, WatchRequest};

/// What the store saw of `range` from its beginning on: when each life of each key began and
/// ended, and each value put at `register`, in order.
pub(crate) struct Log {
    /// By key and create revision.
    pub(crate) ends: BTreeMap<(Key, Revision), Revision>,
    pub(crate) register: Vec<u64>,
}

/// Reads it up to the present.
pub(crate) async fn log(store: &dyn Store, range: Range, register: &Key) -> Log {
    let until = store.status().await.expect("it always tells").revision;
    let all = WatchRequest::new(Range::all()).from(Revision::FIRST.next()).previous().quiet();
    let mut watch = store.watch(all).expect("there is room");
    let mut log = Log { ends: BTreeMap::new(), register: Vec::new() };
    loop {
        let (revision, events) = match watch.next().await {
            Some(WatchItem::Changes { revision, events }) => (revision, events),
            Some(WatchItem::Created { .. } | WatchItem::Bookmark { .. }) => continue,
            other => panic!("history is gone: {other:?}"),
        };
        for event in &events {
            if event.key() == register
                && let Some(entry) = event.entry()
            {
                log.register.push(number(&entry.value));
            }
            if let (Change::Delete(key), Some(previous)) = (&event.change, &event.previous)
                && range.contains(key)
            {
                log.ends.insert((key.clone(), previous.create_revision), revision);
            }
        }
        if until <= revision {
            return log;
        }
    }
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).expect("digits").parse().expect("a number")
}
