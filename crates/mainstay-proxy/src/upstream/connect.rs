//! Name, TCP, TLS: all within one timeout, each failure with its own kind.

use std::io;
use std::net::SocketAddr;

use mainstay_call::clock::MonotonicClock;
use mainstay_call::{CallError, pause};
use mainstay_core::Clock as _;
use mainstay_resilience::Failure;
use tokio::net::TcpStream;

use super::wire::Link;
use super::{Protocol, Target, failure};

/// A socket that is ready for HTTP.
#[derive(Debug)]
pub(super) struct Dialed {
    pub(super) link: Link,
    pub(super) http2: bool,
}

/// Connects to `target`.
///
/// # Errors
///
/// `ConnectTimeout` or `ConnectFailed`, with the cause.
///
/// # Cancel safety
///
/// Safe: a dropped call closes the socket.
pub(super) async fn dial(target: &Target) -> Result<Dialed, CallError> {
    let began = MonotonicClock.now();
    match tokio::time::timeout(target.settings.connect_timeout, reach(target)).await {
        Ok(dialed) => dialed,
        Err(elapsed) => {
            let due = began.plus(target.settings.connect_timeout);
            let failure = if pause::excuses(began, due, MonotonicClock.now()) {
                Failure::Overslept { connecting: true }
            } else {
                Failure::ConnectTimeout
            };
            Err(CallError::failed(failure, elapsed))
        }
    }
}

async fn reach(target: &Target) -> Result<Dialed, CallError> {
    let tcp = tcp(&target.address).await.map_err(failure::connecting)?;
    tcp.set_nodelay(true).map_err(failure::connecting)?;
    let protocol = target.settings.protocol;
    let Some(tls) = &target.settings.tls else {
        return Ok(Dialed { link: Link::Plain(tcp), http2: protocol == Protocol::Http2 });
    };
    let stream = tls.connect(&target.address, protocol, tcp).await.map_err(failure::handshake)?;
    let agreed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let http2 = protocol != Protocol::Http1 && (agreed || protocol == Protocol::Http2);
    Ok(Dialed { link: Link::Tls(Box::new(stream)), http2 })
}

/// The first address that answers; an address written as a number needs no look-up.
async fn tcp(address: &str) -> io::Result<TcpStream> {
    if let Ok(literal) = address.parse::<SocketAddr>() {
        return TcpStream::connect(literal).await;
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "name has no address");
    for candidate in tokio::net::lookup_host(address).await? {
        match TcpStream::connect(candidate).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = error,
        }
    }
    Err(last)
}
