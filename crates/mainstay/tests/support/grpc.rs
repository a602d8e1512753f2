//! The control port over gRPC, with the clients that are generated from its contract.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::time::Duration;

use axum::http::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mainstay_api::grpc::config_client::ConfigClient;
use mainstay_api::grpc::lock_client::LockClient;
use mainstay_api::grpc::registry_client::RegistryClient;
use mainstay_api::grpc::rules_client::RulesClient;
use mainstay_api::grpc::switches_client::SwitchesClient;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status, Streaming};

use crate::support::gateway::Gateway;

/// A connection that sends a token along.
pub(crate) type Channel = InterceptedService<Client<HttpConnector, tonic::body::Body>, Bearer>;

/// Sends a token along, if it has one.
#[derive(Clone, Debug)]
pub(crate) struct Bearer(Option<String>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let bearer: AsciiMetadataValue = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", bearer);
        }
        Ok(request)
    }
}

/// A control port.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    channel: Channel,
    origin: Uri,
}

impl Door {
    /// That of `node`, with its token.
    pub(crate) fn of(node: &Gateway) -> Self {
        let (_, token) = node.door();
        Self::with(node, Some(token))
    }

    /// The same with another token, or none.
    pub(crate) fn with(node: &Gateway, token: Option<&str>) -> Self {
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        let channel = InterceptedService::new(client, Bearer(token.map(str::to_owned)));
        Self { channel, origin: format!("http://{}", node.control).parse().unwrap() }
    }

    pub(crate) fn channel(&self) -> (Channel, Uri) {
        (self.channel.clone(), self.origin.clone())
    }

    pub(crate) fn registry(&self) -> RegistryClient<Channel> {
        RegistryClient::with_origin(self.channel.clone(), self.origin.clone())
    }

    pub(crate) fn config(&self) -> ConfigClient<Channel> {
        ConfigClient::with_origin(self.channel.clone(), self.origin.clone())
    }

    pub(crate) fn rules(&self) -> RulesClient<Channel> {
        RulesClient::with_origin(self.channel.clone(), self.origin.clone())
    }

    pub(crate) fn switches(&self) -> SwitchesClient<Channel> {
        SwitchesClient::with_origin(self.channel.clone(), self.origin.clone())
    }

    pub(crate) fn lock(&self) -> LockClient<Channel> {
        LockClient::with_origin(self.channel.clone(), self.origin.clone())
    }
}

/// The next message of a stream.
pub(crate) async fn next<M>(stream: &mut Streaming<M>) -> M {
    let message = tokio::time::timeout(Duration::from_secs(20), stream.message()).await;
    message.expect("nothing came").unwrap().expect("the stream ended")
}

/// How a stream ends, whatever it tells before that.
pub(crate) async fn end<M>(stream: &mut Streaming<M>) -> Status {
    let ended = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => (),
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it goes on")
}

/// The code of the problem that a refusal tells of.
pub(crate) fn code(status: &Status) -> &str {
    status.metadata().get("mainstay-code").map_or("", |code| code.to_str().unwrap())
}
