//! Peers that do exactly what a test says, and a gateway between them.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use mainstay_call::CallError;
use mainstay_core::problem::Code;
use mainstay_proxy::body::{BodyError, InBody, OutBody};
use mainstay_proxy::framing::Refusal;
use mainstay_proxy::listener::{Caps, Listener};
use mainstay_proxy::server::{
    self, ConnInfo, Endpoint, Handler, Limits, LiveLimits, OnIncident, Plan, Server,
};
use mainstay_proxy::tls::ServerTls;
use mainstay_proxy::upstream::{Upstream, UpstreamBody, UpstreamSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tower_service::Service;

/// A test that outlives this hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `test` the way a worker runs: one thread, local tasks.
pub fn local(test: impl Future<Output = ()> + 'static) {
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("the test hangs") });
}

/// Listens on a port of its own and plays `script` to each connection, given its number.
pub async fn peer<F, R>(script: F) -> SocketAddr
where
    F: Fn(usize, TcpStream) -> R + 'static,
    R: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        for number in 0.. {
            let (tcp, _) = listener.accept().await.unwrap();
            tcp.set_nodelay(true).unwrap();
            tokio::task::spawn_local(script(number, tcp));
        }
    });
    address
}

/// Reads one request head; `None` when the connection is closed.
pub async fn head(tcp: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if tcp.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).unwrap())
}

/// Answers every request of a connection with `answer`.
pub async fn repeat(mut tcp: TcpStream, answer: &'static [u8]) {
    while head(&mut tcp).await.is_some() {
        if tcp.write_all(answer).await.is_err() {
            return;
        }
    }
}

pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

pub fn upstream(address: SocketAddr, settings: UpstreamSettings) -> Upstream<Full<Bytes>> {
    Upstream::new(address.to_string(), Arc::new(settings))
}

pub async fn get(upstream: &Upstream<Full<Bytes>>) -> Result<Response<UpstreamBody>, CallError> {
    let request = Request::get("/x").body(Full::default()).unwrap();
    upstream.clone().call(request).await
}

pub async fn text(response: Response<UpstreamBody>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A gateway on a port of its own, with `workers` workers, in front of `address`.
pub struct Gateway {
    pub address: SocketAddr,
    pub server: Server,
    pub limits: LiveLimits,
}

pub struct Setup {
    pub workers: usize,
    pub limits: Limits,
    pub tls: Option<ServerTls>,
    pub drain: Duration,
    pub settings: UpstreamSettings,
    pub listener: Option<Listener>,
    pub on_incident: OnIncident,
    pub caps: Arc<Caps>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            workers: 1,
            limits: Limits::default(),
            tls: None,
            drain: Duration::from_secs(5),
            settings: UpstreamSettings::default(),
            listener: None,
            on_incident: OnIncident::default(),
            caps: Caps::new(1_000, 0),
        }
    }
}

impl Setup {
    pub fn in_front_of(self, address: SocketAddr) -> Gateway {
        let upstream = Upstream::new(address.to_string(), Arc::new(self.settings.clone()));
        self.serving(move || {
            let upstream = upstream.clone();
            move |request: Request<InBody>, _from: Rc<ConnInfo>| {
                let sent = upstream.clone().call(request);
                async move { sent.await.map_or_else(refuse, |answer| answer.map(OutBody::from)) }
            }
        })
    }

    /// Answers every request at once, and reads nothing of it.
    pub fn answering(self, answer: fn() -> Response<OutBody>) -> Gateway {
        self.serving(move || {
            move |_request: Request<InBody>, _from: Rc<ConnInfo>| std::future::ready(answer())
        })
    }

    /// Answers every request with the two ends of its connection.
    pub fn telling(self) -> Gateway {
        self.serving(|| {
            |_request: Request<InBody>, from: Rc<ConnInfo>| {
                let ends = format!("{} {}", from.peer, from.local);
                std::future::ready(Response::new(OutBody::from(Bytes::from(ends))))
            }
        })
    }

    fn serving<H: Handler>(self, handler: impl Fn() -> H + Send + Sync + 'static) -> Gateway {
        let workers = NonZeroUsize::new(self.workers).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = self.listener.unwrap_or_else(|| Listener::bind(any, workers).unwrap());
        let address = listener.address();
        let limits = LiveLimits::from(Limits { drain: self.drain, ..self.limits });
        let plan = Plan {
            workers,
            endpoints: vec![Endpoint { listener, tls: self.tls }],
            limits: limits.clone(),
            caps: self.caps,
            on_incident: self.on_incident,
        };
        let server = server::serve(plan, move |_worker| handler()).unwrap();
        Gateway { address, server, limits }
    }
}

fn refuse(error: CallError) -> Response<OutBody> {
    let status = match (Refusal::of(&error), body_error(&error)) {
        (Some(refusal), _) if !matches!(error.code(), Code::UpstreamMalformed) => refusal.status(),
        (_, Some(BodyError::TooSlow)) => Code::BodyTimeout.http(),
        _ => error.code().http(),
    };
    let mut response = Response::new(OutBody::from(Bytes::from(format!("{error:?}"))));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// What was wrong with the caller's body, if that is why the call failed.
fn body_error(error: &CallError) -> Option<&BodyError> {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| error.source()).find_map(|e| e.downcast_ref())
}

/// Sends `request` on a fresh connection and reads until it closes.
pub async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    drop(tcp.write_all(request.as_bytes()).await); // It may be refused before its end.
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// Clients that ask again and again, each on a connection it opens anew when told to close.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    pub fn on(address: SocketAddr, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let clients = (0..clients).map(|_| {
            let client = ask(address, Arc::clone(&stop), Arc::clone(&answered));
            tokio::task::spawn_local(client)
        });
        let clients = clients.collect();
        Self { stop, answered, clients }
    }

    /// Waits until so many more requests are answered.
    pub async fn answered(&self, more: usize) {
        let until = self.answered.load(Ordering::Relaxed) + more;
        while self.answered.load(Ordering::Relaxed) < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops; fails if any request was lost.
    pub async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
    }
}

async fn ask(address: SocketAddr, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut tcp) = TcpStream::connect(address).await else { return };
        loop {
            tcp.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            let answer = head(&mut tcp).await.expect("a request was lost");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            let mut body = [0; 2];
            tcp.read_exact(&mut body).await.unwrap();
            answered.fetch_add(1, Ordering::Relaxed);
            if answer.contains("connection: close") || stop.load(Ordering::Relaxed) {
                break;
            }
        }
    }
}

/// A bare HTTP/2 frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}
