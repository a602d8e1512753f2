//! Whether this process serves, as probes of gRPC ask.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use futures_util::stream::{self, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::Messages;
use crate::control::ready;
use crate::role::Shared;

/// How often it is looked whether the status has changed, for whoever watches it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The service.
pub(super) fn server(shared: Arc<Shared>, stop: CancellationToken) -> HealthServer<Own> {
    HealthServer::new(Own { shared, stop })
}

/// What is known of this process.
#[derive(Clone)]
pub(super) struct Own {
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Own {
    /// That of `service`, or of the whole process if it has no name.
    async fn status(&self, service: &str) -> ServingStatus {
        let is_known = match service {
            "" => true,
            "mainstay.v1.Registry"
            | "mainstay.v1.Config"
            | "mainstay.v1.Rules"
            | "mainstay.v1.Switches"
            | "mainstay.v1.Lock" => self.shared.cluster.is_some(),
            _ => false,
        };
        if !is_known {
            return ServingStatus::ServiceUnknown;
        }
        let is_ready = ready(State(Arc::clone(&self.shared))).await.is_ok();
        if is_ready && !self.stop.is_cancelled() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
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
        match self.status(&service).await {
            ServingStatus::ServiceUnknown => {
                Err(Status::not_found(format!("there is no service `{service}`")))
            }
            status => Ok(Response::new(answer(status))),
        }
    }

    type WatchStream = Messages<HealthCheckResponse>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let first = (self.clone(), request.into_inner().service, None);
        let told = stream::unfold(first, |(own, service, before)| async move {
            loop {
                let is_last = own.stop.is_cancelled();
                let now = own.status(&service).await;
                if before != Some(now) {
                    return Some((Ok(answer(now)), (own, service, Some(now))));
                }
                if is_last {
                    return None;
                }
                drop(tokio::time::timeout(LOOK_EVERY, own.stop.cancelled()).await);
            }
        });
        Ok(Response::new(told.boxed()))
    }
}
