//! A branch of a two-phase commit in the application's own database.
//!
//! A branch writes a **receipt** first, in the same local transaction as its business statements,
//! and is then prepared: from there on the coordinator ends it, also when this program is gone. The
//! receipt is how it tells later what became of a branch that the database knows no more, so a
//! branch without one must never be prepared. A tomb under the same key says that the branch was
//! rolled back before it came: it must not be done any more.
//!
//! | database | begin, prepare, give up | sessions |
//! |---|---|---|
//! | `PostgreSQL` | `postgres::begin`, `postgres::prepare`, `postgres::give_up` | the session may go on |
//! | `MariaDB` | `mysql::begin`, `mysql::prepare`, `mysql::give_up` | closed once it is prepared: while it lives nobody else can end the branch |
//!
//! After any error of a statement in between, also one that the database thinks nothing of, the
//! branch is given up and the vote is no: `MariaDB` would prepare what is left of it.

#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "postgres")]
pub mod postgres;

use mainstay_api::receipt;

/// What databases call a branch. Whatever a caller sent is checked, as it becomes part of
/// statements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BranchName {
    cluster: String,
    gid: String,
    branch: String,
}

/// A text that cannot be part of the name of a branch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "branch {branch:?} of {gid:?} in cluster {cluster:?} must be eight of a-z and 0-9, 1 to 48 of \
     A-Z, a-z, 0-9, `.`, `_` and `-`, and 1 to 64 of A-Z, a-z, 0-9, `.` and `-`"
)]
pub struct BranchNameInvalid {
    cluster: String,
    gid: String,
    branch: String,
}

impl BranchName {
    /// The branch `branch` of the transaction `gid`, which the coordinators of `cluster` end.
    ///
    /// # Errors
    ///
    /// [`BranchNameInvalid`], which says what is allowed.
    pub fn new(cluster: &str, gid: &str, branch: &str) -> Result<Self, BranchNameInvalid> {
        let [cluster, gid, branch] = [cluster, gid, branch].map(ToOwned::to_owned);
        if receipt::fits(&cluster, &gid, &branch) {
            return Ok(Self { cluster, gid, branch });
        }
        Err(BranchNameInvalid { cluster, gid, branch })
    }

    /// As `PostgreSQL` lists it.
    pub fn postgres(&self) -> String {
        receipt::postgres_name(&self.cluster, &self.gid, &self.branch)
    }

    /// As a literal of XA statements.
    pub fn xa_literal(&self) -> String {
        receipt::xa_literal(&self.cluster, &self.gid, &self.branch)
    }
}

/// How a branch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Its receipt is written: the business statements come next.
    New,
    /// It was prepared before, or has even been committed: do nothing, vote yes again.
    Already,
}

/// Why a branch cannot be done. The local transaction has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BranchError<E> {
    /// It was rolled back before it came. Answer 409; it can never be done.
    #[error("branch was rolled back before it began")]
    Ended,
    /// Another delivery of it is being done. Answer 425; it is asked for again.
    #[error("branch is being prepared by another session")]
    Ongoing,
    /// The database had given the transaction up before, and prepared nothing. Vote no.
    #[error("nothing was prepared: a statement of the branch had failed")]
    NothingPrepared,
    /// What the database said. Vote no; whether it was prepared may be open.
    #[error("branch could not be prepared")]
    Database(#[source] E),
}

impl<E> BranchError<E> {
    /// Status of a participant's answer.
    pub const fn http(&self) -> u16 {
        match self {
            Self::Ended | Self::NothingPrepared => 409,
            Self::Ongoing => 425,
            Self::Database(_) => 500,
        }
    }
}

impl<E> From<E> for BranchError<E> {
    fn from(error: E) -> Self {
        Self::Database(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_sent_is_checked_before_it_gets_into_a_statement() {
        let name = BranchName::new("k3v9q2mt", "order-1", "01").unwrap();
        assert_eq!(name.postgres(), "ms:k3v9q2mt:order-1:01");
        let refused = BranchName::new("k3v9q2mt", "a'; DROP TABLE b; --", "01").unwrap_err();
        assert!(refused.to_string().contains("1 to 48 of"), "{refused}");
    }
}
