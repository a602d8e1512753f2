//! What becomes of a branch: each case that its receipt tells apart, produced on both databases,
//! with the application and the coordinator on sessions of their own.

use mainstay_txn::resource::{Kind, Resources};
use mainstay_txn::{Op, Outcome};

use crate::servers::MariaDb;
use crate::shop::{Server, Shop, until_done};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_tells_what_became_of_a_branch() {
    every_row(&Shop::open(Kind::Postgres).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_tells_what_became_of_a_branch() {
    every_row(&Shop::open(Kind::MariaDb).await).await;
}

async fn every_row(shop: &Shop) {
    let resources = shop.resources();
    Box::pin(commits(shop, &resources)).await;
    Box::pin(commits_what_is_not_there(shop, &resources)).await;
    Box::pin(rolls_back(shop, &resources)).await;
    Box::pin(meets_one_that_is_being_prepared(shop, &resources)).await;
    Box::pin(meets_one_whose_session_lives(shop, &resources)).await;
    Box::pin(two_commit_at_once(shop, &resources)).await;
    assert_eq!(shop.prepared().await, 0, "nothing is left");
    let done = shop.number("SELECT COUNT(*) FROM mainstay_receipt WHERE kind = 'done'").await;
    assert_eq!(shop.balance().await, 100 - 10 * done);
}

/// Asks to end branch `01` of `gid`, and checks that the outcome, written out, holds all of `want`.
async fn check(shop: &Shop, resources: &Resources, (gid, op): (&str, Op), want: &[&str]) {
    let outcome = format!("{:?}", shop.ends(resources, gid, op).await);
    let holds = want.iter().all(|part| outcome.contains(part));
    assert!(holds, "{gid} {op}: {outcome}, not {want:?}");
}

async fn commits(shop: &Shop, resources: &Resources) {
    shop.prepare("c1").await;
    assert_eq!((shop.balance().await, shop.prepared().await), (100, 1));
    check(shop, resources, ("c1", Op::Prepare), &["Done"]).await;
    assert_eq!(until_done(shop, resources, "c1", Op::Commit).await, Outcome::Done);
    assert_eq!((shop.balance().await, shop.prepared().await), (90, 0));
    // It is not known any more, and its receipt says why.
    check(shop, resources, ("c1", Op::Commit), &["Done"]).await;
    assert_eq!(shop.begin("c1").await.err().as_deref(), Some("already"));
    check(shop, resources, ("c1", Op::Rollback), &["Contradicted", "it was committed"]).await;
    assert_eq!(shop.balance().await, 90);
}

/// Never prepared, or rolled back before: "unknown" is not "done".
async fn commits_what_is_not_there(shop: &Shop, resources: &Resources) {
    check(shop, resources, ("c2", Op::Commit), &["Contradicted", "no receipt"]).await;
    check(shop, resources, ("c2", Op::Prepare), &["Refused"]).await;
    check(shop, resources, ("c3", Op::Rollback), &["Done"]).await;
    check(shop, resources, ("c3", Op::Commit), &["Contradicted", "a tomb"]).await;
}

async fn rolls_back(shop: &Shop, resources: &Resources) {
    shop.prepare("r1").await;
    assert_eq!(until_done(shop, resources, "r1", Op::Rollback).await, Outcome::Done);
    check(shop, resources, ("r1", Op::Rollback), &["Done"]).await;
    assert_eq!((shop.balance().await, shop.prepared().await), (90, 0));
    let of_r1 = "SELECT COUNT(*) FROM mainstay_receipt WHERE gid = 'r1' AND kind = 'tomb'";
    assert_eq!(shop.number(of_r1).await, 1);
    for gid in ["r1", "c3"] {
        let late = shop.begin(gid).await.err();
        assert_eq!(late.as_deref(), Some("branch was rolled back before it began"), "{gid}");
    }
}

/// Its receipt is written and not committed, so it can be neither done nor gone.
async fn meets_one_that_is_being_prepared(shop: &Shop, resources: &Resources) {
    let begun = shop.begin("l1").await.unwrap();
    check(shop, resources, ("l1", Op::Rollback), &["Unknown"]).await;
    let twice = shop.begin("l1").await.err();
    assert_eq!(twice.as_deref(), Some("branch is being prepared by another session"));
    begun.prepare().await;
    assert_eq!(shop.begin("l1").await.err().as_deref(), Some("already"), "and votes yes again");
    assert_eq!(until_done(shop, resources, "l1", Op::Rollback).await, Outcome::Done);
}

/// A session of `MariaDB` that lives on keeps everybody else from ending its branch.
async fn meets_one_whose_session_lives(shop: &Shop, resources: &Resources) {
    let stays = shop.begin("l2").await.unwrap().prepare_and_stay().await;
    if let Server::MariaDb(_) = &shop.server {
        check(shop, resources, ("l2", Op::Commit), &["Held"]).await;
        check(shop, resources, ("l2", Op::Rollback), &["Unknown"]).await;
    } else {
        check(shop, resources, ("l2", Op::Commit), &["Done"]).await;
    }
    stays.leave().await;
    assert_eq!(until_done(shop, resources, "l2", Op::Commit).await, Outcome::Done);
}

/// Two coordinators at it: either may meet the other and be told to ask again.
async fn two_commit_at_once(shop: &Shop, resources: &Resources) {
    let second = shop.resources();
    shop.prepare("both").await;
    let (one, other) = tokio::join!(
        until_done(shop, resources, "both", Op::Commit),
        until_done(shop, &second, "both", Op::Commit),
    );
    for outcome in [one, other] {
        assert!(matches!(outcome, Outcome::Done | Outcome::Unknown(_)), "{outcome:?}");
    }
    assert_eq!(until_done(shop, &second, "both", Op::Commit).await, Outcome::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_mariadb_that_holds_its_branch_is_ended_if_that_is_allowed() {
    let mut shop = Shop::open(Kind::MariaDb).await;
    let id = async |shop: &Shop| {
        let Server::MariaDb(server) = &shop.server else { panic!("it was opened as one") };
        mine(server).await
    };
    let stays = shop.begin("k1").await.unwrap().prepare_and_stay().await;
    let session = id(&shop).await;
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    let not_allowed = shop.resources();
    let held = shop.ends_held_by(&not_allowed, "k1", Op::Commit, Some(session)).await;
    assert!(matches!(held, Outcome::Held(_)), "{held:?}");
    assert_eq!(id(&shop).await, session, "it was not ended");
    shop.settings.kill_held_sessions = true;
    shop.administrate("GRANT PROCESS, CONNECTION ADMIN ON *.* TO coordinator").await;
    let allowed = shop.resources();
    let held = shop.ends_held_by(&allowed, "k1", Op::Commit, Some(session)).await;
    assert!(matches!(held, Outcome::Held(_)), "{held:?}");
    assert_eq!(until_done(&shop, &allowed, "k1", Op::Commit).await, Outcome::Done);
    assert_eq!(shop.balance().await, 90);
    drop(stays);
}

/// The one session of the application.
async fn mine(server: &MariaDb) -> u32 {
    let query = "SELECT id FROM information_schema.processlist WHERE user = 'shopkeeper'";
    let mut root = server.connect().await;
    mysql_async::prelude::Queryable::query_first(&mut root, query).await.unwrap().unwrap()
}
