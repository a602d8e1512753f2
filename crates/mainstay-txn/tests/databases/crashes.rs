//! What databases do that is easily taken for something else: crashes, statements that failed,
//! servers that only read, credentials that do not fit.

use mainstay_api::receipt as sql;
use mainstay_client::branch::{self, BranchError, BranchName};
use mainstay_txn::resource::{Address, Kind};
use mainstay_txn::{Op, Outcome};
use mysql_async::prelude::Queryable as _;

use crate::servers::Postgres;
use crate::shop::{Begins, CLUSTER, Server, Shop, resources, until_done};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_outlives_a_crash_of_postgresql() {
    outlives_a_crash(Shop::open(Kind::Postgres).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_outlives_a_crash_of_mariadb() {
    outlives_a_crash(Shop::open(Kind::MariaDb).await).await;
}

async fn outlives_a_crash(mut shop: Shop) {
    let resources = shop.resources();
    for gid in ["kept", "undone", "known"] {
        shop.prepare(gid).await;
    }
    assert_eq!(until_done(&shop, &resources, "known", Op::Commit).await, Outcome::Done);
    let begun = shop.begin("lost").await.unwrap();
    shop.crash().await;
    drop(begun);
    // Sessions that were kept are broken, and that says nothing about any branch.
    let broken = shop.ends(&resources, "kept", Op::Commit).await;
    assert!(matches!(broken, Outcome::Unknown(_) | Outcome::Done), "{broken:?}");
    for (gid, op) in [("kept", Op::Commit), ("undone", Op::Rollback), ("known", Op::Commit)] {
        assert_eq!(until_done(&shop, &resources, gid, op).await, Outcome::Done, "{gid}");
    }
    let lost = until_done(&shop, &resources, "lost", Op::Commit).await;
    assert!(matches!(lost, Outcome::Contradicted(_)), "{lost:?}");
    assert_eq!((shop.balance().await, shop.prepared().await), (80, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_that_a_database_which_is_away_has_done_something() {
    let shop = Shop::open(Kind::Postgres).await;
    let mut settings = shop.settings.clone();
    let url = "postgresql://coordinator@%2Fnowhere/shop";
    settings.address = Address::parse(Kind::Postgres, url).unwrap();
    let away = resources(settings);
    for op in [Op::Commit, Op::Rollback, Op::Prepare] {
        let outcome = shop.ends(&away, "a1", op).await;
        let Outcome::Unsent { why, retry_after: Some(_) } = &outcome else {
            panic!("{op}: {outcome:?}")
        };
        assert!(why.contains("connect"), "{why}");
    }
    let standing = away.standing(&shop.settings.name).unwrap();
    assert!(standing.down.is_some() && standing.in_use == 0, "{standing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_prepares_nothing_after_a_statement_that_failed() {
    let shop = Shop::open(Kind::Postgres).await;
    let Ok(Begins::Postgres(client, name)) = shop.begin("f1").await else { panic!("it begins") };
    client.batch_execute("SELECT 1 / 0").await.unwrap_err();
    // The bare statement is no error: it says ROLLBACK where nobody looks.
    let prepared = branch::postgres::prepare(&client, &name).await;
    assert!(matches!(prepared, Err(BranchError::NothingPrepared)), "{prepared:?}");
    assert_eq!((shop.prepared().await, shop.balance().await), (0, 100));
    let commit = shop.ends(&shop.resources(), "f1", Op::Commit).await;
    assert!(matches!(commit, Outcome::Contradicted(_)), "{commit:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_says_that_a_branch_which_only_read_was_rolled_back() {
    let shop = Shop::open(Kind::MariaDb).await;
    let Server::MariaDb(server) = &shop.server else { panic!("it was opened as one") };
    let name = BranchName::new(CLUSTER, "ro", "01").unwrap().xa_literal();
    let mut session = server.connect_as("shopkeeper", "shop").await.unwrap();
    session.query_drop(format!("XA START {name}")).await.unwrap();
    session.query_drop("SELECT amount FROM taken").await.unwrap();
    for statement in sql::prepare_mariadb(&name) {
        session.query_drop(statement).await.unwrap();
    }
    session.disconnect().await.unwrap();
    // Without a receipt there is no evidence that it was done.
    let outcome = until_done(&shop, &shop.resources(), "ro", Op::Commit).await;
    assert!(matches!(outcome, Outcome::Contradicted(_)), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_would_prepare_what_a_failed_statement_left() {
    let shop = Shop::open(Kind::MariaDb).await;
    let Ok(Begins::MariaDb(mut session, name)) = shop.begin("f1").await else { panic!("begins") };
    let twice = "INSERT INTO mainstay_receipt (gid, branch, kind, written_by)
        VALUES ('f1', '01', 'done', 'x')";
    session.query_drop(twice).await.unwrap_err();
    branch::mysql::give_up(&mut session, &name).await.unwrap();
    assert_eq!((shop.prepared().await, shop.balance().await), (0, 100));
    assert!(shop.begin("f1").await.is_ok(), "nothing of it is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_says_nothing_about_what_it_lacks() {
    let shop = Shop::open(Kind::Postgres).await;
    let Server::Postgres(primary) = &shop.server else { panic!("it was opened as one") };
    let prepared = ["-c", "listen_addresses=", "-c", "max_prepared_transactions=50"];
    let standby: Postgres = primary.standby(&prepared).await;
    shop.prepare("s1").await;
    let mut settings = shop.settings.clone();
    let host = standby.home().display().to_string().replace('/', "%2F");
    let url = format!("postgresql://coordinator@{host}/shop");
    settings.address = Address::parse(Kind::Postgres, &url).unwrap();
    let of_standby = resources(settings);
    for (gid, op) in
        [("s1", Op::Commit), ("s1", Op::Rollback), ("none", Op::Commit), ("none", Op::Prepare)]
    {
        let outcome = shop.ends(&of_standby, gid, op).await;
        assert!(matches!(outcome, Outcome::Unknown(_)), "{gid} {op}: {outcome:?}");
    }
    assert_eq!(shop.ends(&shop.resources(), "s1", Op::Commit).await, Outcome::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_mariadb_that_only_reads_says_nothing_about_what_it_lacks() {
    let shop = Shop::open(Kind::MariaDb).await;
    let resources = shop.resources();
    shop.prepare("s1").await;
    shop.administrate("SET GLOBAL read_only = 1").await;
    for (gid, op) in [("s1", Op::Rollback), ("none", Op::Commit), ("none", Op::Prepare)] {
        let outcome = until_done(&shop, &resources, gid, op).await;
        assert!(matches!(outcome, Outcome::Unknown(_)), "{gid} {op}: {outcome:?}");
    }
    // Also where the coordinator could write there all the same.
    shop.administrate("GRANT READ_ONLY ADMIN ON *.* TO coordinator").await;
    let buried = until_done(&shop, &shop.resources(), "none", Op::Rollback).await;
    assert!(matches!(buried, Outcome::Unknown(_)), "{buried:?}");
    shop.administrate("SET GLOBAL read_only = 0").await;
    assert_eq!(until_done(&shop, &resources, "s1", Op::Rollback).await, Outcome::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_rights_that_are_not_there_is_denied_until_they_are() {
    let shop = Shop::open(Kind::Postgres).await;
    let resources = shop.resources();
    shop.prepare("g1").await;
    shop.administrate("REVOKE shopkeeper FROM coordinator").await;
    let denied = shop.ends(&resources, "g1", Op::Commit).await;
    let Outcome::Denied(why) = &denied else { panic!("{denied:?}") };
    assert!(why.contains("GRANT \"shopkeeper\""), "{why}");
    shop.administrate("GRANT shopkeeper TO coordinator").await;
    assert_eq!(shop.ends(&resources, "g1", Op::Commit).await, Outcome::Done);
    shop.administrate("REVOKE INSERT ON mainstay_receipt FROM coordinator, shopkeeper").await;
    let denied = shop.ends(&resources, "g2", Op::Rollback).await;
    assert!(matches!(denied, Outcome::Denied(_)), "{denied:?}");
    shop.administrate("DROP TABLE mainstay_receipt").await;
    let none = shop.ends(&resources, "g2", Op::Rollback).await;
    assert!(matches!(&none, Outcome::Unknown(why) if why.contains("mainstay_receipt")), "{none:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_was_changed_is_used_once_its_file_has_it() {
    let mut shop = Shop::open(Kind::MariaDb).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |password: &str| std::fs::write(file.path(), format!("{password}\n")).unwrap();
    write("first");
    shop.administrate("SET PASSWORD FOR coordinator = PASSWORD('first')").await;
    shop.settings.password_file = Some(file.path().to_owned());
    shop.prepare("p1").await;
    shop.prepare("p2").await;
    assert_eq!(until_done(&shop, &shop.resources(), "p1", Op::Commit).await, Outcome::Done);
    shop.administrate("SET PASSWORD FOR coordinator = PASSWORD('second')").await;
    let resources = shop.resources();
    let denied = shop.ends(&resources, "p2", Op::Commit).await;
    let Outcome::Denied(why) = &denied else { panic!("{denied:?}") };
    assert!(why.contains("1045") && !why.contains("first"), "{why}");
    assert!(!format!("{resources:?}").contains("first"));
    write("second");
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(until_done(&shop, &resources, "p2", Op::Commit).await, Outcome::Done);
}
