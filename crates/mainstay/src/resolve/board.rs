//! Services that are looked for, each by a task of its own.
//!
//! The data plane asks from threads without a runtime and holds on to what it is given, so a service
//! is followed from the first question on, by whoever knows. Watches stay open when that ends, and
//! keep the last list.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay_call::resolve::{Snapshot, Watch};
use mainstay_core::name::ServiceName;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Services followed at once. A service costs a task and its list; configurations name a few
/// hundred, and those beyond are told that nobody looks for them.
const SERVICES_MAX: usize = 10_000;

/// Who is told of a service.
pub(crate) type Tell = watch::Sender<Arc<Snapshot>>;

/// Services that are looked for.
pub(crate) struct Board {
    runtime: Handle,
    stop: CancellationToken,
    tasks: TaskTracker,
    followed: Mutex<BTreeMap<(String, ServiceName), Tell>>,
}

impl Board {
    /// None yet. Must be called within a tokio runtime, which follows them.
    pub(crate) fn new() -> Self {
        Self {
            runtime: Handle::current(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            followed: Mutex::default(),
        }
    }

    /// A watch of a service. The first time it is asked for, `follow` begins, and until it tells
    /// something there is nobody, because of `why`.
    pub(crate) fn watch<F>(
        &self,
        (namespace, service): (&str, &ServiceName),
        why: &'static str,
        follow: impl FnOnce(Tell) -> F,
    ) -> Watch
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let key = (namespace.to_owned(), service.clone());
        let mut followed = self.followed.lock();
        if let Some(known) = followed.get(&key) {
            return known.subscribe();
        }
        if SERVICES_MAX <= followed.len() {
            return unknown("this process looks for as many services as it can");
        }
        let tell = watch::Sender::new(Arc::new(nobody(why)));
        let watch = tell.subscribe();
        followed.insert(key, tell.clone());
        drop(followed);
        let (following, stop) = (follow(tell), self.stop.clone());
        let until_stopped = async move {
            // Its end, by either way, is nobody's news.
            let (Some(()) | None) = stop.run_until_cancelled(following).await;
        };
        drop(self.tasks.spawn_on(until_stopped, &self.runtime));
        watch
    }

    /// A watch of each service that was asked for.
    pub(crate) fn watches(&self) -> Vec<Watch> {
        self.followed.lock().values().map(watch::Sender::subscribe).collect()
    }

    /// Follows nothing any more. Waits up to `grace`; returns how many tasks are still running.
    pub(crate) async fn shutdown(&self, grace: Duration) -> usize {
        self.stop.cancel();
        self.tasks.close();
        match tokio::time::timeout(grace, self.tasks.wait()).await {
            Ok(()) => 0,
            Err(_elapsed) => self.tasks.len(),
        }
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services = self.followed.lock().len();
        f.debug_struct("Board").field("services", &services).finish_non_exhaustive()
    }
}

/// A watch that tells of nobody, and why.
pub(crate) fn unknown(why: &'static str) -> Watch {
    watch::Sender::new(Arc::new(nobody(why))).subscribe()
}

/// Nobody, and why.
pub(crate) fn nobody(why: &'static str) -> Snapshot {
    Snapshot { empty_because: Some(why), ..Snapshot::default() }
}
