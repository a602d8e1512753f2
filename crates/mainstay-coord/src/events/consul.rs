//! What the recipes of the Consul door tell.

/// Something could not be followed, and will be tried again.
#[derive(Debug)]
pub(crate) struct FollowingStore<'a> {
    /// What is followed.
    pub(crate) what: &'static str,
    /// What was in the way.
    pub(crate) why: &'a str,
}

impl FollowingStore<'_> {
    pub(crate) fn emit(self) {
        let Self { what, why } = self;
        tracing::warn!(what, why, "consul door does not follow the store; it tries again");
    }
}

/// The result of a check of this node could not be written.
#[derive(Debug)]
pub(crate) struct NodeCheckUnwritten<'a> {
    /// Which check.
    pub(crate) check: &'a str,
    /// What was in the way.
    pub(crate) error: &'a crate::consul::ConsulError,
}

impl NodeCheckUnwritten<'_> {
    pub(crate) fn emit(self) {
        let Self { check, error } = self;
        tracing::warn!(check, %error, "the result of a node's check is not written; the next one is");
    }
}

/// A session of the Consul door ends, for what it depends on no longer holds.
#[derive(Debug)]
pub(crate) struct SessionLost<'a> {
    /// Which session.
    pub(crate) session: &'a str,
    /// What it depended on.
    pub(crate) why: &'a str,
}

impl SessionLost<'_> {
    pub(crate) fn emit(self) {
        let Self { session, why } = self;
        tracing::info!(session, why, "session of the consul door ends");
    }
}
