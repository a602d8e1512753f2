//! What coordination tells its operator: one type a kind of event, with its log line and metric.
//!
//! What happens for each request is counted; what changes a state is logged.

pub(crate) mod audit;
pub(crate) mod centre;
pub(crate) mod consul;
pub(crate) mod keyring;
pub(crate) mod registry;
pub(crate) mod rules;

use std::time::Duration;

use mainstay_core::belief::Loss;
use mainstay_store::LeaseId;

use crate::figures::Figures;
use crate::keys::Place;
use crate::lock::LockError;

/// A request for a lock, semaphore or election has ended.
#[derive(Debug)]
pub(crate) struct Acquired<'a> {
    pub(crate) kind: &'static str,
    pub(crate) place: &'a Place,
    pub(crate) outcome: &'static str,
    pub(crate) waited: Duration,
}

impl Acquired<'_> {
    pub(crate) fn emit(self, figures: &Figures) {
        let Self { kind, place, outcome, waited } = self;
        figures.acquired(kind, outcome);
        if outcome == GRANTED {
            figures.waited(waited);
        }
        tracing::debug!(kind, %place, outcome, waited_seconds = waited.as_secs_f64(), "lock asked for");
    }
}

/// The outcome of a request that was granted.
pub(crate) const GRANTED: &str = "granted";

/// A holder gave a lock back.
#[derive(Debug)]
pub(crate) struct Released {
    pub(crate) held: Duration,
}

impl Released {
    pub(crate) fn emit(self, figures: &Figures) {
        figures.held(self.held);
    }
}

/// A holder of this process lost a lock it had not given back.
#[derive(Debug)]
pub(crate) struct LockLost<'a> {
    pub(crate) place: &'a Place,
    pub(crate) token: u64,
    pub(crate) loss: Loss,
    pub(crate) held: Duration,
}

impl LockLost<'_> {
    pub(crate) fn emit(self, figures: &Figures) {
        let Self { place, token, loss, held } = self;
        figures.lost(loss);
        figures.held(held);
        tracing::warn!(finding = "lock-lost", %place, token, reason = %loss, "lock lost");
    }
}

/// A write was refused because the lock it was made under had been lost.
#[derive(Debug)]
pub(crate) struct StaleToken<'a> {
    pub(crate) place: &'a Place,
    pub(crate) token: u64,
}

impl StaleToken<'_> {
    pub(crate) fn emit(self, figures: &Figures) {
        let Self { place, token } = self;
        figures.fencing_rejected();
        tracing::warn!(
            finding = "lock-stale-token",
            %place,
            token,
            "write refused: its lock had been lost"
        );
    }
}

/// A lock was taken from its holder.
#[derive(Debug)]
pub(crate) struct Forced<'a> {
    pub(crate) place: &'a Place,
    pub(crate) token: u64,
}

impl Forced<'_> {
    pub(crate) fn emit(self) {
        let Self { place, token } = self;
        tracing::warn!(%place, token, "lock taken from its holder");
    }
}

/// The renewal of a session of this process failed, or works again.
#[derive(Debug)]
pub(crate) struct Jeopardy<'a> {
    pub(crate) session: LeaseId,
    /// `None` when it works again.
    pub(crate) why: Option<&'a str>,
}

impl Jeopardy<'_> {
    pub(crate) fn emit(self) {
        let Self { session, why } = self;
        match why {
            Some(why) => tracing::warn!(%session, why, "session not renewed"),
            None => tracing::info!(%session, "session renewed again"),
        }
    }
}

/// A session of this process was lost.
#[derive(Debug)]
pub(crate) struct SessionLost {
    pub(crate) session: LeaseId,
    pub(crate) loss: Loss,
}

impl SessionLost {
    pub(crate) fn emit(self) {
        let Self { session, loss } = self;
        tracing::warn!(%session, reason = %loss, "session lost");
    }
}

/// Notes of how locks were held were removed, or the delays of vanished holders begun.
#[derive(Debug)]
pub(crate) struct NotesSwept {
    pub(crate) notes: usize,
    pub(crate) delays: usize,
}

impl NotesSwept {
    pub(crate) fn emit(self) {
        let Self { notes, delays } = self;
        tracing::info!(notes, delays, "notes of unused locks removed");
    }
}

/// Notes of locks could not be swept; it is tried again.
#[derive(Debug)]
pub(crate) struct SweepFailed<'a> {
    pub(crate) error: &'a LockError,
}

impl SweepFailed<'_> {
    pub(crate) fn emit(self) {
        let error: &(dyn std::error::Error + 'static) = self.error;
        tracing::warn!(error, "notes of unused locks not removed");
    }
}

/// What was abandoned could not be put away; it ends with its session.
#[derive(Debug)]
pub(crate) struct LeftBehind<'a> {
    pub(crate) place: &'a Place,
    pub(crate) why: &'a str,
}

impl LeftBehind<'_> {
    pub(crate) fn emit(self) {
        let Self { place, why } = self;
        tracing::warn!(%place, why, "place in a queue left behind until its session ends");
    }
}
