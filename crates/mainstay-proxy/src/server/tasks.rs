//! The one place where tasks of a worker start.

use std::future::Future;

use hyper::rt::Executor;

/// Starts `task` on this thread; it ends with the worker's runtime at the latest.
///
/// # Panics
///
/// Outside of a runtime that takes local tasks.
pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
    drop(tokio::task::spawn_local(task)); // Detached: what counts a task is a guard inside it.
}

/// Runs hyper's HTTP/2 tasks on the thread of their connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        spawn(task);
    }
}
