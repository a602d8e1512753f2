//! The statements, a contract on the wire: other clients keep the same tables.
//!
//! A parameter is written `?`, as `MariaDB` has it; [`numbered`] makes `PostgreSQL`'s of it.

use crate::database::{Database, Xid};

/// The table of receipts in `PostgreSQL`.
pub const RECEIPT_POSTGRES: &str = "CREATE TABLE IF NOT EXISTS mainstay_receipt (\
gid varchar(128) COLLATE \"C\" NOT NULL, branch varchar(64) COLLATE \"C\" NOT NULL, \
kind char(4) NOT NULL CHECK (kind IN ('done','tomb')), written_by varchar(64) NOT NULL, \
written_at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (gid, branch))";

/// What the sweep of old receipts goes by in `PostgreSQL`; `MariaDB` has it in the table.
pub const INDEX_POSTGRES: &str = "CREATE INDEX IF NOT EXISTS mainstay_receipt_written_at \
ON mainstay_receipt (written_at)";

/// Which log a database belongs to, in `PostgreSQL`.
pub const COORDINATOR_POSTGRES: &str = "CREATE TABLE IF NOT EXISTS mainstay_coordinator (\
cluster char(8) PRIMARY KEY, log_id char(36) NOT NULL, sequence bigint NOT NULL, \
written_at timestamptz NOT NULL)";

/// The table of receipts in `MariaDB`.
pub const RECEIPT_MARIADB: &str = "CREATE TABLE IF NOT EXISTS mainstay_receipt (\
gid varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, \
branch varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, \
kind enum('done','tomb') NOT NULL, written_by varchar(64) NOT NULL, \
written_at timestamp(6) NOT NULL DEFAULT current_timestamp(6), \
PRIMARY KEY (gid, branch), KEY (written_at)) ENGINE=InnoDB";

/// Which log a database belongs to, in `MariaDB`.
pub const COORDINATOR_MARIADB: &str = "CREATE TABLE IF NOT EXISTS mainstay_coordinator (\
cluster char(8) PRIMARY KEY, log_id char(36) NOT NULL, sequence bigint NOT NULL, \
written_at timestamp(6) NOT NULL) ENGINE=InnoDB";

/// The first statement of a branch: gid, branch, who writes.
pub const INSERT_DONE: &str =
    "INSERT INTO mainstay_receipt (gid, branch, kind, written_by) VALUES (?, ?, 'done', ?)";

/// The tomb a rollback leaves in `PostgreSQL`.
pub const INSERT_TOMB_POSTGRES: &str = "INSERT INTO mainstay_receipt \
(gid, branch, kind, written_by) VALUES (?, ?, 'tomb', ?) ON CONFLICT DO NOTHING";

/// The tomb a rollback leaves in `MariaDB`.
pub const INSERT_TOMB_MARIADB: &str = "INSERT IGNORE INTO mainstay_receipt \
(gid, branch, kind, written_by) VALUES (?, ?, 'tomb', ?)";

/// What stands under a key: gid, branch.
pub const READ_RECEIPT: &str = "SELECT kind FROM mainstay_receipt WHERE gid = ? AND branch = ?";

/// Longest wait for a lock in `PostgreSQL`: a branch that is being prepared holds its key.
pub const LOCK_WAIT_POSTGRES: &str = "SET LOCAL lock_timeout = '2s'";

/// Longest wait for a lock in `MariaDB`, which has 50 s by default.
pub const LOCK_WAIT_MARIADB: &str = "SET SESSION innodb_lock_wait_timeout = 2";

/// Prepared branches of a cluster in `PostgreSQL`: its parameter is `ms:<cluster>:%`.
pub const PREPARED_POSTGRES: &str = "SELECT gid, prepared, owner FROM pg_prepared_xacts \
WHERE gid LIKE ? AND database = current_database()";

/// All prepared branches of a `MariaDB` server.
pub const PREPARED_MARIADB: &str = "XA RECOVER FORMAT='SQL'";

/// Old receipts in `PostgreSQL`, a thousand at most: keeps gids that are live, which the caller
/// leaves out. Its parameter is a number of seconds.
pub const SWEEP_POSTGRES: &str = "SELECT gid, branch FROM mainstay_receipt \
WHERE written_at < clock_timestamp() - make_interval(secs => ?) ORDER BY written_at LIMIT 1000";

/// The same in `MariaDB`.
pub const SWEEP_MARIADB: &str = "SELECT gid, branch FROM mainstay_receipt \
WHERE written_at < current_timestamp(6) - INTERVAL ? SECOND ORDER BY written_at LIMIT 1000";

/// The log a database was last swept by: cluster.
pub const READ_SEQUENCE: &str =
    "SELECT log_id, sequence FROM mainstay_coordinator WHERE cluster = ?";

/// Notes the sequence of a sweep in `PostgreSQL`; the greatest stays. Cluster, log, sequence.
pub const RAISE_SEQUENCE_POSTGRES: &str = "INSERT INTO mainstay_coordinator \
(cluster, log_id, sequence, written_at) VALUES (?, ?, ?, clock_timestamp()) \
ON CONFLICT (cluster) DO UPDATE SET sequence = excluded.sequence, written_at = clock_timestamp() \
WHERE mainstay_coordinator.log_id = excluded.log_id \
AND mainstay_coordinator.sequence < excluded.sequence";

/// The same in `MariaDB`.
pub const RAISE_SEQUENCE_MARIADB: &str = "INSERT INTO mainstay_coordinator \
(cluster, log_id, sequence, written_at) VALUES (?, ?, ?, current_timestamp(6)) \
ON DUPLICATE KEY UPDATE \
written_at = IF(log_id = VALUES(log_id) AND sequence < VALUES(sequence), current_timestamp(6), written_at), \
sequence = IF(log_id = VALUES(log_id), GREATEST(sequence, VALUES(sequence)), sequence)";

/// `statement` with its parameters numbered, as `PostgreSQL` has them: `$1`, `$2`, …
pub fn numbered(statement: &str) -> String {
    let mut parts = statement.split('?');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.zip(1..).fold(first, |text, (part, n)| format!("{text}${n}{part}"))
}

/// Prepares a branch, with positive evidence where the database does not fail on its own: a vote
/// is yes only if the last statement of `PostgreSQL` returns a row, all in one message; or if none
/// of `MariaDB`'s fails.
pub fn prepare(database: Database, xid: &Xid) -> Vec<String> {
    match database {
        Database::Postgres => {
            let name = xid.postgres();
            let prepared = format!("SELECT 1 FROM pg_prepared_xacts WHERE gid = '{name}'");
            vec![format!("PREPARE TRANSACTION '{name}'; {prepared}")]
        }
        Database::MariaDb => {
            let name = xid.xa_literal();
            vec![format!("XA END {name}"), format!("XA PREPARE {name}")]
        }
        Database::Sqlite => Vec::new(),
    }
}

/// Commits a prepared branch; nothing where there are none.
pub fn commit_prepared(database: Database, xid: &Xid) -> Option<String> {
    finish(database, xid, "COMMIT")
}

/// Rolls a prepared branch back; nothing where there are none.
pub fn rollback_prepared(database: Database, xid: &Xid) -> Option<String> {
    finish(database, xid, "ROLLBACK")
}

/// No name needs quoting: a gid of ours is letters, digits, `.`, `_` and `-`.
fn finish(database: Database, xid: &Xid, verb: &str) -> Option<String> {
    match database {
        Database::Postgres => Some(format!("{verb} PREPARED '{}'", xid.postgres())),
        Database::MariaDb => Some(format!("XA {verb} {}", xid.xa_literal())),
        Database::Sqlite => None,
    }
}
