//! Participants are examined: one that keeps a barrier on a real database stands everything, the
//! same one without it fails where a barrier is what is missing, and nowhere else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests run by the clock of this machine, and fail by panicking"
)]

#[path = "../../mainstay-client/tests/databases/servers.rs"]
#[allow(dead_code, reason = "tests of the client start them otherwise, too")]
mod servers;
#[path = "support/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::post;
use mainstay_client::barrier::{BarrierError, Passed};
use mainstay_client::optimistic::Conflicts;
use mainstay_client::{Barrier, Branch, barrier};
use mysql_async::prelude::Queryable as _;
use serde_json::Value;
use servers::{MariaDb, Postgres};
use support::participant::Participant;

/// What is in stock, more than anything here takes; and what is asked for in vain.
const TABLE: &str = "CREATE TABLE stock (n int, sold int)";
const STOCK: &str = "INSERT INTO stock VALUES (1000, 0)";
const SOME: &str = "2";
const TOO_MANY: &str = "5000";

/// Sees what is taken, put back and sold.
const PROBE: &str = "SELECT n - sold FROM stock";

const TABLE_OF_DTM: &str = "CREATE TABLE dtm_barrier.barrier (id bigint AUTO_INCREMENT PRIMARY KEY, \
    trans_type varchar(45), gid varchar(128), branch_id varchar(128), op varchar(45), \
    barrier_id varchar(45), reason varchar(45), \
    UNIQUE KEY uniq_barrier (gid, branch_id, op, barrier_id))";

/// A service with a stock, which takes part in transactions.
struct Shop {
    database: Arc<Database>,
    /// Whether its work passes a barrier.
    is_guarded: bool,
}

enum Database {
    Postgres(Postgres),
    MariaDb(MariaDb),
}

/// Why it does not.
#[derive(Debug)]
enum NotDone<D> {
    SoldOut,
    Database(D),
}

impl<D> From<D> for NotDone<D> {
    fn from(error: D) -> Self {
        Self::Database(error)
    }
}

impl<D: Conflicts> Conflicts for NotDone<D> {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_conflict())
    }
}

/// The answer to what came of it.
fn answer<D>(came: Result<Passed<()>, BarrierError<NotDone<D>, D>>) -> u16 {
    match came {
        Ok(passed) => passed.http(),
        Err(BarrierError::Ongoing) => 425,
        Err(BarrierError::Business(NotDone::SoldOut)) => 409,
        Err(_other) => 500,
    }
}

/// The work of an operation on so many.
fn statement(op: &str, n: i64) -> String {
    match op {
        "action" | "try" => format!("UPDATE stock SET n = n - {n} WHERE n >= {n}"),
        "compensate" | "cancel" => format!("UPDATE stock SET n = n + {n}"),
        "confirm" => format!("UPDATE stock SET sold = sold + {n}"),
        other => panic!("nobody asks for {other}"),
    }
}

/// Where a shop with a barrier is called, and one without.
struct Shops {
    guarded: String,
    bare: String,
}

/// Opens both on one database.
async fn open(database: Database) -> Shops {
    let database = Arc::new(database);
    let mut urls = Vec::new();
    for is_guarded in [true, false] {
        let shop = Arc::new(Shop { database: Arc::clone(&database), is_guarded });
        urls.push(format!("http://{}/stock", shop.open().await));
    }
    let [guarded, bare] = urls.try_into().unwrap();
    Shops { guarded, bare }
}

impl Shop {
    async fn serve(&self, branch: &Branch, n: i64) -> u16 {
        let work = statement(branch.op(), n);
        match &*self.database {
            Database::Postgres(server) => {
                let mut client = server.connect().await;
                if !self.is_guarded {
                    return if client.execute(&work, &[]).await.unwrap() == 0 { 409 } else { 200 };
                }
                let came = Barrier::of(branch)
                    .postgres(&mut client, async |sql| match sql.execute(&work, &[]).await? {
                        0 => Err(NotDone::SoldOut),
                        _ => Ok(()),
                    })
                    .await;
                answer(came)
            }
            Database::MariaDb(server) => {
                let mut connection = server.connect().await;
                if !self.is_guarded {
                    connection.query_drop(&work).await.unwrap();
                    return if connection.affected_rows() == 0 { 409 } else { 200 };
                }
                let came = Barrier::of(branch)
                    .table_of_dtm()
                    .mysql(&mut connection, async |sql| {
                        sql.query_drop(&work).await?;
                        if sql.affected_rows() == 0 { Err(NotDone::SoldOut) } else { Ok(()) }
                    })
                    .await;
                answer(came)
            }
        }
    }

    /// Opens; returns where.
    async fn open(self: Arc<Self>) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/stock", post(handle)).with_state(self);
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }
}

async fn handle(
    State(shop): State<Arc<Shop>>,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> StatusCode {
    let branch = Branch::of_request(&headers, uri.query()).unwrap();
    StatusCode::from_u16(shop.serve(&branch, body.parse().unwrap()).await).unwrap()
}

/// What an examination said.
struct Examined {
    code: i32,
    document: Value,
}

/// Examines whoever is at `url`.
async fn examine(url: &str, flags: &[&str]) -> Examined {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(["transaction", "conformance", "--url", url, "--body", SOME, "-o", "json"])
        .args(flags)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    Examined { code: output.status.code().unwrap(), document }
}

/// What work fails that passes no barrier.
const WITHOUT_A_BARRIER: [&str; 6] =
    ["duplicate", "undone-twice", "empty-rollback", "hanging", "at-once", "refused-undone"];

impl Examined {
    /// Fails these, and everything else passes.
    #[track_caller]
    fn is_right(&self, fails: &[&str]) {
        assert_eq!(self.with("fail"), fails, "{:#}", self.document);
        assert_eq!(self.with("not judged"), [""; 0], "{:#}", self.document);
        assert_eq!(self.code, i32::from(!fails.is_empty()));
    }

    /// Cases with this verdict, in order.
    fn with(&self, verdict: &str) -> Vec<&str> {
        let items = self.document["items"].as_array().unwrap().iter();
        let found = items.filter(|item| item["verdict"] == verdict);
        found.map(|item| item["case"].as_str().unwrap()).collect()
    }

    /// Why each case did not pass.
    fn why(&self) -> BTreeMap<&str, String> {
        let items = self.document["items"].as_array().unwrap().iter();
        items.map(|item| (item["case"].as_str().unwrap(), item["why"].to_string())).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_stands_everything_with_a_barrier_and_little_without() {
    let server = Postgres::start().await;
    let client = server.connect().await;
    barrier::postgres::install_tables(&client).await.unwrap();
    client.batch_execute(&format!("{TABLE}; {STOCK}")).await.unwrap();
    let host = server.home().display().to_string().replace('/', "%2F");
    let database = format!("postgresql://mainstay@{host}/postgres");
    let shops = open(Database::Postgres(server)).await;
    let looks = ["--database", &database, "--probe", PROBE, "--refused-body", TOO_MANY];

    let all = examine(&shops.guarded, &[&looks[..], &["--barrier", "mainstay"]].concat()).await;
    all.is_right(&[]);
    assert_eq!(all.with("pass").len(), 9, "{}", all.document);

    // Answers alone say little.
    let answers = examine(&shops.guarded, &[]).await;
    assert_eq!((answers.code, answers.with("fail")), (0, vec![]), "{:?}", answers.why());
    assert_eq!(answers.with("pass"), ["plain", "undone", "hanging"]);

    let bare = examine(&shops.bare, &looks).await;
    bare.is_right(&WITHOUT_A_BARRIER);
    let why = bare.why();
    assert!(why["duplicate"].contains("keep a row of gid, branch and operation"), "{why:?}");
    assert!(why["hanging"].contains("`action` was answered 2xx"), "{why:?}");

    // Where rows are looked for, none are found. What was undone and never done is in stock now.
    client.batch_execute(&format!("DELETE FROM stock; {STOCK}")).await.unwrap();
    let bare = examine(&shops.bare, &[&looks[..], &["--barrier", "mainstay"]].concat()).await;
    assert_eq!((bare.code, bare.with("pass")), (1, vec!["refused"]), "{:?}", bare.why());
}

#[tokio::test(flavor = "multi_thread")]
async fn try_confirm_cancel_in_the_dialect_of_dtm_on_mariadb() {
    let server = MariaDb::start().await;
    let mut root = server.connect().await;
    for statement in ["CREATE DATABASE dtm_barrier", TABLE_OF_DTM, TABLE, STOCK] {
        root.query_drop(statement).await.unwrap();
    }
    let socket = server.socket().display().to_string().replace('/', "%2F");
    let database = format!("mariadb://root@{socket}/shop");
    let shops = open(Database::MariaDb(server)).await;
    let looks = [
        ["--mode", "tcc", "--dialect", "dtm", "--database", &database].as_slice(),
        &["--probe", PROBE, "--refused-body", TOO_MANY],
    ]
    .concat();

    let all = examine(&shops.guarded, &[&looks[..], &["--barrier", "dtm"]].concat()).await;
    all.is_right(&[]);
    assert_eq!(all.with("pass").len(), 11, "{}", all.document);

    let bare = examine(&shops.bare, &looks).await;
    let [duplicate, undone, rest @ ..] = WITHOUT_A_BARRIER;
    let fails = [&[duplicate, undone, "confirmed-twice"], &rest[..]].concat();
    bare.is_right(&fails);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_look_as_a_coordinator_makes_them_and_follow_nobody_elsewhere() {
    let participant = Participant::start();
    participant.answers("/work", 302, "");
    let flags = ["--at", "action=/work", "--header", "x-tenant: blue"];
    let examined = examine(&participant.url("/undo"), &flags).await;
    assert_eq!(examined.code, 1);
    assert!(examined.why()["plain"].contains("`action` was answered 302"), "{:?}", examined.why());
    // Nothing else is tried at one that does not even do its work.
    assert_eq!(examined.with("not judged").len(), 8, "{}", examined.document);
    let asked = participant.asked();
    let first = asked.first().unwrap();
    let run = examined.document["run"].as_str().unwrap();
    assert_eq!((first.method.as_str(), first.target.as_str()), ("POST", "/work"));
    for (name, want) in [
        ("mainstay-gid", format!("{run}-1-plain")),
        ("mainstay-branch", "01".to_owned()),
        ("mainstay-op", "action".to_owned()),
        ("mainstay-mode", "saga".to_owned()),
        ("mainstay-branch-attempt", "1".to_owned()),
        ("mainstay-timeout-ms", "5000".to_owned()),
        ("idempotency-key", format!("{run}-1-plain:01:action")),
        ("content-type", "application/json".to_owned()),
        ("x-tenant", "blue".to_owned()),
    ] {
        assert_eq!(first.headers.get(name), Some(&want), "{name}");
    }
    let strays = asked.iter().filter(|asked| {
        let op = asked.headers["mainstay-op"].as_str();
        asked.target != if op == "action" { "/work" } else { "/undo" }
    });
    assert_eq!(strays.count(), 0, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_read_is_no_failure_of_the_participant() {
    let participant = Participant::start();
    let url = participant.url("/stock");
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(["tx", "conformance", "--url", &url, "--probe", PROBE])
        .args(["--database", "postgresql://nobody@%2Fnowhere/shop"])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("error[resource-unreachable]"), "{said}");
    assert_eq!(participant.asked(), []);
}
