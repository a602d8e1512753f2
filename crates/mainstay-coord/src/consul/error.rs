//! Why the Consul door's recipes did not do as asked.

use mainstay_store::Error;

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConsulError {
    /// The store said so.
    #[error(transparent)]
    Store(#[from] Error),
    /// This node has not caught up with the store. Retry.
    #[error("the copy of this node is behind the store")]
    Behind,
    /// No such session lives.
    #[error("invalid session \"{0}\"")]
    SessionInvalid(String),
    /// A record cannot be read: another version wrote it, or it is damaged.
    #[error("record `{0}` cannot be read")]
    Unreadable(String),
    /// A key-value pair is too large.
    #[error("value has {found} bytes, more than {max}")]
    ValueTooLarge {
        /// Its size.
        found: usize,
        /// The limit.
        max: usize,
    },
}
