//! Leases.

use std::time::Duration;

use super::{Doing, Exam, fail, key, put};
use crate::batch::Batch;
use crate::entry::LeaseId;
use crate::error::Error;
use crate::key::Range;
use crate::lease::{Granted, LeaseStatus};
use crate::watch::{WatchItem, WatchRequest};

/// Long enough for every backend to grant exactly this.
const TTL: Duration = Duration::from_secs(5);

const A_WHILE: Duration = Duration::from_secs(4);

impl Exam {
    async fn grant(&self, ttl: Duration) -> Granted {
        self.store.grant(ttl, None).await.unwrap_or_else(|error| fail("a grant", &error))
    }

    async fn lease(&self, id: LeaseId) -> LeaseStatus {
        self.store.lease(id).await.unwrap_or_else(|error| fail("a lease", &error))
    }

    async fn attach(&self, name: &str, lease: LeaseId) {
        self.apply(Batch::new().then(put(name, "v").lease(lease))).await;
    }
}

pub(super) fn attaching(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        let (one, two) = (exam.grant(TTL * 10).await.id, exam.grant(TTL * 10).await.id);
        exam.attach("a", one).await;
        exam.attach("b", one).await;
        assert_eq!(exam.lease(one).await.keys, [key("a"), key("b")]);
        exam.apply(Batch::new().then(put("a", "kept").keep_lease())).await;
        assert_eq!(exam.entry("a").await.and_then(|entry| entry.lease), Some(one));
        exam.attach("a", two).await;
        assert_eq!(exam.lease(one).await.keys, [key("b")], "one lease at a time");
        assert_eq!(exam.lease(two).await.keys, [key("a")]);
        exam.put("a", "free").await;
        assert_eq!(exam.entry("a").await.and_then(|entry| entry.lease), None);
        assert!(exam.lease(two).await.keys.is_empty());
        exam.delete("b").await;
        assert!(exam.lease(one).await.keys.is_empty());
        exam.store.revoke(two).await.expect("a live lease can be revoked");
        assert!(exam.entry("a").await.is_some(), "what was detached stays");
    })
}

pub(super) fn expiry(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        let granted = exam.grant(TTL).await;
        assert!(TTL <= granted.ttl, "never less than was asked for");
        exam.attach("e", granted.id).await;
        let mut watch =
            exam.store.watch(WatchRequest::new(Range::key(&key("e"))).quiet()).expect("a watch");
        watch.next().await;
        exam.pass(granted.ttl.saturating_sub(Duration::from_millis(600))).await;
        assert!(exam.entry("e").await.is_some(), "ended before its ttl");
        exam.pass(Duration::from_secs(1) + exam.slack).await;
        assert_eq!(exam.entry("e").await, None, "ended too late");
        let gone = Error::LeaseNotFound { lease: granted.id };
        assert_eq!(exam.store.keep_alive(granted.id).await, Err(gone.clone()));
        assert_eq!(exam.store.lease(granted.id).await, Err(gone.clone()));
        assert_eq!(exam.refused(Batch::new().then(put("f", "1").lease(granted.id))).await, gone);
        match watch.next().await {
            Some(WatchItem::Changes { events, .. }) => {
                assert!(events.iter().all(|event| event.entry().is_none()), "{events:?}");
            }
            other => fail("the end of a lease is a delete", &other),
        }
    })
}

pub(super) fn keeping_alive(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        let granted = exam.grant(TTL).await;
        exam.attach("k", granted.id).await;
        let before = exam.revision().await;
        for _ in 0..3 {
            exam.pass(A_WHILE).await;
            assert_eq!(exam.store.keep_alive(granted.id).await, Ok(granted.ttl));
        }
        assert!(exam.entry("k").await.is_some());
        assert_eq!(exam.revision().await, before, "keeping alive changes nothing");
        let status = exam.lease(granted.id).await;
        assert_eq!(status.granted, granted.ttl);
        assert!(granted.ttl <= status.remaining + Duration::from_secs(1), "{status:?}");
        assert!(status.remaining <= granted.ttl, "{status:?}");
    })
}

pub(super) fn revoking(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        let lease = exam.grant(TTL * 10).await.id;
        for name in ["v/c", "v/a", "v/b"] {
            exam.attach(name, lease).await;
        }
        exam.put("v/other", "stays").await;
        let before = exam.revision().await;
        let request = WatchRequest::new(Range::prefix("v/")).from(before.next()).quiet();
        let mut watch = exam.store.watch(request).expect("a watch");
        let revision = exam.store.revoke(lease).await;
        assert_eq!(revision, Ok(before.next()), "all in one revision");
        let first = watch.next().await;
        assert!(matches!(first, Some(WatchItem::Created { .. })), "{first:?}");
        match watch.next().await {
            Some(WatchItem::Changes { revision, events }) => {
                assert_eq!(revision, before.next());
                let gone: Vec<_> = events.iter().map(|event| event.key().to_string()).collect();
                assert_eq!(gone, ["v/a", "v/b", "v/c"]);
            }
            other => fail("a revoked lease is a change", &other),
        }
        assert!(exam.entry("v/other").await.is_some());
        let empty = exam.grant(TTL).await.id;
        assert_eq!(exam.store.revoke(empty).await, Ok(before.next()), "nothing to delete");
    })
}

pub(super) fn missing(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        let lease = LeaseId::new(0x7_1234_5678).expect("a lease id");
        let gone = Error::LeaseNotFound { lease };
        assert_eq!(exam.store.keep_alive(lease).await, Err(gone.clone()));
        assert_eq!(exam.store.revoke(lease).await, Err(gone.clone()));
        assert_eq!(exam.store.lease(lease).await, Err(gone.clone()));
        let batch = Batch::new().then(put("m", "1")).then(put("n", "1").lease(lease));
        assert_eq!(exam.refused(batch).await, gone);
        assert_eq!(exam.entry("m").await, None, "the whole batch is refused");
        let granted = exam.store.grant(TTL, Some(lease)).await;
        assert_eq!(granted.map(|granted| granted.id), Ok(lease), "an id can be chosen");
        let again = exam.store.grant(TTL, Some(lease)).await;
        assert_eq!(again, Err(Error::LeaseExists { lease }));
        let long = Duration::from_secs(86_401);
        assert_eq!(exam.store.grant(long, None).await, Err(Error::TtlInvalid { asked: long }));
        let short = exam.grant(Duration::from_millis(1_500)).await.ttl;
        assert!(Duration::from_secs(2) <= short && short.subsec_nanos() == 0, "{short:?}");
    })
}
