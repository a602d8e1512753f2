//! A bank of three databases, two of `PostgreSQL` and one of `MariaDB`: writers move money from one
//! to another by two-phase commit, while the coordinator is killed and stopped and databases crash.
//! In the end there is as much money as before, every transfer is there whole or not at all, and
//! whoever was told that it is done found it.
//!
//! How long it goes on is told by `MAINSTAY_BANK_SECONDS`.
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

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mainstay_api::receipt as sql;
use mainstay_client::branch::{self, Begun, BranchName};
use mainstay_txn::resource::Kind;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder};
use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::{Value, json};
use shop::{Server, Shop};
use tokio_postgres::{Client, NoTls};

const PATIENCE: Duration = Duration::from_secs(90);

/// Its databases.
const BRANCHES: [&str; 3] = ["east", "west", "north"];

/// Accounts of each, and what is on each at first.
const ACCOUNTS: u64 = 10;
const EACH: i64 = 1_000;

const WRITERS: u64 = 16;

/// So many transfers say something.
const ENOUGH: usize = 20;

/// How a writer reaches a database, also one that was started again.
#[derive(Clone, Debug)]
enum Door {
    Postgres(PathBuf),
    MariaDb(PathBuf),
}

impl Door {
    fn of(shop: &Shop) -> Self {
        match &shop.server {
            Server::Postgres(server) => Self::Postgres(server.home().to_owned()),
            Server::MariaDb(server) => Self::MariaDb(server.socket()),
        }
    }

    async fn postgres(home: &Path) -> Result<Client, String> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(home).user("shopkeeper").dbname("shop");
        let (client, connection) = config.connect(NoTls).await.map_err(shown)?;
        // Ends with the client.
        tokio::spawn(connection);
        Ok(client)
    }

    async fn mariadb(socket: &Path) -> Result<Conn, String> {
        let socket = Some(socket.display().to_string());
        let options = OptsBuilder::default().socket(socket).user(Some("shopkeeper"));
        Conn::new(options.db_name(Some("shop"))).await.map_err(shown)
    }

    /// Prepares a branch that puts `amount` on `account`; its session goes on for as long as
    /// `lingers` says.
    async fn prepare(
        &self,
        (name, gid): (&BranchName, &str),
        (account, amount): (u64, i64),
        lingers: Option<Duration>,
    ) -> Result<(), String> {
        let puts = format!("UPDATE account SET balance = balance + {amount} WHERE id = {account}");
        let notes = format!("INSERT INTO move VALUES ('{gid}', {amount})");
        match self {
            Self::Postgres(home) => {
                let client = Self::postgres(home).await?;
                let begun = branch::postgres::begin(&client, name, "bank").await;
                assert_eq!(begun.map_err(shown)?, Begun::New, "{gid}");
                client.batch_execute(&format!("{puts}; {notes}")).await.map_err(shown)?;
                branch::postgres::prepare(&client, name).await.map_err(shown)
            }
            Self::MariaDb(socket) => {
                let mut session = Self::mariadb(socket).await?;
                let begun = branch::mysql::begin(&mut session, name, "bank").await;
                assert_eq!(begun.map_err(shown)?, Begun::New, "{gid}");
                session.query_drop(puts).await.map_err(shown)?;
                session.query_drop(notes).await.map_err(shown)?;
                let Some(lingers) = lingers else {
                    return branch::mysql::prepare(session, name).await.map(drop).map_err(shown);
                };
                for statement in sql::prepare_mariadb(&name.xa_literal()) {
                    session.query_drop(statement).await.map_err(shown)?;
                }
                tokio::spawn(async move {
                    tokio::time::sleep(lingers).await;
                    drop(session.disconnect().await);
                });
                Ok(())
            }
        }
    }

    /// A whole number.
    async fn number(&self, query: &str) -> Result<i64, String> {
        match self {
            Self::Postgres(home) => {
                let query = format!("SELECT n::bigint FROM ({query}) AS read(n)");
                let client = Self::postgres(home).await?;
                Ok(client.query_one(&query, &[]).await.map_err(shown)?.get(0))
            }
            Self::MariaDb(socket) => {
                let mut session = Self::mariadb(socket).await?;
                let number = session.query_first(query).await.map_err(shown)?;
                number.ok_or_else(|| "no row".to_owned())
            }
        }
    }
}

fn shown(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A transfer, and what its writer was told of it.
#[derive(Debug)]
struct Transfer {
    gid: String,
    /// Indices in [`BRANCHES`].
    between: [usize; 2],
    told: &'static str,
}

/// What writers share.
struct Bank {
    /// Where the coordinator is now, and its token.
    coordinator: Mutex<(SocketAddr, String)>,
    doors: [Door; 3],
    transfers: Mutex<Vec<Transfer>>,
    /// Done, and not to be found.
    missing: Mutex<Vec<String>>,
    /// How long sessions go on that do not end with their branch.
    lingers: Duration,
    closed: AtomicBool,
}

impl Bank {
    /// Asks until there is an answer that says what became of it.
    fn ask(&self, method: &str, path: &str, document: &Value) -> (u16, Value) {
        let began = Instant::now();
        loop {
            let (address, token) = self.coordinator.lock().clone();
            if let Some(answer) = databases::ask((address, &token), (method, path), document) {
                return answer;
            }
            assert!(began.elapsed() < PATIENCE, "{method} {path}: no answer");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    async fn writer(&self, number: u64) {
        let mut random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        // `SplitMix64`: Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
        // OOPSLA 2014.
        let mut draw = move |below: u64| {
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)) % below
        };
        for round in 0_u64.. {
            if self.closed.load(Ordering::SeqCst) {
                return;
            }
            let gid = format!("t-{number}-{round}");
            let from = usize::try_from(draw(3)).unwrap();
            let to = (from + 1 + usize::try_from(draw(2)).unwrap()) % 3;
            let amount = i64::try_from(draw(9) + 1).unwrap();
            let sides = [(from, draw(ACCOUNTS), -amount), (to, draw(ACCOUNTS), amount)];
            let lingers = (draw(3) == 0).then_some(self.lingers);
            let told = self.transfer(&gid, sides, lingers).await;
            if told == "committed" {
                self.look(&gid, [from, to]).await;
            }
            self.transfers.lock().push(Transfer { gid, between: [from, to], told });
        }
    }

    /// Moves money; returns how that ended, as it was told.
    async fn transfer(
        &self,
        gid: &str,
        sides: [(usize, u64, i64); 2],
        lingers: Option<Duration>,
    ) -> &'static str {
        let ask = |path: &str, document: &Value| {
            tokio::task::block_in_place(|| self.ask("POST", path, document))
        };
        let begun = ask("", &json!({ "gid": gid, "mode": "xa", "deadline_seconds": 60 }));
        assert!(begun.0 < 300, "{begun:?}");
        let mut votes = Vec::new();
        for (branch, (which, account, amount)) in ["01", "02"].into_iter().zip(sides) {
            let resource = BRANCHES[which];
            let joins = json!({ "kind": "resource", "resource": resource, "branch": branch });
            let joined = ask(&format!("/{gid}/branches"), &joins);
            // What is not known, and what was decided meanwhile, is not gone on with.
            let xid = joined.1["xid"].as_str();
            let Some(cluster) = xid.and_then(|xid| xid.split(':').nth(1)) else {
                return self.gives_up(gid);
            };
            let name = BranchName::new(cluster, gid, branch).unwrap();
            if self.doors[which].prepare((&name, gid), (account, amount), lingers).await.is_err() {
                return self.gives_up(gid);
            }
            votes.push(json!({
                "branch": branch, "resource": resource, "vote": "yes", "evidence": "listed",
            }));
        }
        let submit = json!({
            "votes": votes, "wait": "done", "wait_seconds": 20,
            "begun_at": begun.1["created_at"], "deadline_at": begun.1["deadline_at"],
        });
        let (status, answer) = ask(&format!("/{gid}/submit"), &submit);
        match (status, answer["state"].as_str()) {
            (200, Some("committed")) => "committed",
            (200 | 202, _) => "decided",
            (409, _) => "aborted",
            _ => panic!("{gid}: {status} {answer}"),
        }
    }

    fn gives_up(&self, gid: &str) -> &'static str {
        let path = format!("/{gid}/abort");
        let (status, answer) = tokio::task::block_in_place(|| self.ask("POST", &path, &json!({})));
        // Not known any more: presumed, and swept.
        assert!(matches!(status, 200 | 404), "{gid}: {answer}");
        "aborted"
    }

    /// How many transfers were told to be done.
    fn done(&self) -> usize {
        self.transfers.lock().iter().filter(|transfer| transfer.told == "committed").count()
    }

    /// What is done is there, for whoever reads it now.
    async fn look(&self, gid: &str, between: [usize; 2]) {
        for which in between {
            if self.moved(which, gid).await != 1 {
                self.missing.lock().push(format!("{gid} in {}", BRANCHES[which]));
            }
        }
    }

    /// How often `gid` has moved money in a database, which may have to come back first.
    async fn moved(&self, which: usize, gid: &str) -> i64 {
        self.reads(which, &format!("SELECT COUNT(*) FROM move WHERE gid = '{gid}'")).await
    }

    async fn reads(&self, which: usize, query: &str) -> i64 {
        let began = Instant::now();
        loop {
            match self.doors[which].number(query).await {
                Ok(number) => return number,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{query}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What breaks next.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Pause(u64),
    Crash(usize),
}

/// Runs the bank for `span`, and until it has seen enough, with `faults` one after the other;
/// `wrong` is a mistake that its coordinator makes. Returns what is wrong in the end, and how many
/// transfers were done.
async fn run(
    name: &str,
    span: Duration,
    faults: &[Fault],
    wrong: Option<&str>,
) -> Result<usize, String> {
    let (east, west, north) = tokio::join!(
        Shop::open(Kind::Postgres),
        Shop::open(Kind::Postgres),
        Shop::open(Kind::MariaDb)
    );
    let mut shops = [east, west, north];
    for shop in &shops {
        opens_accounts(shop).await;
    }
    let mut node =
        databases::start(name, &databases::config(2, 5), BRANCHES.into_iter().zip(&shops));
    if let Some(wrong) = wrong {
        node.crashes_at(wrong);
    }
    let (address, token) = node.door();
    let bank = Arc::new(Bank {
        coordinator: Mutex::new((address, token.to_owned())),
        doors: [Door::of(&shops[0]), Door::of(&shops[1]), Door::of(&shops[2])],
        transfers: Mutex::default(),
        missing: Mutex::default(),
        // A mistake is to be made while they go on, however slow this machine is.
        lingers: Duration::from_millis(if wrong.is_some() { 10_000 } else { 400 }),
        closed: AtomicBool::new(false),
    });
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let bank = Arc::clone(&bank);
            tokio::spawn(async move { bank.writer(number).await })
        })
        .collect();
    let began = Instant::now();
    let mut faults = faults.iter().cycle();
    let has_seen_enough = || match wrong {
        Some(_) => !bank.missing.lock().is_empty(),
        None => ENOUGH < bank.done(),
    };
    while began.elapsed() < span || (!has_seen_enough() && began.elapsed() < PATIENCE) {
        tokio::time::sleep(Duration::from_secs(2)).await;
        match faults.next() {
            Some(Fault::Kill) => {
                node.signal(Signal::KILL);
                node.was_killed();
                node = node.again(name, &[]);
                let (address, token) = node.door();
                *bank.coordinator.lock() = (address, token.to_owned());
            }
            Some(Fault::Pause(seconds)) => {
                node.signal(Signal::STOP);
                tokio::time::sleep(Duration::from_secs(*seconds)).await;
                node.signal(Signal::CONT);
            }
            Some(Fault::Crash(which)) => shops[*which].crash().await,
            None => {}
        }
    }
    bank.closed.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    settles(&bank, &shops).await?;
    assert_eq!(node.logged("panicked at"), 0, "see {}", node.log_path().display());
    audits(&bank).await
}

async fn opens_accounts(shop: &Shop) {
    let rows: Vec<String> = (0..ACCOUNTS).map(|id| format!("({id}, {EACH})")).collect();
    let table = match shop.settings.address.kind {
        Kind::Postgres => "",
        Kind::MariaDb => "ENGINE=InnoDB",
    };
    for statement in [
        format!("CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL) {table}"),
        format!("CREATE TABLE move (gid varchar(64) NOT NULL, amount int NOT NULL) {table}"),
        "CREATE INDEX move_gid ON move (gid)".to_owned(),
        format!("INSERT INTO account VALUES {}", rows.join(", ")),
        "GRANT SELECT, UPDATE ON account TO shopkeeper".to_owned(),
        "GRANT SELECT, INSERT ON move TO shopkeeper".to_owned(),
    ] {
        shop.administrate(&statement).await;
    }
}

/// Waits until nothing is in hand any more.
async fn settles(bank: &Bank, shops: &[Shop; 3]) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let mut prepared = 0;
        for shop in shops {
            prepared += shop.prepared().await;
        }
        let (_, live) = tokio::task::block_in_place(|| {
            bank.ask("GET", "?state=committing&limit=5", &Value::Null)
        });
        let deciding = live["items"].as_array().map_or(0, Vec::len);
        if (prepared, deciding) == (0, 0) {
            return Ok(());
        }
        if PATIENCE < began.elapsed() {
            return Err(format!("{prepared} branches stay prepared; committing: {live}"));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Counts the money, and looks at every transfer.
async fn audits(bank: &Bank) -> Result<usize, String> {
    let mut sum = 0;
    for which in 0..3 {
        sum += bank.reads(which, "SELECT SUM(balance) FROM account").await;
    }
    let first = EACH * i64::try_from(3 * ACCOUNTS).unwrap();
    if sum != first {
        return Err(format!("there were {first}, and now there are {sum}"));
    }
    let missing = std::mem::take(&mut *bank.missing.lock());
    if !missing.is_empty() {
        return Err(format!("told done, and not there: {missing:?}"));
    }
    let transfers = std::mem::take(&mut *bank.transfers.lock());
    let mut done = 0;
    for Transfer { gid, between, told } in &transfers {
        let halves = [bank.moved(between[0], gid).await, bank.moved(between[1], gid).await];
        let is_there = match halves {
            [1, 1] => true,
            [0, 0] => false,
            _ => return Err(format!("{gid} is there by halves: {halves:?}, told {told:?}")),
        };
        if is_there == (*told == "aborted") {
            return Err(format!("{gid} was told {told:?}, and it is there: {is_there}"));
        }
        done += usize::from(is_there);
    }
    Ok(done)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 20)]
async fn no_money_is_made_or_lost_whoever_dies() {
    let seconds = std::env::var("MAINSTAY_BANK_SECONDS").ok();
    let seconds = seconds.and_then(|seconds| seconds.parse().ok()).unwrap_or(20);
    let faults = [
        Fault::Kill,
        Fault::Crash(2),
        Fault::Pause(3),
        Fault::Crash(0),
        Fault::Kill,
        Fault::Pause(6),
        Fault::Crash(1),
    ];
    let done = Box::pin(run("bank", Duration::from_secs(seconds), &faults, None)).await.unwrap();
    assert!(ENOUGH < done, "only {done} transfers say little");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 20)]
async fn a_coordinator_that_takes_unknown_for_done_is_found() {
    let wrong = Some("unknown-is-done");
    let found = Box::pin(run("bank-wrong", Duration::from_secs(6), &[], wrong)).await.unwrap_err();
    assert!(found.contains("told done, and not there"), "{found}");
}
