//! Why a database did not do as asked.

use crate::receipt::Told;

/// Why a database did not do as asked. Texts are the server's or the driver's: they name users,
/// tables and branches, never a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It knows no such branch, or says that it was read-only.
    #[error("{0}")]
    NoSuchBranch(String),
    /// Credentials, privileges. To repeat it does not help.
    #[error("{0}")]
    Denied(String),
    /// Somebody holds what it takes, or it is a server that only reads.
    #[error("{0}")]
    Busy(String),
    /// Our tables are not there.
    #[error("{0}")]
    NoTable(String),
    /// It could not be reached, or did not answer: the session is no longer to be used, and what
    /// became of a statement is open.
    #[error("{0}")]
    Lost(String),
    /// Anything else it said.
    #[error("{0}")]
    Said(String),
}

impl Failure {
    /// Whether the session is no longer to be used.
    pub const fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_))
    }
}

impl From<Failure> for Told {
    fn from(failure: Failure) -> Self {
        let why = failure.to_string();
        match failure {
            Failure::NoSuchBranch(_) => Self::NoSuchBranch,
            Failure::Denied(_) => Self::Denied(why),
            Failure::Busy(_) => Self::Busy(why),
            Failure::NoTable(_) | Failure::Lost(_) | Failure::Said(_) => Self::Unclear(why),
        }
    }
}
