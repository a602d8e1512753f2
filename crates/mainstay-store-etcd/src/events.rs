//! What the session layer tells its operator: one type a kind of event, one log line each.
//!
//! What happens for each call is counted (see [`Counted`](crate::Counted)); only what changes a
//! state is logged.

use mainstay_store::Revision;

use crate::version::Version;

/// A connection stands.
#[derive(Debug)]
pub(crate) struct LinkUp<'a> {
    pub(crate) link: &'static str,
    pub(crate) member: &'a str,
    pub(crate) version: Version,
}

impl LinkUp<'_> {
    pub(crate) fn emit(self) {
        let Self { link, member, version } = self;
        tracing::info!(link, member, %version, "connected to etcd");
    }
}

/// No connection could be made; told once, until one stands again.
#[derive(Debug)]
pub(crate) struct LinkLost<'a> {
    pub(crate) link: &'static str,
    pub(crate) why: &'a str,
}

impl LinkLost<'_> {
    pub(crate) fn emit(self) {
        let Self { link, why } = self;
        tracing::warn!(link, why, "etcd cannot be reached: trying again");
    }
}

/// An etcd older than those this crate is tested with.
#[derive(Debug)]
pub(crate) struct VersionUntested {
    pub(crate) version: Version,
}

impl VersionUntested {
    pub(crate) fn emit(self) {
        let version = self.version;
        tracing::warn!(%version, "etcd is older than 3.4.23 and has faults this was not tested with");
    }
}

/// History was replaced.
#[derive(Debug)]
pub(crate) struct Regressed {
    pub(crate) seen: Revision,
    pub(crate) found: Revision,
}

impl Regressed {
    pub(crate) fn emit(self) {
        let (seen, found) = (self.seen.get(), self.found.get());
        tracing::error!(
            finding = "store-regressed",
            seen,
            found,
            "etcd holds another history: nothing is read or written until it is accepted"
        );
    }
}

/// A watched area is not what etcd holds.
#[derive(Debug)]
pub(crate) struct Mismatch<'a> {
    pub(crate) area: &'a str,
    pub(crate) revision: Revision,
}

impl Mismatch<'_> {
    pub(crate) fn emit(self) {
        let (area, revision) = (self.area, self.revision.get());
        tracing::error!(area, revision, "a watch of etcd has lost events: its readers list again");
    }
}

/// An upstream watch ended; it goes on where it was.
#[derive(Debug)]
pub(crate) struct WatchLost<'a> {
    pub(crate) area: &'a str,
    pub(crate) next: Revision,
    pub(crate) why: &'a str,
}

impl WatchLost<'_> {
    pub(crate) fn emit(self) {
        let (area, next, why) = (self.area, self.next.get(), self.why);
        tracing::info!(area, next, why, "watch of etcd ended: resuming");
    }
}

/// History was compacted.
#[derive(Debug)]
pub(crate) struct Compacted {
    pub(crate) revision: Revision,
}

impl Compacted {
    pub(crate) fn emit(self) {
        let revision = self.revision.get();
        tracing::info!(revision, "history in etcd compacted");
    }
}

/// This node became, or is no longer, the one that compacts.
#[derive(Debug)]
pub(crate) struct Elected {
    pub(crate) elected: bool,
}

impl Elected {
    pub(crate) fn emit(self) {
        if self.elected {
            tracing::info!("this node compacts etcd's history");
        } else {
            tracing::info!("this node no longer compacts etcd's history");
        }
    }
}
