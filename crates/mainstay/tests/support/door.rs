//! How an application reaches its database, also one that was started again.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};

use mysql_async::{Conn, OptsBuilder};
use tokio_postgres::{Client, NoTls};

use crate::shop::{Server, Shop};

/// Where the socket of a database is.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    /// The folder of `PostgreSQL`'s.
    Postgres(PathBuf),
    /// The file of `MariaDB`'s.
    MariaDb(PathBuf),
}

impl Door {
    pub(crate) fn of(shop: &Shop) -> Self {
        match &shop.server {
            Server::Postgres(server) => Self::Postgres(server.home().to_owned()),
            Server::MariaDb(server) => Self::MariaDb(server.socket()),
        }
    }

    /// A session of `PostgreSQL`'s.
    pub(crate) async fn postgres(home: &Path) -> Result<Client, String> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(home).user("shopkeeper").dbname("shop");
        let (client, connection) = config.connect(NoTls).await.map_err(shown)?;
        // Ends with the client.
        tokio::spawn(connection);
        Ok(client)
    }

    /// A session of `MariaDB`'s.
    pub(crate) async fn mariadb(socket: &Path) -> Result<Conn, String> {
        let socket = Some(socket.display().to_string());
        let options = OptsBuilder::default().socket(socket).user(Some("shopkeeper"));
        Conn::new(options.db_name(Some("shop"))).await.map_err(shown)
    }
}

/// What an error says.
pub(crate) fn shown(error: impl std::fmt::Display) -> String {
    error.to_string()
}
