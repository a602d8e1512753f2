//! Peers that do exactly what a test says, and a gateway between them.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use mainstay_call::CallError;
use mainstay_proxy::body::{InBody, OutBody};
use mainstay_proxy::listener::{Caps, Listener};
use mainstay_proxy::server::{self, ConnInfo, Endpoint, Limits, OnMalformed, Plan, Server};
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
}

pub struct Setup {
    pub workers: usize,
    pub limits: Limits,
    pub tls: Option<ServerTls>,
    pub drain: Duration,
    pub settings: UpstreamSettings,
    pub listener: Option<Listener>,
    pub on_malformed: OnMalformed,
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
            on_malformed: OnMalformed::default(),
        }
    }
}

impl Setup {
    pub fn in_front_of(self, address: SocketAddr) -> Gateway {
        let workers = NonZeroUsize::new(self.workers).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = self.listener.unwrap_or_else(|| Listener::bind(any, workers).unwrap());
        let bound = listener.address();
        let upstream = Upstream::new(address.to_string(), Arc::new(self.settings));
        let plan = Plan {
            workers,
            endpoints: vec![Endpoint { listener, tls: self.tls }],
            limits: self.limits,
            caps: Caps::new(1_000, 0),
            drain: self.drain,
            on_malformed: self.on_malformed,
        };
        let server = server::serve(plan, move |_worker| {
            let upstream = upstream.clone();
            move |request: Request<InBody>, _from: Rc<ConnInfo>| {
                let sent = upstream.clone().call(request);
                async move { sent.await.map_or_else(refuse, |answer| answer.map(OutBody::from)) }
            }
        });
        Gateway { address: bound, server: server.unwrap() }
    }
}

fn refuse(error: CallError) -> Response<OutBody> {
    let mut response = Response::new(OutBody::from(Bytes::from(format!("{error:?}"))));
    *response.status_mut() = StatusCode::from_u16(error.code().http()).unwrap();
    response
}
