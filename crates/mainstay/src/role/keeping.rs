//! What circuits have learnt, kept over a restart of the process.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::SystemTime;

use mainstay_call::machines::Machines;
use mainstay_proxy::snapshot::{Calls, Keeper, SnapshotFile};

/// Hands `machines` what the process before this one left in `data_dir`. To be called before
/// circuits are made, so that each begins with its part. A file of no use is ignored with a
/// warning: nothing here keeps a gateway from starting.
pub(super) fn restore(data_dir: &Path, machines: &Machines) {
    match SnapshotFile::new(data_dir).read(wall_clock()) {
        Ok(None) => (),
        Ok(Some((calls, age))) => {
            tracing::info!(circuits = calls.circuits.len(), ?age, "circuits restored");
            machines.restore(calls.circuits, age);
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
    /// Keeps the circuits of `machines` in `data_dir`, which this process holds.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub(super) fn start(data_dir: &Path, machines: Arc<Machines>) -> io::Result<Self> {
        let keeper = Keeper::new(SnapshotFile::new(data_dir));
        let (stop, stopped) = channel();
        let take = move || Calls::new(wall_clock(), machines.snapshot());
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

#[expect(clippy::disallowed_methods, reason = "the file outlives the clock of this process")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
