//! A session of `MariaDB`.

use std::time::Duration;

use mainstay_api::transaction::BarrierKey;
use mainstay_api::{barrier, receipt as sql};
use mysql_async::prelude::{FromRow, Queryable as _};
use mysql_async::{Conn, Error, OptsBuilder, Params, SslOpts};

use super::address::{Address, Host};
use super::check::Facts;
use super::failure::Failure;
use super::mark::Mark;
use super::purge::BarrierRow;
use super::{Prepared, Within};
use crate::database::{Cluster, Listed, Xid};
use crate::receipt::{Ask, Receipt, Told};
use crate::word::Decision;

/// A session, of which one statement at a time is asked.
#[derive(Debug)]
pub(super) struct Session {
    connection: Conn,
    within: Within,
}

impl Session {
    /// Connects.
    pub(super) async fn connect(
        address: &Address,
        password: Option<&str>,
        tls: Option<SslOpts>,
        within: Within,
    ) -> Result<Self, Failure> {
        let options = OptsBuilder::default()
            .user(Some(&address.user))
            .pass(password)
            .db_name(Some(&address.database))
            .prefer_socket(Some(false))
            .tcp_keepalive(Some(KEEPALIVE));
        let options = match &address.host {
            Host::Tcp { host, port } => options.ip_or_hostname(host).tcp_port(*port).ssl_opts(tls),
            Host::Socket(path) => options.socket(Some(path.display().to_string())),
        };
        let connection = within.connect(Conn::new(options)).await?.map_err(judge)?;
        let mut session = Self { connection, within };
        let seconds = within.statement().as_secs_f64();
        // Between statements it is never in a transaction, so each reads what is committed by then.
        let settings = format!("SET SESSION autocommit = 1, max_statement_time = {seconds}");
        session.run(&settings).await?;
        session.run(sql::LOCK_WAIT_MARIADB).await?;
        Ok(session)
    }

    /// Asks about one branch.
    pub(super) async fn ask(&mut self, xid: &Xid, ask: Ask, writer: &str) -> Result<Told, Failure> {
        match ask {
            Ask::Finish(decision) => self.finish(xid, decision).await.map(|()| Told::Ended),
            Ask::List => self.lists(xid).await.map(Told::Listed),
            Ask::Read | Ask::Look(_) => self.read(xid).await.map(Told::Receipt),
            Ask::Bury => self.bury(xid, writer).await.map(Told::Receipt),
        }
    }

    async fn finish(&mut self, xid: &Xid, decision: Decision) -> Result<(), Failure> {
        let verb = match decision {
            Decision::Commit => "COMMIT",
            Decision::Abort => "ROLLBACK",
        };
        self.run(&format!("XA {verb} {}", xid.xa_literal())).await
    }

    async fn lists(&mut self, xid: &Xid) -> Result<bool, Failure> {
        self.must_be_primary().await?;
        // All of them: one that is not found counts as gone.
        let listed = self.recover(&xid.cluster).await?;
        Ok(listed.iter().any(|one| matches!(&one.listed, Listed::Ours(found) if found == xid)))
    }

    async fn read(&mut self, xid: &Xid) -> Result<Option<Receipt>, Failure> {
        self.must_be_primary().await?;
        self.receipt(xid).await
    }

    async fn receipt(&mut self, xid: &Xid) -> Result<Option<Receipt>, Failure> {
        let rows: Vec<String> = self.query(sql::READ_RECEIPT, key(xid)).await?;
        rows.first().map(|kind| super::receipt(kind)).transpose()
    }

    async fn bury(&mut self, xid: &Xid, writer: &str) -> Result<Option<Receipt>, Failure> {
        // A user with many rights writes to a replica all the same, and to no avail.
        self.must_be_primary().await?;
        let (gid, branch) = key(xid);
        let _none: Vec<String> =
            self.query(sql::INSERT_TOMB_MARIADB, (gid, branch, writer)).await?;
        self.receipt(xid).await
    }

    /// A server that only reads may be behind, so what it lacks says nothing.
    async fn must_be_primary(&mut self) -> Result<(), Failure> {
        let rows: Vec<bool> = self.query("SELECT @@global.read_only", ()).await?;
        match rows.first() {
            Some(false) => Ok(()),
            _ => Err(Failure::Busy("server only reads: a replica, or switched over".to_owned())),
        }
    }

    /// What is prepared on this server, 10,000 at most.
    pub(super) async fn prepared(&mut self, cluster: &Cluster) -> Result<Vec<Prepared>, Failure> {
        let mut listed = self.recover(cluster).await?;
        listed.truncate(LISTED_MAX);
        Ok(listed)
    }

    /// What is prepared on this server.
    async fn recover(&mut self, cluster: &Cluster) -> Result<Vec<Prepared>, Failure> {
        type Entry = (u32, usize, usize, Vec<u8>);
        let listing = self.connection.query::<Entry, _>(sql::PREPARED_MARIADB);
        let rows = self.within.answer(listing).await?.map_err(judge)?;
        let read = |(format, first, second, both): Entry| {
            let (gtrid, rest) = both.split_at_checked(first).unwrap_or((&both, &[]));
            let bqual = rest.get(..second).unwrap_or(rest);
            let shown = [gtrid, bqual].map(String::from_utf8_lossy);
            Prepared {
                listed: Xid::of_xa(cluster, format, gtrid, bqual),
                name: format!("{},{},{format}", shown[0], shown[1]),
                age: None,
                owner: None,
            }
        };
        Ok(rows.into_iter().map(read).collect())
    }

    /// Ends the session `id` if it has done nothing for `idle`: it prepared a branch, and nobody
    /// else can end that while it lives.
    pub(super) async fn end_session(&mut self, id: u64, idle: Duration) -> Result<(), Failure> {
        // Numbers begin anew with the server, but then no session holds what was prepared before.
        let asleep = "SELECT id FROM information_schema.processlist \
             WHERE id = ? AND command = 'Sleep' AND time >= ?";
        let found: Vec<u64> = self.query(asleep, (id, idle.as_secs())).await?;
        if found.is_empty() {
            return Ok(());
        }
        self.run(&format!("KILL CONNECTION {id}")).await
    }

    /// What it was told of the log of `cluster`.
    pub(super) async fn mark(&mut self, cluster: &Cluster) -> Result<Option<Mark>, Failure> {
        self.must_be_primary().await?;
        let found: Vec<(String, u64)> =
            self.query(sql::READ_MARK_MARIADB, (cluster.as_str(),)).await?;
        Ok(found.into_iter().next().map(|(log_id, sequence)| Mark { log_id, sequence }))
    }

    /// Tells it of the log of `cluster`.
    pub(super) async fn write_mark(
        &mut self,
        cluster: &Cluster,
        Mark { log_id, sequence }: &Mark,
    ) -> Result<(), Failure> {
        let row = (cluster.as_str(), log_id, sequence);
        let write = self.connection.exec_drop(sql::WRITE_MARK_MARIADB, row);
        self.within.answer(write).await?.map_err(judge)
    }

    /// Receipts older than `age`, passing over the `after` oldest.
    pub(super) async fn old_receipts(
        &mut self,
        age: Duration,
        after: usize,
    ) -> Result<Vec<(String, String)>, Failure> {
        self.query(sql::OLD_MARIADB, (age.as_secs(), after)).await
    }

    pub(super) async fn delete_receipts(
        &mut self,
        keys: &[(String, String)],
    ) -> Result<u64, Failure> {
        // Each by its whole key: a statement about many reads others on its way, and waits for those
        // that are being prepared.
        self.run("START TRANSACTION").await?;
        let deleted = self.delete_each(keys).await;
        self.end_with(&deleted).await?;
        deleted.map(|()| u64::try_from(keys.len()).unwrap_or(u64::MAX))
    }

    /// Commits if it was `done`, else rolls back.
    async fn end_with<T>(&mut self, done: &Result<T, Failure>) -> Result<(), Failure> {
        if done.as_ref().is_err_and(Failure::is_lost) {
            return Ok(());
        }
        // What cannot be put back is not used again.
        let ends = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
        self.run(ends).await.map_err(|error| Failure::Lost(error.to_string()))
    }

    /// A thousand of them have no time limit together, as the server may be far away.
    async fn delete_each(&mut self, keys: &[(String, String)]) -> Result<(), Failure> {
        const DELETE: &str = "DELETE FROM mainstay_receipt WHERE gid = ? AND branch = ?";
        for (gid, branch) in keys {
            let deleted = self.connection.exec_drop(DELETE, (gid, branch));
            self.within.answer(deleted).await?.map_err(judge)?;
        }
        Ok(())
    }

    /// Rows of the barrier behind `after`, and whether each is older than `age`.
    pub(super) async fn barrier_rows(
        &mut self,
        age: Duration,
        after: &BarrierKey,
    ) -> Result<Vec<BarrierRow>, Failure> {
        type Found = (String, String, String, String, bool);
        let BarrierKey { gid, branch, op, seq } = after;
        let values = (age.as_secs(), gid, gid, branch, op, seq);
        let rows: Vec<Found> = self.query(barrier::ROWS_MARIADB, values).await?;
        let read = |(gid, branch, op, seq, is_old): Found| BarrierRow {
            key: BarrierKey { gid, branch, op, seq },
            is_old,
        };
        Ok(rows.into_iter().map(read).collect())
    }

    /// Each by its whole key, as receipts are, in one transaction: whoever calls knows how many can be
    /// waited for.
    pub(super) async fn delete_barrier_rows(
        &mut self,
        age: Duration,
        keys: &[BarrierKey],
    ) -> Result<u64, Failure> {
        self.run("START TRANSACTION").await?;
        let deleted = self.delete_each_row(age, keys).await;
        self.end_with(&deleted).await?;
        deleted
    }

    async fn delete_each_row(
        &mut self,
        age: Duration,
        keys: &[BarrierKey],
    ) -> Result<u64, Failure> {
        const DELETE: &str = "DELETE FROM mainstay_barrier \
            WHERE gid = ? AND branch = ? AND op = ? AND seq = ? \
            AND written_at < current_timestamp(6) - INTERVAL ? SECOND";
        let mut deleted = 0;
        for BarrierKey { gid, branch, op, seq } in keys {
            let row = (gid, branch, op, seq, age.as_secs());
            self.within.answer(self.connection.exec_drop(DELETE, row)).await?.map_err(judge)?;
            deleted += self.connection.affected_rows();
        }
        Ok(deleted)
    }

    /// What this database says about itself, and, if held sessions are to be ended, whether that
    /// can be.
    pub(super) async fn facts(&mut self, ends_sessions: bool) -> Result<Facts, Failure> {
        let only_reads: Vec<bool> = self.query("SELECT @@global.read_only", ()).await?;
        let columns: Vec<(String, String, String, String)> = self.query(COLUMNS, ()).await?;
        let keys: Vec<(String, String)> = self.query(KEYS, ()).await?;
        let engines: Vec<(String, String)> = self.query(ENGINES, ()).await?;
        let granted: Vec<String> = self.query("SHOW GRANTS", ()).await?;
        let has = |right: &str| granted.iter().any(|grant| grant.contains(right));
        let may_end = has("ALL PRIVILEGES ON *.*")
            || has("PROCESS") && (has("CONNECTION ADMIN") || has("SUPER"));
        Ok(Facts {
            only_reads: only_reads == [true],
            columns: columns.into_iter().map(<[String; 4]>::from).collect(),
            keys: keys.into_iter().map(<[String; 2]>::from).collect(),
            engines: engines.into_iter().map(<[String; 2]>::from).collect(),
            cannot_end_sessions: ends_sessions && !may_end,
            ..Facts::default()
        })
    }

    /// Whether it answers.
    pub(super) async fn ping(&mut self) -> Result<(), Failure> {
        self.within.answer(self.connection.ping()).await?.map_err(judge)
    }

    /// Runs a statement that returns nothing.
    pub(super) async fn run(&mut self, statement: &str) -> Result<(), Failure> {
        self.within.answer(self.connection.query_drop(statement)).await?.map_err(judge)
    }

    pub(super) async fn query<T, P>(
        &mut self,
        statement: &str,
        values: P,
    ) -> Result<Vec<T>, Failure>
    where
        T: FromRow + Send + 'static,
        P: Into<Params> + Send,
    {
        self.within.answer(self.connection.exec(statement, values)).await?.map_err(judge)
    }
}

const COLUMNS: &str = "SELECT table_name, column_name, column_type, \
    coalesce(collation_name, '') FROM information_schema.columns \
    WHERE table_schema = database() AND table_name IN ('mainstay_receipt', 'mainstay_coordinator')";

const KEYS: &str = "SELECT table_name, column_name FROM information_schema.statistics \
    WHERE table_schema = database() AND index_name = 'PRIMARY' \
    AND table_name IN ('mainstay_receipt', 'mainstay_coordinator')";

const ENGINES: &str = "SELECT table_name, engine FROM information_schema.tables \
    WHERE table_schema = database() AND engine <> 'InnoDB' \
    AND table_name IN ('mainstay_receipt', 'mainstay_coordinator')";

/// Unused connections to a server that is gone are noticed after this.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Prepared branches of one listing; `PostgreSQL` is asked for as many.
const LISTED_MAX: usize = 10_000;

fn key(xid: &Xid) -> (&str, &str) {
    (xid.gid.as_str(), xid.branch.as_str())
}

/// What an error means. The number says it, never the text.
pub(super) fn judge(error: Error) -> Failure {
    let Error::Server(said) = &error else {
        return Failure::Lost(error.to_string());
    };
    let why = format!("{} ({})", said.message, said.code);
    match said.code {
        // Unknown; or it was read-only, and says after the fact that it was rolled back.
        1397 | 1402 => Failure::NoSuchBranch(why),
        1146 => Failure::NoTable(why),
        // Database, user, table, column, global right, view; no password and no such plugin.
        1044 | 1045 | 1142 | 1143 | 1227 | 1356 | 1370 | 1698 => Failure::Denied(why),
        // A lock; a server that only reads; its time is up.
        1205 | 1290 | 1792 | 1836 | 1969 => Failure::Busy(why),
        // The server is going away, or somebody ended this session.
        1053 | 1927 | 1184 | 1152 => Failure::Lost(why),
        _ => Failure::Said(why),
    }
}
