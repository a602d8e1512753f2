//! What the store tells its operator: one type a kind of event, one log line each.
//!
//! What happens for each batch is counted (see [`Counted`](crate::embedded::Counted)); only what
//! changes a state is logged.

use std::io;
use std::time::Duration;

use crate::entry::Revision;

/// A store was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) leases: usize,
    /// It had not been closed.
    pub(crate) unclean: bool,
}

impl Opened {
    pub(crate) fn emit(self) {
        let Self { revision, compacted, leases, unclean } = self;
        let (revision, compacted) = (revision.get(), compacted.get());
        tracing::info!(revision, compacted, leases, unclean, "coordination store opened");
    }
}

/// A write to the disk failed for good.
#[derive(Debug)]
pub(crate) struct Failed<'a> {
    pub(crate) revision: Revision,
    pub(crate) why: &'a str,
}

impl Failed<'_> {
    pub(crate) fn emit(self) {
        let Self { revision, why } = self;
        let revision = revision.get();
        tracing::error!(
            finding = "store-failed",
            revision,
            why,
            "coordination store failed: it is read-only until it is restarted"
        );
    }
}

/// The disk has no room, or has room again.
#[derive(Debug)]
pub(crate) struct RoomChanged<'a> {
    /// `None` when there is room again.
    pub(crate) no_room: Option<&'a str>,
}

impl RoomChanged<'_> {
    pub(crate) fn emit(self) {
        match self.no_room {
            Some(why) => tracing::warn!(
                finding = "store-full",
                why,
                "coordination store full: puts are refused"
            ),
            None => tracing::info!("coordination store has room again"),
        }
    }
}

/// The process stood still, and every lease was given the time back.
#[derive(Debug)]
pub(crate) struct PauseSeen {
    pub(crate) paused: Duration,
}

impl PauseSeen {
    pub(crate) fn emit(self) {
        let seconds = self.paused.as_secs_f64();
        tracing::warn!(seconds, "process stood still: leases extended");
    }
}

/// The highest revision could not be written down beside the store.
#[derive(Debug)]
pub(crate) struct NotRemembered<'a> {
    pub(crate) error: &'a io::Error,
}

impl NotRemembered<'_> {
    pub(crate) fn emit(self) {
        let error = self.error;
        tracing::warn!(%error, "highest revision not written down");
    }
}
