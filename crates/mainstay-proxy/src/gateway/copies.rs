//! The way of copies to a service that is only watched.
//!
//! It shares nothing with the calls of that service: neither what is learnt of its instances, nor
//! circuits, nor budget, nor connections. A copy is sent once, and only its time is bounded.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use mainstay_call::endpoint::Endpoint;
use mainstay_call::instances::{Instances, InstancesPolicy, MakeEndpoint};
use mainstay_call::observe::Silent;
use mainstay_call::resolve::Instance;
use mainstay_call::stage::balance::{Balance, Learns};
use mainstay_call::stage::timeout::{Timeout, TimeoutLayer, TimeoutPolicy};
use mainstay_core::Instant;
use mainstay_core::name::ServiceName;
use tower_layer::Layer;

use super::{Parts, upstreams};
use crate::config::UpstreamConfig;
use crate::upstream::{Upstream, UpstreamSettings};

/// Sends copies to one service.
pub(super) type Copies = Balance<Attempt>;

/// Sends copies to one instance.
type Attempt = Timeout<Upstream<Full<Bytes>>>;

/// What sends copies to `service`.
pub(super) fn sender(
    service: &ServiceName,
    config: &UpstreamConfig,
    settings: &Arc<UpstreamSettings>,
    parts: &Parts,
) -> Copies {
    let learns = Learns {
        service: Arc::from(service.as_str()),
        classifier: Arc::clone(&config.classifier),
        failure_penalty: config.balance.failure_penalty,
        consecutive: config.outlier.consecutive,
        wake: 0.into(),
        observer: Arc::new(Silent),
    };
    let (listed, watch) = upstreams::watch(service, config, parts);
    let policy = InstancesPolicy {
        balance: config.balance.clone(),
        outlier: config.outlier,
        zone: Arc::from(""),
        listed,
    };
    let timeout = TimeoutPolicy { attempt: config.retry.try_timeout, hop: config.hop };
    let make = Maker { settings: Arc::clone(settings), timeout };
    Balance::new(Arc::new(Instances::new(policy, Arc::new(learns), watch, Box::new(make), &[])))
}

#[derive(Debug)]
struct Maker {
    settings: Arc<UpstreamSettings>,
    timeout: TimeoutPolicy,
}

impl MakeEndpoint<Attempt> for Maker {
    fn endpoint(&self, instance: &Instance, now: Instant) -> Arc<Endpoint> {
        let (name, address) = (Arc::clone(&instance.name), Arc::clone(&instance.address));
        Arc::new(Endpoint::new(name, address, now, Box::default()))
    }

    fn service(&self, endpoint: &Arc<Endpoint>) -> Attempt {
        let upstream = Upstream::new(Arc::clone(endpoint.address()), Arc::clone(&self.settings));
        TimeoutLayer::new(self.timeout).layer(upstream)
    }
}
