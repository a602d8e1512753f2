//! What is told of databases: one type a kind of event, with its log line.

use std::time::Duration;

use super::failure::Failure;

/// A database could not be swept; it is tried again.
#[derive(Debug)]
pub(super) struct SweepFailed<'a> {
    pub(super) resource: &'a str,
    pub(super) error: &'a Failure,
}

impl SweepFailed<'_> {
    pub(super) fn emit(self) {
        let Self { resource, error } = self;
        tracing::warn!(resource, %error, "resource-unreachable: database could not be swept");
    }
}

/// Nothing is begun, submitted or called.
#[derive(Debug)]
pub(super) struct LogBehind<'a> {
    pub(super) resource: &'a str,
    pub(super) why: &'a str,
}

impl LogBehind<'_> {
    pub(super) fn emit(self) {
        let Self { resource, why } = self;
        tracing::error!(
            resource,
            why,
            next = "mainstay explain transaction-log-behind",
            "transaction-log-behind: nothing is begun, submitted or called"
        );
    }
}

/// It is again.
#[derive(Debug)]
pub(super) struct LogUpToDate<'a> {
    pub(super) resource: &'a str,
}

impl LogUpToDate<'_> {
    pub(super) fn emit(self) {
        let Self { resource } = self;
        tracing::info!(resource, "transaction log is up to date with what the database was told");
    }
}

/// A branch was prepared and is in no vote: it is rolled back.
#[derive(Debug)]
pub(super) struct Unvoted<'a> {
    pub(super) resource: &'a str,
    pub(super) branch: &'a str,
}

impl Unvoted<'_> {
    pub(super) fn emit(self) {
        let Self { resource, branch } = self;
        tracing::warn!(
            resource,
            branch,
            "transaction-unvoted-branch: prepared and not among the votes, rolled back"
        );
    }
}

/// A prepared branch holds its locks for long.
#[derive(Debug)]
pub(super) struct Lingers<'a> {
    pub(super) resource: &'a str,
    pub(super) branch: &'a str,
    pub(super) held: Duration,
    pub(super) is_foreign: bool,
}

impl Lingers<'_> {
    pub(super) fn emit(self) {
        let Self { resource, branch, held, is_foreign } = self;
        let held_seconds = held.as_secs();
        if is_foreign {
            tracing::warn!(
                resource,
                branch,
                held_seconds,
                "resource-orphan-foreign: somebody else's prepared branch holds its locks for long"
            );
        } else {
            tracing::warn!(
                resource,
                branch,
                held_seconds,
                "prepared-lock-age: a prepared branch holds its locks for long"
            );
        }
    }
}
