//! Order: puts an offer together from `price` and `stock`, both asked through the gateway.
//!
//! ```text
//! GET  /orders/{sku}   {"sku", "price", "stock", "served_by"}
//! GET  /healthz        200
//! POST /fault?kind=errors|latency|hang|reset|none&percent=100&seconds=20&delay=1.0
//!                      misbehaves on demand; ends by itself
//! ```
//!
//! It has no retry, no timeout and no circuit of its own: the gateway in between has them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What goes wrong at the moment, and until when.
#[derive(Clone, Debug)]
struct Fault {
    kind: String,
    percent: f64,
    delay: Duration,
    until: Instant,
}

#[derive(Debug)]
struct Order {
    name: String,
    gateway: String,
    client: Client<HttpConnector, Full<Bytes>>,
    fault: Mutex<Option<Fault>>,
    /// Spreads a percentage over requests without a random number: every n-th is hit.
    asked: std::sync::atomic::AtomicU64,
}

/// What to do with a connection after looking at a request.
enum Reply {
    Answer(Response<Full<Bytes>>),
    Reset,
}

impl Order {
    async fn handle(&self, request: Request<Incoming>) -> Reply {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET, "/healthz") => answer(StatusCode::OK, &json!({ "ok": true })),
            (&Method::POST, "/fault") => self.set_fault(&query),
            (&Method::GET, path) if path.starts_with("/orders/") => {
                let sku = path.trim_start_matches("/orders/").to_owned();
                self.order(&sku, request.headers().get("traceparent")).await
            }
            _ => answer(StatusCode::NOT_FOUND, &json!({ "error": "no such page" })),
        }
    }

    async fn order(&self, sku: &str, trace: Option<&HeaderValue>) -> Reply {
        if let Some(fault) = self.strikes() {
            match fault.kind.as_str() {
                "latency" => tokio::time::sleep(fault.delay).await,
                "hang" => tokio::time::sleep_until(fault.until).await,
                "reset" => return Reply::Reset,
                "errors" => {
                    let error = json!({ "error": "order is out of order", "served_by": self.name });
                    return answer(StatusCode::SERVICE_UNAVAILABLE, &error);
                }
                _ => (),
            }
        }
        let (price, stock) =
            tokio::join!(self.ask("price", sku, trace), self.ask("stock", sku, trace));
        let offer = json!({ "sku": sku, "price": price, "stock": stock, "served_by": self.name });
        answer(StatusCode::OK, &offer)
    }

    /// What another service says of an article; null when it cannot say.
    async fn ask(&self, service: &str, sku: &str, trace: Option<&HeaderValue>) -> Value {
        let mut request = Request::get(format!("{}/{service}/{sku}", self.gateway));
        if let Some(trace) = trace {
            request = request.header("traceparent", trace);
        }
        let Ok(request) = request.body(Full::new(Bytes::new())) else { return Value::Null };
        let Ok(response) = self.client.request(request).await else { return Value::Null };
        let Ok(body) = response.into_body().collect().await else { return Value::Null };
        serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null)
    }

    fn set_fault(&self, query: &str) -> Reply {
        let of = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        };
        let number = |name: &str, default: f64| of(name).map_or(Ok(default), str::parse::<f64>);
        let (Ok(percent), Ok(seconds), Ok(delay)) =
            (number("percent", 100.0), number("seconds", 20.0), number("delay", 1.0))
        else {
            let error = json!({ "error": "percent, seconds and delay are numbers" });
            return answer(StatusCode::BAD_REQUEST, &error);
        };
        let span = |seconds: f64| Duration::from_secs_f64(seconds.clamp(0.0, 600.0));
        let kind = of("kind").unwrap_or("none").to_owned();
        let said = json!({ "fault": kind, "percent": percent });
        let fault = Fault { kind, percent, delay: span(delay), until: now() + span(seconds) };
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
        answer(StatusCode::OK, &said)
    }

    /// The fault that hits this request, if any.
    fn strikes(&self) -> Option<Fault> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let count = self.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "below a hundred")]
        let hit = ((count * 37) % 100) as f64 <= fault.percent - 1.0;
        (hit && now() < fault.until).then_some(fault)
    }
}

#[expect(clippy::disallowed_methods, reason = "an example has no clock to inject")]
fn now() -> Instant {
    Instant::now()
}

fn answer(status: StatusCode, document: &Value) -> Reply {
    let mut response = Response::new(Full::from(format!("{document}\n")));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Reply::Answer(response)
}

async fn serve(order: Arc<Order>, stream: TcpStream) {
    // A reset is a close that throws away what is unsent: linger 0.
    let reset = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let wanted = Arc::clone(&reset);
    let std = stream.into_std().and_then(|s| s.try_clone().map(|copy| (s, copy)));
    let Ok((stream, copy)) = std else { return };
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let service = service_fn(move |request| {
        let (order, wanted) = (Arc::clone(&order), Arc::clone(&wanted));
        async move {
            match order.handle(request).await {
                Reply::Answer(response) => Ok::<_, ResetConnection>(response),
                Reply::Reset => {
                    wanted.store(true, std::sync::atomic::Ordering::Relaxed);
                    Err(ResetConnection)
                }
            }
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    let ended = connection.await;
    if ended.is_err() && reset.load(std::sync::atomic::Ordering::Relaxed) {
        drop(TcpStream::from_std(copy).and_then(|s| s.set_zero_linger()));
    }
}

/// Ends a connection without an answer.
#[derive(Debug)]
struct ResetConnection;

impl std::fmt::Display for ResetConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("reset on demand")
    }
}

impl std::error::Error for ResetConnection {}

async fn run(port: u16, gateway: String) -> Result<Infallible, std::io::Error> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await?;
    let name = format!("order:{}", listener.local_addr()?.port());
    announce(&name);
    let client = Client::builder(TokioExecutor::new()).build_http();
    let order = Order {
        name,
        gateway,
        client,
        fault: Mutex::default(),
        asked: std::sync::atomic::AtomicU64::default(),
    };
    let order = Arc::new(order);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _peer) = listener.accept().await?;
        drop(stream.set_nodelay(true));
        connections.spawn(serve(Arc::clone(&order), stream));
        while connections.try_join_next().is_some() {}
    }
}

#[expect(clippy::print_stdout, reason = "the script that starts it waits for this line")]
fn announce(name: &str) {
    println!("{name} ready");
}

#[expect(clippy::print_stderr, reason = "a command line program says what is wrong")]
fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut port, mut gateway) = (None, None);
    while let (Some(flag), Some(value)) = (arguments.next(), arguments.next()) {
        match flag.as_str() {
            "--port" => port = value.parse().ok(),
            "--gateway" => gateway = Some(value),
            _ => (),
        }
    }
    let (Some(port), Some(gateway)) = (port, gateway) else {
        eprintln!("usage: example-order --port PORT --gateway http://127.0.0.1:7480");
        return ExitCode::from(2);
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("order cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let Err(error) = runtime.block_on(run(port, gateway));
    eprintln!("order cannot listen on port {port}: {error}");
    ExitCode::FAILURE
}
