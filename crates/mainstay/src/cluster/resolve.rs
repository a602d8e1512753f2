//! Instances from the registry of the same process, for its data plane.
//!
//! The data plane asks from threads without a runtime and holds on to what it is given, so a
//! service is followed by one task from the first question on. Who asks before the registry has
//! been read is told that it is loading, and of the instances as soon as they are known.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay_call::resolve::{Instance, Resolve, Snapshot, Watch};
use mainstay_coord::ServiceRef;
use mainstay_coord::name::Namespace;
use mainstay_coord::registry::{Endpoint, Registry, View};
use mainstay_core::name::ServiceName;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Services followed at once. A service costs a task and its list; configurations name a few
/// hundred, and those beyond are told that nobody looks for them.
const SERVICES_MAX: usize = 10_000;

/// Instances from the registry of this process.
pub struct RegistryResolver {
    registry: Registry,
    runtime: Handle,
    stop: CancellationToken,
    tasks: TaskTracker,
    followed: Mutex<BTreeMap<ServiceRef, watch::Sender<Arc<Snapshot>>>>,
}

impl RegistryResolver {
    /// Resolves by `registry`. Must be called within a tokio runtime, which follows the services.
    pub fn new(registry: Registry) -> Self {
        Self {
            registry,
            runtime: Handle::current(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            followed: Mutex::default(),
        }
    }

    /// Follows nothing any more; watches stay open and keep the last list. Waits up to `grace`;
    /// returns how many tasks are still running.
    ///
    /// # Cancel safety
    ///
    /// Safe: tasks stay told to stop, and calling again waits again.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        self.stop.cancel();
        self.tasks.close();
        match tokio::time::timeout(grace, self.tasks.wait()).await {
            Ok(()) => 0,
            Err(_elapsed) => self.tasks.len(),
        }
    }

    fn follow(&self, service: ServiceRef, tell: watch::Sender<Arc<Snapshot>>) {
        let (registry, stop) = (self.registry.clone(), self.stop.clone());
        let following = async move {
            registry.ready().await;
            let Ok(mut views) = registry.watch(&service) else { return };
            loop {
                let snapshot = snapshot(&views.borrow_and_update());
                tell.send_replace(Arc::new(snapshot));
                if views.changed().await.is_err() {
                    return;
                }
            }
        };
        let until_stopped = async move {
            // Its end, by either way, is nobody's news.
            let (Some(()) | None) = stop.run_until_cancelled(following).await;
        };
        drop(self.tasks.spawn_on(until_stopped, &self.runtime));
    }
}

impl Resolve for RegistryResolver {
    fn watch(&self, namespace: &str, service: &ServiceName) -> Watch {
        let unknown = |why| watch::Sender::new(Arc::new(nobody(why))).subscribe();
        let Ok(namespace) = Namespace::new(namespace) else {
            return unknown("the namespace is no name");
        };
        let of = ServiceRef { namespace, name: service.clone() };
        let mut followed = self.followed.lock();
        if let Some(known) = followed.get(&of) {
            return known.subscribe();
        }
        if SERVICES_MAX <= followed.len() {
            return unknown("this process looks for as many services as it can");
        }
        let tell = watch::Sender::new(Arc::new(nobody("the registry is loading")));
        let watch = tell.subscribe();
        followed.insert(of.clone(), tell.clone());
        drop(followed);
        self.follow(of, tell);
        watch
    }
}

impl fmt::Debug for RegistryResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services = self.followed.lock().len();
        f.debug_struct("RegistryResolver").field("services", &services).finish_non_exhaustive()
    }
}

fn nobody(why: &'static str) -> Snapshot {
    Snapshot { empty_because: Some(why), ..Snapshot::default() }
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
