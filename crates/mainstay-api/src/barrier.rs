//! The barrier: a participant does each operation once, in whatever order they arrive.
//!
//! Calls are repeated, and overtake each other. In the local transaction of its business statements
//! a participant inserts rows, each unless it is there: one for each operation that it undoes, if it
//! undoes any, and one for itself. How many were inserted tells what to do: an undo that finds
//! nothing to undo takes the place of what has not come yet (*empty rollback*), so that it is
//! refused when it comes after all (*hanging*).
//!
//! Table and statements are a contract between programs in several languages that share a database.
//! A parameter is written `?`; [`numbered`](crate::receipt::numbered) makes `PostgreSQL`'s of it.

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

/// What is said to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statements {
    /// Inserts a row unless it is there, in `PostgreSQL`: mode, gid, branch, op, seq, reason.
    pub insert_postgres: &'static str,
    /// The same in `MariaDB`.
    pub insert_mariadb: &'static str,
    /// The same in `SQLite`.
    pub insert_sqlite: &'static str,
    /// Reads why a row stands there: gid, branch, op, seq.
    pub reason: &'static str,
    /// What messages are called in the column of modes.
    pub message: &'static str,
}

/// Our own table.
pub const OWN: Statements = Statements {
    insert_postgres: "INSERT INTO mainstay_barrier (mode, gid, branch, op, seq, reason) \
         VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    insert_mariadb: "INSERT IGNORE INTO mainstay_barrier (mode, gid, branch, op, seq, reason) \
         VALUES (?, ?, ?, ?, ?, ?)",
    insert_sqlite: "INSERT OR IGNORE INTO mainstay_barrier (mode, gid, branch, op, seq, reason) \
         VALUES (?, ?, ?, ?, ?, ?)",
    reason: "SELECT reason FROM mainstay_barrier \
         WHERE gid = ? AND branch = ? AND op = ? AND seq = ?",
    message: "message",
};

/// The table of clients of DTM, so that they and others can share one database.
pub const OF_DTM: Statements = Statements {
    insert_postgres: "INSERT INTO dtm_barrier.barrier \
         (trans_type, gid, branch_id, op, barrier_id, reason) \
         VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT ON CONSTRAINT uniq_barrier DO NOTHING",
    insert_mariadb: "INSERT IGNORE INTO dtm_barrier.barrier \
         (trans_type, gid, branch_id, op, barrier_id, reason) VALUES (?, ?, ?, ?, ?, ?)",
    insert_sqlite: "INSERT OR IGNORE INTO dtm_barrier.barrier \
         (trans_type, gid, branch_id, op, barrier_id, reason) VALUES (?, ?, ?, ?, ?, ?)",
    reason: "SELECT reason FROM dtm_barrier.barrier \
         WHERE gid = ? AND branch_id = ? AND op = ? AND barrier_id = ?",
    message: "msg",
};

/// Rows of our table in `PostgreSQL` by their key, a thousand at most: how many seconds old is old,
/// behind which gid, gid, branch, op, seq. Each with whether it is old. The gid comes twice so that
/// the key's index serves, which `MariaDB` does not take for a comparison of rows alone.
pub const ROWS_POSTGRES: &str = "SELECT gid::text, branch::text, op::text, seq::text, \
written_at < clock_timestamp() - make_interval(secs => ?) FROM mainstay_barrier \
WHERE gid >= ? AND (gid, branch, op, seq) > (?, ?, ?, ?) \
ORDER BY gid, branch, op, seq LIMIT 1000";

/// The same in `MariaDB`.
pub const ROWS_MARIADB: &str = "SELECT gid, branch, op, seq, \
written_at < current_timestamp(6) - INTERVAL ? SECOND FROM mainstay_barrier \
WHERE gid >= ? AND (gid, branch, op, seq) > (?, ?, ?, ?) \
ORDER BY gid, branch, op, seq LIMIT 1000";

/// The operations that `op` undoes, whose places it takes if they have not come. A branch of a
/// two-phase commit prepares in its action, or after it when it is called for that: either may come
/// late.
pub fn undone(op: &str) -> &'static [&'static str] {
    match op {
        "compensate" => &["action"],
        "rollback" => &["action", "prepare"],
        "cancel" => &["try"],
        _ => &[],
    }
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
    /// Judges the operation `op` by the rows that were inserted: `taken` for all that it undoes (0
    /// where it undoes nothing), `own` for itself; and, if its own row stood there already, by that
    /// row's reason.
    ///
    /// | taken | own | reason | |
    /// |---|---|---|---|
    /// | all it undoes | 1 | | the undo comes first: empty rollback |
    /// | fewer, or it undoes nothing | 1 | | run |
    /// | | 0 | the operation itself | duplicate |
    /// | | 0 | another | its undo was here: hanging |
    pub fn judge(op: &str, taken: u64, own: u64, reason: Option<&str>) -> Self {
        let places = undone(op).len();
        match (own, reason) {
            (0, Some(reason)) if reason != op => Self::Hanging,
            (0, _) => Self::Duplicate,
            _ if 0 < places && usize::try_from(taken) == Ok(places) => Self::EmptyRollback,
            _ => Self::Run,
        }
    }
}

/// The branch of the local part of a message, and of the question about it.
pub const LOCAL_BRANCH: &str = "00";

/// The operation of the local part of a message, and of the question about it.
pub const LOCAL_OP: &str = "msg";

/// The reason that a check leaves in the row of the local part, if it is not there.
pub const ROLLED_BACK: &str = "rollback";

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// A table of one branch: reasons by operation.
    #[derive(Debug, Default)]
    struct Table(BTreeMap<&'static str, &'static str>);

    impl Table {
        fn insert(&mut self, op: &'static str, reason: &'static str) -> u64 {
            let before = self.0.len();
            self.0.entry(op).or_insert(reason);
            u64::from(self.0.len() > before)
        }

        fn arrives(&mut self, op: &'static str) -> Passage {
            let taken = undone(op).iter().map(|place| self.insert(place, op)).sum();
            let own = self.insert(op, op);
            Passage::judge(op, taken, own, self.0.get(op).copied())
        }
    }

    /// What becomes of operations that arrive in this order.
    #[track_caller]
    fn check(ops: &[&'static str], want: &[Passage]) {
        let mut table = Table::default();
        let got: Vec<Passage> = ops.iter().map(|op| table.arrives(op)).collect();
        assert_eq!(got, want, "{ops:?}");
    }

    #[test]
    fn passages_are_those_of_the_table() {
        use Passage::{Duplicate, EmptyRollback, Hanging, Run};
        for (first, undo) in [
            ("try", "cancel"),
            ("action", "compensate"),
            ("action", "rollback"),
            ("prepare", "rollback"),
        ] {
            check(&[first], &[Run]);
            check(&[first, first], &[Run, Duplicate]);
            check(&[first, undo], &[Run, Run]);
            check(&[undo], &[EmptyRollback]);
            check(&[undo, first], &[EmptyRollback, Hanging]);
            check(&[first, undo, undo], &[Run, Run, Duplicate]);
            check(&[undo, undo, first, first], &[EmptyRollback, Duplicate, Hanging, Hanging]);
        }
        // Each of both was done or not, and neither is done any more.
        check(&["action", "rollback", "prepare"], &[Run, Run, Hanging]);
        check(&["prepare", "rollback", "action"], &[Run, Run, Hanging]);
        check(&["action", "prepare", "rollback", "rollback"], &[Run, Run, Run, Duplicate]);
        check(&["rollback", "action", "prepare"], &[EmptyRollback, Hanging, Hanging]);
        assert_eq!((seq(1), seq(12)), ("01".to_owned(), "12".to_owned()));
        check(&["confirm", "confirm"], &[Run, Duplicate]);
        check(&[LOCAL_OP, LOCAL_OP], &[Run, Duplicate]);
    }

    #[test]
    fn in_whatever_order_the_effect_is_that_of_an_orderly_world() {
        // All orders of eight arrivals.
        for ops in [["try", "try", "cancel"], ["action", "prepare", "rollback"]] {
            for orders in 0..3_usize.pow(8) {
                let mut table = Table::default();
                let mut ran = Vec::new();
                for at in 0..8 {
                    let op = ops[orders / 3_usize.pow(at) % 3];
                    if table.arrives(op) == Passage::Run {
                        ran.push(op);
                    }
                }
                // Each once; an undo after all of it, and not without any.
                let undone = ran.iter().position(|op| *op == ops[2]);
                let once: BTreeSet<_> = ran.iter().collect();
                let orderly = undone.is_none_or(|at| 0 < at && at + 1 == ran.len());
                assert!(orderly && once.len() == ran.len(), "{ops:?} {orders}: {ran:?}");
            }
        }
    }
}
