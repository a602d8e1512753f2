//! Whether this process serves, as probes of gRPC ask.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::stream::{self, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::Messages;
use crate::role::Shared;

/// The service.
pub(super) fn server(shared: Arc<Shared>, stop: CancellationToken) -> HealthServer<Own> {
    HealthServer::new(Own { shared, stop })
}

/// What is known of this process.
pub(super) struct Own {
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Own {
    fn status(&self, service: &str) -> Option<ServingStatus> {
        let is_known = match service {
            "" => true,
            "mainstay.v1.Registry"
            | "mainstay.v1.Config"
            | "mainstay.v1.Rules"
            | "mainstay.v1.Switches"
            | "mainstay.v1.Lock" => self.shared.cluster.is_some(),
            _ => false,
        };
        let is_leaving = self.shared.draining.load(Ordering::Relaxed) || self.stop.is_cancelled();
        let status = if is_leaving { ServingStatus::NotServing } else { ServingStatus::Serving };
        is_known.then_some(status)
    }
}

const fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}

#[tonic::async_trait]
impl Health for Own {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        let status = self.status(&service);
        let unknown = || Status::not_found(format!("there is no service `{service}`"));
        Ok(Response::new(answer(status.ok_or_else(unknown)?)))
    }

    type WatchStream = Messages<HealthCheckResponse>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let status = self.status(&request.into_inner().service);
        let now = answer(status.unwrap_or(ServingStatus::ServiceUnknown));
        let stop = self.stop.clone();
        let last = stream::once(async move {
            stop.cancelled().await;
            answer(ServingStatus::NotServing)
        });
        Ok(Response::new(stream::iter([now]).chain(last).map(Ok).boxed()))
    }
}
