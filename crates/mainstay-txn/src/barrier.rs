//! The barrier: a participant does each operation once, in whatever order they arrive.
//!
//! Calls are repeated, and overtake each other. In the local transaction of its business statements
//! a participant inserts two rows, each unless it is there: one for the operation that it undoes,
//! if it undoes one, and one for itself. How many were inserted tells what to do: an undo that
//! finds nothing to undo takes the place of what has not come yet (*empty rollback*), so that it is
//! refused when it comes after all (*hanging*).

use crate::database::Database;
use crate::word::Op;

/// The table in `PostgreSQL`.
pub const TABLE_POSTGRES: &str = "CREATE TABLE IF NOT EXISTS mainstay_barrier (\
mode varchar(16) NOT NULL, gid varchar(128) COLLATE \"C\" NOT NULL, \
branch varchar(64) COLLATE \"C\" NOT NULL, op varchar(16) NOT NULL, seq varchar(4) NOT NULL, \
reason varchar(16) NOT NULL, written_at timestamptz NOT NULL DEFAULT clock_timestamp(), \
PRIMARY KEY (gid, branch, op, seq))";

/// The table in `MariaDB`.
pub const TABLE_MARIADB: &str = "CREATE TABLE IF NOT EXISTS mainstay_barrier (\
mode varchar(16) NOT NULL, gid varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, \
branch varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, \
op varchar(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, \
seq varchar(4) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, reason varchar(16) NOT NULL, \
written_at timestamp(6) NOT NULL DEFAULT current_timestamp(6), \
PRIMARY KEY (gid, branch, op, seq)) ENGINE=InnoDB";

/// The table in `SQLite`.
pub const TABLE_SQLITE: &str = "CREATE TABLE IF NOT EXISTS mainstay_barrier (\
mode TEXT NOT NULL, gid TEXT NOT NULL, branch TEXT NOT NULL, op TEXT NOT NULL, seq TEXT NOT NULL, \
reason TEXT NOT NULL, written_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, \
PRIMARY KEY (gid, branch, op, seq))";

/// Inserts a row unless it is there: mode, gid, branch, op, seq, reason.
pub const fn insert(database: Database) -> &'static str {
    match database {
        Database::Postgres => {
            "INSERT INTO mainstay_barrier (mode, gid, branch, op, seq, reason) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING"
        }
        Database::MariaDb => {
            "INSERT IGNORE INTO mainstay_barrier (mode, gid, branch, op, seq, reason) \
             VALUES (?, ?, ?, ?, ?, ?)"
        }
        Database::Sqlite => {
            "INSERT OR IGNORE INTO mainstay_barrier (mode, gid, branch, op, seq, reason) \
             VALUES (?, ?, ?, ?, ?, ?)"
        }
    }
}

/// Reads why a row stands there: gid, branch, op, seq.
pub const fn reason(database: Database) -> &'static str {
    match database {
        Database::Postgres => {
            "SELECT reason FROM mainstay_barrier \
             WHERE gid = $1 AND branch = $2 AND op = $3 AND seq = $4"
        }
        Database::MariaDb | Database::Sqlite => {
            "SELECT reason FROM mainstay_barrier \
             WHERE gid = ? AND branch = ? AND op = ? AND seq = ?"
        }
    }
}

/// The table of a database.
pub const fn table(database: Database) -> &'static str {
    match database {
        Database::Postgres => TABLE_POSTGRES,
        Database::MariaDb => TABLE_MARIADB,
        Database::Sqlite => TABLE_SQLITE,
    }
}

/// The rows to insert, in this order: what is undone, if anything, and the operation itself.
pub const fn rows(op: Op) -> (Option<Op>, Op) {
    (op.undoes(), op)
}

/// `seq` of call number `n` of one handler, of which the first is 1.
pub fn seq(n: u32) -> String {
    format!("{n:02}")
}

/// What a participant does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Run the business statements, then commit; an error rolls back and is returned.
    Run,
    /// It was done before: commit, and answer that it is done.
    Duplicate,
    /// There is nothing to undo, and never will be: commit, and answer that it is done.
    EmptyRollback,
    /// It comes after its undo: commit, and refuse.
    Hanging,
}

impl Passage {
    /// Judges an operation by the rows that were inserted, of the two of [`rows`]: `undone` for what
    /// it undoes (of no account where it undoes nothing), `own` for itself; and, if its own row
    /// stood there already, by that row's reason.
    ///
    /// | undone | own | reason | |
    /// |---|---|---|---|
    /// | 1 | 1 | | the undo comes first: empty rollback |
    /// | – or 0 | 1 | | run |
    /// | | 0 | the operation itself | duplicate |
    /// | | 0 | another | its undo was here: hanging |
    pub fn judge(op: Op, undone: u64, own: u64, reason: Option<&str>) -> Self {
        let has_origin = op.undoes().is_some();
        match (own, reason) {
            (0, Some(reason)) if reason != op.as_str() => Self::Hanging,
            (0, _) => Self::Duplicate,
            _ if has_origin && undone > 0 => Self::EmptyRollback,
            _ => Self::Run,
        }
    }

    /// Status of the participant's answer; business statements that run have their own.
    pub const fn http(self) -> u16 {
        match self {
            Self::Run | Self::Duplicate | Self::EmptyRollback => 200,
            Self::Hanging => 409,
        }
    }
}

/// What the sender of a message answers to the question whether its local part was committed. It
/// inserts its own row first, with the reason `rollback`, in a statement of its own: so it is either
/// told what was committed, or stops the slow local part.
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
    pub fn judge(reason: Option<&str>) -> Self {
        match reason {
            None => Self::Ongoing,
            Some("rollback") => Self::RolledBack,
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

/// The key of the local part of a message: branch, operation, seq.
pub const LOCAL_PART: (&str, &str, &str) = ("00", "msg", "01");

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// A table of one branch: reasons by operation.
    #[derive(Debug, Default)]
    struct Table(BTreeMap<Op, &'static str>);

    impl Table {
        fn insert(&mut self, op: Op, reason: Op) -> u64 {
            let before = self.0.len();
            self.0.entry(op).or_insert(reason.as_str());
            u64::from(self.0.len() > before)
        }

        fn arrives(&mut self, op: Op) -> Passage {
            let (origin, own) = rows(op);
            let undone = origin.map_or(0, |origin| self.insert(origin, op));
            let inserted = self.insert(own, op);
            Passage::judge(op, undone, inserted, self.0.get(&own).copied())
        }
    }

    /// What becomes of operations that arrive in this order.
    #[track_caller]
    fn check(ops: &[Op], want: &[Passage]) {
        let mut table = Table::default();
        let got: Vec<Passage> = ops.iter().map(|op| table.arrives(*op)).collect();
        assert_eq!(got, want, "{ops:?}");
    }

    #[test]
    fn passages_are_those_of_the_table() {
        use Passage::{Duplicate, EmptyRollback, Hanging, Run};
        for (first, undo) in [(Op::Try, Op::Cancel), (Op::Action, Op::Compensate)] {
            check(&[first], &[Run]);
            check(&[first, first], &[Run, Duplicate]);
            check(&[first, undo], &[Run, Run]);
            check(&[undo], &[EmptyRollback]);
            check(&[undo, first], &[EmptyRollback, Hanging]);
            check(&[first, undo, undo], &[Run, Run, Duplicate]);
            check(&[undo, undo, first, first], &[EmptyRollback, Duplicate, Hanging, Hanging]);
        }
        check(&[Op::Confirm, Op::Confirm], &[Run, Duplicate]);
        check(&[Op::Check, Op::Check], &[Run, Duplicate]);
        assert_eq!([Run, Hanging].map(Passage::http), [200, 409]);
    }

    #[test]
    fn a_sender_says_what_stands_there() {
        let judged = [None, Some("rollback"), Some("msg")].map(Checked::judge);
        assert_eq!(judged, [Checked::Ongoing, Checked::RolledBack, Checked::Committed]);
        assert_eq!(judged.map(Checked::http), [425, 409, 200]);
        assert_eq!(seq(1), "01");
    }

    proptest! {
        /// In whatever order and however often they arrive: each runs once at most, an undo runs
        /// only after what it undoes, and nothing runs after its undo.
        #[test]
        fn the_effect_is_that_of_an_orderly_world(undoes in prop::collection::vec(any::<bool>(), 0..12)) {
            let mut table = Table::default();
            let mut ran = Vec::new();
            for undo in undoes {
                let op = if undo { Op::Cancel } else { Op::Try };
                if table.arrives(op) == Passage::Run {
                    ran.push(op);
                }
            }
            prop_assert!([&[][..], &[Op::Try], &[Op::Try, Op::Cancel]].contains(&&ran[..]), "{:?}", ran);
        }
    }
}
