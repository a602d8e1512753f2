//! Instances from the registry of the same process, for its data plane.
//!
//! The data plane asks from threads without a runtime and holds on to what it is given, so a
//! service is followed by one task from the first question on. Who asks before the registry has
//! been read is told that it is loading, and of the instances as soon as they are known.

use std::sync::Arc;
use std::time::Duration;

use mainstay_call::resolve::{Instance, Resolve, Snapshot, Watch};
use mainstay_coord::ServiceRef;
use mainstay_coord::name::Namespace;
use mainstay_coord::registry::{Endpoint, Registry, View};
use mainstay_core::name::ServiceName;

use crate::resolve::board::{Board, unknown};

/// Instances from the registry of this process.
#[derive(Debug)]
pub struct RegistryResolver {
    registry: Registry,
    board: Board,
}

impl RegistryResolver {
    /// Resolves by `registry`. Must be called within a tokio runtime, which follows the services.
    pub fn new(registry: Registry) -> Self {
        Self { registry, board: Board::new() }
    }

    /// Follows nothing any more; watches stay open and keep the last list. Waits up to `grace`;
    /// returns how many tasks are still running.
    ///
    /// # Cancel safety
    ///
    /// Safe: tasks stay told to stop, and calling again waits again.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        self.board.shutdown(grace).await
    }
}

impl Resolve for RegistryResolver {
    fn watch(&self, namespace: &str, service: &ServiceName) -> Watch {
        let Ok(of) = Namespace::new(namespace) else {
            return unknown("the namespace is no name");
        };
        let of = ServiceRef { namespace: of, name: service.clone() };
        let registry = self.registry.clone();
        self.board.watch((namespace, service), "the registry is loading", |tell| async move {
            registry.ready().await;
            let Ok(mut views) = registry.watch(&of) else { return };
            loop {
                let snapshot = snapshot(&views.borrow_and_update());
                tell.send_replace(Arc::new(snapshot));
                if views.changed().await.is_err() {
                    return;
                }
            }
        })
    }
}

fn snapshot(view: &View) -> Snapshot {
    Snapshot {
        revision: view.revision.get(),
        instances: view.endpoints().map(instance).collect(),
        protected: view.protected.is_some(),
        stale: view.stale_since_unix_ms.is_some(),
        empty_because: view.empty_because(),
    }
}

fn instance(endpoint: Endpoint) -> Instance {
    let Endpoint { name, address, weight, zone, priority, usable } = endpoint;
    Instance { name, address, weight, zone, priority, usable }
}
