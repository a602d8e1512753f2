//! The database that a participant works in, which is only read here.

use std::time::Duration;

use mainstay_txn::resource::{Address, Host, Kind};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder};
use tokio::task::JoinSet;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, NoTls};

use super::judge::{Figure, Row};
use crate::cli::arguments::conformance::BarrierTable;
use crate::report::causes;

/// For one statement, or a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// A session there, in which nothing can be written.
pub(super) enum Database {
    Postgres {
        client: Client,
        /// Carries what the client says; ends with it.
        _connection: JoinSet<()>,
    },
    MariaDb(Box<Conn>),
}

/// Where a database is, by how its address begins.
///
/// # Errors
///
/// What is wrong with the address, without its text.
pub(super) fn address(url: &str) -> Result<Address, String> {
    let kind = match url.split_once("://") {
        Some(("postgresql" | "postgres", _)) => Kind::Postgres,
        Some(("mariadb" | "mysql", _)) => Kind::MariaDb,
        _ => return Err("must begin with `postgresql://` or `mariadb://`".to_owned()),
    };
    Address::parse(kind, url).map_err(|error| {
        error.to_string().replace("`password_file`", "a file, `--password-file FILE`")
    })
}

impl Database {
    pub(super) async fn open(address: &Address, password: Option<&str>) -> Result<Self, String> {
        match address.kind {
            Kind::Postgres => Self::postgres(address, password).await,
            Kind::MariaDb => Self::mariadb(address, password).await,
        }
    }

    async fn postgres(address: &Address, password: Option<&str>) -> Result<Self, String> {
        let mut config = Config::new();
        config.user(&address.user).dbname(&address.database).application_name("mainstay");
        match &address.host {
            Host::Tcp { host, port } => config.host(host).port(*port),
            Host::Socket(path) => config.host_path(path),
        };
        if let Some(password) = password {
            config.password(password);
        }
        let (client, connection) = within(config.connect(NoTls)).await?;
        let mut carrying = JoinSet::new();
        // How it ended shows at the next statement.
        carrying.spawn(async move { drop(connection.await) });
        within(client.batch_execute("SET default_transaction_read_only = on")).await?;
        Ok(Self::Postgres { client, _connection: carrying })
    }

    async fn mariadb(address: &Address, password: Option<&str>) -> Result<Self, String> {
        let options = OptsBuilder::default()
            .user(Some(&address.user))
            .pass(password)
            .db_name(Some(&address.database))
            .prefer_socket(Some(false));
        let options = match &address.host {
            Host::Tcp { host, port } => options.ip_or_hostname(host).tcp_port(*port),
            Host::Socket(path) => options.socket(Some(path.display().to_string())),
        };
        let mut connection = within(Conn::new(options)).await?;
        within(connection.query_drop("SET SESSION TRANSACTION READ ONLY")).await?;
        Ok(Self::MariaDb(Box::new(connection)))
    }

    /// The number that `query` returns; none in the row counts as nothing.
    pub(super) async fn probe(&mut self, query: &str) -> Result<Figure, String> {
        let query = query.trim().trim_end_matches(';');
        let text: Option<String> = match self {
            Self::Postgres { client, .. } => {
                let asked = format!("SELECT ({query}\n)::text");
                let row = within(client.query_one(&asked, &[])).await?;
                row.try_get(0).map_err(|error| causes(&error))?
            }
            Self::MariaDb(connection) => {
                let asked = format!("SELECT CAST(({query}\n) AS CHAR)");
                let row: Option<Option<String>> = within(connection.query_first(asked)).await?;
                row.flatten()
            }
        };
        let Some(text) = text else { return Ok(Figure::ZERO) };
        Figure::parse(&text).ok_or_else(|| format!("it returned `{text}`, which is no number"))
    }

    /// Rows of the barrier for one branch, with their operation and who wrote them.
    pub(super) async fn rows(
        &mut self,
        table: BarrierTable,
        (gid, branch): (&str, &str),
    ) -> Result<Vec<Row>, String> {
        let (name, column) = match table {
            BarrierTable::Mainstay => ("mainstay_barrier", "branch"),
            BarrierTable::Dtm => ("dtm_barrier.barrier", "branch_id"),
        };
        let rows: Vec<(String, String)> = match self {
            Self::Postgres { client, .. } => {
                let asked = format!(
                    "SELECT op::text, reason::text FROM {name} WHERE gid = $1 AND {column} = $2"
                );
                let key = [(&gid as _, Type::TEXT), (&branch as _, Type::TEXT)];
                let rows = within(client.query_typed(&asked, &key)).await?;
                let read = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
                let read: Result<_, tokio_postgres::Error> = rows.iter().map(read).collect();
                read.map_err(|error| causes(&error))?
            }
            Self::MariaDb(connection) => {
                let asked = format!("SELECT op, reason FROM {name} WHERE gid = ? AND {column} = ?");
                within(connection.exec(asked, (gid, branch))).await?
            }
        };
        let mut rows: Vec<Row> = rows.into_iter().map(|(op, reason)| Row { op, reason }).collect();
        rows.sort();
        rows.dedup();
        Ok(rows)
    }
}

async fn within<T, E: std::error::Error + 'static>(
    asking: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match Box::pin(tokio::time::timeout(PATIENCE, asking)).await {
        Ok(answered) => answered.map_err(|error| causes(&error)),
        Err(_elapsed) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_told_by_the_address() {
        for (url, kind) in [
            ("postgresql://u@db/shop", Kind::Postgres),
            ("postgres://u@db/shop", Kind::Postgres),
            ("mariadb://u@db/shop", Kind::MariaDb),
            ("mysql://u@db/shop", Kind::MariaDb),
        ] {
            assert_eq!(address(url).unwrap().kind, kind, "{url}");
        }
        for (url, why) in [
            ("sqlite://u@db/shop", "postgresql://"),
            ("mariadb://u:hunter2@db/shop", "--password-file"),
            ("mariadb://db", "user@host"),
        ] {
            let refused = address(url).unwrap_err();
            assert!(refused.contains(why) && !refused.contains("hunter2"), "{url}: {refused}");
        }
    }
}
