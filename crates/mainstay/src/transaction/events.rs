//! What the coordinator's surroundings tell their operator.

use mainstay_txn::Finding;

/// The coordinator could not start; it is tried again.
#[derive(Debug)]
pub(super) struct Away<'a> {
    pub(super) error: &'a str,
}

impl Away<'_> {
    pub(super) fn emit(self) {
        let Self { error } = self;
        tracing::warn!(error, "transactions are not coordinated yet");
    }
}

/// Something an operator should look at.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) gid: &'a str,
    pub(super) finding: &'a Finding,
}

impl Found<'_> {
    pub(super) fn emit(self) {
        let Self { gid, finding } = self;
        match finding {
            Finding::Stuck { branch, why } => {
                let branch = branch.as_ref().map_or("", |branch| branch.as_str());
                tracing::warn!(gid, branch, why, "transaction-stuck: it does not get on");
            }
            Finding::Contradiction { branch, evidence } => {
                let branch = branch.as_str();
                tracing::error!(gid, branch, evidence, "branch ended against the decision");
            }
            Finding::Mixed => {
                tracing::error!(gid, "transaction-mixed: an operator has to resolve it");
            }
        }
    }
}

/// Locks of transactions that have ended could not be looked for; it is tried again.
#[derive(Debug)]
pub(super) struct SweepFailed<'a> {
    pub(super) error: &'a str,
}

impl SweepFailed<'_> {
    pub(super) fn emit(self) {
        let Self { error } = self;
        tracing::warn!(error, "locks of transactions that have ended could not be looked for");
    }
}
