//! The streams of the API, and what goes with them, over gRPC: the package `mainstay.v1`, whose
//! contract is `crates/mainstay-api/proto/mainstay/v1/*.proto`.
//!
//! It is answered on the control port, behind the same guard as everything else there. A refusal
//! has the status that the code of its problem stands for; metadata name the code and hold the
//! whole document.
//!
//! | service | module |
//! |---|---|
//! | services and instances; instances kept by a stream | [`registry`], [`keeping`] |
//! | configuration | [`config`] |
//! | rules, switches | [`rules`] |
//! | sessions, locks, elections | [`lock`] |
//! | whether this process serves (`grpc.health.v1`) | [`health`] |

mod config;
mod health;
mod keeping;
mod lock;
mod registry;
mod rules;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::stream::{BoxStream, Stream, StreamExt as _};
use mainstay_api::grpc::FILE_DESCRIPTOR_SET;
use mainstay_api::grpc::config_server::ConfigServer;
use mainstay_api::grpc::lock_server::LockServer;
use mainstay_api::grpc::registry_server::RegistryServer;
use mainstay_api::grpc::rules_server::RulesServer;
use mainstay_api::grpc::switches_server::SwitchesServer;
use mainstay_core::problem::Code;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{AsciiMetadataValue, MetadataMap, MetadataValue};
use tonic::{Code as Kind, Status};

use super::answer::Refused;
use super::items::Item;
use super::streams::{is_of, retry_after, until_stopped};
use crate::cluster::Cluster;
use crate::role::Shared;

/// The calls.
pub(super) fn calls(shared: &Arc<Shared>, stop: &CancellationToken) -> Router<Arc<Shared>> {
    let mut router = Router::new().route_service(
        "/grpc.health.v1.Health/{call}",
        health::server(Arc::clone(shared), stop.clone()),
    );
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Tools ask for either of its names.
    match (reflection().build_v1(), reflection().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => {
            router = router
                .route_service("/grpc.reflection.v1.ServerReflection/{call}", v1)
                .route_service("/grpc.reflection.v1alpha.ServerReflection/{call}", v1alpha);
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "the contract over gRPC cannot be asked for");
        }
    }
    let Some(cluster) = &shared.cluster else { return router };
    let agreed =
        Agreed { cluster: Arc::clone(cluster), shared: Arc::clone(shared), stop: stop.clone() };
    router
        .route_service("/mainstay.v1.Registry/{call}", RegistryServer::new(agreed.clone()))
        .route_service("/mainstay.v1.Config/{call}", ConfigServer::new(agreed.clone()))
        .route_service("/mainstay.v1.Rules/{call}", RulesServer::new(agreed.clone()))
        .route_service("/mainstay.v1.Switches/{call}", SwitchesServer::new(agreed.clone()))
        .route_service("/mainstay.v1.Lock/{call}", LockServer::new(agreed))
}

/// What the services are about.
#[derive(Clone)]
struct Agreed {
    cluster: Arc<Cluster>,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

/// What is streamed.
type Messages<M> = BoxStream<'static, Result<M, Status>>;

impl Agreed {
    /// The messages of `items`; when the process stops, readers are told when to come back.
    fn told<T, B, M>(
        &self,
        items: impl Stream<Item = Item<T, B>> + Send + 'static,
        message: impl Fn(Item<T, B>) -> Result<M, Status> + Send + 'static,
    ) -> Messages<M>
    where
        M: Send + 'static,
    {
        self.until_the_end(items.map(message))
    }

    fn until_the_end<M: Send + 'static>(
        &self,
        messages: impl Stream<Item = Result<M, Status>> + Send + 'static,
    ) -> Messages<M> {
        until_stopped(messages, self.stop.clone(), || Err(leaving())).boxed()
    }
}

/// The process is about to end.
fn leaving() -> Status {
    let detail = "the process is about to end; another node answers, or this one soon";
    Refused::new(Code::GatewayDraining, detail).retry_after(retry_after()).into()
}

/// The problem that ends a stream.
fn ended(code: Code, detail: String) -> Status {
    Refused::new(code, detail).into()
}

/// The namespace that is meant.
fn namespace(given: String) -> String {
    if given.is_empty() { "default".to_owned() } else { given }
}

/// Whether `path` is that of a call over gRPC.
pub(super) fn is_its(path: &str) -> bool {
    ["/mainstay.v1.", "/grpc."].iter().any(|package| path.starts_with(package))
}

/// Whether what `path` is answered with goes on: a stream from here.
pub(super) fn is_kept(path: &str) -> bool {
    let call = path.rsplit('/').next().unwrap_or_default();
    matches!(call, "Watch" | "Session" | "Observe" | "ServerReflectionInfo")
}

/// Whether `path` is asked by probes.
pub(super) fn is_health(path: &str) -> bool {
    path.starts_with("/grpc.health.v1.Health/")
}

/// What messages of gRPC are.
pub(super) const KIND: &str = "application/grpc";

/// Turns a refusal into the words of gRPC, for whoever speaks it.
pub(super) async fn in_its_words(request: Request, next: Next) -> Response {
    let is_asked = is_of(request.headers(), KIND);
    let response = next.run(request).await;
    if !is_asked || is_of(response.headers(), KIND) {
        return response;
    }
    let refused = response.extensions().get::<Refused>().cloned();
    let refused = refused.unwrap_or_else(|| Refused::of_status(response.status()));
    let is_unknown = refused.code() == Code::NotFound.as_str();
    let status = Status::from(refused);
    if is_unknown {
        // Only the router says so here, and gRPC has a status for it.
        let what = "this process has no such call over gRPC";
        return Status::with_metadata(Kind::Unimplemented, what, status.metadata().clone())
            .into_http();
    }
    status.into_http()
}

/// Longest detail and document that are sent along: a header has 8 KiB at most clients.
const DETAIL_BYTES_MAX: usize = 1_024;
const DOCUMENT_BYTES_MAX: usize = 2_048;

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let code = refused.code();
        let kind =
            Code::parse(code).map_or(Kind::Unknown, |code| Kind::from(i32::from(code.grpc())));
        let mut metadata = MetadataMap::new();
        if let Ok(code) = AsciiMetadataValue::try_from(code) {
            metadata.insert("mainstay-code", code);
        }
        let document = refused.document().to_string();
        if document.len() <= DOCUMENT_BYTES_MAX {
            let document = MetadataValue::from_bytes(document.as_bytes());
            metadata.insert_bin("mainstay-problem-bin", document);
        }
        let (_, detail, after) = refused.said();
        if let Some(after) = after {
            // Clients with a policy for retries obey it (gRFC A6).
            let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            metadata.insert("grpc-retry-pushback-ms", AsciiMetadataValue::from(millis));
        }
        let detail: String = detail.chars().take(DETAIL_BYTES_MAX / 4).collect();
        Self::with_metadata(kind, detail, metadata)
    }
}
