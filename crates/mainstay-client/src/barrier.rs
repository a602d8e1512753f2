//! The barrier of a participant: each operation of a branch takes effect once, in whatever order
//! and however often it arrives.
//!
//! A coordinator repeats what it got no answer to, and an undoing call may overtake what it undoes.
//! A [`Barrier`] writes a row for the operation into the same local transaction as the business
//! statements. That row tells a repetition, an undo of what never came, and what comes after its
//! undo ([`mainstay_api::barrier`] has the rules).
//!
//! | database | run | ask for a message's local part | tables |
//! |---|---|---|---|
//! | `PostgreSQL` | `Barrier::postgres` | `Check::postgres` | `postgres::install_tables` |
//! | `MariaDB`, `MySQL` | `Barrier::mysql` | `Check::mysql` | `mysql::install_tables` |
//! | `SQLite` | `Barrier::sqlite` | `Check::sqlite` | `sqlite::install_tables` |
//!
//! ```
//! # #[cfg(feature = "postgres")]
//! # async fn deduct(
//! #     branch: mainstay_client::Branch,
//! #     client: &mut tokio_postgres::Client,
//! # ) -> Result<(), mainstay_client::barrier::BarrierError<tokio_postgres::Error, tokio_postgres::Error>> {
//! use mainstay_client::Barrier;
//!
//! let passed = Barrier::of(&branch).postgres(client, async |sql| {
//!     sql.execute("UPDATE stock SET count = count - 1 WHERE sku = 'b-1'", &[]).await
//! }).await;
//! println!("answer {}", passed?.http());
//! # Ok(())
//! # }
//! ```
//!
//! - The transaction is begun and ended here; the business statements run on what is handed to
//!   them. If they return an error it is rolled back, **and the error is returned**: who answers
//!   2xx all the same reports a success that did not happen.
//! - A serialization failure or a deadlock repeats the whole transaction, business statements and
//!   all, up to [`REPEATS`] times; so they must do nothing that a rollback does not undo.
//! - Whoever waits longer than 2 s for another session at the same branch is told to come later,
//!   [`BarrierError::Ongoing`].
//! - An error of a statement that the business statements keep to themselves is found out before
//!   the commit: [`BarrierError::NothingCommitted`].
//! - What is not run is counted: [`skips()`].

mod business;
mod called;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "postgres")]
pub mod postgres;
mod skips;
#[cfg(feature = "sqlite")]
pub mod sqlite;

#[cfg(feature = "axum")]
mod answer;

#[cfg(feature = "axum")]
pub use answer::Answer;
pub use business::Business;
pub use called::{Branch, BranchInvalid};
pub use skips::{BarrierSkips, skips};

use mainstay_api::barrier::{self, Passage, Statements};

use crate::optimistic::Conflicts;

/// How often a local transaction is repeated after a serialization failure or a deadlock.
pub const REPEATS: u32 = 3;

/// What passes an operation on to the business statements, or keeps it from them. One for each call
/// of a handler: its local transactions are numbered.
#[derive(Clone, Debug)]
pub struct Barrier {
    branch: Branch,
    statements: &'static Statements,
    /// Local transactions so far.
    count: u32,
}

/// What became of an operation. Everything but [`Passed::Hanging`] is a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an operation that is hanging must be answered 409"]
pub enum Passed<T> {
    /// The business statements have run, and are committed: 200.
    Ran(T),
    /// They ran before: 200.
    Duplicate,
    /// There is nothing to undo, and what would have been undone is refused from now on: 200.
    EmptyRollback,
    /// Its undo was here before; nothing was done, and never will be: 409.
    Hanging,
}

/// Why an operation did not pass. Its local transaction was rolled back, unless it is
/// [`BarrierError::Database`] of a commit whose answer was lost; the same call may be repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BarrierError<E, D> {
    /// Another session is at the same branch: 425, come again.
    #[error("another session is at the same branch")]
    Ongoing,
    /// What the business statements returned. Its answer is theirs: 409 if it can never work.
    #[error("the business statements failed")]
    Business(#[source] E),
    /// A statement had failed, and the business statements returned no error: 500.
    #[error("nothing was committed: a statement had failed, whose error was not returned")]
    NothingCommitted,
    /// What the database said: 500.
    #[error("the barrier could not be asked")]
    Database(#[source] D),
}

/// The question of a message whether its local part was committed.
#[derive(Clone, Debug)]
pub struct Check {
    barrier: Barrier,
}

/// What the sender of a message answers to the question whether its local part was committed. It
/// inserts the row of the local part itself first, with the reason `rollback`, in a transaction
/// of its own: so it is either told what was committed, or stops the slow local part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It was: 200.
    Committed,
    /// It was not, and never will be: 409.
    RolledBack,
    /// It is being committed just now: 425.
    Ongoing,
}

impl Checked {
    /// Judges by the reason that stands in the row afterwards; `None` when the insert waited for a
    /// lock in vain.
    fn judge(reason: Option<&str>) -> Self {
        match reason {
            None => Self::Ongoing,
            Some(barrier::ROLLED_BACK) => Self::RolledBack,
            Some(_) => Self::Committed,
        }
    }

    /// Status of the answer.
    pub const fn http(self) -> u16 {
        match self {
            Self::Committed => 200,
            Self::RolledBack => 409,
            Self::Ongoing => 425,
        }
    }
}

impl Barrier {
    /// The barrier of the branch that is called.
    pub fn of(branch: &Branch) -> Self {
        Self { branch: branch.clone(), statements: &barrier::OWN, count: 0 }
    }

    /// The barrier of the local part of the message `gid`: its transaction is the one that decides
    /// whether the message is sent. It is [`Passed::Hanging`] if the sender was asked in between
    /// and has said no.
    ///
    /// # Errors
    ///
    /// [`BranchInvalid`]: that is no gid.
    pub fn local_part(gid: &str) -> Result<Self, BranchInvalid> {
        let (branch, op) = (barrier::LOCAL_BRANCH, barrier::LOCAL_OP);
        Ok(Self::of(&Branch::new(barrier::OWN.message, gid, branch, op)?))
    }

    /// Keeps its rows in the table of clients of DTM, `dtm_barrier.barrier`, which is there
    /// already: participants in other languages then share the database, and its barrier.
    #[must_use]
    pub fn table_of_dtm(self) -> Self {
        Self { statements: &barrier::OF_DTM, ..self }
    }

    /// The next local transaction's `seq`.
    fn next_seq(&mut self) -> String {
        self.count = self.count.saturating_add(1);
        barrier::seq(self.count)
    }

    /// The row of `op`, written because of `reason`.
    fn row<'a>(&'a self, op: &'a str, seq: &'a str, reason: &'a str) -> [&'a str; 6] {
        let Branch { mode, gid, id, .. } = &self.branch;
        let is_message = ["msg", "message"].contains(&mode.as_str());
        let mode = if is_message { self.statements.message } else { mode };
        [mode, gid, id, op, seq, reason]
    }

    /// Rows to insert, in this order: what is undone, if anything, and the operation itself.
    fn rows<'a>(&'a self, seq: &'a str) -> (Vec<[&'a str; 6]>, [&'a str; 6]) {
        let op = self.branch.op.as_str();
        let places = barrier::undone(op).iter().map(|place| self.row(place, seq, op));
        (places.collect(), self.row(op, seq, op))
    }

    fn judge(&self, taken: u64, own: u64, reason: Option<&str>) -> Passage {
        Passage::judge(&self.branch.op, taken, own, reason)
    }
}

impl Check {
    /// The question that `branch` asks; its operation is `msg`.
    pub fn of(branch: &Branch) -> Self {
        Self { barrier: Barrier::of(branch) }
    }

    /// As [`Barrier::table_of_dtm`].
    #[must_use]
    pub fn table_of_dtm(self) -> Self {
        Self { barrier: self.barrier.table_of_dtm() }
    }

    /// The row of the local part, in whose place this stands from now on.
    fn row(&self) -> [&str; 6] {
        self.barrier.row(barrier::LOCAL_OP, "01", barrier::ROLLED_BACK)
    }
}

impl<T> Passed<T> {
    /// Status of the participant's answer.
    pub const fn http(&self) -> u16 {
        match self {
            Self::Ran(_) | Self::Duplicate | Self::EmptyRollback => 200,
            Self::Hanging => 409,
        }
    }

    /// For an operation whose business statements do not run; `None` if they do.
    fn without(passage: Passage) -> Option<Self> {
        match passage {
            Passage::Run => None,
            Passage::Duplicate => Some(Self::Duplicate),
            Passage::EmptyRollback => Some(Self::EmptyRollback),
            Passage::Hanging => Some(Self::Hanging),
        }
    }
}

impl<E, D> From<D> for BarrierError<E, D> {
    fn from(error: D) -> Self {
        Self::Database(error)
    }
}

impl<E: Conflicts, D: Conflicts> Conflicts for BarrierError<E, D> {
    fn is_conflict(&self) -> bool {
        match self {
            Self::Business(error) => error.is_conflict(),
            Self::Database(error) => error.is_conflict(),
            Self::Ongoing | Self::NothingCommitted => false,
        }
    }
}

/// Whether a local transaction that failed for the `repeated`th time, from 0, is run again.
#[cfg(any(feature = "mysql", feature = "postgres"))]
fn is_repeated<T, E: Conflicts>(came: &Result<T, E>, repeated: u32) -> bool {
    repeated < REPEATS && came.as_ref().is_err_and(Conflicts::is_conflict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_the_contract() {
        let branch = Branch::new("tcc", "order-7", "02", "cancel").unwrap();
        let mut barrier = Barrier::of(&branch);
        let seq = barrier.next_seq();
        let (places, own) = barrier.rows(&seq);
        assert_eq!(places, [["tcc", "order-7", "02", "try", "01", "cancel"]]);
        assert_eq!(own, ["tcc", "order-7", "02", "cancel", "01", "cancel"]);
        assert_eq!(barrier.clone().next_seq(), "02");
        let branch = Branch::new("xa", "order-7", "02", "rollback").unwrap();
        let places = ["action", "prepare"].map(|op| ["xa", "order-7", "02", op, "01", "rollback"]);
        assert_eq!(Barrier::of(&branch).rows("01").0, places);
        let local = Barrier::local_part("paid-9").unwrap();
        assert_eq!(local.rows("01"), (vec![], ["message", "paid-9", "00", "msg", "01", "msg"]));
        // Clients of DTM call the mode otherwise; what is asked is the row of the local part.
        let asked = Branch::new("message", "paid-9", "00", "msg").unwrap();
        let row = ["msg", "paid-9", "00", "msg", "01", "rollback"];
        assert_eq!(Check::of(&asked).table_of_dtm().row(), row);
    }

    #[test]
    fn a_sender_says_what_stands_there() {
        let judged = [None, Some("rollback"), Some("msg")].map(Checked::judge);
        assert_eq!(judged, [Checked::Ongoing, Checked::RolledBack, Checked::Committed]);
        assert_eq!(judged.map(Checked::http), [425, 409, 200]);
    }

    #[test]
    fn only_what_comes_after_its_undo_is_refused() {
        let passed = [Passed::Ran(()), Passed::Duplicate, Passed::EmptyRollback, Passed::Hanging];
        assert_eq!(passed.map(|passed| passed.http()), [200, 200, 200, 409]);
    }
}
