//! One HTTP/2 connection to one member.
//!
//! The connection is our own rather than the one of `tonic`: that one dials again by itself, and
//! never says whether a request had left before it was lost. Here a request that was not sent is
//! told apart from one that may have been, and a connection that ends is simply over.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::HeaderValue;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::Streaming;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::options::{Credentials, Endpoint};
use crate::refusal::Refusal;
use crate::rpc::Rpc;
use crate::stub::{AuthenticateRequest, StatusRequest, StatusResponse};
use crate::version::Version;

/// A connection that has answered at least once.
#[derive(Debug)]
pub(crate) struct Connection {
    wire: Wire,
    origin: http::Uri,
    pub(crate) version: Version,
}

/// What connections are made with.
pub(crate) struct Dialler {
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) tasks: TaskTracker,
    pub(crate) closing: CancellationToken,
}

impl Dialler {
    /// Connects to a member, signs in, and asks how it is: a process that hangs takes connections
    /// and never answers. Returns its answer too.
    ///
    /// # Errors
    ///
    /// What was in the way, in words.
    pub(crate) async fn dial(
        &self,
        endpoint: &Endpoint,
    ) -> Result<(Connection, StatusResponse), String> {
        let dialled = tokio::time::timeout(DIAL_TIMEOUT, self.try_dial(endpoint)).await;
        let address = &endpoint.address;
        let no_answer = |_elapsed| format!("no answer within {} s", DIAL_TIMEOUT.as_secs());
        dialled.map_err(no_answer).flatten().map_err(|why| format!("{address}: {why}"))
    }

    async fn try_dial(&self, endpoint: &Endpoint) -> Result<(Connection, StatusResponse), String> {
        let tcp = TcpStream::connect(&endpoint.address).await.map_err(|why| why.to_string())?;
        tcp.set_nodelay(true).map_err(|why| why.to_string())?;
        let sender = match (&endpoint.server, &self.tls) {
            (None, _) => self.handshake(tcp).await?,
            (Some(_), None) => return Err("https, but no authority to trust is set".to_owned()),
            (Some(server), Some(tls)) => {
                let connector = TlsConnector::from(Arc::clone(tls));
                let stream = connector.connect(server.clone(), tcp).await;
                self.handshake(stream.map_err(|why| why.to_string())?).await?
            }
        };
        let mut connection = Connection {
            wire: Wire { sender, token: None, leader: false },
            origin: endpoint.origin.clone(),
            version: Version::parse("0.0.0").ok_or("no version")?,
        };
        if let Some(credentials) = &self.credentials {
            connection.wire.token = connection.sign_in(credentials).await?;
        }
        let status = connection.unary(StatusRequest {}, false).await;
        let status = status.map_err(|why| why.message().to_owned())?;
        connection.version = Version::parse(&status.version)
            .filter(|version| version.is_usable())
            .ok_or_else(|| format!("etcd {} is too old, or none", status.version))?;
        Ok((connection, status))
    }

    async fn handshake<T>(&self, stream: T) -> Result<SendRequest<Body>, String>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        // A hung member fails its streams after 15 s at most (etcd#8980). Without streams nothing
        // is asked: etcd takes pings on an idle connection for an attack.
        let connected = http2::Builder::new(Counted(self.tasks.clone()))
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) = connected.map_err(|why| why.to_string())?;
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            // How it ended is told to each of its streams.
            tokio::select! {
                _ended = connection => (),
                () = closing.cancelled() => (),
            }
        });
        Ok(sender)
    }
}

impl Connection {
    pub(crate) fn is_closed(&self) -> bool {
        self.wire.sender.is_closed()
    }

    async fn sign_in(&self, credentials: &Credentials) -> Result<Option<HeaderValue>, String> {
        let Credentials { user, password } = credentials.clone();
        match self.unary(AuthenticateRequest { name: user, password }, false).await {
            Ok(answer) => {
                let token = HeaderValue::from_str(&answer.token);
                let mut token = token.map_err(|why| why.to_string())?;
                token.set_sensitive(true);
                Ok(Some(token))
            }
            Err(status) => match Refusal::of(&status) {
                // An etcd that asks nobody who they are is served as it is.
                Refusal::Never(why) if why.contains("authentication is not enabled") => Ok(None),
                _ => Err(status.message().to_owned()),
            },
        }
    }

    /// Asks once. With `leader` a member that knows of none refuses at once, and does nothing.
    pub(crate) async fn unary<Q: Rpc>(
        &self,
        request: Q,
        leader: bool,
    ) -> Result<Q::Answer, Status> {
        let (mut grpc, path) = self.grpc::<Q>(leader);
        let answer = grpc.unary(Request::new(request), path, ProstCodec::default()).await?;
        Ok(answer.into_inner())
    }

    /// Opens a stream that begins with `first` and stays open as long as what is returned.
    pub(crate) async fn stream<Q: Rpc>(
        &self,
        first: Q,
    ) -> Result<(Asking<Q>, Streaming<Q::Answer>), Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(ASKED_MAX);
        let asking = Asking(sender);
        asking.ask(first);
        let requests = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|request| (request, receiver))
        });
        let (mut grpc, path) = self.grpc::<Q>(true);
        let answers = grpc.streaming(Request::new(requests), path, ProstCodec::default()).await?;
        Ok((asking, answers.into_inner()))
    }

    fn grpc<Q: Rpc>(&self, leader: bool) -> (Grpc<Wire>, PathAndQuery) {
        let wire = Wire { leader, ..self.wire.clone() };
        let grpc = Grpc::with_origin(wire, self.origin.clone());
        let grpc = grpc.max_decoding_message_size(Q::ANSWER_BYTES_MAX);
        (grpc, PathAndQuery::from_static(Q::PATH))
    }
}

/// The asking side of a stream; dropping it ends the stream.
#[derive(Debug)]
pub(crate) struct Asking<Q>(tokio::sync::mpsc::Sender<Q>);

impl<Q> Asking<Q> {
    /// Asks, unless so much is asked already that this can wait.
    pub(crate) fn ask(&self, request: Q) {
        drop(self.0.try_send(request));
    }
}

/// The connection as `tonic` uses it.
#[derive(Clone, Debug)]
struct Wire {
    sender: SendRequest<Body>,
    token: Option<HeaderValue>,
    leader: bool,
}

impl tower_service::Service<http::Request<Body>> for Wire {
    type Response = http::Response<Incoming>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if let Some(token) = &self.token {
            request.headers_mut().insert("token", token.clone());
        }
        if self.leader {
            request.headers_mut().insert("hasleader", HeaderValue::from_static("true"));
        }
        let sending = self.sender.try_send_request(request);
        Box::pin(async move {
            sending.await.map_err(|mut failed| {
                let was_sent = failed.take_message().is_none();
                let why = chain(failed.error());
                if was_sent { Refusal::lost(&why) } else { Refusal::not_sent(&why) }
            })
        })
    }
}

/// The error and every cause: `a: b: c`.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Runs hyper's tasks where they are counted.
#[derive(Clone)]
struct Counted(TaskTracker);

impl<F> hyper::rt::Executor<F> for Counted
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// Connecting, signing in (etcd takes about 0.1 s over a password) and one answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

const PING_EVERY: Duration = Duration::from_secs(10);

const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// One full answer of a watch that catches up.
const STREAM_WINDOW: u32 = 2_097_152;

/// Four such streams.
const CONNECTION_WINDOW: u32 = 8_388_608;

/// Requests queued on a stream: the first, and questions that may be left out.
const ASKED_MAX: usize = 4;
