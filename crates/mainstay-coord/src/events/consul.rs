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
