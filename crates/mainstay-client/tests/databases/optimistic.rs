//! Many writers of one row: nothing is lost, and they do meet.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstay_client::optimistic::{Attempt, Conflicts, Outcome, Retry, Table, mysql, postgres};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, TxOpts, Value};
use tokio_postgres::{Client, IsolationLevel};

use crate::servers::{MariaDb, Postgres};

const WORKERS: i64 = 32;
const INCREMENTS: i64 = 200;
const TABLE: Table<'_> = Table::new("counter", "name");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_no_increment_is_lost() {
    let server = Postgres::start().await;
    let client = server.connect().await;
    let table = "CREATE TABLE counter (name text PRIMARY KEY, n int, version int);
        INSERT INTO counter VALUES ('c', 0, 1)";
    client.batch_execute(table).await.unwrap();
    let conflicts = Arc::new(AtomicU64::new(0));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..WORKERS {
        let (mut client, conflicts) = (server.connect().await, Arc::clone(&conflicts));
        workers.spawn(async move {
            for _ in 0..INCREMENTS {
                let mut retry = Retry::default();
                while !is_done(postgres_increment(&mut client, &conflicts).await, &mut retry).await
                {
                }
            }
        });
    }
    workers.join_all().await;
    let row = client.query_one("SELECT n, version FROM counter", &[]).await.unwrap();
    let all = i32::try_from(WORKERS * INCREMENTS).unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1)), (all, all + 1));
    assert!(0 < conflicts.load(Ordering::Relaxed), "they never met");
}

/// Whether it is done; if not, waits. A worker that has met others five times begins anew.
async fn is_done<E: Conflicts + Debug>(came: Result<Attempt<()>, E>, retry: &mut Retry) -> bool {
    match came {
        Ok(Attempt::Done(())) => return true,
        Ok(Attempt::Conflict) => {}
        Err(error) => assert!(error.is_conflict(), "{error:?}"),
    }
    if let Err(busy) = retry.after_conflict().await {
        assert_eq!(busy.tries, 5);
        *retry = Retry::default();
    }
    false
}

/// One attempt, in a transaction of its own.
async fn postgres_increment(
    client: &mut Client,
    conflicts: &AtomicU64,
) -> Result<Attempt<()>, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let row = transaction.query_one("SELECT n, version FROM counter", &[]).await?;
    let (n, version): (i32, i32) = (row.get(0), row.get(1));
    let set: [(&str, postgres::Bound<'_>); 1] = [("n", &(n + 1))];
    match postgres::update(&transaction, &TABLE, &"c", version.into(), &set).await? {
        Outcome::Updated { version: next } => {
            assert_eq!(next, i64::from(version) + 1);
            transaction.commit().await?;
            Ok(Attempt::Done(()))
        }
        Outcome::Conflict { current } => {
            assert!(current.is_none_or(|current| i64::from(version) < current));
            conflicts.fetch_add(1, Ordering::Relaxed);
            transaction.rollback().await?;
            Ok(Attempt::Conflict)
        }
        Outcome::Gone => panic!("nobody deletes it"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_mariadb_no_increment_is_lost() {
    let server = MariaDb::start().await;
    let mut connection = server.connect().await;
    let table = "CREATE TABLE counter (name varchar(20) PRIMARY KEY, n int, version int)";
    connection.query_drop(table).await.unwrap();
    connection.query_drop("INSERT INTO counter VALUES ('c', 0, 1)").await.unwrap();
    let conflicts = Arc::new(AtomicU64::new(0));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..WORKERS {
        let (mut own, conflicts) = (server.connect().await, Arc::clone(&conflicts));
        workers.spawn(async move {
            for _ in 0..INCREMENTS {
                let mut retry = Retry::default();
                while !is_done(mysql_increment(&mut own, &conflicts).await, &mut retry).await {}
            }
        });
    }
    workers.join_all().await;
    let row: Option<(i64, i64)> =
        connection.query_first("SELECT n, version FROM counter").await.unwrap();
    assert_eq!(row, Some((WORKERS * INCREMENTS, WORKERS * INCREMENTS + 1)));
    assert!(0 < conflicts.load(Ordering::Relaxed), "they never met");
}

/// One attempt, in a transaction of its own.
async fn mysql_increment(
    connection: &mut Conn,
    conflicts: &AtomicU64,
) -> Result<Attempt<()>, mysql_async::Error> {
    let mut transaction = connection.start_transaction(TxOpts::default()).await?;
    let row: Option<(i64, i64)> = transaction.query_first("SELECT n, version FROM counter").await?;
    let (n, version) = row.expect("nobody deletes it");
    let set = [("n", Value::from(n + 1))];
    match mysql::update(&mut transaction, &TABLE, "c", version, &set).await? {
        Outcome::Updated { version: next } => {
            assert_eq!(next, version + 1);
            transaction.commit().await?;
            Ok(Attempt::Done(()))
        }
        Outcome::Conflict { current } => {
            // Not the version of the snapshot, in which nobody else was there yet.
            assert!(current.is_none_or(|current| version < current), "{version}: {current:?}");
            conflicts.fetch_add(1, Ordering::Relaxed);
            transaction.rollback().await?;
            Ok(Attempt::Conflict)
        }
        Outcome::Gone => panic!("nobody deletes it"),
    }
}

#[tokio::test]
async fn on_postgresql_what_the_database_breaks_off_is_a_conflict() {
    let server = Postgres::start().await;
    let (mut one, mut other) = (server.connect().await, server.connect().await);
    let table = r#"CREATE SCHEMA "Shop"; CREATE TABLE "Shop"."the ""row""" (
            "Id" int PRIMARY KEY, "order" text, v bigint);
        INSERT INTO "Shop"."the ""row""" VALUES (1, 'a', 7), (2, 'b', 7)"#;
    one.batch_execute(table).await.unwrap();
    let table = Table::new("the \"row\"", "Id").schema("Shop").version("v");
    let set: [(&str, postgres::Bound<'_>); 1] = [("order", &"x'; --")];

    let done = postgres::update(&one, &table, &1, 7, &set).await.unwrap();
    assert_eq!(done, Outcome::Updated { version: 8 });
    let late = postgres::update(&one, &table, &1, 7, &set).await.unwrap();
    assert_eq!(late, Outcome::Conflict { current: Some(8) });
    let gone = postgres::update(&one, &table, &9, 7, &set).await.unwrap();
    assert_eq!(gone, Outcome::Gone);
    let wrong = [("nothing", &1 as postgres::Bound<'_>)];
    assert!(postgres::update(&one, &table, &1, 8, &wrong).await.is_err());

    // 40001: somebody else was there since the snapshot.
    let level = IsolationLevel::RepeatableRead;
    let snapshot = one.build_transaction().isolation_level(level).start().await.unwrap();
    snapshot.query_one("SELECT count(*) FROM pg_class", &[]).await.unwrap();
    let done = postgres::update(&other, &table, &1, 8, &set).await.unwrap();
    assert_eq!(done, Outcome::Updated { version: 9 });
    let broken = postgres::update(&snapshot, &table, &1, 8, &set).await.unwrap();
    assert_eq!(broken, Outcome::Conflict { current: None });
    snapshot.rollback().await.unwrap();

    // 40P01: each waits for the other.
    let (first, second) = (one.transaction().await.unwrap(), other.transaction().await.unwrap());
    let done = postgres::update(&first, &table, &1, 9, &set).await.unwrap();
    assert_eq!(done, Outcome::Updated { version: 10 });
    let done = postgres::update(&second, &table, &2, 7, &set).await.unwrap();
    assert_eq!(done, Outcome::Updated { version: 8 });
    let a = async {
        let came = postgres::update(&first, &table, &2, 7, &set).await.unwrap();
        first.rollback().await.unwrap();
        came
    };
    let b = async {
        let came = postgres::update(&second, &table, &1, 9, &set).await.unwrap();
        second.rollback().await.unwrap();
        came
    };
    let (a, b) = tokio::join!(a, b);
    let broken = Outcome::Conflict { current: None };
    assert!((a == broken) != (b == broken), "{a:?}, {b:?}");
}

#[tokio::test]
async fn on_mariadb_what_the_database_breaks_off_is_a_conflict() {
    let server = MariaDb::start().await;
    let (mut one, mut other) = (server.connect().await, server.connect().await);
    let table = "CREATE TABLE `the ``row``` (`Id` int PRIMARY KEY, `order` text, v bigint)";
    one.query_drop(table).await.unwrap();
    one.query_drop("INSERT INTO `the ``row``` VALUES (1, 'a', 7), (2, 'b', 7)").await.unwrap();
    let table = Table::new("the `row`", "Id").schema("shop").version("v");
    let set = [("order", Value::from("x'; -- "))];

    let done = mysql::update(&mut one, &table, 1, 7, &set).await.unwrap();
    assert_eq!(done, Outcome::Updated { version: 8 });
    let late = mysql::update(&mut one, &table, 1, 7, &set).await.unwrap();
    assert_eq!(late, Outcome::Conflict { current: Some(8) });
    assert_eq!(mysql::update(&mut one, &table, 9, 7, &set).await.unwrap(), Outcome::Gone);
    let wrong = [("nothing", Value::from(1))];
    let error = mysql::update(&mut one, &table, 1, 8, &wrong).await.unwrap_err();
    assert!(!error.is_conflict(), "{error}");

    // The snapshot still has the version that was asked for; the answer is what stands there.
    let mut snapshot = one.start_transaction(TxOpts::default()).await.unwrap();
    let row: Option<i64> =
        snapshot.query_first("SELECT v FROM `the ``row``` WHERE `Id` = 1").await.unwrap();
    assert_eq!(row, Some(8));
    let done = mysql::update(&mut other, &table, 1, 8, &set).await.unwrap();
    assert_eq!(done, Outcome::Updated { version: 9 });
    let late = mysql::update(&mut snapshot, &table, 1, 8, &set).await.unwrap();
    assert_eq!(late, Outcome::Conflict { current: Some(9) });
    snapshot.rollback().await.unwrap();

    // 1205: the lock is not given in time.
    other.query_drop("SET innodb_lock_wait_timeout = 1").await.unwrap();
    let mut first = one.start_transaction(TxOpts::default()).await.unwrap();
    let done = mysql::update(&mut first, &table, 1, 9, &set).await.unwrap();
    assert_eq!(done, Outcome::Updated { version: 10 });
    let mut second = other.start_transaction(TxOpts::default()).await.unwrap();
    let broken = mysql::update(&mut second, &table, 1, 9, &set).await.unwrap();
    assert_eq!(broken, Outcome::Conflict { current: None });

    // 1213: each waits for the other.
    let done = mysql::update(&mut second, &table, 2, 7, &set).await.unwrap();
    assert_eq!(done, Outcome::Updated { version: 8 });
    let a = async {
        let came = mysql::update(&mut first, &table, 2, 7, &set).await.unwrap();
        first.rollback().await.unwrap();
        came
    };
    let b = async {
        let came = mysql::update(&mut second, &table, 1, 9, &set).await.unwrap();
        second.rollback().await.unwrap();
        came
    };
    let (a, b) = tokio::join!(a, b);
    let broken = Outcome::Conflict { current: None };
    assert!((a == broken) || (b == broken), "{a:?}, {b:?}");
}
