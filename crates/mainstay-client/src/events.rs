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

/// An instance is registered.
#[derive(Debug)]
pub(crate) struct Registered<'a> {
    /// Service and id.
    pub(crate) instance: &'a str,
}

impl Registered<'_> {
    /// Reports it: one log line at `info`.
    pub(crate) fn emit(self) {
        tracing::info!(instance = self.instance, "registered");
    }
}

/// A registration was refused; it is tried again.
#[derive(Debug)]
pub(crate) struct RegistrationRefused<'a> {
    /// Service and id.
    pub(crate) instance: &'a str,
    /// What the server said.
    pub(crate) why: &'a str,
}

impl RegistrationRefused<'_> {
    /// Reports it: one log line at `warn`.
    pub(crate) fn emit(self) {
        let Self { instance, why } = self;
        tracing::warn!(instance, why, "registration is refused");
    }
}

/// The registry does not know an instance any more; it is registered again.
#[derive(Debug)]
pub(crate) struct RegistrationForgotten<'a> {
    /// Service and id.
    pub(crate) instance: &'a str,
}

impl RegistrationForgotten<'_> {
    /// Reports it: one log line at `warn`.
    pub(crate) fn emit(self) {
        tracing::warn!(instance = self.instance, "registry has forgotten the instance");
    }
}

/// Services are not followed any more: the last lists serve.
#[derive(Debug)]
pub(crate) struct RegistryAway<'a> {
    /// What the last server did.
    pub(crate) why: &'a str,
}

impl RegistryAway<'_> {
    /// Reports it: one log line at `warn`.
    pub(crate) fn emit(self) {
        tracing::warn!(why = self.why, "registry is away, the last lists serve");
    }
}

/// Services are followed again.
#[derive(Debug)]
pub(crate) struct RegistryBack;

impl RegistryBack {
    /// Reports it: one log line at `info`.
    pub(crate) fn emit(self) {
        tracing::info!("registry is back");
    }
}

/// The config centre does not answer: the last releases serve.
#[derive(Debug)]
pub(crate) struct ConfigAway<'a> {
    /// What the last server did.
    pub(crate) why: &'a str,
}

impl ConfigAway<'_> {
    /// Reports it: one log line at `warn`.
    pub(crate) fn emit(self) {
        tracing::warn!(why = self.why, "config centre is away, the last releases serve");
    }
}

/// The config centre answers again.
#[derive(Debug)]
pub(crate) struct ConfigBack;

impl ConfigBack {
    /// Reports it: one log line at `info`.
    pub(crate) fn emit(self) {
        tracing::info!("config centre is back");
    }
}

/// Rules and switches are not followed any more: the last ones serve.
#[derive(Debug)]
pub(crate) struct RulesAway<'a> {
    /// What the last server did.
    pub(crate) why: &'a str,
}

impl RulesAway<'_> {
    /// Reports it: one log line at `warn`.
    pub(crate) fn emit(self) {
        tracing::warn!(why = self.why, "rules are not followed, the last ones serve");
    }
}

/// Rules and switches are followed again.
#[derive(Debug)]
pub(crate) struct RulesBack;

impl RulesBack {
    /// Reports it: one log line at `info`.
    pub(crate) fn emit(self) {
        tracing::info!("rules are followed again");
    }
}

/// Something could not be kept on disk, or what was kept is of no use.
#[derive(Debug)]
pub(crate) struct CacheUnusable<'a> {
    /// Of what.
    pub(crate) what: &'a str,
    /// What the system said.
    pub(crate) why: &'a str,
}

impl CacheUnusable<'_> {
    /// Reports it: one log line at `warn`.
    pub(crate) fn emit(self) {
        let Self { what, why } = self;
        tracing::warn!(what, why, "last known state on disk cannot be used");
    }
}

/// An instance failed calls, and the registry was not told.
#[derive(Debug)]
pub(crate) struct NotReported<'a> {
    /// Which instance.
    pub(crate) instance: &'a str,
    /// Why.
    pub(crate) why: &'a str,
}

impl NotReported<'_> {
    /// Reports it: one log line at `debug`, since it is told again when the instance fails again.
    pub(crate) fn emit(self) {
        let Self { instance, why } = self;
        tracing::debug!(instance, why, "a failing instance was not reported");
    }
}

/// A local transaction behind a barrier was not committed, and the caller is told nothing of why.
#[cfg(feature = "axum")]
#[derive(Debug)]
pub(crate) struct BarrierFailed<'a> {
    /// What the database said, or what was wrong.
    pub(crate) error: &'a str,
}

#[cfg(feature = "axum")]
impl BarrierFailed<'_> {
    /// Reports it: one log line at `warn`.
    pub(crate) fn emit(self) {
        tracing::warn!(
            error = self.error,
            "a local transaction behind a barrier was not committed"
        );
    }
}
