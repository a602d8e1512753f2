//! Transactions begun by the client library: at the real process, with participants that are real
//! services, over connections on which answers get lost.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on has failed, and a panic is caught by its task"
)]

#[path = "support/lossy.rs"]
mod lossy;
#[path = "../../mainstay-client/tests/databases/servers.rs"]
#[allow(dead_code, clippy::disallowed_methods, reason = "this one needs one of them")]
mod servers;
#[path = "support/support.rs"]
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use lossy::Lossy;
use mainstay_api::transaction::Target;
use mainstay_client::barrier::{self, Check, Checked, Passed};
use mainstay_client::registry::Registration;
use mainstay_client::transaction::{OpenTcc, Step, TccTargets, Wait};
use mainstay_client::{Branch, Client, TxError};
use mainstay_core::Effect;
use serde_json::{Value, json};
use support::gateway::Gateway;
use support::participant::Participant;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
[transaction]
backoff_initial_milliseconds = 20
backoff_max_seconds = 1
call_timeout_seconds = 2
"#;

const PATIENCE: Duration = Duration::from_secs(20);

fn client(node: &Gateway) -> Client {
    client_at(node, node.door().0)
}

fn client_at(node: &Gateway, address: SocketAddr) -> Client {
    let servers = [format!("http://{address}")];
    Client::builder(servers).token(node.door().1).name("test").build().unwrap()
}

fn show(node: &Gateway, gid: &str) -> Value {
    let (_, text) = node.call("GET", &format!("/api/v1/transactions/{gid}"), "");
    serde_json::from_str(&text).unwrap()
}

/// Waits until something is so, without holding up tasks of the client.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.expect(what);
}

fn step(shop: &Participant, name: &str) -> Step {
    let undo = shop.url(&format!("/undo-{name}"));
    Step::url(shop.url(&format!("/{name}"))).compensate_url(undo).body(&json!({ "step": name }))
}

fn seat(shop: &Participant) -> TccTargets {
    let at = |path: &str| Target::Url { url: shop.url(path) };
    TccTargets { r#try: at("/try"), confirm: at("/confirm"), cancel: at("/cancel") }
}

#[tokio::test]
async fn a_saga_ends_done_or_undone_and_says_which() {
    let (node, shop) = (Gateway::start_dev("sdk-saga", CONFIG), Participant::start());
    let client = client(&node);
    let saga = || client.saga("order").step(step(&shop, "stock")).step(step(&shop, "pay"));
    let settled = saga().gid("order-1").submit(Wait::Done).await.unwrap();
    assert_eq!((settled.gid.as_str(), settled.is_done), ("order-1", true));
    assert_eq!(shop.paths(), ["/stock", "/pay"]);
    assert_eq!(shop.asked()[0].body, r#"{"step":"stock"}"#);
    // The same again is the same; with other content it is refused, and nothing happens.
    saga().gid("order-1").submit(Wait::Done).await.unwrap();
    let other = saga().step(step(&shop, "mail")).gid("order-1").submit(Wait::Done).await;
    let refused = other.unwrap_err();
    assert!(matches!(&refused, TxError::Refused(why) if why.code() == "transaction-gid-taken"));
    assert_eq!(shop.asked().len(), 2);
    // A name of its own, unless it is given one.
    let settled = saga().submit(Wait::Decided).await.unwrap();
    until("it is done", || show(&node, &settled.gid)["state"] == "committed").await;
    assert_eq!(show(&node, &settled.gid)["name"], "order");
    shop.answers("/pay", 409, "no money");
    let TxError::Aborted { gid, why } = saga().submit(Wait::Done).await.unwrap_err() else {
        unreachable!("it cannot go on")
    };
    assert!(why.starts_with("step-failed: ") && why.contains("no money"), "{why}");
    assert_eq!(show(&node, &gid)["state"], "aborted");
    assert_eq!(shop.count("/undo-stock"), 1);
    // What is never answered is undone at the deadline.
    shop.answers("/pay", 500, "not now");
    let slow = saga().deadline(Duration::from_millis(500)).submit(Wait::Done).await;
    let error = slow.unwrap_err();
    assert!(
        matches!(&error, TxError::Aborted { why, .. } if why.starts_with("deadline")),
        "{error}"
    );
    assert_eq!((error.effect(), shop.count("/undo-stock")), (Effect::None, 2));
    let nothing = client.saga("order").step(Step::on("stock")).submit(Wait::Done).await;
    assert!(matches!(nothing, Err(TxError::Refused(_))), "it has no action");
}

#[tokio::test]
async fn branches_that_were_tried_are_confirmed_or_cancelled() {
    let (node, shop) = (Gateway::start_dev("sdk-tcc", CONFIG), Participant::start());
    let client = client(&node);
    shop.answers("/try", 200, r#"{"seat":"7A"}"#);
    let booked = client.tcc("trip").gid("trip-1").run(async |tcc: OpenTcc| {
        let one: Value = tcc.branch_at(&seat(&shop), &json!({ "row": 7 })).await?;
        tcc.branch_at::<Value>(&seat(&shop), &json!({ "row": 8 })).await?;
        Ok(one["seat"].clone())
    });
    assert_eq!(booked.await.unwrap(), "7A");
    until("both are confirmed", || shop.count("/confirm") == 2).await;
    let asked = &shop.asked()[0];
    let says = |name: &str| asked.headers.get(name).map_or("", String::as_str);
    assert_eq!((says("mainstay-gid"), says("mainstay-op")), ("trip-1", "try"));
    let confirmed = shop.asked().into_iter().filter(|asked| asked.target == "/confirm");
    let confirmed: Vec<_> =
        confirmed.map(|asked| asked.headers["mainstay-branch"].clone()).collect();
    assert!(confirmed.iter().any(|branch| branch == says("mainstay-branch")), "{confirmed:?}");
    // The same gid again reserves nothing more, as both would be confirmed.
    let again = client
        .tcc("trip")
        .gid("trip-1")
        .run(async |tcc: OpenTcc| tcc.branch_at::<Value>(&seat(&shop), &json!({ "row": 7 })).await);
    let again = again.await.unwrap_err();
    assert!(
        matches!(&again, TxError::Unknown { why, .. } if why.contains("begun before")),
        "{again}"
    );
    assert_eq!((shop.count("/try"), shop.count("/cancel")), (2, 0));
    // One refuses: all are cancelled, also the one that was not tried to the end.
    shop.answers("/full", 409, "sold out");
    let full = TccTargets { r#try: Target::Url { url: shop.url("/full") }, ..seat(&shop) };
    let refused = client.tcc("trip").run(async |tcc: OpenTcc| {
        tcc.branch_at::<Value>(&seat(&shop), &json!({})).await?;
        tcc.branch_at::<Value>(&full, &json!({})).await
    });
    let refused = refused.await.unwrap_err();
    assert!(
        matches!(&refused, TxError::Aborted { why, .. } if why.contains("sold out")),
        "{refused}"
    );
    until("both are cancelled", || shop.count("/cancel") == 2).await;
    // The program's own error, which it gets back.
    let own = client.tcc("trip").run(async |tcc| {
        tcc.branch_at::<Value>(&seat(&shop), &json!({})).await?;
        Err::<(), _>(TxError::Business("no"))
    });
    assert_eq!(own.await.unwrap_err(), TxError::Business("no"));
    until("it is cancelled", || shop.count("/cancel") == 3).await;
    // A participant that is not there.
    let nowhere = Target::Url { url: "http://127.0.0.1:1/try".to_owned() };
    let nowhere = TccTargets { r#try: nowhere, ..seat(&shop) };
    let away = client.tcc("trip").gid("trip-3");
    let away = away.run(async |tcc: OpenTcc| tcc.branch_at::<()>(&nowhere, &json!({})).await);
    let away = away.await.unwrap_err();
    assert!(
        matches!(&away, TxError::Aborted { why, .. } if !why.contains("control plane")),
        "{away}"
    );
    until("it is cancelled too", || shop.count("/cancel") == 4).await;
    let again = client.tcc("trip").gid("trip-3").run(async |_: OpenTcc| Ok(()));
    assert!(matches!(again.await, Err(TxError::Aborted { .. })), "it was, under that gid");
    assert_eq!((shop.count("/confirm"), client.transactions_dropped()), (2, 0));
}

#[tokio::test]
async fn what_is_dropped_or_panics_is_aborted_and_counted() {
    let (node, shop) = (Gateway::start_dev("sdk-dropped", CONFIG), Participant::start());
    let client = client(&node);
    let running = client.tcc("trip").run(async |tcc: OpenTcc| {
        tcc.branch_at::<Value>(&seat(&shop), &json!({})).await?;
        std::future::pending::<Result<(), TxError>>().await
    });
    assert!(tokio::time::timeout(Duration::from_secs(2), running).await.is_err());
    until("it is cancelled", || shop.count("/cancel") == 1).await;
    let (other, at) = (client.clone(), seat(&shop));
    let panicked = tokio::spawn(async move {
        let running = other.tcc("trip").gid("trip-2").run(async |tcc: OpenTcc| {
            tcc.branch_at::<Value>(&at, &json!({})).await?;
            let number: u8 = "a mistake of the program".parse().unwrap();
            assert_eq!(number, 0);
            Ok(())
        });
        running.await
    });
    assert!(panicked.await.unwrap_err().is_panic());
    until("it is cancelled", || shop.count("/cancel") == 2).await;
    assert_eq!((client.transactions_dropped(), shop.count("/confirm")), (2, 0));
    assert_eq!(show(&node, "trip-2")["decision"], "abort");
    assert_eq!(client.shutdown(Duration::from_secs(5)).await, 0);
}

#[tokio::test]
async fn services_are_found_in_the_registry() {
    let (node, shop) = (Gateway::start_dev("sdk-registry", CONFIG), Participant::start());
    let client = client(&node);
    let nobody = client.tcc("trip").run(async |tcc: OpenTcc| tcc.branch::<()>("air", &7).await);
    let nobody = nobody.await.unwrap_err();
    assert!(matches!(&nobody, TxError::Unavailable { effect: Effect::None, .. }), "{nobody}");
    assert!(nobody.to_string().contains("no-instance"), "{nobody}");
    let registration = Registration::new("air", "127.0.0.1", shop.address.port());
    let registered = client.register(registration).unwrap();
    until("it is registered", || {
        let (_, listed) = node.call("GET", "/api/v1/registry/default/services/air", "");
        listed.contains("\"up\"")
    })
    .await;
    // Whoever wants to hear nothing takes any answer.
    shop.answers("/try", 200, "{}");
    client.tcc("trip").run(async |tcc: OpenTcc| tcc.branch::<()>("air", &7).await).await.unwrap();
    until("it is confirmed", || shop.count("/confirm") == 1).await;
    assert_eq!(shop.count("/try"), 1);
    let saga = client.saga("order").step(Step::on("air").action("/deduct").compensate("/restore"));
    assert!(saga.submit(Wait::Done).await.unwrap().is_done);
    let gid = client.one_way("air", "/send").at_least_once().send(&json!("hello")).await.unwrap();
    until("it is delivered", || shop.count("/send") == 1).await;
    until("it has ended", || show(&node, &gid)["state"] == "committed").await;
    drop(registered);
    client.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn answers_that_get_lost_are_asked_for_again_and_count_once() {
    let (node, shop) = (Gateway::start_dev("sdk-lossy", CONFIG), Participant::start());
    let way = Lossy::start(node.door().0, 2);
    let client = client_at(&node, way.address);
    let saga = client.saga("order").step(step(&shop, "stock"));
    assert!(saga.submit(Wait::Done).await.unwrap().is_done);
    assert_eq!((way.lost(), shop.paths()), (2, vec!["/stock".to_owned()]));
    // Each verb of a transaction loses its first answer.
    let way = Lossy::start(node.door().0, 1);
    let client = client_at(&node, way.address);
    let tcc = client.tcc("trip").run(async |tcc: OpenTcc| {
        way.lose(1);
        tcc.branch_at::<()>(&seat(&shop), &json!({})).await?;
        way.lose(1);
        Ok(())
    });
    tcc.await.unwrap();
    until("it is confirmed", || shop.count("/confirm") == 1).await;
    assert_eq!((way.lost(), shop.count("/try"), shop.count("/cancel")), (3, 1, 0));
}

#[tokio::test]
async fn a_server_that_dies_after_the_submit_leaves_it_unknown_and_goes_on_later() {
    let (mut node, shop) = (Gateway::start_dev("sdk-killed", CONFIG), Participant::start());
    // The step hangs, so that the saga is submitted and not done when the server dies.
    shop.answers("/stock", 0, "");
    let client = client(&node);
    let saga = client.saga("order").gid("order-1").step(step(&shop, "stock"));
    let saga = saga.patience(Duration::from_secs(1)).submit(Wait::Done);
    let killing = async {
        until("it is called", || shop.count("/stock") == 1).await;
        node.signal(rustix::process::Signal::KILL);
    };
    let (settled, ()) = tokio::join!(saga, killing);
    let error = settled.unwrap_err();
    assert!(matches!(&error, TxError::Unknown { gid, .. } if gid == "order-1"), "{error}");
    assert_eq!(error.effect(), Effect::Unknown);
    node.ended();
    // Nobody is there: nothing can have happened, and that is what is said.
    let nobody = client.saga("order").step(step(&shop, "pay")).patience(Duration::from_millis(200));
    let nobody = nobody.submit(Wait::Done).await.unwrap_err();
    assert!(matches!(&nobody, TxError::Unavailable { effect: Effect::None, .. }), "{nobody}");
    shop.answers("/stock", 200, "");
    let again = node.again("sdk-killed-again", &[]);
    let client = client_at(&again, again.door().0);
    let saga = client.saga("order").gid("order-1").step(step(&shop, "stock"));
    assert!(saga.submit(Wait::Done).await.unwrap().is_done);
    assert_eq!(shop.count("/pay"), 0);
}

#[tokio::test]
async fn a_message_is_sent_if_and_only_if_its_local_part_is_committed() {
    let (node, shop) = (Gateway::start_dev("sdk-message", CONFIG), Participant::start());
    let (server, client) = (servers::Postgres::start().await, client(&node));
    let mut sql = server.connect().await;
    barrier::postgres::install_tables(&sql).await.unwrap();
    sql.batch_execute("CREATE TABLE paid (n int)").await.unwrap();
    let message = |gid: &str| {
        client
            .message("paid")
            .gid(gid)
            .at_url(shop.url("/mail"), &json!({ "to": "ann" }))
            .check_url(shop.url("/was-paid"))
            .deadline(Duration::from_millis(500))
    };
    let pay = "INSERT INTO paid VALUES (1)";
    for (gid, want) in [("m-1", Passed::Ran(1)), ("m-1", Passed::Duplicate)] {
        let sent =
            message(gid).with_local_postgres(&mut sql, async |sql| sql.execute(pay, &[]).await);
        assert_eq!(sent.await.unwrap(), want);
    }
    until("it is delivered", || shop.count("/mail") == 1).await;
    // The local part fails: nothing is sent, and nobody is asked.
    let failed = message("m-2").with_local_postgres(&mut sql, async |sql| {
        sql.execute(pay, &[]).await?;
        sql.execute("INSERT INTO nowhere VALUES (1)", &[]).await
    });
    assert!(matches!(failed.await, Err(TxError::Business(_))));
    until("it is aborted", || show(&node, "m-2")["state"] == "aborted").await;
    assert_eq!((shop.count("/was-paid"), shop.count("/mail")), (0, 1));
    // Nor is it under the same gid, so there must be no local part either.
    let again =
        message("m-2").with_local_postgres(&mut sql, async |sql| sql.execute(pay, &[]).await);
    assert!(matches!(again.await, Err(TxError::Aborted { .. })));
    // A local part slower than the check, which says no and keeps its word.
    let asked = Check::of(&Branch::new("message", "m-3", "00", "msg").unwrap());
    assert_eq!(asked.postgres(&mut sql).await.unwrap(), Checked::RolledBack);
    let late =
        message("m-3").with_local_postgres(&mut sql, async |sql| sql.execute(pay, &[]).await);
    assert!(matches!(late.await, Err(TxError::Aborted { .. })));
    let rows = sql.query_one("SELECT count(*) FROM paid", &[]).await.unwrap();
    assert_eq!(rows.get::<_, i64>(0), 1);
    // Aborted by an operator while the local part was about to be committed.
    let crossed = message("m-4").with_local_postgres(&mut sql, async |sql| {
        let (status, _) = node.call("POST", "/api/v1/transactions/m-4/abort", "{}");
        assert_eq!(status, 200);
        sql.execute(pay, &[]).await
    });
    let crossed = crossed.await;
    assert!(matches!(&crossed, Err(TxError::Mixed { gid }) if gid == "m-4"), "{crossed:?}");
    // Without a check nobody could tell.
    let no_check = client.message("paid").at_url(shop.url("/mail"), &1);
    let refused = no_check.with_local_postgres(&mut sql, async |sql| sql.execute(pay, &[]).await);
    assert!(matches!(refused.await, Err(TxError::Refused(_))));
    let sent = client.message("paid").at_url(shop.url("/mail"), &1).send().await.unwrap();
    until("it is delivered too", || show(&node, &sent.gid)["state"] == "committed").await;
    assert_eq!(shop.count("/mail"), 2);
}
