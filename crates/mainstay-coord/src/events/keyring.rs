//! What the keyring tells its operator.

/// Keys were taken from the list of the store, or another one seals.
#[derive(Debug)]
pub(crate) struct Followed<'a> {
    pub(crate) current: &'a str,
    pub(crate) keys: usize,
}

impl Followed<'_> {
    pub(crate) fn emit(self) {
        let Self { current, keys } = self;
        tracing::info!(current, keys, "keyring follows the store");
    }
}

/// A new key seals.
#[derive(Debug)]
pub(crate) struct Rotated<'a> {
    pub(crate) key: &'a str,
    pub(crate) before: &'a str,
    pub(crate) who: &'a str,
}

impl Rotated<'_> {
    pub(crate) fn emit(self) {
        let Self { key, before, who } = self;
        tracing::info!(key, before, who, "keyring rotated");
    }
}

/// Data keys were wrapped anew, or not all of them.
#[derive(Debug)]
pub(crate) struct Rewrapped {
    pub(crate) done: Result<usize, String>,
}

impl Rewrapped {
    pub(crate) fn emit(self) {
        match self.done {
            Ok(records) => tracing::info!(records, "data keys wrapped anew"),
            Err(why) => tracing::warn!(why, "not all data keys are wrapped anew"),
        }
    }
}

/// The list of the store could not be followed.
#[derive(Debug)]
pub(crate) struct Behind<'a> {
    pub(crate) why: &'a str,
}

impl Behind<'_> {
    pub(crate) fn emit(self) {
        let Self { why } = self;
        tracing::error!(why, "the keyring does not follow the store");
    }
}
