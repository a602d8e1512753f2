//! What calls of this process meet at instances, told to the registry.
//!
//! An instance that times out or is ejected is reported by whoever met it; when enough callers do,
//! the registry shows it as `warning` to all. Reports are made beside the calls, never in them:
//! who reports waits for the words that calls leave ([`Failing`](mainstay_call::failing::Failing)).
//! One that does not arrive is not sent again; an instance that goes on failing is reported anew.

use std::sync::Arc;
use std::time::Duration;

use mainstay_api::registry::InstanceName;
use mainstay_call::failing::Failed;
use mainstay_client::Client;
use mainstay_coord::keys::{InstanceRef, ServiceRef};
use mainstay_coord::name::{InstanceId, Namespace, Reporter};
use mainstay_coord::registry::Registry;
use mainstay_core::name::ServiceName;
use mainstay_proxy::gateway::Gateway;
use tokio_util::sync::CancellationToken;

/// How long a report may take. The registry forgets one after 30 s.
const REPORT_MAX: Duration = Duration::from_secs(5);

/// Tells `registry`, of the same process, as `reporter`, what the calls of `gateway` meet; until
/// told to stop.
///
/// # Cancel safety
///
/// Safe: what was taken and not told is lost, as if nobody had met it.
pub async fn here(
    gateway: &Gateway,
    registry: &Registry,
    reporter: &Reporter,
    stop: &CancellationToken,
) {
    let failing = &gateway.parts().failing;
    while let Some(failed) = stop.run_until_cancelled(failing.next()).await {
        for failed in failed {
            let named = named(gateway, &failed, |upstream, _| upstream);
            let Some(at) = named.and_then(known) else { continue };
            let told = registry.observe(&at, reporter, 1, &failed.why);
            let told = tokio::time::timeout(REPORT_MAX, told);
            match stop.run_until_cancelled(told).await {
                None => return,
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => not_told(&failed, &error.to_string()),
                Some(Err(_elapsed)) => not_told(&failed, "no answer in time"),
            }
        }
    }
}

/// What a registry calls the service of an upstream, whose namespace is the second.
pub type Called = for<'u> fn(&'u str, &str) -> &'u str;

/// Has `client` tell the registry of another process what the calls of `gateway` meet, until it
/// shuts down; services are `called` so there. Must be called within a tokio runtime.
pub fn elsewhere(gateway: &Arc<Gateway>, client: &Client, called: Called) {
    let of = Arc::clone(gateway);
    client.report(Arc::clone(&gateway.parts().failing), move |failed| named(&of, failed, called));
}

/// The instance as a registry names it; `None` for one of a list in the configuration.
fn named(
    gateway: &Gateway,
    Failed { service, instance, .. }: &Failed,
    called: Called,
) -> Option<InstanceName> {
    let upstream = ServiceName::new(service).ok()?;
    let running = gateway.running();
    let config = &running.upstreams.get(&upstream)?.config;
    config.instances.is_empty().then(|| InstanceName {
        namespace: config.namespace.to_string(),
        service: called(service, &config.namespace).to_owned(),
        id: instance.to_string(),
    })
}

fn known(InstanceName { namespace, service, id }: InstanceName) -> Option<InstanceRef> {
    let (namespace, name) = (Namespace::new(namespace).ok()?, ServiceName::new(&service).ok()?);
    let id = InstanceId::new(id).ok()?;
    Some(InstanceRef { service: ServiceRef { namespace, name }, id })
}

fn not_told(Failed { service, instance, .. }: &Failed, why: &str) {
    tracing::debug!(%service, %instance, why, "a failing instance was not reported");
}
