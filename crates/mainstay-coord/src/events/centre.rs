//! What the config centre tells its operator.

use mainstay_store::Revision;

use crate::centre::figures::Figures;
use crate::keys::GroupRef;
use crate::name::ClientId;

/// A group was changed.
#[derive(Debug)]
pub(crate) struct Changed<'a> {
    pub(crate) action: &'static str,
    pub(crate) group: &'a GroupRef,
    pub(crate) who: &'a str,
    pub(crate) why: &'a str,
    pub(crate) before: u64,
    pub(crate) after: u64,
}

impl Changed<'_> {
    pub(crate) fn emit(self) {
        let Self { action, group, who, why, before, after } = self;
        tracing::info!(action, %group, who, why, before, after, "configuration changed");
    }
}

/// A client could not use a release.
#[derive(Debug)]
pub(crate) struct Rejected<'a> {
    pub(crate) group: &'a GroupRef,
    pub(crate) client: &'a ClientId,
    pub(crate) release: u64,
    pub(crate) reason: &'a str,
}

impl Rejected<'_> {
    pub(crate) fn emit(self) {
        let Self { group, client, release, reason } = self;
        let finding = "config-rejected";
        tracing::warn!(finding, %group, %client, release, reason, "client rejected a release");
    }
}

/// History was lost before it was read; everything was read instead.
#[derive(Debug)]
pub(crate) struct Resynced {
    pub(crate) compacted: Revision,
}

impl Resynced {
    pub(crate) fn emit(self, figures: &Figures) {
        figures.resynced();
        let compacted = self.compacted.get();
        tracing::warn!(compacted, "history of configuration lost: listing anew");
    }
}

/// The store does not answer, or answers again.
#[derive(Debug)]
pub(crate) struct StoreReach<'a> {
    /// `None` when it answers again.
    pub(crate) why: Option<&'a str>,
}

impl StoreReach<'_> {
    pub(crate) fn emit(self) {
        match self.why {
            Some(why) => tracing::warn!(why, "config centre answers from its last copy"),
            None => tracing::info!("config centre follows the store again"),
        }
    }
}

/// Releases and contents nobody needs were removed.
#[derive(Debug)]
pub(crate) struct Swept {
    pub(crate) releases: usize,
    pub(crate) contents: usize,
}

impl Swept {
    pub(crate) fn emit(self) {
        let Self { releases, contents } = self;
        tracing::info!(releases, contents, "old configuration removed");
    }
}

/// Something that is tried again failed.
#[derive(Debug)]
pub(crate) struct DutyFailed<'a> {
    pub(crate) duty: &'static str,
    pub(crate) error: &'a (dyn std::error::Error + 'static),
}

impl DutyFailed<'_> {
    pub(crate) fn emit(self) {
        let Self { duty, error } = self;
        tracing::warn!(duty, error, "config centre could not do its duty");
    }
}
