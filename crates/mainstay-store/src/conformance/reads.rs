//! Reads: pages, revisions, selections, snapshots.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::{Doing, Exam, after, fail, key};
use crate::batch::{Batch, Op, Put};
use crate::entry::{Entry, Revision};
use crate::error::Error;
use crate::key::Range;
use crate::read::{Get, RangeRequest, Select};
use crate::snapshot::SnapshotItem;
use crate::store::Store;

pub(super) fn pages(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        for hundred in 0..5 {
            let puts = (0..100).map(|number| {
                let name = format!("p/{:04}", hundred * 100 + number);
                Op::Put(Put::new(key(&name), "1"))
            });
            exam.apply(Batch { then: puts.collect(), ..Batch::new() }).await;
        }
        let limit = NonZeroU32::new(64).expect("64 is not zero");
        let (mut range, mut at) = (Range::prefix("p/"), None);
        let mut seen: Vec<Entry> = Vec::new();
        loop {
            let mut request = RangeRequest::new(Select::new(range.clone()).limit(limit));
            request.at = at;
            let page = exam.store.range(request).await.expect("a page can be read");
            assert_eq!(page.count, 500 - seen.len() as u64, "what is left of the range");
            at.get_or_insert(page.revision);
            seen.extend(page.entries);
            if !page.more {
                break;
            }
            let last = seen.last().expect("a page with more after it is not empty");
            range = range.after(&last.key);
            // Others write meanwhile, before and behind.
            exam.put("p/0000", "2").await;
            exam.put("p/9999", "2").await;
            exam.delete("p/0499").await;
        }
        assert_eq!(seen.len(), 500, "all that was there, and nothing that came later");
        assert!(seen.iter().all(|entry| entry.value == "1"));
        assert!(seen.windows(2).all(|two| two[0].key < two[1].key), "in byte order");
    })
}

pub(super) fn at_revisions(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        let first = exam.put("k", "1").await;
        exam.put("k", "2").await;
        exam.delete("k").await;
        let last = exam.put("k", "3").await;
        let at = |revision| exam.store.get(Get::new(key("k")).at(revision));
        let value = |revision| async move {
            let got = at(revision).await.unwrap_or_else(|error| fail("a past read", &error));
            got.entry.map(|entry| entry.value)
        };
        for (offset, want) in [Some("1"), Some("2"), None, Some("3")].into_iter().enumerate() {
            let got = value(after(first, offset as u64)).await;
            assert_eq!(got, want.map(Into::into), "{offset} after the first");
        }
        assert_eq!(at(last.next()).await, Err(Error::FutureRevision { revision: last }));
        let future = exam.store.compact(last.next()).await;
        assert_eq!(future, Err(Error::FutureRevision { revision: last }));
        let second = first.next();
        exam.store.compact(second).await.expect("a past revision can be compacted");
        let compacted = Error::Compacted { compacted: second };
        assert_eq!(at(first).await, Err(compacted.clone()));
        assert_eq!(value(second).await, Some("2".into()), "history begins at it");
        assert_eq!(exam.store.compact(second).await, Err(compacted.clone()), "again");
        let range = RangeRequest::from(Range::all()).at(first);
        assert_eq!(exam.store.range(range).await, Err(compacted));
        assert_eq!(exam.value("k").await.as_deref(), Some("3"));
    })
}

pub(super) fn selections(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        for name in ["s/c", "s/a", "s/b", "t"] {
            exam.put(name, "value").await;
        }
        let select = || Select::new(Range::prefix("s/"));
        let read = |select| async move {
            let page = exam.store.range(RangeRequest::new(select)).await;
            page.unwrap_or_else(|error| fail("a page", &error))
        };
        let keys_only = read(select().keys_only()).await;
        assert!(keys_only.entries.iter().all(|entry| entry.value.is_empty()));
        assert_eq!((keys_only.entries.len(), keys_only.count, keys_only.more), (3, 3, false));
        let counted = read(select().count_only()).await;
        assert_eq!((counted.entries.len(), counted.count, counted.more), (0, 3, false));
        let two = NonZeroU32::new(2).expect("2 is not zero");
        let limited = read(select().limit(two)).await;
        assert_eq!((limited.entries.len(), limited.count, limited.more), (2, 3, true));
        let local = exam.store.get(Get::new(key("t")).local()).await;
        assert!(local.is_ok(), "a local read: {local:?}");
        let empty = read(Select::new(Range::prefix("none/"))).await;
        assert_eq!((empty.entries.len(), empty.count, empty.more), (0, 0, false));
    })
}

pub(super) fn snapshots(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        let lease = exam.store.grant(std::time::Duration::from_mins(1), None).await;
        let lease = lease.expect("a lease is granted");
        for number in 0..40 {
            let put = Put::new(key(&format!("n/{number:02}")), format!("{number}"));
            exam.apply(Batch::new().then(put.lease(lease.id))).await;
        }
        let before = everything(&*exam.store).await;
        let mut snapshot = exam.store.snapshot().await.expect("a snapshot can be taken");
        assert_eq!(snapshot.head().revision, exam.revision().await);
        let (mut leases, mut entries) = (Vec::new(), BTreeMap::new());
        let mut last: Revision = Revision::NEVER;
        while let Some(item) = snapshot.next().await {
            match item.unwrap_or_else(|error| fail("a part of a snapshot", &error)) {
                SnapshotItem::Lease { id, ttl } => {
                    assert!(entries.is_empty(), "leases come first");
                    leases.push((id, ttl));
                }
                SnapshotItem::Entry(entry) => {
                    let largest = entries.last_key_value().map(|(key, _)| key);
                    assert!(largest.is_none_or(|largest| *largest < entry.key), "in order");
                    entries.insert(entry.key.clone(), entry);
                }
            }
            // Others write meanwhile.
            last = exam.put("n/39", "later").await;
        }
        assert!(leases.contains(&(lease.id, lease.ttl)), "{leases:?}");
        assert_eq!(entries.into_values().collect::<Vec<_>>(), before);
        assert!(snapshot.head().revision < last);
    })
}

async fn everything(store: &dyn Store) -> Vec<Entry> {
    let page = store.range(Range::all().into()).await;
    page.unwrap_or_else(|error| fail("a page", &error)).entries
}
