//! Databases that take part in transactions: a real process ends branches that an application has
//! prepared in `PostgreSQL` and `MariaDB`, whoever dies in between.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests run by the clock of this machine, and fail by panicking"
)]

#[path = "../../mainstay-client/tests/databases/servers.rs"]
#[allow(dead_code, reason = "tests of the client start them too")]
mod servers;
#[path = "../../mainstay-txn/tests/databases/shop.rs"]
#[allow(dead_code, reason = "tests of the coordinator shop there too")]
mod shop;
#[path = "support/support.rs"]
mod support;

use std::time::Duration;

use mainstay_txn::resource::Kind;
use rustix::process::Signal;
use serde_json::{Value, json};
use servers::Postgres;
use shop::Shop;
use support::gateway::Gateway;
use support::wait::until;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
[transaction]
backoff_initial_milliseconds = 20
backoff_max_seconds = 1
sweep_interval_seconds = 1
orphan_grace_seconds = 2
"#;

const PATIENCE: Duration = Duration::from_secs(40);

const READY: &str = "database takes part in transactions";

/// An application with orders in `PostgreSQL` and a stock in `MariaDB`.
struct Trade {
    node: Gateway,
    orders: Shop,
    stock: Shop,
}

impl Trade {
    async fn open(name: &str) -> Self {
        let (orders, stock) = tokio::join!(Shop::open(Kind::Postgres), Shop::open(Kind::MariaDb));
        let tables = [table("orders", &orders), table("stock", &stock)];
        let node = Gateway::start_dev(name, &[CONFIG, &tables.concat()].concat());
        until("both take part", PATIENCE, || node.logged(READY) == 2);
        Self { node, orders, stock }
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

fn table(name: &str, shop: &Shop) -> String {
    let (kind, url) = (shop.settings.address.kind.as_str(), &shop.url);
    format!("[[transaction.resource]]\nname = \"{name}\"\nkind = \"{kind}\"\nurl = \"{url}\"\n")
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_database_that_is_away_or_cannot_prepare_keeps_nobody_from_starting() {
    let plain = Shop::of_postgres(Postgres::start().await).await;
    let away = "[[transaction.resource]]\nname = \"away\"\nkind = \"mariadb\"\n\
        url = \"mariadb://coordinator@%2Fnowhere%2Fsocket/shop\"\n";
    let config = [CONFIG, &table("plain", &plain), away].concat();
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
    let node = Gateway::start_dev("tx-db-reload", CONFIG);
    let reload = |tables: &str, says: &str| {
        let before = node.logged(says);
        node.configure(&[CONFIG, tables].concat());
        node.signal(Signal::HUP);
        until(says, PATIENCE, || node.logged(says) > before);
    };
    let joins = || post(&node, "/a/branches", &json!({ "kind": "resource", "resource": "orders" }));
    assert_eq!(post(&node, "", &json!({ "gid": "a", "mode": "xa" })).0, 201);
    assert_eq!(code(&joins()), (409, "resource-unknown"));
    reload(&table("orders", &orders), READY);
    assert_eq!(joins().0, 201);
    reload("", "live transactions have branches in database `orders`");
    assert_eq!(joins().0, 201, "it is still there");
    // What stays the same keeps its sessions, and another address is taken at once.
    let moved = table("orders", &orders).replace("coordinator@", "nobody@");
    reload(&moved, "resource-cannot-prepare");
    assert_eq!(code(&joins()), (409, "resource-cannot-prepare"));
    reload(&table("orders", &orders), READY);
    assert_eq!(post(&node, "/a/abort", &json!({})).0, 200);
    until("it has ended", PATIENCE, || {
        node.control("/api/v1/transactions/a").1.contains("\"state\":\"aborted\"")
    });
    reload("", "configuration reloaded");
    assert_eq!(post(&node, "", &json!({ "gid": "b", "mode": "xa" })).0, 201);
    let document = json!({ "kind": "resource", "resource": "orders" });
    assert_eq!(code(&post(&node, "/b/branches", &document)), (409, "resource-unknown"));
}
