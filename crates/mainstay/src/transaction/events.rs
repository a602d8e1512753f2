//! What the coordinator's surroundings tell their operator.

use mainstay_txn::Finding;
use mainstay_txn::resource::Failure;
use mainstay_txn::run::VerbError;

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

/// A database answers, and can take part.
#[derive(Debug)]
pub(super) struct DatabaseReady<'a> {
    pub(super) resource: &'a str,
}

impl DatabaseReady<'_> {
    pub(super) fn emit(self) {
        let Self { resource } = self;
        tracing::info!(resource, "database takes part in transactions");
    }
}

/// A database is not set up to take part.
#[derive(Debug)]
pub(super) struct CannotPrepare<'a> {
    pub(super) resource: &'a str,
    pub(super) what: &'a str,
    pub(super) fix: &'a str,
}

impl CannotPrepare<'_> {
    pub(super) fn emit(self) {
        let Self { resource, what, fix } = self;
        tracing::warn!(resource, what, fix, "resource-cannot-prepare: database cannot take part");
    }
}

/// A database does not answer.
#[derive(Debug)]
pub(super) struct DatabaseAway<'a> {
    pub(super) resource: &'a str,
    pub(super) error: &'a Failure,
}

impl DatabaseAway<'_> {
    pub(super) fn emit(self) {
        let Self { resource, error } = self;
        tracing::warn!(resource, %error, "resource-unreachable: database does not answer");
    }
}

/// The log does not say how far it is, so nothing can be held against what a database was told.
#[derive(Debug)]
pub(super) struct LogSilent<'a> {
    pub(super) resource: &'a str,
    pub(super) error: &'a VerbError,
}

impl LogSilent<'_> {
    pub(super) fn emit(self) {
        let Self { resource, error } = self;
        tracing::warn!(
            resource,
            %error,
            "transaction log does not say how far it is: branches in this database wait"
        );
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
