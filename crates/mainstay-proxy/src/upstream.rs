//! One endpoint, and the connections of this thread to it.
//!
//! An [`Upstream`] is a handle: an address, settings and a number. The connections belong to the
//! thread that opened them, so taking one costs no lock and no atomic, and a request never crosses
//! cores. The price is that limits count per core, and that an idle connection of one core is of no
//! use to another; with keep-alive on both sides that costs a few sockets and nothing else.
//!
//! **HTTP/1 without a task.** The request owns the connection while it runs: [`Exchange`] writes and
//! reads it in the task of the downstream connection, and [`UpstreamBody`] goes on with that while
//! the body streams. No task is switched and nothing wakes anything. When the message is complete
//! the connection goes back to the list of idle ones; dropped before that, it closes.
//!
//! **HTTP/2** connections are shared by many requests and so do run as tasks of the thread.
//!
//! Whatever goes wrong becomes a [`CallError`] whose failure says what is provable: `Lost` with
//! `sent` unset, and every `ConnectFailed`, mean that no byte of the request reached a socket.

mod body;
mod census;
mod connect;
mod exchange;
mod failure;
mod fit;
mod http1;
mod http2;
mod pool;
mod uplink;
mod wire;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::Body;
use mainstay_call::stage::timeout::is_grpc;
use mainstay_call::{BoxError, CallError};
use tower_service::Service;

pub use body::UpstreamBody;
pub use census::Census;
pub use exchange::Exchange;
pub use wire::Tunnel;

use crate::tls::ClientTls;

/// A request body that can be sent upstream.
///
/// Implemented for everything that fits; it only gives the bounds a name.
pub trait RequestBody: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static {}

impl<B> RequestBody for B where B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static
{}

/// Which protocol to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 where TLS agrees on it by ALPN, and for gRPC in the clear; else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, over plain TCP by prior knowledge.
    Http2,
}

/// How to reach an endpoint, and how much of it one core may use.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Protocol spoken.
    pub protocol: Protocol,
    /// TLS, or plain TCP.
    pub tls: Option<ClientTls>,
    /// Time for name, TCP and TLS together.
    pub connect_timeout: Duration,
    /// How long a write may make no progress.
    pub stall: Duration,
    /// Connections per core, idle and busy, at least 1.
    pub connections_max: usize,
    /// How long a connection is kept without use; kept to the second, at least one.
    pub idle: Duration,
    /// Calls of one core that may wait for a connection; the next one is refused.
    pub pending_max: usize,
    /// Bytes of a response head, at least 8 KiB.
    pub head_bytes_max: usize,
}

impl Default for UpstreamSettings {
    /// The defaults of `[upstream.N]`.
    fn default() -> Self {
        Self {
            protocol: Protocol::Auto,
            tls: None,
            connect_timeout: Duration::from_secs(1),
            stall: Duration::from_secs(10),
            connections_max: 128,
            idle: Duration::from_mins(1),
            pending_max: 1_024,
            head_bytes_max: 65_536,
        }
    }
}

/// A handle to one endpoint; clones share its connections. See the [module](self).
///
/// The last handle to go takes the idle connections with it, on each thread at its next sweep.
pub struct Upstream<B> {
    target: Arc<Target>,
    /// For gRPC, where nothing else says that the endpoint speaks HTTP/2.
    grpc: Option<Arc<Target>>,
    body: PhantomData<fn(B)>,
}

/// What all clones of a handle share.
#[derive(Debug)]
struct Target {
    /// Names the pools of this handle on each thread.
    id: u64,
    address: Arc<str>,
    settings: Arc<UpstreamSettings>,
}

impl<B> Upstream<B> {
    /// A handle to `address`, `host:port`. Nothing is connected yet.
    pub fn new(address: impl Into<Arc<str>>, settings: Arc<UpstreamSettings>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let address = address.into();
        let target = |settings| {
            let id = NEXT.fetch_add(1, Ordering::Relaxed);
            Arc::new(Target { id, address: Arc::clone(&address), settings })
        };
        let unknown = settings.protocol == Protocol::Auto && settings.tls.is_none();
        let grpc = unknown.then(|| {
            let settings = UpstreamSettings { protocol: Protocol::Http2, ..(*settings).clone() };
            target(Arc::new(settings))
        });
        Self { target: target(settings), grpc, body: PhantomData }
    }

    /// The endpoint, `host:port`.
    pub fn address(&self) -> &Arc<str> {
        &self.target.address
    }
}

impl<B: RequestBody> Upstream<B> {
    /// Connections of this thread, idle and busy.
    pub fn connections(&self) -> usize {
        self.targets().map(|target| pool::of::<B>(target).open()).sum()
    }

    /// Connections of this thread that wait for a request.
    pub fn idle(&self) -> usize {
        self.targets().map(|target| pool::of::<B>(target).idle()).sum()
    }

    fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        std::iter::once(&self.target).chain(&self.grpc)
    }
}

impl<B: RequestBody> Service<Request<B>> for Upstream<B> {
    type Response = http::Response<UpstreamBody>;
    type Error = CallError;
    type Future = Exchange<B>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(())) // Waiting for a connection is part of the call, so that it can be cut.
    }

    /// Sends `request` on a connection of this thread.
    ///
    /// The future must be polled on this thread, inside a runtime that takes local tasks. Dropping
    /// it, or the body of the answer, cancels the exchange: an HTTP/1 connection is closed, an
    /// HTTP/2 stream is reset.
    fn call(&mut self, request: Request<B>) -> Exchange<B> {
        let target = match &self.grpc {
            Some(grpc) if is_grpc(request.headers()) => grpc,
            _ => &self.target,
        };
        Exchange::new(pool::of(target), request)
    }
}

impl<B> Clone for Upstream<B> {
    fn clone(&self) -> Self {
        Self { target: Arc::clone(&self.target), grpc: self.grpc.clone(), body: PhantomData }
    }
}

impl<B> fmt::Debug for Upstream<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("address", &self.target.address).finish_non_exhaustive()
    }
}
