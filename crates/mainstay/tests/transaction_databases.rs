//! Databases that take part in transactions: a real process ends branches that an application has
//! prepared in `PostgreSQL` and `MariaDB`, whoever dies in between.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests run by the clock of this machine, and fail by panicking"
)]

#[path = "support/databases.rs"]
mod databases;
#[path = "../../mainstay-client/tests/databases/servers.rs"]
#[allow(dead_code, reason = "tests of the client start them too")]
mod servers;
#[path = "../../mainstay-txn/tests/databases/shop.rs"]
#[allow(dead_code, reason = "tests of the coordinator shop there too")]
mod shop;
#[path = "support/support.rs"]
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use databases::READY;
use mainstay_api::barrier;
use mainstay_api::transaction::Target;
use mainstay_client::transaction::{OpenXa, Xa, XaTargets};
use mainstay_client::{Client, TxError};
use mainstay_txn::resource::Kind;
use mysql_async::prelude::Queryable as _;
use rustix::process::Signal;
use serde_json::{Value, json};
use servers::Postgres;
use shop::Shop;
use support::gateway::{Gateway, free_port};
use support::participant::Participant;
use support::wait::{pause, until};

const PATIENCE: Duration = Duration::from_secs(40);

fn config() -> String {
    databases::config(1, 2)
}

/// An application with orders in `PostgreSQL` and a stock in `MariaDB`.
struct Trade {
    node: Gateway,
    orders: Shop,
    stock: Shop,
}

impl Trade {
    async fn open(name: &str) -> Self {
        Self::open_with(name, &config()).await
    }

    async fn open_with(name: &str, config: &str) -> Self {
        let (orders, stock) = tokio::join!(Shop::open(Kind::Postgres), Shop::open(Kind::MariaDb));
        let node = databases::start(name, config, [("orders", &orders), ("stock", &stock)]);
        Self { node, orders, stock }
    }

    /// A program that uses the library.
    fn client(&self) -> Client {
        let (address, token) = self.node.door();
        let client = Client::builder([format!("http://{address}")]).token(token).name("test");
        client.build().unwrap()
    }

    /// Its sessions.
    async fn sessions(&self) -> (tokio_postgres::Client, mysql_async::Conn) {
        (self.orders.postgres().await, self.stock.mariadb().await)
    }

    fn post(&self, path: &str, document: &Value) -> (u16, Value) {
        post(&self.node, path, document)
    }

    fn show(&self, gid: &str) -> Value {
        let (_, text) = self.node.control(&format!("/api/v1/transactions/{gid}"));
        serde_json::from_str(&text).unwrap()
    }

    /// Begins `gid` and lets a branch of each database join, which is not done yet.
    fn begin(&mut self, gid: &str) -> [String; 2] {
        let begun = self.post("", &json!({ "gid": gid, "mode": "xa" }));
        assert_eq!(begun.0, 201, "{begun:?}");
        ["orders", "stock"].map(|resource| {
            let (branch, cluster) = self.joins(gid, resource);
            self.orders.cluster.clone_from(&cluster);
            self.stock.cluster = cluster;
            branch
        })
    }

    /// The name and the cluster of a branch of `resource` that joins.
    fn joins(&self, gid: &str, resource: &str) -> (String, String) {
        let asked = json!({ "kind": "resource", "resource": resource });
        let (status, joined) = self.post(&format!("/{gid}/branches"), &asked);
        assert_eq!(status, 201, "{joined}");
        let branch = joined["branch"].as_str().unwrap();
        let xid = joined["xid"].as_str().unwrap();
        let [mark, cluster, of, which] = xid.split(':').collect::<Vec<_>>()[..] else {
            panic!("{xid}")
        };
        assert_eq!((mark, of, which), ("ms", gid, branch));
        (branch.to_owned(), cluster.to_owned())
    }

    /// The same, and both are prepared.
    async fn prepare(&mut self, gid: &str) -> [String; 2] {
        let branches = self.begin(gid);
        self.orders.prepare_branch(gid, &branches[0]).await;
        self.stock.prepare_branch(gid, &branches[1]).await;
        branches
    }

    fn submit(&self, gid: &str, branches: &[String; 2], wait: &str) -> (u16, Value) {
        let vote = |(branch, resource): (&String, &str)| json!({ "branch": branch, "resource": resource, "vote": "yes", "evidence": "listed" });
        let votes: Vec<_> = branches.iter().zip(["orders", "stock"]).map(vote).collect();
        let document = json!({ "votes": votes, "wait": wait, "wait_seconds": 30 });
        self.post(&format!("/{gid}/submit"), &document)
    }

    /// Waits until databases have been swept `times` more, each of them.
    async fn are_swept(&self, times: u64) {
        let swept = |resource: &str| {
            let label = format!("resource=\"{resource}\"");
            self.node.counted("mainstay_resource_sweeps_total", &label)
        };
        let before = ["orders", "stock"].map(swept);
        let began = std::time::Instant::now();
        loop {
            let now = ["orders", "stock"].map(swept);
            if before.iter().zip(now).all(|(before, now)| before + times <= now) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "swept {before:?} times, then {now:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until each database was told a number of the log above `above`; the greatest.
    async fn are_told(&self, above: i64) -> i64 {
        let told = "SELECT COALESCE(MAX(sequence), 0) FROM mainstay_coordinator";
        let began = std::time::Instant::now();
        loop {
            let marks = [self.orders.number(told).await, self.stock.number(told).await];
            if marks.iter().all(|mark| above < *mark) {
                return marks.into_iter().max().unwrap();
            }
            assert!(began.elapsed() < PATIENCE, "databases were told {marks:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    #[track_caller]
    fn ends(&self, gid: &str, state: &str) {
        let mut seen = Value::Null;
        until(&format!("{gid} is {state}"), PATIENCE, || {
            seen = self.show(gid);
            seen["state"] == state
        });
    }

    /// Nothing is prepared, `done` branches were committed in each database, and receipts say so.
    async fn closes(&self, done: i64, tombs: i64) {
        for shop in [&self.orders, &self.stock] {
            assert_eq!((shop.prepared().await, shop.balance().await), (0, 100 - 10 * done));
            let count = async |kind: &str| {
                let of = format!("SELECT COUNT(*) FROM mainstay_receipt WHERE kind = '{kind}'");
                shop.number(&of).await
            };
            assert_eq!((count("done").await, count("tomb").await), (done, tombs), "receipts");
        }
    }
}

/// Waits until nothing is prepared there any more.
async fn until_unprepared(shop: &Shop) {
    let began = std::time::Instant::now();
    while shop.prepared().await != 0 {
        assert!(began.elapsed() < PATIENCE, "{:?} holds a branch", shop.settings.name);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn post(node: &Gateway, path: &str, document: &Value) -> (u16, Value) {
    let path = format!("/api/v1/transactions{path}");
    let (status, text) = node.call("POST", &path, &document.to_string());
    (status, serde_json::from_str(&text).unwrap())
}

fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn both_databases_commit_or_neither_does() {
    let mut trade = Trade::open("tx-db-both").await;
    let branches = trade.prepare("order-1").await;
    assert_eq!(trade.show("order-1")["branches"][1]["resource"], "stock");
    let (status, done) = trade.submit("order-1", &branches, "done");
    assert_eq!((status, &done["state"]), (200, &json!("committed")), "{done}");
    trade.closes(1, 0).await;
    // Asked to abort.
    trade.prepare("order-2").await;
    assert_eq!(trade.post("/order-2/abort", &json!({})).0, 200);
    trade.ends("order-2", "aborted");
    trade.closes(1, 1).await;
    // A vote without evidence is looked after: here it holds, there it does not.
    let bare = |branches: &[String; 2]| {
        let vote = |branch| json!({ "branch": branch, "vote": "yes" });
        json!({ "votes": branches.each_ref().map(vote), "wait": "done", "wait_seconds": 30 })
    };
    let branches = trade.prepare("order-3").await;
    let (status, done) = trade.post("/order-3/submit", &bare(&branches));
    assert_eq!((status, &done["state"]), (200, &json!("committed")), "{done}");
    let branches = trade.begin("order-4");
    trade.orders.prepare_branch("order-4", &branches[0]).await;
    let refused = trade.post("/order-4/submit", &bare(&branches));
    assert_eq!(code(&refused), (409, "transaction-aborted"), "{refused:?}");
    trade.ends("order-4", "aborted");
    trade.closes(2, 2).await;
}

/// Money taken in both databases, and charged by a service, as the library does it. `fails` says
/// where the program gives up, or panics.
async fn transfer(
    client: Client,
    gid: &'static str,
    (orders, stock): (tokio_postgres::Client, mysql_async::Conn),
    bank: XaTargets,
    fails: &'static str,
) -> Result<&'static str, TxError<&'static str>> {
    let transfer = client.xa("transfer").gid(gid);
    let run = transfer.run(async |xa: OpenXa<&'static str>| {
        xa.postgres("orders", &orders, async |sql| {
            sql.batch_execute("INSERT INTO taken VALUES (10)").await.map_err(|_error| "orders")
        })
        .await?;
        xa.mysql("stock", stock, async |sql| {
            sql.query_drop("INSERT INTO taken VALUES (10)").await.map_err(|_error| "stock")?;
            if fails == "stock" { Err("sold out") } else { Ok(()) }
        })
        .await?;
        assert_ne!(fails, "panic");
        xa.endpoint_at::<()>(&bank, &json!({ "amount": 10 })).await?;
        Ok("paid")
    });
    run.await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_program_commits_in_both_databases_and_a_service_or_nowhere() {
    let trade = Trade::open("tx-db-library").await;
    let bank = Participant::start();
    let at = |path: &str| Target::Url { url: bank.url(path) };
    let targets =
        XaTargets { action: at("/charge"), commit: at("/commit"), rollback: at("/rollback") };
    let client = trade.client();
    let run = async |gid, fails| {
        let sessions = trade.sessions().await;
        tokio::spawn(transfer(client.clone(), gid, sessions, targets.clone(), fails)).await
    };
    assert_eq!(run("pay-1", "").await.unwrap(), Ok("paid"));
    trade.ends("pay-1", "committed");
    trade.closes(1, 0).await;
    until("the service has heard", PATIENCE, || 1 <= bank.count("/commit"));
    // Its own statements fail: what was prepared is rolled back.
    assert_eq!(run("pay-2", "stock").await.unwrap(), Err(TxError::Business("sold out")));
    trade.ends("pay-2", "aborted");
    trade.closes(1, 1).await;
    // It panics with both prepared.
    assert!(run("pay-3", "panic").await.unwrap_err().is_panic());
    trade.ends("pay-3", "aborted");
    trade.closes(1, 2).await;
    assert_eq!(client.transactions_dropped(), 1);
    // The service refuses.
    bank.answers("/charge", 409, "no money");
    let refused = run("pay-4", "").await.unwrap();
    assert!(matches!(&refused, Err(TxError::Aborted { why, .. }) if why.contains("no money")));
    trade.ends("pay-4", "aborted");
    trade.closes(1, 3).await;
    until("it may forget", PATIENCE, || 1 <= bank.count("/rollback"));
    // What was committed under a name is not done again.
    let again = run("pay-1", "").await.unwrap();
    assert!(matches!(&again, Err(TxError::Unknown { .. })), "{again:?}");
    trade.closes(1, 3).await;
}

/// Takes money in both databases, by a program that goes on when the stock has failed, and whose
/// coordinator is killed before it has written what was begun, unless that is written at once. The
/// control port answers for it with `after_the_kill` then.
async fn forgotten(
    trade: &mut Trade,
    begin: impl FnOnce(Xa) -> Xa,
    gid: &str,
    stock_fails: bool,
    after_the_kill: u16,
) -> Result<(), TxError<&'static str>> {
    let (orders, stock) = trade.sessions().await;
    let xa = begin(trade.client().xa("transfer").gid(gid));
    let node = &mut trade.node;
    let run = xa.run(async |xa: OpenXa<&'static str>| {
        xa.postgres("orders", &orders, async |sql| {
            sql.batch_execute("INSERT INTO taken VALUES (10)").await.map_err(|_error| "orders")
        })
        .await?;
        let taken = xa.mysql("stock", stock, async |sql| {
            sql.query_drop("INSERT INTO taken VALUES (10)").await.map_err(|_error| "stock")?;
            if stock_fails { Err("sold out") } else { Ok(()) }
        });
        assert_eq!(taken.await.is_err(), stock_fails);
        node.signal(Signal::KILL);
        node.was_killed();
        *node = node.again("tx-db-forgotten-again", &[]);
        databases::until_ready(node, 2);
        let path = format!("/api/v1/transactions/{gid}");
        until("the log is read", PATIENCE, || node.control(&path).0 == after_the_kill);
        Ok(())
    });
    run.await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_kill_has_forgotten_is_committed_whole_or_not_at_all() {
    // The same address and token each time, and nothing is written before the kill, nor swept before
    // the submit.
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "the-same-each-time\n").unwrap();
    fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
    let (port, token) = (free_port(), token.display());
    let listen = format!("listen = \"127.0.0.1:{port}\"\ntoken_file = \"{token}\"");
    let config = config()
        .replacen("listen = \"127.0.0.1:0\"", &listen, 1)
        .replace("orphan_grace_seconds = 2", "orphan_grace_seconds = 25")
        .replace("[transaction]", "[transaction]\nlazy_flush_milliseconds = 10000");
    let mut trade = Trade::open_with("tx-db-forgotten", &config).await;
    assert_eq!(forgotten(&mut trade, |xa| xa, "pay-1", false, 404).await, Ok(()));
    trade.ends("pay-1", "committed");
    trade.closes(1, 0).await;
    // That the stock joined is known by its vote alone.
    let partial = forgotten(&mut trade, |xa| xa, "pay-2", true, 404).await;
    assert!(matches!(&partial, Err(TxError::Aborted { gid, .. }) if gid == "pay-2"), "{partial:?}");
    trade.ends("pay-2", "aborted");
    assert_eq!(trade.show("pay-2")["reason"]["why"], "vote-no");
    assert_eq!((trade.orders.balance().await, trade.stock.balance().await), (90, 90));
    // A submit says nothing of an order, so what is to have one is never forgotten.
    assert_eq!(forgotten(&mut trade, Xa::ordered, "pay-3", false, 200).await, Ok(()));
    trade.ends("pay-3", "committed");
    for shop in [&trade.orders, &trade.stock] {
        until_unprepared(shop).await;
        assert_eq!(shop.balance().await, 80);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_decision_outlives_whoever_took_it() {
    let mut trade = Trade::open("tx-db-kill").await;
    let branches = trade.begin("order-1");
    trade.orders.prepare_branch("order-1", &branches[0]).await;
    // Neither database lets the coordinator end its branch: here its right is gone, there the
    // session that prepared it lives on.
    trade.orders.administrate("REVOKE shopkeeper FROM coordinator").await;
    let stays = trade.stock.begin_branch("order-1", &branches[1]).await.unwrap();
    let stays = stays.prepare_and_stay().await;
    let (status, decided) = trade.submit("order-1", &branches, "decided");
    assert_eq!((status, &decided["state"]), (200, &json!("committing")), "{decided}");
    trade.node.signal(Signal::KILL);
    trade.node.ended();
    assert_eq!((trade.orders.prepared().await, trade.stock.prepared().await), (1, 1));
    trade.orders.administrate("GRANT shopkeeper TO coordinator").await;
    stays.leave().await;
    trade.node = trade.node.again("tx-db-kill-again", &[]);
    trade.ends("order-1", "committed");
    trade.closes(1, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_prepared_outlives_its_database() {
    let mut trade = Trade::open("tx-db-crash").await;
    let branches = trade.prepare("order-1").await;
    trade.prepare("order-2").await;
    trade.orders.crash().await;
    trade.stock.crash().await;
    // Sessions that were kept are broken, and that is taken for no answer.
    let (status, decided) = trade.submit("order-1", &branches, "decided");
    assert_eq!(status, 200, "{decided}");
    assert_eq!(trade.post("/order-2/abort", &json!({})).0, 200);
    trade.ends("order-1", "committed");
    trade.ends("order-2", "aborted");
    trade.closes(1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_nobody_speaks_of_is_swept() {
    let mut trade = Trade::open("tx-db-sweep").await;
    let branches = trade.prepare("order-1").await;
    let (status, done) = trade.submit("order-1", &branches, "done");
    assert_eq!(status, 200, "{done}");
    // One that no transaction knows, and one that is in no vote of its own.
    for shop in [&trade.orders, &trade.stock] {
        shop.prepare_branch("ghost", "01").await;
        shop.prepare_branch("order-1", "07").await;
        shop.prepare_foreign().await;
    }
    let mut left = [9, 9];
    let began = std::time::Instant::now();
    while left != [1, 1] {
        assert!(began.elapsed() < PATIENCE, "{left:?} are prepared");
        tokio::time::sleep(Duration::from_millis(200)).await;
        left = [trade.orders.prepared().await, trade.stock.prepared().await];
    }
    trade.ends("ghost", "aborted");
    assert_eq!(trade.show("ghost")["reason"]["why"], "orphan");
    assert!(trade.node.logged("transaction-unvoted-branch") >= 2);
    assert_eq!(trade.orders.balance().await, 90, "{}", trade.show("order-1"));
    assert_eq!(trade.stock.balance().await, 90);
}

fn ask(node: &Gateway, method: &str, path: &str, document: &Value) -> (u16, Value) {
    let body = if document.is_null() { String::new() } else { document.to_string() };
    let (status, text) = node.call(method, &format!("/api/v1{path}"), &body);
    (status, serde_json::from_str(&text).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_operator_sees_what_is_prepared_and_sweeps_by_hand() {
    let config = config().replace("sweep_interval_seconds = 1", "sweep_interval_seconds = 300");
    let mut trade = Trade::open_with("tx-db-doors", &config).await;
    let get = |trade: &Trade, path: &str| {
        let (status, document) = ask(&trade.node, "GET", path, &Value::Null);
        assert_eq!(status, 200, "{document}");
        document
    };
    let all = get(&trade, "/transaction-resources");
    let stands = |at: usize| [&all["items"][at]["name"], &all["items"][at]["state"]];
    assert_eq!([stands(0), stands(1)], [["orders", "ready"], ["stock", "ready"]], "{all}");
    let none = ask(&trade.node, "GET", "/transaction-resources/nobody", &Value::Null);
    assert_eq!(code(&none), (404, "not-found"));

    trade.prepare("order-1").await;
    let orders = "/transaction-resources/orders";
    let prepared = get(&trade, &format!("{orders}/prepared"));
    let first = &prepared["items"][0];
    assert_eq!((&first["gid"], &first["verdict"]), (&json!("order-1"), &json!("leave")));
    trade.orders.prepare_branch("ghost", "01").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let verdicts = |document: &Value| {
        let items = document["items"].as_array().unwrap().iter();
        let told = items.map(|item| format!("{} {}", item["gid"], item["verdict"]));
        let mut told: Vec<_> = told.collect();
        told.sort();
        told
    };
    let want = [r#""ghost" "orphan""#, r#""order-1" "leave""#];
    assert_eq!(verdicts(&get(&trade, &format!("{orders}/prepared"))), want);
    let sweep = |document: &Value| ask(&trade.node, "POST", &format!("{orders}/sweep"), document);
    assert_eq!(verdicts(&sweep(&json!({ "report_only": true })).1), want);
    assert_eq!(code(&sweep(&json!({}))), (422, "reason-required"));
    assert_eq!(trade.orders.prepared().await, 2, "nothing was touched yet");
    let (status, swept) = sweep(&json!({ "reason": "looks after ghosts" }));
    assert_eq!((status, verdicts(&swept)), (200, want.map(str::to_owned).to_vec()), "{swept}");
    trade.ends("ghost", "aborted");
    let (_, metrics) = trade.node.control("/metrics");
    for line in [
        "mainstay_resource_prepared_count{resource=\"orders\"} 2",
        "mainstay_resource_sweeps_total{resource=\"orders\",result=\"done\"}",
        "mainstay_resource_resolved_total{resource=\"orders\",how=\"rollback\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    let audit = get(&trade, "/audit?action=transaction:sweep");
    assert_eq!(audit["items"][0]["reason"], "looks after ghosts", "{audit}");

    // A right that is missing is named, with the statement that gives it; so is a table.
    let check = || ask(&trade.node, "POST", &format!("{orders}/check"), &Value::Null);
    assert_eq!(check().0, 200);
    trade.orders.administrate("REVOKE DELETE ON mainstay_receipt FROM coordinator").await;
    let refused = check();
    assert_eq!(code(&refused), (409, "resource-cannot-prepare"));
    let fix = refused.1["faults"][0]["fix"].as_str().unwrap();
    trade.orders.administrate(fix).await;
    trade.orders.administrate("DROP TABLE mainstay_coordinator").await;
    assert_eq!(code(&check()), (409, "resource-cannot-prepare"));
    trade.orders.administrate("GRANT CREATE ON SCHEMA public TO coordinator").await;
    let init = json!({ "reason": "orders takes part" });
    let (status, made) = ask(&trade.node, "POST", &format!("{orders}/init"), &init);
    assert_eq!((status, &made["state"]), (200, &json!("ready")), "{made}");
    let checks = get(&trade, "/checks");
    let of = |id: &str| {
        let items = checks["items"].as_array().unwrap();
        items.iter().find(|item| item["id"] == id).unwrap()["state"].clone()
    };
    let ids = ["transactions-in-doubt", "heuristic-outcomes", "rm-reachable", "prepared-orphans"];
    assert_eq!(ids.map(of), ["pass"; 4], "{checks}");
}

/// `mainstay …`, with the token of `node`.
#[track_caller]
fn command(node: &Gateway, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.args(arguments).env_remove("XDG_RUNTIME_DIR").env("HOME", "/nonexistent");
    command.env("STATE_DIRECTORY", node.home().join("data"));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_log_from_an_old_backup_ends_nothing_until_it_is_accepted() {
    let mut trade = Trade::open("tx-db-old").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("old.backup");
    let file = file.to_str().unwrap();
    // A first transaction, of which databases are told.
    let branches = trade.prepare("order-1").await;
    assert_eq!(trade.submit("order-1", &branches, "done").0, 200);
    trade.are_told(0).await;
    // A parcel that the backup takes for one that is still to be sent.
    let parcels = Participant::start();
    parcels.answers("/send", 503, "the van is full");
    let send = json!({ "gid": "parcel", "mode": "saga",
        "steps": [{ "action": { "url": parcels.url("/send") } }] });
    assert_eq!(trade.post("", &send).0, 201);
    until("it was tried", PATIENCE, || parcels.count("/send") > 0);
    command(&trade.node, &["backup", "create", file]);
    parcels.answers("/send", 200, "");
    // Whatever they were told until now does not say that they know of what comes.
    let before = trade.are_told(0).await;
    // Another one after the backup: one of its branches has committed, the other still waits.
    let branches = trade.prepare("order-2").await;
    trade.orders.administrate("REVOKE shopkeeper FROM coordinator").await;
    assert_eq!(trade.submit("order-2", &branches, "decided").0, 200);
    trade.are_told(before).await;
    until_unprepared(&trade.stock).await;
    until("it was sent", PATIENCE, || trade.show("parcel")["state"] == "committed");
    trade.node.signal(Signal::KILL);
    trade.node.ended();
    trade.orders.administrate("GRANT shopkeeper TO coordinator").await;
    let data = trade.node.home().join("data");
    let restore =
        ["backup", "restore", file, "--data-dir", data.to_str().unwrap(), "--force", "--yes"];
    command(&trade.node, &restore);
    let sent = parcels.count("/send");
    trade.node = trade.node.again("tx-db-old-again", &[]);

    // Before it is known nothing begins either.
    let mut refused = trade.post("", &json!({ "gid": "order-3", "mode": "xa" }));
    while code(&refused) == (503, "transaction-log-unavailable") {
        pause(Duration::from_millis(10));
        refused = trade.post("", &json!({ "gid": "order-3", "mode": "xa" }));
    }
    assert_eq!(code(&refused), (503, "transaction-log-behind"), "{refused:?}");
    assert_eq!(refused.1["effect"], "none");
    // More than an orphan is left alone for.
    trade.are_swept(5).await;
    assert_eq!(trade.orders.prepared().await, 1, "what has committed elsewhere was not undone");
    assert_eq!(parcels.count("/send"), sent, "what was sent is not sent again");
    let found = command(&trade.node, &["transaction", "prepared", "orders", "-o", "json"]);
    let found: Value = serde_json::from_str(&found).unwrap();
    let found = &found["items"][0];
    assert_eq!((&found["gid"], &found["verdict"]), (&json!("order-2"), &json!("orphan")));
    // Its other branch has committed, as its receipt shows: so must this one.
    let xid = found["xid"].as_str().unwrap();
    trade.orders.administrate(&format!("COMMIT PREPARED '{xid}'")).await;
    let accept = ["transaction", "accept-log", "--reason", "ended by hand", "--yes"];
    command(&trade.node, &accept);
    assert_eq!(trade.orders.balance().await, trade.stock.balance().await);
    let branches = trade.prepare("order-3").await;
    let (status, done) = trade.submit("order-3", &branches, "done");
    assert_eq!((status, &done["state"]), (200, &json!("committed")), "{done}");
    trade.closes(3, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_database_that_is_away_or_cannot_prepare_keeps_nobody_from_starting() {
    let plain = Shop::of_postgres(Postgres::start().await).await;
    let away = "[[transaction.resource]]\nname = \"away\"\nkind = \"mariadb\"\n\
        url = \"mariadb://coordinator@%2Fnowhere%2Fsocket/shop\"\n";
    let config = [&config(), &plain.table("plain"), away].concat();
    let node = Gateway::start_dev("tx-db-unfit", &config);
    until("both were looked at", PATIENCE, || {
        node.logged("resource-cannot-prepare") > 0 && node.logged("resource-unreachable") > 0
    });
    assert_eq!(post(&node, "", &json!({ "gid": "a", "mode": "xa" })).0, 201);
    let joins = |resource: &str| {
        post(&node, "/a/branches", &json!({ "kind": "resource", "resource": resource }))
    };
    let refused = joins("plain");
    assert_eq!(code(&refused), (409, "resource-cannot-prepare"));
    assert!(refused.1["detail"].as_str().unwrap().contains("max_prepared_transactions"));
    let refused = joins("away");
    assert_eq!(code(&refused), (503, "resource-unreachable"));
    assert!(refused.1["retry_after"].is_number() && refused.1["effect"] == "none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn databases_come_and_go_while_it_runs() {
    let orders = Shop::open(Kind::Postgres).await;
    let node = Gateway::start_dev("tx-db-reload", &config());
    let reload = |tables: &str, says: &str| {
        let before = node.logged(says);
        node.configure(&[&config(), tables].concat());
        node.signal(Signal::HUP);
        until(says, PATIENCE, || node.logged(says) > before);
    };
    let joins = || post(&node, "/a/branches", &json!({ "kind": "resource", "resource": "orders" }));
    assert_eq!(post(&node, "", &json!({ "gid": "a", "mode": "xa" })).0, 201);
    assert_eq!(code(&joins()), (409, "resource-unknown"));
    reload(&orders.table("orders"), READY);
    assert_eq!(joins().0, 201);
    reload("", "live transactions have branches in database `orders`");
    assert_eq!(joins().0, 201, "it is still there");
    // What stays the same keeps its sessions, and another address is taken at once.
    let moved = orders.table("orders").replace("coordinator@", "nobody@");
    reload(&moved, "resource-cannot-prepare");
    assert_eq!(code(&joins()), (409, "resource-cannot-prepare"));
    reload(&orders.table("orders"), READY);
    assert_eq!(post(&node, "/a/abort", &json!({})).0, 200);
    until("it has ended", PATIENCE, || {
        node.control("/api/v1/transactions/a").1.contains("\"state\":\"aborted\"")
    });
    reload("", "configuration reloaded");
    assert_eq!(post(&node, "", &json!({ "gid": "b", "mode": "xa" })).0, 201);
    let document = json!({ "kind": "resource", "resource": "orders" });
    assert_eq!(code(&post(&node, "/b/branches", &document)), (409, "resource-unknown"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_operator_purges_the_barrier_of_participants() {
    let mut trade = Trade::open("tx-db-purge").await;
    let path = "/transaction-resources/orders/purge-barrier";
    let ask_for = json!({ "older_than_seconds": 3600, "reason": "it has grown" });
    let none = ask(&trade.node, "POST", path, &ask_for);
    assert_eq!(code(&none), (409, "resource-cannot-purge"), "no table yet: {none:?}");
    trade.orders.administrate(barrier::TABLE_POSTGRES).await;
    let denied = ask(&trade.node, "POST", path, &ask_for);
    assert_eq!(code(&denied), (409, "resource-cannot-purge"), "{denied:?}");
    trade.orders.administrate(denied.1["fix"].as_str().unwrap()).await;

    let _branches = trade.begin("order-live");
    let fill = "INSERT INTO mainstay_barrier (mode, gid, branch, op, seq, reason, written_at)
        SELECT 'saga', gid, '01', 'action', '01', 'action', clock_timestamp() - age
        FROM (SELECT 'order-' || n, interval '2 hours' FROM generate_series(1, 2500) AS many(n)
              UNION VALUES ('order-live', interval '2 hours'), ('order-young', interval '0'))
             AS rows(gid, age)";
    trade.orders.administrate(fill).await;
    let hasty = json!({ "older_than_seconds": 60, "reason": "it has grown" });
    assert_eq!(code(&ask(&trade.node, "POST", path, &hasty)), (422, "invalid-request"));
    let purge = ["transaction", "purge-barrier", "orders", "--older-than", "1h"];
    let said = ["--reason", "it has grown", "--yes", "-o", "json"];
    let gone = command(&trade.node, &[&purge[..], &said[..]].concat());
    let gone: Value = serde_json::from_str(&gone).unwrap();
    let wanted = json!({ "resource": "orders", "rows": 2502, "deleted": 2500, "kept": 1 });
    assert_eq!(gone, wanted);
    // Each that the database was asked for is recorded before it begins, and again if it fails; a
    // refusal is told of a moment later.
    let wanted = [
        ("done", ""),
        ("done", ""),
        ("done", ""),
        ("failed", "resource-cannot-purge"),
        ("failed", "resource-cannot-purge"),
        ("refused", "invalid-request"),
    ];
    until(&format!("records say {wanted:?}"), PATIENCE, || {
        let purges = "/audit?action=transaction:purge-barrier&limit=20";
        let (_, records) = ask(&trade.node, "GET", purges, &Value::Null);
        let mut told: Vec<_> = records["items"].as_array().unwrap().iter().map(told).collect();
        told.sort_unstable();
        told == wanted
    });
}

/// How an audit record says that it ended, and why not.
fn told(record: &Value) -> (&str, &str) {
    (record["outcome"].as_str().unwrap(), record["code"].as_str().unwrap_or_default())
}
