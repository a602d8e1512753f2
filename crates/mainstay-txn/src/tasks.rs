//! Tasks of this crate: named, told to stop, and waited for.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

/// The tasks of a coordinator. Clones stand for the same tasks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Starts `task` under `name`. It is handed the signal to stop, and chooses where that is
    /// safe.
    pub(crate) fn spawn<F>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_within(tracing::info_span!("task", name), task);
    }

    /// The same within `span`. Those of one transaction are of level debug: each costs more than
    /// what most of them do.
    pub(crate) fn spawn_within<F>(&self, span: Span, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let running = task(self.stop.clone());
        drop(self.tracker.spawn(running.instrument(span)));
    }

    /// Signals every task and waits up to `grace`; returns how many are still running.
    pub(crate) async fn shutdown(&self, grace: Duration) -> usize {
        self.stop.cancel();
        self.tracker.close();
        match tokio::time::timeout(grace, self.tracker.wait()).await {
            Ok(()) => 0,
            Err(_elapsed) => self.tracker.len(),
        }
    }
}
