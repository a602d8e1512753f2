//! Receipts of branches in databases: names, tables and statements.
//!
//! They are a contract on the wire. The coordinator ends what an application prepared, in whatever
//! language that was written, so both must name a branch alike and keep the same tables. What the
//! statements are for says the coordinator's own documentation; here is only how they are written.
//!
//! A parameter is written `?`, as `MariaDB` has it; [`numbered`] makes `PostgreSQL`'s of it.

/// The format of our names in XA.
pub const FORMAT_ID: u32 = 19_795;

/// Longest gid of a two-phase commit, in bytes: with the cluster it fits the 64 of XA.
pub const GID_BYTES_MAX: usize = 48;

/// Longest id of a branch, in bytes.
pub const BRANCH_BYTES_MAX: usize = 64;

/// Whether names of branches can be made of these: a cluster of eight `a-z` and `0-9`, a gid of 1
/// to 48 of `A-Z`, `a-z`, `0-9`, `.`, `_` and `-`, a branch of 1 to 64 of `0-9`, `A-Z`, `a-z`, `.`
/// and `-`. Nothing of that needs quoting in a statement, and nothing else may get into one.
pub fn fits(cluster: &str, gid: &str, branch: &str) -> bool {
    let made_of = |text: &str, legal: fn(u8) -> bool| text.bytes().all(legal);
    cluster.len() == 8
        && made_of(cluster, |b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && (1..=GID_BYTES_MAX).contains(&gid.len())
        && made_of(gid, |b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && (1..=BRANCH_BYTES_MAX).contains(&branch.len())
        && made_of(branch, |b| b.is_ascii_alphanumeric() || b".-".contains(&b))
}

/// What `PostgreSQL` calls a branch: below its 200 bytes.
pub fn postgres_name(cluster: &str, gid: &str, branch: &str) -> String {
    format!("ms:{cluster}:{gid}:{branch}")
}

/// What XA calls it: `gtrid`, at most 57 bytes of 64, and `bqual`.
pub fn xa_name(cluster: &str, gid: &str, branch: &str) -> (String, String) {
    (format!("{cluster}|{gid}"), branch.to_owned())
}

/// The same as a literal of XA statements: hexadecimal, so that no quoting matters.
pub fn xa_literal(cluster: &str, gid: &str, branch: &str) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
    let hex = |text: &str| -> String {
        text.bytes().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    };
    let (gtrid, bqual) = xa_name(cluster, gid, branch);
    format!("X'{}',X'{}',{FORMAT_ID}", hex(&gtrid), hex(&bqual))
}

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

/// What a database of `PostgreSQL` was told of the log of a cluster.
pub const READ_MARK_POSTGRES: &str =
    "SELECT log_id::text, sequence FROM mainstay_coordinator WHERE cluster = ?";

/// The same in `MariaDB`.
pub const READ_MARK_MARIADB: &str =
    "SELECT log_id, sequence FROM mainstay_coordinator WHERE cluster = ?";

/// Tells a database of `PostgreSQL` how far the log of a cluster has come: cluster, log id,
/// sequence. A greater sequence stays.
pub const WRITE_MARK_POSTGRES: &str = "INSERT INTO mainstay_coordinator \
(cluster, log_id, sequence, written_at) VALUES (?, ?, ?, clock_timestamp()) \
ON CONFLICT (cluster) DO UPDATE SET log_id = excluded.log_id, sequence = excluded.sequence, \
written_at = excluded.written_at WHERE mainstay_coordinator.sequence < excluded.sequence";

/// The same in `MariaDB`, which assigns one after the other: the sequence that is compared with
/// comes last.
pub const WRITE_MARK_MARIADB: &str = "INSERT INTO mainstay_coordinator \
(cluster, log_id, sequence, written_at) VALUES (?, ?, ?, current_timestamp(6)) \
ON DUPLICATE KEY UPDATE log_id = IF(sequence < VALUES(sequence), VALUES(log_id), log_id), \
written_at = IF(sequence < VALUES(sequence), VALUES(written_at), written_at), \
sequence = GREATEST(sequence, VALUES(sequence))";

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

/// Prepared branches in a database of `PostgreSQL`, ours and others', the oldest first: name, age
/// in seconds, owner.
pub const PREPARED_POSTGRES: &str = "SELECT gid::text, \
extract(epoch FROM clock_timestamp() - prepared)::float8, owner::text FROM pg_prepared_xacts \
WHERE database = current_database() ORDER BY prepared LIMIT 10000";

/// All prepared branches of a `MariaDB` server: format, lengths of both parts, the parts.
pub const PREPARED_MARIADB: &str = "XA RECOVER";

/// Old receipts in `PostgreSQL`, a thousand at most, the oldest first: how many seconds old, and
/// how many of them to pass over. Whoever deletes them leaves out gids that are live.
pub const OLD_POSTGRES: &str = "SELECT gid::text, branch::text FROM mainstay_receipt \
WHERE written_at < clock_timestamp() - make_interval(secs => ?) \
ORDER BY written_at, gid, branch LIMIT 1000 OFFSET ?";

/// The same in `MariaDB`.
pub const OLD_MARIADB: &str = "SELECT gid, branch FROM mainstay_receipt \
WHERE written_at < current_timestamp(6) - INTERVAL ? SECOND \
ORDER BY written_at, gid, branch LIMIT 1000 OFFSET ?";

/// `statement` with its parameters numbered, as `PostgreSQL` has them: `$1`, `$2`, …
pub fn numbered(statement: &str) -> String {
    let mut parts = statement.split('?');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.zip(1..).fold(first, |text, (part, n)| format!("{text}${n}{part}"))
}

/// Prepares a branch in `PostgreSQL`, called `name` there, in one message: a vote is yes only if it
/// returns a row. Of a transaction that has failed `PREPARE TRANSACTION` makes a rollback, without
/// an error.
pub fn prepare_postgres(name: &str) -> String {
    format!("PREPARE TRANSACTION '{name}'; SELECT 1 FROM pg_prepared_xacts WHERE gid = '{name}'")
}

/// Prepares a branch in `MariaDB`, called `literal` there: a vote is yes only if neither fails.
pub fn prepare_mariadb(literal: &str) -> [String; 2] {
    [format!("XA END {literal}"), format!("XA PREPARE {literal}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_those_of_the_contract() {
        let name = postgres_name("k3v9q2mt", "order-1", "01");
        assert_eq!(name, "ms:k3v9q2mt:order-1:01");
        assert_eq!(
            prepare_postgres(&name),
            "PREPARE TRANSACTION 'ms:k3v9q2mt:order-1:01'; \
             SELECT 1 FROM pg_prepared_xacts WHERE gid = 'ms:k3v9q2mt:order-1:01'"
        );
        let literal = xa_literal("k3v9q2mt", "order-1", "01");
        assert_eq!(literal, "X'6b33763971326d747c6f726465722d31',X'3031',19795");
        let prepared = [format!("XA END {literal}"), format!("XA PREPARE {literal}")];
        assert_eq!(prepare_mariadb(&literal), prepared);
        let read = "SELECT kind FROM mainstay_receipt WHERE gid = $1 AND branch = $2";
        assert_eq!(numbered(READ_RECEIPT), read);
    }

    #[test]
    fn nothing_gets_into_a_statement_that_would_need_quoting() {
        let gid = "g".repeat(GID_BYTES_MAX);
        let branch = "1".repeat(BRANCH_BYTES_MAX);
        assert!(fits("k3v9q2mt", &gid, &branch) && fits("k3v9q2mt", "A.b_c-1", "a.b-c"));
        assert!(postgres_name("k3v9q2mt", &gid, &branch).len() < 200);
        for (cluster, gid, branch) in [
            ("k3v9q2m", "g", "1"),
            ("K3v9q2mt", "g", "1"),
            ("k3v9q2mt", "", "1"),
            ("k3v9q2mt", "a'b", "1"),
            ("k3v9q2mt", "转账", "1"),
            ("k3v9q2mt", &format!("{gid}g"), "1"),
            ("k3v9q2mt", "g", "a'b"),
            ("k3v9q2mt", "g", "a_b"),
            ("k3v9q2mt", "g", &format!("{branch}1")),
        ] {
            assert!(!fits(cluster, gid, branch), "{cluster} {gid} {branch}");
        }
    }
}
