//! Sends checks: HTTP, TCP and gRPC.
//!
//! A name is looked up once, the address found is judged, and that address is connected to. No
//! task is started: a connection is driven by whoever waits for its answer, and ends with it.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::check::{CheckKind, HttpCheck};
use super::probe::{
    OUTPUT_BYTES_MAX, Outcome, REDIRECTS_MAX, grpc_outcome, grpc_request, http_outcome, redirect,
};
use super::rounds::Probe;
use super::targets::Addresses;
use crate::health::Health;

/// Sends `probe` and waits for what comes of it, for as long as the check allows.
///
/// An instance registered under an IP address may always be reached there; where a name, a redirect
/// or a check with a host of its own leads is judged by `addresses`.
///
/// # Cancel safety
///
/// Safe: the connection is closed.
pub async fn send(probe: &Probe, addresses: &Addresses) -> Outcome {
    if probe.port == 0 {
        return Outcome::failed("the instance has no such port");
    }
    let limit = probe.check.timeout;
    match timeout(limit, attempt(probe, addresses)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(failure)) => Outcome::failed(failure),
        Err(_elapsed) => Outcome::failed(too_slow(limit)),
    }
}

fn too_slow(limit: Duration) -> String {
    format!("no answer within {} s", limit.as_secs_f64())
}

/// What was in the way, for people.
type Failure = String;

async fn attempt(probe: &Probe, addresses: &Addresses) -> Result<Outcome, Failure> {
    let is_own = probe.check.host.is_none();
    match &probe.check.kind {
        CheckKind::Http(check) => http(probe, check, addresses).await,
        CheckKind::Tcp => {
            connect(&probe.host, probe.port, is_own, addresses).await?;
            Ok(Outcome::new(Health::Passing, "connected"))
        }
        CheckKind::Grpc { service } => {
            let stream = connect(&probe.host, probe.port, is_own, addresses).await?;
            let stream = secure(stream, probe, (&probe.host, true), "h2").await?;
            grpc(stream, &probe.host, probe.port, service).await
        }
        CheckKind::Ttl { .. } => Err("a ttl check is not sent".to_owned()),
    }
}

/// Connects to the first address of `host` that may be reached and answers. `is_own` is the
/// instance's own address, where it needs no further permission if it is no name.
async fn connect(
    host: &str,
    port: u16,
    is_own: bool,
    addresses: &Addresses,
) -> Result<TcpStream, Failure> {
    if is_own && let Ok(ip) = host.parse::<IpAddr>() {
        return connect_to(SocketAddr::new(ip, port)).await.map_err(|error| error.to_string());
    }
    let found = lookup_host((host, port)).await.map_err(|error| format!("look-up: {error}"))?;
    let mut why = "the name has no address".to_owned();
    for address in found {
        if let Err(refused) = addresses.check_ip(address.ip()) {
            why = format!("egress-refused: {refused}");
            continue;
        }
        match connect_to(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

/// In the clear, or over TLS.
type Wire = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// What `probe` is sent through once `host` is reached; `is_target` where the check is meant for it.
async fn secure(
    stream: TcpStream,
    probe: &Probe,
    (host, is_target): (&str, bool),
    protocol: &str,
) -> Result<Wire, Failure> {
    match &probe.check.tls {
        None => Ok(Either::Left(stream)),
        Some(tls) => tls.secure(stream, (host, is_target), protocol).await.map(Either::Right),
    }
}

async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn http(probe: &Probe, check: &HttpCheck, addresses: &Addresses) -> Result<Outcome, Failure> {
    let (mut host, mut port) = (probe.host.to_string(), probe.port);
    let mut path = check.path.clone();
    let over_tls = probe.check.tls.is_some();
    for _hop in 0..=REDIRECTS_MAX {
        let is_target = *host == *probe.host && port == probe.port;
        let is_own = is_target && probe.check.host.is_none();
        let stream = connect(&host, port, is_own, addresses).await?;
        let stream = secure(stream, probe, (&host, is_target), "http/1.1").await?;
        // What the check says is for its target; wherever else it is sent gets a bare request.
        let said = is_target.then_some(check);
        let target = (&*host, port, &*path);
        let (status, location, body) = exchange(stream, target, &check.method, said).await?;
        let Some(location) = location.filter(|_| status.is_redirection()) else {
            return Ok(http_outcome(status, &body));
        };
        let Some(next) = redirect((&host, port, &path), &location, over_tls) else {
            return Err(format!("HTTP {}: a redirect that is not followed", status.as_u16()));
        };
        (host, port, path) = next;
    }
    Err(format!("more than {REDIRECTS_MAX} redirects"))
}

type Reply = (StatusCode, Option<String>, Vec<u8>);

/// One request and its answer, up to as much of the body as is kept.
async fn exchange(
    stream: Wire,
    (host, port, path): (&str, u16, &str),
    method: &Method,
    said: Option<&HttpCheck>,
) -> Result<Reply, Failure> {
    let body = said.map(|check| Bytes::from(check.body.clone())).unwrap_or_default();
    let mut request = Request::builder()
        .method(method.clone())
        .uri(path)
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    *headers = said.map(|check| check.headers.clone()).unwrap_or_default();
    if !headers.contains_key(header::HOST) {
        let value = HeaderValue::try_from(authority(host, port));
        headers.insert(header::HOST, value.map_err(|error| error.to_string())?);
    }
    headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static("mainstay-check"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| error.to_string())?;
    let mut connection = pin!(connection);
    let reply = pin!(async move {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let location = answer.headers().get(header::LOCATION);
        let location = location.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let status = answer.status();
        let body = first_bytes(answer.into_body()).await;
        Ok((status, location, body))
    });
    drive(reply, poll_fn(|context| connection.as_mut().poll(context))).await
}

/// Waits for `reply` while `connection` does the work. The connection may end first: the answer
/// is then already on its way to `reply`.
async fn drive<T, E>(
    mut reply: Pin<&mut impl Future<Output = Result<T, Failure>>>,
    connection: impl Future<Output = Result<(), E>>,
) -> Result<T, Failure> {
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        reply = &mut reply => return reply,
        _ended = &mut connection => {}
    }
    reply.await
}

/// The first 4 KiB of a body. One that breaks off gives what came.
async fn first_bytes(mut body: Incoming) -> Vec<u8> {
    let mut kept = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            let room = OUTPUT_BYTES_MAX - kept.len();
            kept.extend(data.iter().take(room));
        }
        if kept.len() == OUTPUT_BYTES_MAX {
            break;
        }
    }
    kept
}

/// Asks `grpc.health.v1.Health/Check` on an HTTP/2 connection.
async fn grpc(stream: Wire, host: &str, port: u16, service: &str) -> Result<Outcome, Failure> {
    let scheme = if matches!(stream, Either::Left(_)) { "http" } else { "https" };
    let handshake = h2::client::handshake(stream).await;
    let (sender, connection) = handshake.map_err(|error| error.to_string())?;
    let uri = format!("{scheme}://{}/grpc.health.v1.Health/Check", authority(host, port));
    let request = Request::post(uri)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(())
        .map_err(|error| error.to_string())?;
    let message = Bytes::from(grpc_request(service));
    let reply = pin!(async move {
        let mut sender = sender.ready().await.map_err(|error| error.to_string())?;
        let (answer, mut body) =
            sender.send_request(request, false).map_err(|error| error.to_string())?;
        body.send_data(message, true).map_err(|error| error.to_string())?;
        let answer = answer.await.map_err(|error| error.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("HTTP {} instead of gRPC", answer.status().as_u16()));
        }
        let early = grpc_status(answer.headers());
        let mut body = answer.into_body();
        let mut frame = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.map_err(|error| error.to_string())?;
            frame.extend(data.iter().take(OUTPUT_BYTES_MAX - frame.len()));
            let given_back = body.flow_control().release_capacity(data.len());
            given_back.map_err(|error| error.to_string())?;
        }
        let trailers = body.trailers().await.map_err(|error| error.to_string())?;
        let status = trailers.as_ref().and_then(grpc_status).or(early);
        Ok(grpc_outcome(status, &frame))
    });
    drive(reply, connection).await
}

fn grpc_status(headers: &http::HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
