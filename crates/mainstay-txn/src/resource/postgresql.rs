//! A session of `PostgreSQL`.

use std::time::Duration;

use mainstay_api::transaction::BarrierKey;
use mainstay_api::{barrier, receipt as sql};
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Error, NoTls, Row};

use super::address::{Address, Host};
use super::check::{Facts, quoted};
use super::failure::Failure;
use super::mark::Mark;
use super::purge::BarrierRow;
use super::tls::Connector;
use super::{Kind, Prepared, Within};
use crate::database::{Cluster, Xid};
use crate::receipt::{Ask, Receipt, Told};
use crate::tasks::Tasks;
use crate::word::Decision;

/// A session, of which one statement at a time is asked.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    within: Within,
}

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

impl Session {
    /// Connects.
    pub(super) async fn connect(
        address: &Address,
        password: Option<&str>,
        tls: Option<Connector>,
        within: Within,
        tasks: &Tasks,
    ) -> Result<Self, Failure> {
        let mut config = Config::new();
        config.user(&address.user).dbname(&address.database).application_name("mainstay");
        config.connect_timeout(within.connecting()).keepalives_idle(KEEPALIVE);
        match &address.host {
            Host::Tcp { host, port } => config.host(host).port(*port),
            Host::Socket(path) => config.host_path(path),
        };
        if let Some(password) = password {
            config.password(password);
        }
        let client = match tls.filter(|_| matches!(address.host, Host::Tcp { .. })) {
            Some(connector) => {
                config.ssl_mode(SslMode::Require);
                let (client, connection) =
                    within.connect(Box::pin(config.connect(connector))).await?.map_err(judge)?;
                serve(tasks, connection);
                client
            }
            None => {
                config.ssl_mode(SslMode::Disable);
                let (client, connection) =
                    within.connect(Box::pin(config.connect(NoTls))).await?.map_err(judge)?;
                serve(tasks, connection);
                client
            }
        };
        let session = Self { client, within };
        // A lock is waited for as long as the database is asked to wait, and then it is asked again.
        let settings = format!(
            "SET statement_timeout = {}; SET lock_timeout = 2000; \
             SET default_transaction_isolation = 'read committed'; \
             SET idle_in_transaction_session_timeout = 60000",
            within.statement().as_millis()
        );
        session.run(&settings).await?;
        Ok(session)
    }

    pub(super) fn is_open(&self) -> bool {
        !self.client.is_closed()
    }

    /// Asks about one branch.
    pub(super) async fn ask(&self, xid: &Xid, ask: Ask, writer: &str) -> Result<Told, Failure> {
        match ask {
            Ask::Finish(decision) => self.finish(xid, decision).await.map(|()| Told::Ended),
            Ask::List => self.lists(xid).await.map(Told::Listed),
            Ask::Read | Ask::Look(_) => self.read(xid).await.map(Told::Receipt),
            Ask::Bury => self.bury(xid, writer).await.map(Told::Receipt),
        }
    }

    async fn finish(&self, xid: &Xid, decision: Decision) -> Result<(), Failure> {
        let name = xid.postgres();
        let verb = match decision {
            Decision::Commit => "COMMIT",
            Decision::Abort => "ROLLBACK",
        };
        let statement = format!("{verb} PREPARED '{name}'");
        match self.run(&statement).await {
            Err(Failure::Denied(_)) => self.finish_as_owner(&name, &statement).await,
            finished => finished,
        }
    }

    /// Only who prepared it may end it, so for the while this is them.
    async fn finish_as_owner(&self, name: &str, statement: &str) -> Result<(), Failure> {
        let owner = "SELECT owner::text FROM pg_prepared_xacts \
             WHERE gid = $1 AND database = current_database()";
        let rows = self.query(owner, &[(&name, Type::TEXT)]).await?;
        let Some(row) = rows.first() else {
            return Err(Failure::NoSuchBranch(format!("`{name}` is not listed")));
        };
        let owner: String = get(row, 0)?;
        let quoted = quoted(Kind::Postgres, &owner);
        if let Err(error) = self.run(&format!("SET ROLE {quoted}")).await {
            return Err(match error {
                lost @ Failure::Lost(_) => lost,
                other => Failure::Denied(format!("{other}: it takes `GRANT {quoted}` to our role")),
            });
        }
        let finished = self.run(statement).await;
        // What cannot be put back is not used again.
        self.run("RESET ROLE").await.map_err(|error| Failure::Lost(error.to_string()))?;
        finished
    }

    async fn lists(&self, xid: &Xid) -> Result<bool, Failure> {
        self.must_be_primary().await?;
        let listed =
            "SELECT 1 FROM pg_prepared_xacts WHERE gid = $1 AND database = current_database()";
        let rows = self.query(listed, &[(&xid.postgres(), Type::TEXT)]).await?;
        Ok(!rows.is_empty())
    }

    async fn read(&self, xid: &Xid) -> Result<Option<Receipt>, Failure> {
        self.must_be_primary().await?;
        self.receipt(xid).await
    }

    async fn receipt(&self, xid: &Xid) -> Result<Option<Receipt>, Failure> {
        let (gid, branch) = (xid.gid.as_str(), xid.branch.as_str());
        let key: [Parameter<'_>; 2] = [(&gid, Type::VARCHAR), (&branch, Type::VARCHAR)];
        let rows = self.query(&sql::numbered(sql::READ_RECEIPT), &key).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        super::receipt(&get::<String>(row, 0)?).map(Some)
    }

    async fn bury(&self, xid: &Xid, writer: &str) -> Result<Option<Receipt>, Failure> {
        let (gid, branch) = (xid.gid.as_str(), xid.branch.as_str());
        let insert = sql::numbered(sql::INSERT_TOMB_POSTGRES);
        let row: [Parameter<'_>; 3] =
            [(&gid, Type::VARCHAR), (&branch, Type::VARCHAR), (&writer, Type::VARCHAR)];
        self.query(&insert, &row).await?;
        self.receipt(xid).await
    }

    /// A server that only reads may be behind, so what it lacks says nothing.
    async fn must_be_primary(&self) -> Result<(), Failure> {
        let reads = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool";
        let rows = self.query(reads, &[]).await?;
        match rows.first().map(|row| get(row, 0)).transpose()? {
            Some(false) => Ok(()),
            _ => Err(Failure::Busy("server only reads: a standby, or switched over".to_owned())),
        }
    }

    /// What is prepared in this database, the oldest first, 10,000 at most.
    pub(super) async fn prepared(&self, cluster: &Cluster) -> Result<Vec<Prepared>, Failure> {
        let rows = self.query(sql::PREPARED_POSTGRES, &[]).await?;
        let read = |row: &Row| {
            let (name, age): (String, f64) = (get(row, 0)?, get(row, 1)?);
            Ok(Prepared {
                listed: Xid::of_postgres(cluster, &name),
                name,
                age: Duration::try_from_secs_f64(age).ok(),
                owner: Some(get(row, 2)?),
            })
        };
        rows.iter().map(read).collect()
    }

    /// Receipts older than `age`, passing over the `after` oldest.
    pub(super) async fn old_receipts(
        &self,
        age: Duration,
        after: usize,
    ) -> Result<Vec<(String, String)>, Failure> {
        let (age, after) = (age.as_secs_f64(), i64::try_from(after).unwrap_or(i64::MAX));
        let parameters: [Parameter<'_>; 2] = [(&age, Type::FLOAT8), (&after, Type::INT8)];
        let rows = self.query(&sql::numbered(sql::OLD_POSTGRES), &parameters).await?;
        rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
    }

    pub(super) async fn delete_receipts(&self, keys: &[(String, String)]) -> Result<u64, Failure> {
        let (gids, branches): (Vec<&str>, Vec<&str>) =
            keys.iter().map(|(gid, branch)| (gid.as_str(), branch.as_str())).unzip();
        let delete = "DELETE FROM mainstay_receipt \
             WHERE (gid, branch) IN (SELECT * FROM unnest($1, $2))";
        let parameters: [Parameter<'_>; 2] =
            [(&gids, Type::VARCHAR_ARRAY), (&branches, Type::VARCHAR_ARRAY)];
        let deleted = self.client.execute_typed(delete, &parameters);
        self.within.answer(deleted).await?.map_err(judge)
    }

    /// Rows of the barrier behind `after`, and whether each is older than `age`.
    pub(super) async fn barrier_rows(
        &self,
        age: Duration,
        after: &BarrierKey,
    ) -> Result<Vec<BarrierRow>, Failure> {
        let (age, BarrierKey { gid, branch, op, seq }) = (age.as_secs_f64(), after);
        let parameters: [Parameter<'_>; 6] = [
            (&age, Type::FLOAT8),
            (gid, Type::VARCHAR),
            (gid, Type::VARCHAR),
            (branch, Type::VARCHAR),
            (op, Type::VARCHAR),
            (seq, Type::VARCHAR),
        ];
        let rows = self.query(&sql::numbered(barrier::ROWS_POSTGRES), &parameters).await?;
        let read = |row: &Row| {
            let (gid, branch) = (get(row, 0)?, get(row, 1)?);
            let key = BarrierKey { gid, branch, op: get(row, 2)?, seq: get(row, 3)? };
            Ok(BarrierRow { key, is_old: get(row, 4)? })
        };
        rows.iter().map(read).collect()
    }

    pub(super) async fn delete_barrier_rows(
        &self,
        age: Duration,
        keys: &[BarrierKey],
    ) -> Result<u64, Failure> {
        let delete = "DELETE FROM mainstay_barrier \
             WHERE (gid, branch, op, seq) IN (SELECT * FROM unnest($1, $2, $3, $4)) \
             AND written_at < clock_timestamp() - make_interval(secs => $5)";
        let column = |of: fn(&BarrierKey) -> &str| keys.iter().map(of).collect::<Vec<_>>();
        let columns = [
            column(|key| &key.gid),
            column(|key| &key.branch),
            column(|key| &key.op),
            column(|key| &key.seq),
        ];
        let age = age.as_secs_f64();
        let mut parameters: Vec<Parameter<'_>> = Vec::with_capacity(5);
        for column in &columns {
            parameters.push((column, Type::VARCHAR_ARRAY));
        }
        parameters.push((&age, Type::FLOAT8));
        let deleted = self.client.execute_typed(delete, &parameters);
        self.within.answer(deleted).await?.map_err(judge)
    }

    /// What it was told of the log of `cluster`.
    pub(super) async fn mark(&self, cluster: &Cluster) -> Result<Option<Mark>, Failure> {
        self.must_be_primary().await?;
        let read = sql::numbered(sql::READ_MARK_POSTGRES);
        let rows = self.query(&read, &[(&cluster.as_str(), Type::TEXT)]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let sequence: i64 = get(row, 1)?;
        Ok(Some(Mark { log_id: get(row, 0)?, sequence: sequence.try_into().unwrap_or(0) }))
    }

    /// Tells it of the log of `cluster`.
    pub(super) async fn write_mark(&self, cluster: &Cluster, mark: &Mark) -> Result<(), Failure> {
        let write = sql::numbered(sql::WRITE_MARK_POSTGRES);
        let sequence = i64::try_from(mark.sequence).unwrap_or(i64::MAX);
        let row: [Parameter<'_>; 3] =
            [(&cluster.as_str(), Type::TEXT), (&mark.log_id, Type::TEXT), (&sequence, Type::INT8)];
        self.query(&write, &row).await.map(drop)
    }

    /// What this database says about itself.
    pub(super) async fn facts(&self, cluster: &Cluster) -> Result<Facts, Failure> {
        let rows = self.query(SERVER, &[]).await?;
        let row = rows.first().ok_or_else(|| Failure::Said("no row".to_owned()))?;
        let mut facts = Facts {
            prepared_max: Some(get(row, 0)?),
            only_reads: get(row, 1)?,
            ..Facts::default()
        };
        for row in self.query(COLUMNS, &[]).await? {
            facts.columns.insert([get(&row, 0)?, get(&row, 1)?, get(&row, 2)?, get(&row, 3)?]);
        }
        for row in self.query(KEYS, &[]).await? {
            facts.keys.insert([get(&row, 0)?, get(&row, 1)?]);
        }
        let texts = |rows: Vec<Row>| -> Result<Vec<String>, Failure> {
            rows.iter().map(|row| get(row, 0)).collect()
        };
        facts.schemas = texts(self.query(SCHEMAS, &[]).await?)?;
        let ours = format!("ms:{}:", cluster.as_str());
        facts.strangers = texts(self.query(STRANGERS, &[(&ours, Type::TEXT)]).await?)?;
        Ok(facts)
    }

    /// Runs statements that return nothing.
    pub(super) async fn run(&self, statements: &str) -> Result<(), Failure> {
        self.within.answer(self.client.batch_execute(statements)).await?.map_err(judge)
    }

    pub(super) async fn query(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Failure> {
        self.within.answer(self.client.query_typed(statement, parameters)).await?.map_err(judge)
    }
}

const SERVER: &str =
    "SELECT current_setting('max_prepared_transactions')::int, pg_is_in_recovery()";

const COLUMNS: &str = "SELECT c.relname::text, a.attname::text, \
    format_type(a.atttypid, a.atttypmod), coalesce(o.collname::text, '') \
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid \
    LEFT JOIN pg_collation o ON o.oid = a.attcollation \
    WHERE c.oid IN (to_regclass('mainstay_receipt'), to_regclass('mainstay_coordinator')) \
    AND a.attnum > 0 AND NOT a.attisdropped";

const KEYS: &str = "SELECT c.relname::text, a.attname::text FROM pg_index i \
    JOIN pg_class c ON c.oid = i.indrelid \
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey) \
    WHERE i.indisprimary \
    AND c.oid IN (to_regclass('mainstay_receipt'), to_regclass('mainstay_coordinator'))";

const SCHEMAS: &str = "SELECT n.nspname::text FROM pg_class c \
    JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relname = 'mainstay_receipt' AND c.relkind IN ('r', 'p') ORDER BY 1";

const STRANGERS: &str = "SELECT DISTINCT owner::text FROM pg_prepared_xacts \
    WHERE database = current_database() AND starts_with(gid, $1) \
    AND NOT pg_has_role(owner, 'MEMBER') ORDER BY 1";

/// Unused connections to a server that is gone are noticed after this.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Moves bytes for a session until it is dropped.
fn serve<S, T>(tasks: &Tasks, connection: tokio_postgres::Connection<S, T>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: tokio_postgres::tls::TlsStream + Unpin + Send + 'static,
{
    tasks.spawn("database session", |stop| async move {
        tokio::select! {
            // How it ended, whoever asked the session is told.
            ended = connection => drop(ended),
            () = stop.cancelled() => {}
        }
    });
}

pub(super) fn get<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    column: usize,
) -> Result<T, Failure> {
    row.try_get(column).map_err(judge)
}

/// What an error means. The state says it, never the text.
pub(super) fn judge(error: Error) -> Failure {
    let Some(said) = error.as_db_error() else {
        return Failure::Lost(chain(&error));
    };
    let why = format!("{} ({})", said.message(), said.code().code());
    match said.code() {
        code if *code == SqlState::UNDEFINED_OBJECT => Failure::NoSuchBranch(why),
        code if *code == SqlState::UNDEFINED_TABLE => Failure::NoTable(why),
        code if *code == SqlState::INSUFFICIENT_PRIVILEGE => Failure::Denied(why),
        code if code.code().starts_with("28") => Failure::Denied(why),
        code if *code == SqlState::READ_ONLY_SQL_TRANSACTION
            || *code == SqlState::LOCK_NOT_AVAILABLE
            || *code == SqlState::QUERY_CANCELED
            // Another session is ending the same branch.
            || *code == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE =>
        {
            Failure::Busy(why)
        }
        // The server is going away, or the connection is (class 57 and 08).
        code if code.code().starts_with("57P") || code.code().starts_with("08") => {
            Failure::Lost(why)
        }
        _ => Failure::Said(why),
    }
}

/// The error and its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
