//! What calls have taught, kept over a restart of the process.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use mainstay_call::machines::{Machines, Saved};
use mainstay_core::Moment;
use mainstay_proxy::gateway::Gateway;
use mainstay_proxy::snapshot::{Calls, Keeper, SnapshotFile};

/// Hands `machines` what the process before this one left in `data_dir`. To be called before
/// circuits are made, so that each begins with its part. A file of no use is ignored with a
/// warning: nothing here keeps a gateway from starting.
pub(super) fn restore(data_dir: &Path, machines: &Machines) {
    match SnapshotFile::new(data_dir).read(wall_clock()) {
        Ok(None) => (),
        Ok(Some((calls, age))) => {
            let Saved { circuits, limits, bans, .. } = &calls.saved;
            let (circuits, limits, bans) = (circuits.len(), limits.len(), bans.len());
            tracing::info!(circuits, limits, bans, ?age, "circuits, limits and bans restored");
            machines.restore(calls.saved, age);
        }
        Err(ignored) => {
            let cause = std::error::Error::source(&ignored).map(ToString::to_string);
            tracing::warn!(%ignored, cause, "circuits begin anew");
        }
    }
}

/// The thread that writes the file. Runs until [`Keeping::end`].
#[derive(Debug)]
pub(super) struct Keeping {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Keeping {
    /// Keeps the file of `keeper`, whose directory this process holds, up to what `gateway` learns.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub(super) fn start(keeper: Arc<Keeper>, gateway: Arc<Gateway>) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let take = move || Calls::new(wall_clock(), gateway.learnt());
        let failed = |error: io::Error| tracing::warn!(%error, "circuits cannot be written down");
        let thread = std::thread::Builder::new()
            .name("snapshot".to_owned())
            .spawn(move || keeper.run(&stopped, take, failed))?;
        Ok(Self { stop, thread })
    }

    /// Writes what is new a last time, and ends the thread.
    pub(super) fn end(self) {
        drop(self.stop);
        let _ended = self.thread.join();
    }
}

/// The same, as people write it.
pub(crate) fn wall_moment() -> Moment {
    let since = wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment::from_unix_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[expect(clippy::disallowed_methods, reason = "the file outlives the clock of this process")]
pub(super) fn wall_clock() -> SystemTime {
    SystemTime::now()
}
