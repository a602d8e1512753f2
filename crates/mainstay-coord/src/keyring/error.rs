//! Why a keyring cannot be used.

use std::io;
use std::path::PathBuf;

use mainstay_core::problem::Code;
use mainstay_store::Error;

/// Why a keyring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// Others can read the file, or it belongs to somebody else. Start nothing with it: whoever
    /// read it opens every secret.
    #[error("keyring {} {problem}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// What is wrong with its mode or owner, and what to do.
        problem: String,
    },
    /// It could not be read or written.
    #[error("keyring {} could not be {done}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        done: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is no keyring, or is damaged.
    #[error("keyring cannot be read: {why}")]
    Damaged {
        /// What is wrong.
        why: &'static str,
    },
    /// It does not hold the key something was sealed with. Import the keyring of the node that did.
    #[error("keyring has no key {id}")]
    KeyMissing {
        /// Which key.
        id: String,
    },
    /// It was not sealed with that key and for that place, or has been changed since.
    #[error("sealed value does not open where it lies")]
    Forged,
    /// The passphrase or wrapping key is not the one it was sealed with.
    #[error("passphrase or wrapping key is wrong")]
    WrongKey,
    /// Other nodes of the store seal with a key that this keyring lacks.
    #[error("keyring {why}: the nodes of this store seal with key {id}")]
    Differs {
        /// Which key.
        id: String,
        /// How it stands to that key.
        why: &'static str,
    },
    /// The store could not be asked which keys its nodes have, or be told.
    #[error("the keys of the store's nodes cannot be settled")]
    Store(#[from] Error),
    /// A passphrase nobody should trust.
    #[error("passphrase must have at least 12 bytes")]
    PassphraseShort,
}

impl KeyringError {
    /// The code of the problem it becomes at the edge.
    pub const fn code(&self) -> Code {
        match self {
            Self::Open { .. } => Code::KeyringOpen,
            Self::Io { .. } | Self::Damaged { .. } => Code::KeyringUnreadable,
            Self::KeyMissing { .. } | Self::Forged => Code::SecretUnreadable,
            Self::Differs { .. } => Code::KeyringDiffers,
            Self::Store(error) => error.code(),
            Self::WrongKey | Self::PassphraseShort => Code::InvalidRequest,
        }
    }
}
