//! A control plane that can be told how to fail. It grants whatever is asked for.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mainstay_api::lock::{Granted, Released, SECRET_HEADER, SessionOpened, SessionRenewed};
use mainstay_api::registry::{Registered, STORE_HEADER, Written};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The token every session is opened with.
const SECRET: &str = "s3cret";

/// How it answers calls of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Well.
    #[default]
    Good,
    /// Never.
    Hangs,
    /// With this problem.
    Refuses(u16, &'static str),
}

/// What it does, and what it has seen.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    pub(crate) open: Mood,
    pub(crate) renew: Mood,
    pub(crate) acquire: Mood,
    pub(crate) give_back: Mood,
    pub(crate) stream: Mood,
    pub(crate) register: Mood,
    pub(crate) beat: Mood,
    /// What is in force in every group.
    pub(crate) release: Value,
    /// Which history its streams of services are of.
    pub(crate) store: &'static str,
    /// The last revisions that streams were asked to go on from.
    pub(crate) resumed: Vec<String>,
    /// Method, path and document of each call.
    pub(crate) seen: Vec<(String, Value)>,
}

/// A running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) sheet: Arc<Mutex<Sheet>>,
    /// Sent to every stream, from the beginning.
    events: watch::Sender<Vec<String>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sheet = Arc::<Mutex<Sheet>>::default();
        let events = watch::Sender::default();
        let (shared, told) = (Arc::clone(&sheet), events.clone());
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                let (shared, told) = (Arc::clone(&shared), told.clone());
                let answer = service_fn(move |request| {
                    let (shared, told) = (Arc::clone(&shared), told.subscribe());
                    async move { Ok::<_, Infallible>(answer(request, &shared, told).await) }
                });
                let serve = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(connection), answer);
                tokio::spawn(serve);
            }
        });
        Self { address, sheet, events }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Tells it to every stream.
    pub(crate) fn tell(&self, event: &str, data: &impl Serialize) {
        let data = serde_json::to_string(data).unwrap();
        self.events.send_modify(|events| events.push(format!("event: {event}\ndata: {data}\n\n")));
    }

    /// Forgets what it told, and ends its streams.
    pub(crate) fn forget(&self) {
        self.events.send_replace(Vec::new());
    }

    /// Calls that were made, from those that begin so.
    pub(crate) fn calls(&self, beginning: &str) -> Vec<String> {
        let sheet = self.sheet.lock();
        let calls = sheet.seen.iter().map(|(call, _)| call);
        calls.filter(|call| call.starts_with(beginning)).cloned().collect()
    }

    /// Documents of the calls that were made so.
    pub(crate) fn seen(&self, call: &str) -> Vec<Value> {
        let sheet = self.sheet.lock();
        let seen = sheet.seen.iter().filter(|(made, _)| made == call);
        seen.map(|(_, document)| document.clone()).collect()
    }
}

type Body = BoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    sheet: &Mutex<Sheet>,
    told: watch::Receiver<Vec<String>>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    assert_eq!(head.headers["authorization"], "Bearer t0ken");
    let path = head.uri.path().strip_prefix("/api/v1").unwrap().to_owned();
    let opens = head.method == Method::POST && path == "/sessions";
    let is_open = opens
        || path.starts_with("/registry")
        || path.starts_with("/config")
        || path.starts_with("/rules");
    assert!(is_open || head.headers[SECRET_HEADER] == SECRET, "{path}");
    let document = body.collect().await.unwrap().to_bytes();
    let document = serde_json::from_slice(&document).unwrap_or(Value::Null);
    let last = path.rsplit('/').next().unwrap();
    let mood = noted(&head, &path, document, &mut sheet.lock());
    match mood {
        Mood::Hangs => return std::future::pending().await,
        Mood::Refuses(status, code) => {
            let problem = json!({"type": "", "code": code, "detail": "as told", "queued": 2});
            return respond(status, &problem);
        }
        Mood::Good => {}
    }
    let session = || "7".to_owned();
    match (head.method.as_str(), last) {
        ("POST", "sessions") => respond(
            201,
            &SessionOpened {
                session: session(),
                secret: SECRET.to_owned(),
                ttl_seconds: ttl(sheet),
            },
        ),
        ("PUT", "renew") => respond(200, &SessionRenewed { ttl_seconds: ttl(sheet) }),
        ("POST", "acquire") => {
            respond(200, &Granted { token: 41, revision: 41, valid_seconds: 1.0, count: 1 })
        }
        ("POST", "release") => respond(200, &Released { count: 0 }),
        ("DELETE", "7") | ("POST", "heartbeat" | "reports") => respond(204, &Value::Null),
        ("GET", "stream") => Response::new(events(told)),
        ("GET", _) if path.starts_with("/config") => respond(200, &sheet.lock().release),
        ("GET" | "POST", "watch") => {
            let store = sheet.lock().store;
            Response::builder().header(STORE_HEADER, store).body(events(told)).unwrap()
        }
        ("POST", "drain") => respond(200, &Written { revision: 5 }),
        ("DELETE", _) if path.starts_with("/registry") => respond(200, &Written { revision: 6 }),
        ("PUT", _) => respond(
            201,
            &Registered {
                revision: 4,
                registration: "r".to_owned(),
                ttl_seconds: 5,
                beat_every_seconds: 1,
            },
        ),
        other => panic!("{other:?}"),
    }
}

/// Notes a call; how it is answered.
fn noted(head: &http::request::Parts, path: &str, document: Value, sheet: &mut Sheet) -> Mood {
    let last = path.rsplit('/').next().unwrap();
    let query = head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    sheet.seen.push((format!("{} {path}{query}", head.method), document));
    let resumed = head.headers.get("last-event-id").and_then(|last| last.to_str().ok());
    sheet.resumed.extend(resumed.map(str::to_owned));
    match last {
        "watch" => sheet.stream,
        "heartbeat" => sheet.beat,
        _ if head.method == Method::PUT && path.starts_with("/registry") => sheet.register,
        "sessions" => sheet.open,
        "renew" => sheet.renew,
        "acquire" => sheet.acquire,
        "release" => sheet.give_back,
        "stream" => sheet.stream,
        _ => Mood::Good,
    }
}

/// What the session was opened with.
fn ttl(sheet: &Mutex<Sheet>) -> f64 {
    let sheet = sheet.lock();
    let opened = sheet.seen.iter().find(|(call, _)| call == "POST /sessions");
    opened.map_or(6.0, |(_, document)| document["ttl_seconds"].as_f64().unwrap())
}

/// Everything that was told, and whatever will be.
fn events(told: watch::Receiver<Vec<String>>) -> Body {
    let events = stream::unfold((told, 0), |(mut told, at)| async move {
        let news = told.wait_for(|events| at < events.len() || events.len() < at).await.ok()?;
        let event = news.get(at)?.clone();
        drop(news);
        Some((Ok(Frame::data(Bytes::from(event))), (told, at + 1)))
    });
    BoxBody::new(StreamBody::new(events))
}

fn respond(status: u16, document: &impl Serialize) -> Response<Body> {
    let body = if status == 204 { Vec::new() } else { serde_json::to_vec(document).unwrap() };
    let body = Full::from(body).boxed();
    Response::builder().status(status).body(body).unwrap()
}
