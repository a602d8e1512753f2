//! Looks at the machine once a second, for system protection.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use mainstay_call::clock::MonotonicClock;
use mainstay_core::Clock as _;
use mainstay_proxy::gateway::protection::Protection;
use mainstay_proxy::reading::Machine;

/// The thread that looks. Runs until [`Sampling::end`].
#[derive(Debug)]
pub(super) struct Sampling {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Sampling {
    /// Tells `protection` how busy the machine is; `None`, with a warning, on a system that does
    /// not say. Without it nothing is ever shed.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub(super) fn start(protection: Arc<Protection>) -> io::Result<Option<Self>> {
        let mut machine = match Machine::find() {
            Ok(machine) => machine,
            Err(error) => {
                tracing::warn!(%error, "no protection by the state of the machine");
                return Ok(None);
            }
        };
        let (stop, stopped) = channel::<()>();
        let work = move || {
            let mut readable = true;
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let now = MonotonicClock.now();
                let reading = machine.read(now);
                // Said once and not every second.
                if let Err(error) = &reading
                    && readable
                {
                    tracing::warn!(%error, "the state of the machine is not known");
                }
                readable = reading.is_ok();
                protection.observe(now, reading.ok());
            }
        };
        let thread = std::thread::Builder::new().name("machine".to_owned()).spawn(work)?;
        Ok(Some(Self { stop, thread }))
    }

    /// Ends the thread.
    pub(super) fn end(self) {
        drop(self.stop);
        let _ended = self.thread.join();
    }
}

/// How often system protection wants to know.
const INTERVAL: Duration = Duration::from_secs(1);
