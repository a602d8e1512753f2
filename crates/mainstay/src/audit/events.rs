//! What the audit log tells its operator.

use super::opening::Broken;

/// A log is not what it was. Another one goes on.
#[derive(Debug)]
pub(super) struct Tampered<'a>(pub(super) &'a Broken);

impl Tampered<'_> {
    pub(super) fn emit(self) {
        let Broken { log, bad, .. } = self.0;
        let (seq, what, why) = (bad.seq, bad.what.as_str(), &*bad.why);
        tracing::error!(
            finding = "audit-tampered",
            severity = "critical",
            log,
            seq,
            what,
            why,
            "the audit log is not what it was; a new one goes on and says so"
        );
    }
}

/// Records are not taken over; it is tried again.
#[derive(Debug)]
pub(super) struct Stuck<'a> {
    pub(super) error: &'a (dyn std::error::Error + 'static),
}

impl Stuck<'_> {
    pub(super) fn emit(self) {
        let error = self.error;
        tracing::warn!(error, "audit records are not taken over into the log");
    }
}

/// A head was signed, and a copy of it could not be kept.
#[derive(Debug)]
pub(super) struct CopyFailed<'a> {
    pub(super) place: &'a str,
    pub(super) error: &'a (dyn std::error::Error + 'static),
}

impl CopyFailed<'_> {
    pub(super) fn emit(self) {
        let Self { place, error } = self;
        tracing::warn!(place, error, "a head of the audit log could not be copied");
    }
}

/// Records lost their text, being old enough.
#[derive(Debug)]
pub(super) struct Removed {
    pub(super) records: u64,
}

impl Removed {
    pub(super) fn emit(self) {
        let records = self.records;
        tracing::info!(records, "audit records older than their retention were removed");
    }
}
