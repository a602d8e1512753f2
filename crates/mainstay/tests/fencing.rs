//! A holder that stands still between looking and writing, for longer than its lease: its late write
//! is refused by the database, where the token is checked in the transaction of the write, and gets
//! through where it is not, or this would prove nothing.
//!
//! Everything is real: the holders are processes, one of which is stopped; the control plane and
//! the databases are processes too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::panic,
    reason = "a test that cannot go on has failed; its databases run by the machine's clock"
)]

#[path = "../../mainstay-client/tests/databases/servers.rs"]
#[allow(dead_code, reason = "tests of the coordinator crash them too")]
mod servers;
#[path = "support/support.rs"]
mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use mainstay_client::Client;
use mainstay_client::fence::{self, FenceError};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder, TxOpts};
use rustix::process::Signal;
use serde_json::{Value, json};
use servers::{MariaDb, Postgres};
use support::gateway::{Gateway, send};
use support::wait::{pause, until};

const ASKED: &str = "MAINSTAY_TEST_WRITER";

/// The lock, and what its tokens are counted for in the databases.
const LOCK: &str = "shop/stock";

/// Of the lease; a stopped holder has lost it after that.
const TTL: Duration = Duration::from_secs(2);

const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn a_writer() {
    if let Ok(ask) = std::env::var(ASKED) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(write_if_told(&serde_json::from_str(&ask).unwrap()));
    }
}

/// A holder as a process of its own, which writes a line of numbers when told.
struct Writer {
    child: Child,
    tell: ChildStdin,
    said: BufReader<ChildStdout>,
    /// The token it holds the lock with.
    token: i64,
}

impl Writer {
    /// Starts `command` and waits until it holds the lock.
    #[track_caller]
    fn start(mut command: Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let tell = child.stdin.take().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut writer = Self { child, tell, said, token: 0 };
        let held = writer.hears("holds");
        writer.token = held.parse().unwrap();
        writer
    }

    /// The test `a_writer` of this binary, with its place in `database`.
    fn library(node: &Gateway, database: &str, at: &Path) -> Command {
        let (address, token) = node.door();
        let ask = json!({ "server": format!("http://{address}"), "token": token,
                          "database": database, "at": at });
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["a_writer", "--exact", "--nocapture"]).env(ASKED, ask.to_string());
        command
    }

    /// Waits for the line that begins with `word`; the rest of it.
    #[track_caller]
    fn hears(&mut self, word: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.said.read_line(&mut line).unwrap(), 0, "it ended before `{word}`");
            if let Some(rest) = line.trim_end().strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    fn tell(&mut self, n: u32) {
        writeln!(self.tell, "{n}").unwrap();
    }

    /// Has it write `n` now; what became of the fenced write.
    #[track_caller]
    fn writes(&mut self, n: u32) -> String {
        self.tell(n);
        self.hears("wrote")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Two writers, of whom the first is stopped in the middle of its work until the second one has
/// written; `start` starts one, and `stopped` is who is stopped of it.
#[track_caller]
fn play(mut start: impl FnMut() -> Writer) -> (i64, i64) {
    let mut first = start();
    assert_eq!(first.writes(1), "passed");
    // It has looked whether it holds the lock, and stands before its write.
    send(&first.child, Signal::STOP);
    pause(TTL);
    let mut second = start();
    assert!(first.token < second.token, "{} {}", first.token, second.token);
    assert_eq!(second.writes(2), "passed");
    first.tell(3);
    send(&first.child, Signal::CONT);
    assert_eq!(first.hears("wrote"), format!("refused {}", second.token));
    assert_eq!(second.writes(4), "passed", "the token of whoever holds passes each time");
    first.tell(5);
    assert_eq!(first.hears("wrote"), format!("refused {}", second.token), "ever after");
    (first.token, second.token)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_refuses_the_late_write_of_a_holder_that_stood_still() {
    let server = Postgres::start().await;
    let client = server.connect().await;
    fence::postgres::create_table(&client).await.unwrap();
    let table = "CREATE TABLE register (name text PRIMARY KEY, token bigint, n bigint);
        INSERT INTO register VALUES ('fenced', 0, 0), ('unfenced', 0, 0)";
    client.batch_execute(table).await.unwrap();
    let node = Gateway::start_server("fencing-postgres", SERVER);
    let home = server.home().to_owned();
    let played = tokio::task::spawn_blocking(move || {
        play(|| Writer::start(Writer::library(&node, "postgresql", &home)))
    });
    let (first, second) = played.await.unwrap();
    let read = "SELECT token, n FROM register ORDER BY name";
    let rows = client.query(read, &[]).await.unwrap();
    let rows: Vec<(i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(rows, [(second, 4), (first, 5)], "the unfenced one went back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_refuses_the_late_write_of_a_holder_that_stood_still() {
    let server = MariaDb::start().await;
    let mut connection = server.connect().await;
    fence::mysql::create_table(&mut connection).await.unwrap();
    let table = "CREATE TABLE register (name varchar(20) PRIMARY KEY, token bigint, n bigint)";
    connection.query_drop(table).await.unwrap();
    let rows = "INSERT INTO register VALUES ('fenced', 0, 0), ('unfenced', 0, 0)";
    connection.query_drop(rows).await.unwrap();
    let node = Gateway::start_server("fencing-mariadb", SERVER);
    let socket = server.socket();
    let played = tokio::task::spawn_blocking(move || {
        play(|| Writer::start(Writer::library(&node, "mariadb", &socket)))
    });
    let (first, second) = played.await.unwrap();
    let read = "SELECT token, n FROM register ORDER BY name";
    let rows: Vec<(i64, i64)> = connection.query(read).await.unwrap();
    assert_eq!(rows, [(second, 4), (first, 5)], "the unfenced one went back");
}

/// Programs of other languages run under `mainstay lock run`, which tells them their token, and
/// check it by the statement that the library uses.
#[test]
fn sqlite_refuses_the_late_write_of_a_command_whose_lock_was_lost() {
    let node = Gateway::start_server("fencing-sqlite", SERVER);
    let file = node.home().join("shop.sqlite");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/sqlite_writer.py");
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
        command
            .args(["lock", "run", LOCK, "--ttl", "2", "--on-lost", "ignore", "--", "python3"])
            .arg(&script)
            .arg(&file)
            .env("STATE_DIRECTORY", node.home().join("data"))
            .env("HOME", node.home())
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("XDG_DATA_HOME");
        Writer::start(command)
    };
    // Who keeps the lock stands still; the command itself goes on, and knows nothing of it.
    let (first, second) = play(start);
    let mut read = Command::new("python3");
    let read = read.arg(&script).arg(&file).arg("read").output().unwrap();
    let rows: Value = serde_json::from_slice(&read.stdout).unwrap();
    assert_eq!(rows, json!([[second, 4], [first, 5]]), "the unfenced one went back");
    until("nobody holds it any more", PATIENCE, || {
        let (_, text) = node.control("/api/v1/locks/default/shop%2Fstock");
        let status: Value = serde_json::from_str(&text).unwrap();
        status["holders"].as_array().is_none_or(Vec::is_empty)
    });
}

const SERVER: &str = "[server]\nlisten = \"127.0.0.1:0\"\n";

/// What a writer does: gets the lock, says so, and writes each number it is told, first where the
/// token is checked, and then where it is not.
#[expect(clippy::print_stdout, reason = "how it tells the test")]
async fn write_if_told(ask: &Value) {
    let text = |name: &str| ask[name].as_str().unwrap().to_owned();
    let client = Client::builder([text("server")]).token(text("token")).build().unwrap();
    let mut database = Database::open(&text("database"), &text("at")).await;
    let held = client.lock(LOCK).ttl(TTL).acquire().await.unwrap();
    held.check().unwrap();
    println!("\nholds {}", held.token());
    loop {
        let told = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map(|_| line)
        });
        let line = told.await.unwrap().unwrap();
        let Ok(n) = line.trim().parse() else { return };
        match database.write(held.token(), n).await {
            None => println!("\nwrote passed"),
            Some(seen) => println!("\nwrote refused {seen}"),
        }
    }
}

enum Database {
    Postgres(tokio_postgres::Client),
    MariaDb(Conn),
}

impl Database {
    async fn open(kind: &str, at: &str) -> Self {
        if kind == "mariadb" {
            let options = OptsBuilder::default().socket(Some(at)).user(Some("root"));
            return Self::MariaDb(Conn::new(options.db_name(Some("shop"))).await.unwrap());
        }
        let mut config = tokio_postgres::Config::new();
        config.host_path(at).user("mainstay").dbname("postgres");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        // Ends with the client.
        tokio::spawn(connection);
        Self::Postgres(client)
    }

    /// Writes under the lock, and then as one who does not know of tokens; the token that was seen
    /// before if the first write was refused.
    async fn write(&mut self, token: u64, n: i64) -> Option<u64> {
        let number = i64::try_from(token).unwrap();
        let checked = match self {
            Self::Postgres(client) => {
                let write = "UPDATE register SET token = $2, n = $3 WHERE name = $1";
                let transaction = client.transaction().await.unwrap();
                let checked = fence::postgres::check(&transaction, LOCK, token).await;
                if checked.is_ok() {
                    transaction.execute(write, &[&"fenced", &number, &n]).await.unwrap();
                    transaction.commit().await.unwrap();
                } else {
                    transaction.rollback().await.unwrap();
                }
                client.execute(write, &[&"unfenced", &number, &n]).await.unwrap();
                checked.map_err(seen)
            }
            Self::MariaDb(connection) => {
                let write = "UPDATE register SET token = ?, n = ? WHERE name = ?";
                let options = TxOpts::default();
                let mut transaction = connection.start_transaction(options).await.unwrap();
                let checked = fence::mysql::check(&mut transaction, LOCK, token).await;
                if checked.is_ok() {
                    transaction.exec_drop(write, (number, n, "fenced")).await.unwrap();
                    transaction.commit().await.unwrap();
                } else {
                    transaction.rollback().await.unwrap();
                }
                connection.exec_drop(write, (number, n, "unfenced")).await.unwrap();
                checked.map_err(seen)
            }
        };
        checked.err()
    }
}

#[track_caller]
fn seen<E: std::fmt::Debug>(error: FenceError<E>) -> u64 {
    match error {
        FenceError::Stale { seen, .. } => seen,
        other => panic!("{other:?}"),
    }
}
