//! What this crate reports.

/// A request bore a fencing token that is too old.
#[derive(Debug)]
pub(crate) struct StaleToken<'a> {
    /// The lock.
    pub(crate) name: &'a str,
    /// The token it bore.
    pub(crate) token: u64,
    /// The one it was measured against.
    pub(crate) seen: u64,
}

impl StaleToken<'_> {
    /// Reports it: one log line at `warn`.
    pub(crate) fn emit(self) {
        let Self { name, token, seen } = self;
        tracing::warn!(lock = name, token, seen, "fencing token is stale");
    }
}

/// A renewal failed, the first since one that worked.
#[derive(Debug)]
pub(crate) struct Jeopardy<'a> {
    /// The session.
    pub(crate) session: &'a str,
}

impl Jeopardy<'_> {
    /// Reports it: one log line at `warn`.
    pub(crate) fn emit(self) {
        tracing::warn!(session = self.session, "session is in jeopardy: a renewal failed");
    }
}

/// A session is lost, and with it what hung on it.
#[derive(Debug)]
pub(crate) struct SessionLost<'a> {
    /// The session.
    pub(crate) session: &'a str,
    /// Why.
    pub(crate) reason: &'a str,
}

impl SessionLost<'_> {
    /// Reports it: one log line at `warn`.
    pub(crate) fn emit(self) {
        let Self { session, reason } = self;
        tracing::warn!(session, reason, "session is lost");
    }
}
