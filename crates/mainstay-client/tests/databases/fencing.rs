//! A holder that stood still writes after the next one: where the token is checked it cannot, and
//! where it is not it can, or the test would prove nothing.

use std::collections::BTreeSet;

use mainstay_client::fence::{self, FenceError};
use mainstay_client::optimistic::Conflicts as _;
use mysql_async::TxOpts;
use mysql_async::prelude::Queryable as _;

use crate::holders::{History, Holder, Holders, RESOURCE};
use crate::servers::{MariaDb, Postgres};

/// Rounds of two holders each.
const ROUNDS: i64 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_a_late_holder_is_refused_only_where_the_token_is_checked() {
    let server = Postgres::start().await;
    let mut client = server.connect().await;
    for _ in 0..2 {
        fence::postgres::create_table(&client).await.unwrap();
    }
    let table = "CREATE TABLE register (name text PRIMARY KEY, token bigint, n bigint);
        INSERT INTO register VALUES ('fenced', 0, 0), ('unfenced', 0, 0)";
    client.batch_execute(table).await.unwrap();
    let (mut fenced, mut unfenced) = (History::default(), History::default());
    play(async |holder: &Holder, n, is_late| {
        let token = i64::try_from(holder.token).unwrap();
        let write = "UPDATE register SET token = $2, n = $3 WHERE name = $1";
        let transaction = client.transaction().await.unwrap();
        let checked = fence::postgres::check(&transaction, RESOURCE, holder.token).await;
        assert_eq!(matches!(checked, Err(FenceError::Stale { .. })), is_late, "{checked:?}");
        if checked.is_ok() {
            transaction.execute(write, &[&"fenced", &token, &n]).await.unwrap();
        }
        transaction.commit().await.unwrap();
        client.execute(write, &[&"unfenced", &token, &n]).await.unwrap();
        let read = "SELECT token FROM register WHERE name = $1";
        fenced.saw(client.query_one(read, &[&"fenced"]).await.unwrap().get(0));
        unfenced.saw(client.query_one(read, &[&"unfenced"]).await.unwrap().get(0));
    })
    .await;
    bites(&fenced, &unfenced);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_mariadb_a_late_holder_is_refused_only_where_the_token_is_checked() {
    let server = MariaDb::start().await;
    let mut connection = server.connect().await;
    for _ in 0..2 {
        fence::mysql::create_table(&mut connection).await.unwrap();
    }
    let table = "CREATE TABLE register (name varchar(20) PRIMARY KEY, token bigint, n bigint)";
    connection.query_drop(table).await.unwrap();
    let rows = "INSERT INTO register VALUES ('fenced', 0, 0), ('unfenced', 0, 0)";
    connection.query_drop(rows).await.unwrap();
    let (mut fenced, mut unfenced) = (History::default(), History::default());
    play(async |holder: &Holder, n, is_late| {
        let write = "UPDATE register SET token = ?, n = ? WHERE name = ?";
        let mut transaction = connection.start_transaction(TxOpts::default()).await.unwrap();
        let checked = fence::mysql::check(&mut transaction, RESOURCE, holder.token).await;
        assert_eq!(matches!(checked, Err(FenceError::Stale { .. })), is_late, "{checked:?}");
        if checked.is_ok() {
            transaction.exec_drop(write, (holder.token, n, "fenced")).await.unwrap();
        }
        transaction.commit().await.unwrap();
        connection.exec_drop(write, (holder.token, n, "unfenced")).await.unwrap();
        let read = "SELECT token FROM register WHERE name = ?";
        fenced.saw(connection.exec_first(read, ("fenced",)).await.unwrap().unwrap());
        unfenced.saw(connection.exec_first(read, ("unfenced",)).await.unwrap().unwrap());
    })
    .await;
    bites(&fenced, &unfenced);
}

/// Plays the rounds: somebody gets the lock, writes, stands still for twice the ttl; somebody else
/// gets the lock and writes; the first one finishes what it had begun. `write` is told whether the
/// holder is late.
async fn play(mut write: impl AsyncFnMut(&Holder, i64, bool)) {
    let holders = Holders::new();
    for round in 0..ROUNDS {
        let first = holders.acquire("first").await;
        write(&first, 10 * round, false).await;
        holders.stand_still().await;
        let second = holders.acquire("second").await;
        assert!(first.token < second.token);
        write(&second, 10 * round + 1, false).await;
        write(&first, 10 * round + 2, true).await;
        // The token of whoever holds passes as often as it comes.
        write(&second, 10 * round + 3, false).await;
        holders.release(&second).await;
    }
}

#[track_caller]
fn bites(fenced: &History, unfenced: &History) {
    assert_eq!(fenced.steps_back(), 0, "{fenced:?}");
    assert_eq!(i64::try_from(unfenced.steps_back()).unwrap(), ROUNDS, "{unfenced:?}");
}

/// Tokens that come at once, in no order.
const TOKENS: u64 = 200;
const WRITERS: u64 = 8;

/// The tokens of writer `of`: every eighth, in an order that goes up and down.
fn tokens(of: u64) -> impl Iterator<Item = u64> {
    (0..TOKENS / WRITERS).map(move |n| (n * 7 % (TOKENS / WRITERS)) * WRITERS + of + 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_writes_that_come_at_once_are_taken_in_the_order_of_tokens() {
    let server = Postgres::start().await;
    let client = server.connect().await;
    fence::postgres::create_table(&client).await.unwrap();
    client.batch_execute("CREATE TABLE taken (at serial, token bigint)").await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let mut client = server.connect().await;
        writers.spawn(async move {
            for token in tokens(writer) {
                let transaction = client.transaction().await.unwrap();
                match fence::postgres::check(&transaction, RESOURCE, token).await {
                    Ok(()) => {
                        let number = i64::try_from(token).unwrap();
                        let insert = "INSERT INTO taken (token) VALUES ($1)";
                        transaction.execute(insert, &[&number]).await.unwrap();
                        transaction.commit().await.unwrap();
                    }
                    Err(FenceError::Stale { seen, .. }) => assert!(token < seen),
                    Err(other) => panic!("{other:?}"),
                }
            }
        });
    }
    writers.join_all().await;
    let rows = client.query("SELECT token FROM taken ORDER BY at", &[]).await.unwrap();
    rising(&rows.iter().map(|row| row.get(0)).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_mariadb_writes_that_come_at_once_are_taken_in_the_order_of_tokens() {
    let server = MariaDb::start().await;
    let mut connection = server.connect().await;
    fence::mysql::create_table(&mut connection).await.unwrap();
    let table = "CREATE TABLE taken (at bigint AUTO_INCREMENT PRIMARY KEY, token bigint)";
    connection.query_drop(table).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let mut connection = server.connect().await;
        writers.spawn(async move {
            let mut deadlocks = 0;
            for token in tokens(writer) {
                loop {
                    let options = TxOpts::default();
                    let mut transaction = connection.start_transaction(options).await.unwrap();
                    match fence::mysql::check(&mut transaction, RESOURCE, token).await {
                        Ok(()) => {
                            let insert = "INSERT INTO taken (token) VALUES (?)";
                            transaction.exec_drop(insert, (token,)).await.unwrap();
                            break transaction.commit().await.unwrap();
                        }
                        Err(FenceError::Stale { seen, .. }) => {
                            assert!(token < seen);
                            break transaction.rollback().await.unwrap();
                        }
                        Err(error) if error.is_conflict() => {
                            deadlocks += 1;
                            transaction.rollback().await.unwrap();
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                }
            }
            deadlocks
        });
    }
    let deadlocks: u32 = writers.join_all().await.iter().sum();
    assert!(u64::from(deadlocks) < TOKENS / 10, "{deadlocks} deadlocks are no exception");
    let taken = connection.query("SELECT token FROM taken ORDER BY at").await.unwrap();
    rising(&taken);
}

#[track_caller]
fn rising(taken: &[i64]) {
    assert!(taken.is_sorted(), "{taken:?}");
    assert_eq!(taken.last(), Some(&i64::try_from(TOKENS).unwrap()));
    let writers: BTreeSet<i64> = taken.iter().map(|token| token % 8).collect();
    assert!(1 < writers.len(), "nobody came between: {taken:?}");
}
