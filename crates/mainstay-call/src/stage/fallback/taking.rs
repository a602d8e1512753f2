//! A request on its way into a queue: its body is read, then it is handed over.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Request, Response, StatusCode};
use http_body::Body;
use mainstay_core::name::PolicyName;

use super::body::FallbackBody;
use super::settings::{Defers, Dialect};
use crate::deferred::{Answering, Deferral, NotDeferred, RECEIPT_HEADER, Receipt};
use crate::error::BoxError;
use crate::replay::Replay;

/// A request that is being handed over.
pub(super) struct Taking<B> {
    to: Defers,
    /// Until the body has been read.
    head: Option<(PolicyName, http::request::Parts)>,
    body: Replay<B>,
    read: BytesMut,
    handing: Option<Answering<Result<Receipt, NotDeferred>>>,
}

impl<B> Taking<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    /// Hands the request with `head` and `body` over to `queue`; `None` when its body is known to be
    /// longer than is taken.
    pub(super) fn begin(
        to: &Defers,
        queue: PolicyName,
        head: http::request::Parts,
        body: impl FnOnce() -> Option<Replay<B>>,
        announced: u64,
    ) -> Option<Box<Self>> {
        if (to.port.body_bytes_max() as u64) < announced {
            return None;
        }
        let (to, head) = (to.clone(), Some((queue, head)));
        Some(Box::new(Self { to, head, body: body()?, read: BytesMut::new(), handing: None }))
    }

    /// The receipt, once the request is kept.
    pub(super) fn poll(&mut self, cx: &mut Task<'_>) -> Poll<Result<Receipt, NotDeferred>> {
        loop {
            if let Some(handing) = &mut self.handing {
                return handing.as_mut().poll(cx);
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let part = frame.into_data().unwrap_or_default();
                    if self.to.port.body_bytes_max() < self.read.len() + part.len() {
                        return Poll::Ready(Err(unfit("its body is too long")));
                    }
                    self.read.extend_from_slice(&part);
                }
                Some(Err(_broken)) => return Poll::Ready(Err(unfit("its body broke off"))),
                None => {
                    // Without a head it is polled after it was ready.
                    let Some((queue, head)) = self.head.take() else { return Poll::Pending };
                    let body = std::mem::take(&mut self.read).freeze();
                    let request = Request::from_parts(head, body);
                    let service = Arc::clone(&self.to.service);
                    let deferral = Deferral { queue, service, request };
                    self.handing = Some(self.to.port.defer(deferral));
                }
            }
        }
    }
}

impl<B> fmt::Debug for Taking<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taking").field("to", &self.to).finish_non_exhaustive()
    }
}

fn unfit(why: &str) -> NotDeferred {
    NotDeferred::Unfit(why.to_owned())
}

/// The answer to whoever handed a request over, and speaks `dialect`.
pub(super) fn response<R: Body>(receipt: &Receipt, dialect: Dialect) -> Response<FallbackBody<R>> {
    const JSON: &str = "application/json";
    let (status, content_type, data, grpc) = match dialect {
        // A message that says nothing, after the five bytes that stand before it.
        Dialect::Grpc => (StatusCode::OK, "application/grpc", Bytes::from_static(&[0; 5]), true),
        Dialect::Head => (StatusCode::ACCEPTED, JSON, Bytes::new(), false),
        Dialect::Http => (StatusCode::ACCEPTED, JSON, Bytes::from(receipt.ticket()), false),
    };
    let mut response = Response::new(FallbackBody::at_hand(data, grpc));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let (name, value) = match dialect {
        Dialect::Grpc => (RECEIPT_HEADER, receipt.id.to_string()),
        Dialect::Head | Dialect::Http => (LOCATION, receipt.location()),
    };
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
    response
}
