//! The end of a store.

use std::sync::Arc;
use std::time::Duration;

use super::{Doing, Exam, key, put};
use crate::batch::Batch;
use crate::entry::{LeaseId, Revision};
use crate::error::Error;
use crate::key::Range;
use crate::read::Get;
use crate::watch::{WatchItem, WatchRequest};

pub(super) fn ends(exam: &Exam) -> Doing<'_, ()> {
    Box::pin(async move {
        let store = Arc::clone(&exam.store);
        exam.put("a", "1").await;
        let mut watch = store.watch(WatchRequest::new(Range::all())).expect("a watch");
        assert!(matches!(watch.next().await, Some(WatchItem::Created { .. })));
        // Sent before the end: done, or told that it is too late; never left hanging.
        let under_way = store.apply(Batch::new().then(put("b", "1")));
        let closing = store.close();
        let (applied, closed) = both(under_way, closing).await;
        assert_eq!(closed, Ok(()));
        let is_told = matches!(applied, Ok(_) | Err(Error::Closed | Error::OutcomeUnknown));
        assert!(is_told, "{applied:?}");
        assert_eq!(store.close().await, Ok(()), "closing twice does nothing");
        loop {
            match watch.next().await {
                Some(WatchItem::Closed) => break,
                Some(WatchItem::Changes { .. } | WatchItem::Bookmark { .. }) => (),
                other => assert_eq!(other, Some(WatchItem::Closed), "how a watch ends"),
            }
        }
        assert_eq!(watch.next().await, None, "nothing follows");
        let lease = LeaseId::new(1).expect("a lease id");
        let a = || key("a");
        assert_eq!(store.get(Get::new(a())).await, Err(Error::Closed));
        assert_eq!(store.range(Range::all().into()).await, Err(Error::Closed));
        assert_eq!(store.apply(Batch::new()).await, Err(Error::Closed));
        assert_eq!(store.grant(Duration::from_secs(5), None).await, Err(Error::Closed));
        assert_eq!(store.keep_alive(lease).await, Err(Error::Closed));
        assert_eq!(store.revoke(lease).await, Err(Error::Closed));
        assert_eq!(store.lease(lease).await, Err(Error::Closed));
        assert_eq!(store.compact(Revision::FIRST).await, Err(Error::Closed));
        assert_eq!(store.snapshot().await.err(), Some(Error::Closed));
        let late = store.watch(WatchRequest::new(Range::all()));
        assert_eq!(late.err(), Some(Error::Closed));
    })
}

/// Both answers; the first is asked for first.
async fn both<A, B>(
    first: impl Future<Output = A> + Send,
    second: impl Future<Output = B> + Send,
) -> (A, B) {
    let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
    let (mut a, mut b) = (None, None);
    std::future::poll_fn(|context| {
        use std::task::Poll;
        if a.is_none()
            && let Poll::Ready(answer) = first.as_mut().poll(context)
        {
            a = Some(answer);
        }
        if b.is_none()
            && let Poll::Ready(answer) = second.as_mut().poll(context)
        {
            b = Some(answer);
        }
        match (a.take(), b.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (first, second) => {
                (a, b) = (first, second);
                Poll::Pending
            }
        }
    })
    .await
}
