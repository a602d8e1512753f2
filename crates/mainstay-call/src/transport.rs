//! The last step: a request leaves for one instance through any tower service.
//!
//! What comes back as an error is put into the one taxonomy here, by what it provably says. The
//! rule is that nothing is called unsent that may have been sent: a connection that was refused
//! proves it, and so does a stream that HTTP/2 says was not processed; a reused connection that
//! died does not, however likely it is.
//!
//! | error | failure |
//! |---|---|
//! | a [`CallError`] | passes as it is |
//! | `hyper_util`'s client while connecting | `connect-failed`; `connect-timeout` when it timed out |
//! | `io`: connection refused, host or network unreachable, address not available | `connect-failed` |
//! | HTTP/2 `REFUSED_STREAM`, or a `GOAWAY` without an error | `refused-stream` |
//! | hyper: cancelled before it was given to a connection | `network-congestion`, unsent |
//! | hyper: the answer was no valid message | `upstream-malformed` |
//! | hyper: the request's own body failed | `cancelled` |
//! | anything else | `network-congestion`, perhaps sent |
//!
//! A failed TLS handshake is `connect-failed` like any other; whether the certificate was at
//! fault, which would make another attempt pointless, only the TLS library in use could tell.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use http::uri::{Authority, Parts, PathAndQuery, Scheme, Uri};
use mainstay_resilience::{Congestion, Failure};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::error::{BoxError, CallError};

/// Sends requests to one instance through `S`; see the [module](self).
///
/// The authority of each request's URI becomes the instance's address, `http` its scheme unless it
/// has one. A `Host` header that the request has stays; without one, HTTP clients make one of the
/// address.
#[derive(Clone, Debug)]
pub struct Transport<S> {
    inner: S,
    /// `None` when the address is no authority.
    authority: Option<Authority>,
    address: Arc<str>,
}

/// The address of an instance cannot stand in a URI.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("instance address `{0}` must be `host:port`")]
pub struct InvalidAddress(Arc<str>);

impl<S> Transport<S> {
    /// Sends to `address`, `host:port`. An address that is none fails every call with
    /// [`InvalidAddress`] as its source: it comes from a list that may be right a moment later.
    pub fn new(inner: S, address: Arc<str>) -> Self {
        let authority = Authority::try_from(address.as_ref()).ok();
        Self { inner, authority, address }
    }
}

impl<S, B, R> Service<http::Request<B>> for Transport<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = http::Response<R>;
    type Error = CallError;
    type Future = TransportFuture<S, S::Future, B>;

    /// Always ready: a service that cannot be made ready is a failed call, which has to be counted
    /// as one by the stages around this.
    fn poll_ready(&mut self, _cx: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let Some(authority) = &self.authority else {
            let error = InvalidAddress(Arc::clone(&self.address));
            let failure = Failure::ConnectFailed { identity: false };
            let error = Some(CallError::failed(failure, error));
            return TransportFuture { state: State::Nowhere { error } };
        };
        *request.uri_mut() = to(request.uri(), authority);
        let (service, request) = (self.inner.clone(), Some(request));
        TransportFuture { state: State::Waiting { service, request } }
    }
}

/// `uri` at another authority.
fn to(uri: &Uri, authority: &Authority) -> Uri {
    let mut parts = Parts::default();
    parts.scheme = Some(uri.scheme().cloned().unwrap_or(Scheme::HTTP));
    parts.authority = Some(authority.clone());
    let path = uri.path_and_query().cloned();
    parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    Uri::from_parts(parts).expect("scheme, authority and path are all there")
}

pin_project! {
    /// A request on its way.
    #[derive(Debug)]
    pub struct TransportFuture<S, F, B> {
        #[pin]
        state: State<S, F, B>,
    }
}

pin_project! {
    #[project = Projected]
    #[derive(Debug)]
    enum State<S, F, B> {
        Waiting {
            service: S,
            request: Option<http::Request<B>>,
        },
        Sent {
            #[pin]
            inner: F,
        },
        Nowhere {
            error: Option<CallError>,
        },
    }
}

impl<S, B, R> Future for TransportFuture<S, S::Future, B>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<http::Response<R>, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                Projected::Nowhere { error } => {
                    return error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
                }
                Projected::Waiting { service, request } => {
                    ready!(service.poll_ready(cx)).map_err(|error| failed(error.into()))?;
                    let Some(request) = request.take() else { return Poll::Pending };
                    State::Sent { inner: service.call(request) }
                }
                Projected::Sent { inner } => {
                    return inner.poll(cx).map_err(|error| failed(error.into()));
                }
            };
            state.set(next);
        }
    }
}

/// The error in the words of the taxonomy; see the [module](self).
pub fn failed(error: BoxError) -> CallError {
    match error.downcast::<CallError>() {
        Ok(known) => *known,
        Err(error) => CallError::failed(judge(error.as_ref()), error),
    }
}

/// Reads the failure from the chain of sources, outermost first: the first that says something
/// definite decides.
fn judge(error: &(dyn Error + 'static)) -> Failure {
    let mut connecting = false;
    let mut cause = Some(error);
    while let Some(error) = cause {
        connecting |= error
            .downcast_ref::<hyper_util::client::legacy::Error>()
            .is_some_and(hyper_util::client::legacy::Error::is_connect);
        let said = None
            .or_else(|| error.downcast_ref::<io::Error>().and_then(|e| of_io(e, connecting)))
            .or_else(|| error.downcast_ref::<h2::Error>().and_then(of_h2))
            .or_else(|| error.downcast_ref::<hyper::Error>().and_then(of_hyper));
        if let Some(failure) = said {
            return failure;
        }
        cause = error.source();
    }
    if connecting {
        Failure::ConnectFailed { identity: false }
    } else {
        Failure::Congestion(Congestion::Lost { sent: true })
    }
}

fn of_io(error: &io::Error, connecting: bool) -> Option<Failure> {
    match error.kind() {
        ErrorKind::ConnectionRefused
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::AddrNotAvailable => Some(Failure::ConnectFailed { identity: false }),
        ErrorKind::TimedOut if connecting => Some(Failure::ConnectTimeout),
        _ => None,
    }
}

/// A `GOAWAY` without an error fails the streams above its last stream id and no other; one with
/// an error also ends streams that the peer may have worked on (RFC 9113, section 6.8).
fn of_h2(error: &h2::Error) -> Option<Failure> {
    let unprocessed = error.is_remote()
        && match error.reason() {
            Some(h2::Reason::REFUSED_STREAM) => true,
            Some(h2::Reason::NO_ERROR) => error.is_go_away(),
            _ => false,
        };
    unprocessed.then_some(Failure::Unprocessed)
}

fn of_hyper(error: &hyper::Error) -> Option<Failure> {
    if error.is_canceled() {
        Some(Failure::Congestion(Congestion::Lost { sent: false }))
    } else if error.is_parse() {
        Some(Failure::Malformed)
    } else if error.is_user() {
        Some(Failure::Cancelled)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_authority_of_a_request_changes() {
        let authority = Authority::from_static("10.0.0.7:8080");
        for (from, want) in [
            ("/charge?x=1", "http://10.0.0.7:8080/charge?x=1"),
            ("http://payment/charge", "http://10.0.0.7:8080/charge"),
            ("https://payment:9/", "https://10.0.0.7:8080/"),
            ("payment:9", "http://10.0.0.7:8080/"),
            ("*", "http://10.0.0.7:8080*"),
        ] {
            assert_eq!(to(&from.parse().unwrap(), &authority).to_string(), want, "{from}");
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] BoxError);

    #[test]
    fn an_error_is_judged_by_what_it_provably_says() {
        let lost = Failure::Congestion(Congestion::Lost { sent: true });
        let refused = Failure::ConnectFailed { identity: false };
        let io = |kind: ErrorKind| BoxError::from(io::Error::from(kind));
        let h2 = |reason| BoxError::from(h2::Error::from(reason));
        let cases: [(BoxError, Failure); 9] = [
            (io(ErrorKind::ConnectionRefused), refused),
            (Outer(io(ErrorKind::HostUnreachable)).into(), refused),
            (io(ErrorKind::NetworkUnreachable), refused),
            (io(ErrorKind::AddrNotAvailable), refused),
            (io(ErrorKind::TimedOut), lost),
            (io(ErrorKind::ConnectionReset), lost),
            ("no idea".into(), lost),
            // Our own reset, not the peer's.
            (h2(h2::Reason::REFUSED_STREAM), lost),
            (CallError::from(Failure::Malformed).into(), Failure::Malformed),
        ];
        for (error, want) in cases {
            let text = format!("{error:?}");
            match failed(error) {
                CallError::Failed { failure, .. } => assert_eq!(failure, want, "{text}"),
                other => panic!("{text} became {other:?}"),
            }
        }
    }
}
