//! What went wrong, in the words of the taxonomy. Nothing is called unsent that is not provably so.

use std::error::Error;
use std::io;

use mainstay_call::CallError;
use mainstay_resilience::{Congestion, Failure};

/// The name could not be resolved, or the peer is not there.
pub(super) fn connecting(error: io::Error) -> CallError {
    let failure = match error.kind() {
        io::ErrorKind::TimedOut => Failure::ConnectTimeout,
        _ => Failure::ConnectFailed { identity: false },
    };
    CallError::failed(failure, error)
}

/// The TLS handshake failed. Only a certificate we would not accept is a matter of identity; an
/// alert from the peer, or a broken connection, may go better the next time.
pub(super) fn handshake(error: io::Error) -> CallError {
    let tls = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let identity = matches!(
        tls,
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
    );
    CallError::failed(Failure::ConnectFailed { identity }, error)
}

/// An HTTP/2 connection could not be set up: no request is on it yet, and nothing was read.
pub(super) fn opening(error: hyper::Error) -> CallError {
    CallError::failed(Failure::Congestion(Congestion::Lost { sent: false }), error)
}

/// An HTTP/2 exchange ended without a response head.
///
/// After a `GOAWAY` h2 fails at once the streams above its last stream id, and no other, as long
/// as the peer gave no error; a `GOAWAY` with an error also ends streams the peer may have worked
/// on, and so proves nothing.
pub(super) fn stream(error: hyper::Error, unsent: bool) -> CallError {
    let reason = source::<h2::Error>(&error).map(|e| (e.is_remote(), e.is_go_away(), e.reason()));
    let failure = match reason {
        _ if unsent => Failure::Congestion(Congestion::Lost { sent: false }),
        Some(
            (true, _, Some(h2::Reason::REFUSED_STREAM)) | (true, true, Some(h2::Reason::NO_ERROR)),
        ) => Failure::Unprocessed,
        Some((false, _, Some(h2::Reason::PROTOCOL_ERROR))) => Failure::Malformed,
        _ if error.is_user() => Failure::Cancelled,
        _ => Failure::Congestion(Congestion::Lost { sent: true }),
    };
    CallError::failed(failure, error)
}

/// The body broke off after its head.
pub(super) fn truncated(error: hyper::Error) -> CallError {
    CallError::failed(Failure::Truncated, error)
}

/// The first cause of type `E`.
fn source<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
