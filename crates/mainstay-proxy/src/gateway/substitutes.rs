//! Services that stand in for others, as `substitute` steps of fallbacks name them.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_call::replay::Replay;
use mainstay_call::stage::balance::Balance;
use mainstay_call::stage::fallback::Substitute;
use mainstay_call::stage::retry::{Retry, RetryLayer};
use mainstay_core::name::ServiceName;
use mainstay_resilience::fallback::{Action, FallbackPolicy};
use tower_layer::Layer;
use tower_service::Service;

use super::UpstreamRuntime;
use crate::body::AttemptBody;
use crate::pipeline::{Attempt, CallBody};

/// A service asked in another's place: with its own retries, instances and circuits, and no
/// fallback.
type StandIn = Retry<Balance<Attempt>>;

/// The services that one fallback names.
#[derive(Clone, Debug, Default)]
pub struct Substitutes(Arc<BTreeMap<ServiceName, StandIn>>);

impl Substitutes {
    /// Those that `policy` names.
    pub(super) fn new(
        policy: Option<&FallbackPolicy>,
        upstreams: &BTreeMap<ServiceName, Arc<UpstreamRuntime>>,
    ) -> Self {
        let steps = policy.into_iter().flat_map(FallbackPolicy::steps);
        let named = steps.filter_map(|step| match &step.action {
            Action::Substitute { service } => {
                let upstream = upstreams.get(service)?;
                let balance = Balance::new(Arc::clone(&upstream.instances));
                let retries = RetryLayer::new(Arc::clone(&upstream.retries));
                Some((service.clone(), retries.layer(balance)))
            }
            _ => None,
        });
        Self(Arc::new(named.collect()))
    }
}

impl Substitute<CallBody, AttemptBody> for Substitutes {
    type Service = StandIn;

    fn find(&self, name: &ServiceName) -> Option<StandIn> {
        self.0.get(name).cloned()
    }
}

/// That a stand-in takes what the fallback stage sends is checked here, where it is read.
const _: fn() = || {
    fn takes<S: Service<http::Request<Replay<CallBody>>>>() {}
    takes::<StandIn>();
};
