//! Why the Consul door's recipes did not do as asked.

use mainstay_store::Error;

use super::dependence::Dependence;

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
    /// A session cannot be made that would end at once.
    #[error(transparent)]
    Dependence(#[from] Dependence),
    /// A record cannot be read: another version wrote it, or it is damaged.
    #[error("record `{0}` cannot be read")]
    Unreadable(String),
    /// No such node is known.
    #[error("unknown node {0:?}")]
    NodeUnknown(String),
    /// This cannot be the name of a node.
    #[error("node name {0:?} must be 1 to 255 bytes without control characters")]
    NodeName(String),
    /// A node or a service has as many checks as it can have.
    #[error("no more than 16 checks")]
    ChecksTooMany,
    /// A key-value pair is too large.
    #[error("value has {found} bytes, more than {max}")]
    ValueTooLarge {
        /// Its size.
        found: usize,
        /// The limit.
        max: usize,
    },
}
