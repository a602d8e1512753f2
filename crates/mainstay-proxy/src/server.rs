//! Accepts connections and hands requests to the application.
//!
//! One thread per worker, each with its own runtime, sockets and connections; nothing on the way
//! of a request is shared between them, so nothing is locked. A connection is one task: protocol, the
//! application's future and the upstream exchange are polled by it, one inside the other.
//!
//! Time is watched by one ticker per worker and not by a timer per request: a connection notes
//! what passes (see `pace`), and four times a second the ticker looks who is late. That makes
//! every limit of this module late by up to a quarter of a second, and a request cheaper by the
//! making and unmaking of a timer.
//!
//! **Drain.** The accept queue is emptied, then the sockets close; answers say
//! `Connection: close`, HTTP/2 connections get their `GOAWAY`, WebSocket clients a close frame; an idle HTTP/1 connection may send
//! for one more second, since its next request may be on its way already. What is left after the
//! given time is cut and counted.
//!
//! **Framing.** Over HTTP/1 the [guard](crate::framing) is the parser, so that what it refuses reaches
//! nobody. HTTP/2 is hyper's.

mod connection;
mod entry;
mod farewell;
mod http1;
mod incident;
mod pace;
mod socket;
pub(crate) mod tasks;
mod worker;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Request, Response};
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use crate::body::{InBody, OutBody};
use crate::forwarded::TrustedProxies;
use crate::framing;
use crate::listener::{Caps, Listener};
use crate::tls::{ServerTls, Shown};

pub use incident::{Abuse, Incident, OnIncident};

/// What answers requests. Each worker has its own, so neither it nor its futures need be `Send`.
pub trait Handler: 'static {
    /// The answer to come.
    type Answer: Future<Output = Response<OutBody>> + 'static;

    /// Answers `request`, which came over the connection `from`.
    fn call(&self, request: Request<InBody>, from: Rc<ConnInfo>) -> Self::Answer;
}

impl<F, A> Handler for F
where
    F: Fn(Request<InBody>, Rc<ConnInfo>) -> A + 'static,
    A: Future<Output = Response<OutBody>> + 'static,
{
    type Answer = A;

    fn call(&self, request: Request<InBody>, from: Rc<ConnInfo>) -> A {
        self(request, from)
    }
}

/// Where a request came from.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    /// The other end of the socket, or the client whose connection the one there passes on.
    pub peer: SocketAddr,
    /// Our end, or what that client connected to.
    pub local: SocketAddr,
    /// What TLS found out; `None` on a plain connection.
    pub tls: Option<TlsInfo>,
}

/// What is known of a TLS connection.
#[derive(Clone, Debug)]
pub struct TlsInfo {
    /// The host the client asked for.
    pub sni: Option<String>,
    /// The certificate it was shown.
    pub shown: Option<Shown>,
    /// Certificates the client showed, leaf first, checked; empty when it showed none.
    pub client_certificates: Vec<CertificateDer<'static>>,
}

impl TlsInfo {
    /// Whether the client may ask for `host`, with or without a port, on this connection: it is the
    /// name it asked for in the handshake, or one that the certificate it was shown covers. An
    /// address cannot be asked for there (RFC 6066, section 3), and so is nothing else than asked.
    pub(crate) fn serves(&self, host: &str) -> bool {
        let host = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
            Some((address, _port)) => address,
            None => host.split_once(':').map_or(host, |(name, _port)| name),
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        match &self.sni {
            Some(sni) if sni.eq_ignore_ascii_case(host) => true,
            None if host.parse::<IpAddr>().is_ok() => true,
            _ => self.shown.as_ref().is_some_and(|shown| shown.covers(host)),
        }
    }
}

/// A listener and what is spoken on it.
#[derive(Debug)]
pub struct Endpoint {
    /// Its sockets.
    pub listener: Listener,
    /// With TLS, ALPN chooses the protocol; without, the first bytes do.
    pub tls: Option<ServerTls>,
}

/// Limits of `[gateway.limits]` that the transport watches over.
#[derive(Clone, Debug)]
pub struct Limits {
    /// What HTTP/1 requests are held to.
    pub framing: framing::Limits,
    /// Time for a request head from its first byte, and for the first byte of a connection.
    pub head: Duration,
    /// How long a body may bring nothing while it is waited for.
    pub body_gap: Duration,
    /// Bytes a second a body must bring on average, once it was waited for 5 s.
    pub body_rate_min_bytes: u64,
    /// How long a write to the client may make no progress.
    pub write_stall: Duration,
    /// How long a connection may be idle between requests.
    pub keepalive: Duration,
    /// After this long a connection is asked to close.
    pub connection_age: Duration,
    /// How long a tunnel may be silent both ways.
    pub tunnel_idle: Duration,
    /// Time for a TLS handshake.
    pub handshake: Duration,
    /// Requests of one HTTP/1 connection.
    pub requests_per_connection_max: u64,
    /// Streams of one HTTP/2 connection at once.
    pub h2_streams_max: u32,
    /// Bytes of an HTTP/2 header list, uncompressed and with 32 a field (RFC 9113 6.5.2).
    pub h2_header_list_bytes_max: u32,
    /// Streams reset by the peer before we took them up.
    pub h2_pending_reset_max: usize,
    /// Streams we had to reset for the peer's errors.
    pub h2_local_reset_max: usize,
    /// Who says by the [PROXY protocol](crate::proxy_protocol) whose connections they pass on, and
    /// has to.
    pub announcing: TrustedProxies,
    /// How long [`Server::stop`] waits for what is under way.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            framing: framing::Limits::default(),
            head: seconds(10),
            body_gap: seconds(15),
            body_rate_min_bytes: 256,
            write_stall: seconds(30),
            keepalive: seconds(60),
            connection_age: seconds(3_600),
            tunnel_idle: seconds(300),
            handshake: seconds(10),
            requests_per_connection_max: 10_000,
            h2_streams_max: 128,
            h2_header_list_bytes_max: 32_768,
            h2_pending_reset_max: 20,
            h2_local_reset_max: 20,
            announcing: TrustedProxies::default(),
            drain: seconds(30),
        }
    }
}

/// Limits that may be replaced while workers serve. A connection has those that were in force when
/// it came; who watches over its time goes by the present ones.
#[derive(Clone, Debug)]
pub struct LiveLimits(Arc<ArcSwap<Limits>>);

impl LiveLimits {
    /// Replaces them.
    pub fn set(&self, limits: Limits) {
        self.0.store(Arc::new(limits));
    }

    /// Those in force.
    pub fn load(&self) -> Arc<Limits> {
        self.0.load_full()
    }
}

impl From<Limits> for LiveLimits {
    fn from(limits: Limits) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(limits)))
    }
}

/// Workers, what they serve, and within which limits.
#[derive(Debug)]
pub struct Plan {
    /// Threads, usually one per core.
    pub workers: NonZeroUsize,
    /// What is served.
    pub endpoints: Vec<Endpoint>,
    /// Limits of each connection, and of the drain.
    pub limits: LiveLimits,
    /// Limits of all connections together.
    pub caps: Arc<Caps>,
    /// Told of what clients do that they should not, and of what befalls workers.
    pub on_incident: OnIncident,
}

/// Starts the workers of `plan`; each makes its handler with `factory`, given its number.
///
/// # Errors
///
/// When a thread or a runtime cannot be made. What was started until then drains.
pub fn serve<H, F>(plan: Plan, factory: F) -> io::Result<Server>
where
    H: Handler,
    F: Fn(usize) -> H + Send + Sync + 'static,
{
    let Plan { workers, endpoints, limits, caps, on_incident } = plan;
    let mut hands: Vec<Vec<worker::Door>> = (0..workers.get()).map(|_| Vec::new()).collect();
    for Endpoint { listener, tls } in endpoints {
        for (hand, sockets) in hands.iter_mut().zip(listener.deal(workers.get())?) {
            let doors = sockets.into_iter().map(|socket| worker::Door { socket, tls: tls.clone() });
            hand.extend(doors);
        }
    }
    let stop = CancellationToken::new();
    let mut server = Server { stop: stop.clone(), threads: Vec::new() };
    let factory = Arc::new(factory);
    let (up, failed) = mpsc::channel();
    for (index, doors) in hands.into_iter().enumerate() {
        let factory = Arc::clone(&factory);
        let worker = worker::Worker {
            doors,
            limits: limits.clone(),
            caps: Arc::clone(&caps),
            stop: stop.clone(),
            on_incident: on_incident.clone(),
        };
        let up = up.clone();
        let run = move || match worker::runtime() {
            Ok(runtime) => {
                drop(up); // Saying nothing says that all is well.
                worker.run(&runtime, || factory(index))
            }
            Err(error) => {
                drop(up.send(error));
                0
            }
        };
        let thread = std::thread::Builder::new().name(format!("worker-{index}"));
        server.threads.push(thread.spawn(run)?);
    }
    drop(up);
    match failed.recv() {
        Ok(error) => Err(error),
        Err(_all_up) => Ok(server),
    }
}

/// Running workers. Dropped, it tells them to drain, and does not wait.
pub struct Server {
    stop: CancellationToken,
    threads: Vec<JoinHandle<usize>>,
}

impl Server {
    /// Tells all workers to drain; returns at once.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until all workers are done, at most the drain time after [`Server::stop`]. Blocks the
    /// thread.
    ///
    /// # Panics
    ///
    /// When a worker panicked.
    pub fn join(mut self) -> Drained {
        let threads = std::mem::take(&mut self.threads);
        let cut = threads.into_iter().map(|thread| thread.join().expect("no worker panics")).sum();
        Drained { cut }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("workers", &self.threads.len()).finish_non_exhaustive()
    }
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still busy when the time was up.
    pub cut: usize,
}
