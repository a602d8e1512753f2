//! A shop with one account in a database of either kind: an application that takes part in
//! transactions, and a coordinator with credentials of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mainstay_api::receipt as sql;
use mainstay_client::branch::{self, Begun, BranchName};
use mainstay_txn::database::Cluster;
use mainstay_txn::port::{Outgoing, Surroundings, To};
use mainstay_txn::resource::{Address, Kind, ResourceSettings, Resources, Tls};
use mainstay_txn::{
    BranchId, Decision, Dialect, Gid, Mode, Moment, Op, Outcome, Payload, ResourceName,
};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use tokio_postgres::Client;

use crate::servers::{MariaDb, Postgres};

pub(crate) const CLUSTER: &str = "k3v9q2mt";

/// What a branch takes from the account, which holds 100. Branches do not meet at it.
const TAKE: &str = "INSERT INTO taken VALUES (10)";

/// The database, and how it is spoken to.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) server: Server,
    pub(crate) settings: ResourceSettings,
    /// The same as settings are written.
    #[allow(dead_code, reason = "tests of the product write it down")]
    pub(crate) url: String,
    /// Whose branches are prepared.
    pub(crate) cluster: String,
}

#[derive(Debug)]
pub(crate) enum Server {
    Postgres(Postgres),
    MariaDb(MariaDb),
}

/// A session of the application that has begun a branch and taken its money.
pub(crate) enum Begins {
    Postgres(Client, BranchName),
    MariaDb(Conn, BranchName),
}

/// The time of this machine.
#[derive(Debug)]
pub(crate) struct Here(std::time::Instant);

impl Here {
    pub(crate) fn new() -> Self {
        Self(std::time::Instant::now())
    }
}

impl Surroundings for Here {
    fn now(&self) -> Moment {
        Moment::from_unix_millis(1_700_000_000_000).plus(self.0.elapsed())
    }

    fn draw(&self) -> u32 {
        7
    }
}

impl Shop {
    /// One of `kind`, its tables made, 100 on the account.
    pub(crate) async fn open(kind: Kind) -> Self {
        match kind {
            Kind::Postgres => {
                let prepared = ["-c", "listen_addresses=", "-c", "max_prepared_transactions=50"];
                Self::of_postgres(Postgres::start_with(&prepared).await).await
            }
            Kind::MariaDb => {
                let kept = ["--skip-networking", "--innodb-flush-log-at-trx-commit=2"];
                Self::of_mariadb(MariaDb::start_with(&kept).await).await
            }
        }
    }

    /// The application's role owns the data; the coordinator's is a member of it, and may write our
    /// tables.
    pub(crate) async fn of_postgres(server: Postgres) -> Self {
        let client = server.connect().await;
        client.batch_execute("CREATE DATABASE shop").await.unwrap();
        let client = server.connect_as("mainstay", "shop").await.unwrap();
        let tables = [sql::RECEIPT_POSTGRES, sql::INDEX_POSTGRES, sql::COORDINATOR_POSTGRES];
        let roles = "CREATE ROLE shopkeeper LOGIN; CREATE ROLE coordinator LOGIN;
            GRANT shopkeeper TO coordinator; CREATE TABLE taken (amount int);
            GRANT SELECT, INSERT ON taken TO shopkeeper;
            GRANT SELECT, INSERT ON mainstay_receipt TO shopkeeper;
            GRANT SELECT, INSERT, DELETE ON mainstay_receipt TO coordinator;
            GRANT SELECT, INSERT, UPDATE ON mainstay_coordinator TO coordinator";
        for statements in tables.iter().chain([&roles]) {
            client.batch_execute(statements).await.unwrap();
        }
        let host = server.home().display().to_string().replace('/', "%2F");
        let url = format!("postgresql://coordinator@{host}/shop");
        Self::of(Server::Postgres(server), Kind::Postgres, url)
    }

    pub(crate) async fn of_mariadb(server: MariaDb) -> Self {
        let mut root = server.connect().await;
        for statement in [
            sql::RECEIPT_MARIADB,
            sql::COORDINATOR_MARIADB,
            "CREATE TABLE taken (amount int) ENGINE=InnoDB",
            "CREATE USER shopkeeper, coordinator",
            "GRANT SELECT, INSERT ON shop.taken TO shopkeeper",
            "GRANT SELECT, INSERT ON shop.mainstay_receipt TO shopkeeper",
            "GRANT SELECT, INSERT, DELETE ON shop.mainstay_receipt TO coordinator",
            "GRANT SELECT, INSERT, UPDATE ON shop.mainstay_coordinator TO coordinator",
        ] {
            root.query_drop(statement).await.unwrap();
        }
        let host = server.socket().display().to_string().replace('/', "%2F");
        let url = format!("mariadb://coordinator@{host}/shop");
        Self::of(Server::MariaDb(server), Kind::MariaDb, url)
    }

    fn of(server: Server, kind: Kind, url: String) -> Self {
        let (settings, cluster) = (settings(kind, &url), CLUSTER.to_owned());
        Self { server, settings, url, cluster }
    }

    /// The table of the product's configuration that calls it `name`.
    #[allow(dead_code, reason = "tests of the product configure it")]
    pub(crate) fn table(&self, name: &str) -> String {
        let (kind, url) = (self.settings.address.kind.as_str(), &self.url);
        let tls = if url.contains("%2F") { "" } else { "tls = \"off\"\n" };
        format!(
            "[[transaction.resource]]\nname = \"{name}\"\nkind = \"{kind}\"\nurl = \"{url}\"\n{tls}"
        )
    }

    /// Its socket.
    #[allow(dead_code, reason = "not every test binary breaks the way to it")]
    pub(crate) fn socket(&self) -> PathBuf {
        match &self.server {
            Server::Postgres(server) => server.home().join(".s.PGSQL.5432"),
            Server::MariaDb(server) => server.socket(),
        }
    }

    /// The coordinator comes to it by way of `relay`; the application comes as before.
    #[allow(dead_code, reason = "not every test binary breaks the way to it")]
    pub(crate) fn through(&mut self, relay: SocketAddr) {
        let kind = self.settings.address.kind;
        let scheme = self.url.split(':').next().unwrap();
        self.url = format!("{scheme}://coordinator@{relay}/shop");
        self.settings = settings(kind, &self.url);
    }

    /// A coordinator's side of it.
    pub(crate) fn resources(&self) -> Resources {
        resources(self.settings.clone())
    }

    /// Asks `resources` to end branch `01` of `gid`.
    pub(crate) async fn ends(&self, resources: &Resources, gid: &str, op: Op) -> Outcome {
        self.ends_held_by(resources, gid, op, None).await
    }

    pub(crate) async fn ends_held_by(
        &self,
        resources: &Resources,
        gid: &str,
        op: Op,
        session_id: Option<u32>,
    ) -> Outcome {
        let to = To::Resource {
            resource: self.settings.name.clone(),
            session_id: session_id.map(|id| id.to_string()),
        };
        let outgoing = Outgoing {
            gid: Gid::new(gid).unwrap(),
            mode: Mode::Xa,
            dialect: Dialect::Native,
            branch: BranchId::number(1),
            op,
            attempt: 1,
            epoch: 1,
            decision: (op != Op::Prepare).then_some(if op == Op::Commit {
                Decision::Commit
            } else {
                Decision::Abort
            }),
            to,
            payload: Payload::default(),
            timeout: Duration::from_secs(5),
        };
        resources.call(&outgoing).await
    }

    /// Begins branch `01` of `gid` and takes its money.
    pub(crate) async fn begin(&self, gid: &str) -> Result<Begins, String> {
        self.begin_branch(gid, "01").await
    }

    pub(crate) async fn begin_branch(&self, gid: &str, branch: &str) -> Result<Begins, String> {
        let name = BranchName::new(&self.cluster, gid, branch).unwrap();
        let shown = |error: &dyn std::fmt::Display| error.to_string();
        match &self.server {
            Server::Postgres(server) => {
                let client = server.connect_as("shopkeeper", "shop").await.unwrap();
                match branch::postgres::begin(&client, &name, "shop").await {
                    Ok(Begun::New) => {}
                    Ok(Begun::Already) => return Err("already".to_owned()),
                    Err(error) => return Err(shown(&error)),
                }
                client.batch_execute(TAKE).await.unwrap();
                Ok(Begins::Postgres(client, name))
            }
            Server::MariaDb(server) => {
                let mut connection = server.connect_as("shopkeeper", "shop").await.unwrap();
                match branch::mysql::begin(&mut connection, &name, "shop").await {
                    Ok(Begun::New) => {}
                    Ok(Begun::Already) => return Err("already".to_owned()),
                    Err(error) => return Err(shown(&error)),
                }
                connection.query_drop(TAKE).await.unwrap();
                Ok(Begins::MariaDb(connection, name))
            }
        }
    }

    /// A session of the application, in `PostgreSQL`.
    #[allow(dead_code, reason = "tests of the product run programs there")]
    pub(crate) async fn postgres(&self) -> Client {
        match &self.server {
            Server::Postgres(server) => server.connect_as("shopkeeper", "shop").await.unwrap(),
            Server::MariaDb(_) => unreachable!("it is a MariaDB"),
        }
    }

    /// The same in `MariaDB`.
    #[allow(dead_code, reason = "tests of the product run programs there")]
    pub(crate) async fn mariadb(&self) -> Conn {
        match &self.server {
            Server::MariaDb(server) => server.connect_as("shopkeeper", "shop").await.unwrap(),
            Server::Postgres(_) => unreachable!("it is a PostgreSQL"),
        }
    }

    /// Prepares a branch of `gid`, as an application does that votes yes.
    pub(crate) async fn prepare(&self, gid: &str) {
        self.begin(gid).await.unwrap().prepare().await;
    }

    pub(crate) async fn prepare_branch(&self, gid: &str, branch: &str) {
        self.begin_branch(gid, branch).await.unwrap().prepare().await;
    }

    /// Prepares something that is not ours, called `somebody`.
    pub(crate) async fn prepare_foreign(&self) {
        match &self.server {
            Server::Postgres(_) => {
                let foreign = "BEGIN; SELECT 1; PREPARE TRANSACTION 'somebody else'";
                self.administrate(foreign).await;
            }
            Server::MariaDb(server) => {
                let mut root = server.connect().await;
                for statement in [
                    "XA START 'somebody','else'",
                    "INSERT INTO shop.taken VALUES (0)",
                    "XA END 'somebody','else'",
                    "XA PREPARE 'somebody','else'",
                ] {
                    root.query_drop(statement).await.unwrap();
                }
                root.disconnect().await.unwrap();
            }
        }
    }

    /// What is on the account.
    pub(crate) async fn balance(&self) -> i64 {
        100 - 10 * self.number("SELECT COUNT(*) FROM taken").await
    }

    /// Branches that are prepared on the server.
    pub(crate) async fn prepared(&self) -> usize {
        match &self.server {
            Server::Postgres(server) => {
                let client = server.connect().await;
                client.query("SELECT 1 FROM pg_prepared_xacts", &[]).await.unwrap().len()
            }
            Server::MariaDb(server) => {
                let rows: Vec<mysql_async::Row> =
                    server.connect().await.query(sql::PREPARED_MARIADB).await.unwrap();
                rows.len()
            }
        }
    }

    /// A whole number that the administrator reads.
    pub(crate) async fn number(&self, query: &str) -> i64 {
        match &self.server {
            Server::Postgres(server) => {
                let client = server.connect_as("mainstay", "shop").await.unwrap();
                let query = format!("SELECT n::bigint FROM ({query}) AS read(n)");
                client.query_one(&query, &[]).await.unwrap().get(0)
            }
            Server::MariaDb(server) => {
                server.connect().await.query_first(query).await.unwrap().unwrap()
            }
        }
    }

    /// Something the administrator does.
    pub(crate) async fn administrate(&self, statement: &str) {
        match &self.server {
            Server::Postgres(server) => {
                let client = server.connect_as("mainstay", "shop").await.unwrap();
                client.batch_execute(statement).await.unwrap();
            }
            Server::MariaDb(server) => server.connect().await.query_drop(statement).await.unwrap(),
        }
    }

    pub(crate) async fn crash(&mut self) {
        match &mut self.server {
            Server::Postgres(server) => server.crash().await,
            Server::MariaDb(server) => server.crash().await,
        }
    }
}

impl Begins {
    /// Prepares it; the session of `MariaDB` ends.
    pub(crate) async fn prepare(self) {
        match self {
            Self::Postgres(client, name) => {
                branch::postgres::prepare(&client, &name).await.unwrap();
            }
            Self::MariaDb(connection, name) => {
                let id = connection.id();
                let prepared = branch::mysql::prepare(connection, &name).await.unwrap();
                assert_eq!(prepared.session_id, id);
            }
        }
    }

    /// Prepares it, and keeps the session.
    pub(crate) async fn prepare_and_stay(self) -> Self {
        match self {
            Self::Postgres(client, name) => {
                branch::postgres::prepare(&client, &name).await.unwrap();
                Self::Postgres(client, name)
            }
            Self::MariaDb(mut connection, name) => {
                for statement in sql::prepare_mariadb(&name.xa_literal()) {
                    connection.query_drop(statement).await.unwrap();
                }
                Self::MariaDb(connection, name)
            }
        }
    }

    /// Ends the session.
    pub(crate) async fn leave(self) {
        if let Self::MariaDb(connection, _) = self {
            connection.disconnect().await.unwrap();
        }
    }
}

/// Asks until the branch has ended: the server may need a moment to see that a session is gone. Until
/// then to commit is held up, and to roll back waits in vain for what the session has locked.
pub(crate) async fn until_done(shop: &Shop, resources: &Resources, gid: &str, op: Op) -> Outcome {
    for wait in [20, 40, 80, 160, 320, 640, 1_000] {
        match shop.ends(resources, gid, op).await {
            Outcome::Held(_) | Outcome::Unsent { .. } | Outcome::Unknown(_) => {
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            outcome => return outcome,
        }
    }
    shop.ends(resources, gid, op).await
}

pub(crate) fn settings(kind: Kind, url: &str) -> ResourceSettings {
    let name = ResourceName::new("orders").unwrap();
    let mut settings = ResourceSettings::new(name, Address::parse(kind, url).unwrap());
    settings.tls = Tls::Off;
    settings
}

pub(crate) fn resources(settings: ResourceSettings) -> Resources {
    let here: Arc<dyn Surroundings> = Arc::new(Here::new());
    Resources::new(Cluster::new(CLUSTER).unwrap(), "n1", vec![settings], &here)
}
