//! A bank of three databases, two of `PostgreSQL` and one of `MariaDB`: writers move money from one
//! to another by two-phase commit, while the coordinator is killed and stopped, its clock is wrong and
//! its disk full, databases crash, and the network between is slow and cut. In the end there is as much money as before, every transfer is there whole or not at all, and
//! whoever was told that it is done found it.
//!
//! Each of that happens at least once. How long it goes on is told by `MAINSTAY_BANK_SECONDS`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests run by the clock of this machine, and fail by panicking"
)]

#[path = "support/databases.rs"]
mod databases;
#[path = "support/disk.rs"]
mod disk;
#[path = "support/door.rs"]
mod door;
#[path = "../../mainstay-client/tests/databases/servers.rs"]
#[allow(dead_code, reason = "tests of the client start them too")]
mod servers;
#[path = "../../mainstay-txn/tests/databases/shop.rs"]
#[allow(dead_code, reason = "tests of the coordinator shop there too")]
mod shop;
#[path = "support/support.rs"]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use disk::Disk;
use door::{Door, shown};
use mainstay_api::receipt as sql;
use mainstay_client::branch::{self, Begun, BranchName};
use mainstay_txn::resource::Kind;
use mysql_async::prelude::Queryable as _;
use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::{Value, json};
use shop::Shop;
use support::gateway::Gateway;
use support::relay::Relay;

const PATIENCE: Duration = Duration::from_secs(90);

/// Its databases.
const BRANCHES: [&str; 3] = ["east", "west", "north"];

/// Accounts of each, and what is on each at first.
const ACCOUNTS: u64 = 10;
const EACH: i64 = 1_000;

const WRITERS: u64 = 16;

/// So many transfers say something.
const ENOUGH: usize = 20;

/// How a writer reaches a database.
#[derive(Clone, Copy)]
struct Teller<'a> {
    door: &'a Door,
}

impl Teller<'_> {
    /// Prepares a branch that puts `amount` on `account`; its session goes on for as long as
    /// `lingers` says.
    async fn prepare(
        self,
        (name, gid): (&BranchName, &str),
        (account, amount): (u64, i64),
        lingers: Option<Duration>,
    ) -> Result<(), String> {
        let puts = format!("UPDATE account SET balance = balance + {amount} WHERE id = {account}");
        let notes = format!("INSERT INTO move VALUES ('{gid}', {amount})");
        match self.door {
            Door::Postgres(home) => {
                let client = Door::postgres(home).await?;
                let begun = branch::postgres::begin(&client, name, "bank").await;
                assert_eq!(begun.map_err(shown)?, Begun::New, "{gid}");
                client.batch_execute(&format!("{puts}; {notes}")).await.map_err(shown)?;
                branch::postgres::prepare(&client, name).await.map_err(shown)
            }
            Door::MariaDb(socket) => {
                let mut session = Door::mariadb(socket).await?;
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
    async fn number(self, query: &str) -> Result<i64, String> {
        match self.door {
            Door::Postgres(home) => {
                let query = format!("SELECT n::bigint FROM ({query}) AS read(n)");
                let client = Door::postgres(home).await?;
                Ok(client.query_one(&query, &[]).await.map_err(shown)?.get(0))
            }
            Door::MariaDb(socket) => {
                let mut session = Door::mariadb(socket).await?;
                let number = session.query_first(query).await.map_err(shown)?;
                number.ok_or_else(|| "no row".to_owned())
            }
        }
    }
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
    const fn teller(&self, which: usize) -> Teller<'_> {
        Teller { door: &self.doors[which] }
    }

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
            if self.teller(which).prepare((&name, gid), (account, amount), lingers).await.is_err() {
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
            match self.teller(which).number(query).await {
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
    /// The coordinator is killed, and starts again.
    Kill,
    /// It stands still for so many seconds.
    Pause(u64),
    /// A database crashes, and starts again.
    Crash(usize),
    /// All that the coordinator and a database tell each other comes late, by so many milliseconds,
    /// for 3 s.
    Slow(usize, u64),
    /// Nothing of it comes for so many seconds.
    Cut(usize, u64),
    /// The coordinator is killed, and starts again when the clock on the wall shows so many seconds
    /// more than it should.
    Clock(i64),
    /// The disk of the coordinator is full for so many seconds. What it may not have written it says
    /// so of, and it is killed and starts again.
    Full(u64),
}

/// The coordinator and all that can break around it.
struct World {
    name: &'static str,
    node: Gateway,
    shops: [Shop; 3],
    /// How the coordinator comes to each of them; writers go straight there.
    ways: [Relay; 3],
    /// Where its log is; none where mounting is not permitted.
    disk: Option<Disk>,
}

impl World {
    async fn open(name: &'static str) -> Self {
        let (east, west, north) = tokio::join!(
            Shop::open(Kind::Postgres),
            Shop::open(Kind::Postgres),
            Shop::open(Kind::MariaDb)
        );
        let mut shops = [east, west, north];
        let ways = shops.each_ref().map(|shop| Relay::to_socket(shop.socket()));
        for (shop, way) in shops.iter_mut().zip(&ways) {
            opens_accounts(shop).await;
            shop.through(way.address);
        }
        let home = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        let disk = Disk::mount(&home, "size=256m");
        let mut config = databases::config(2, 5);
        if let Some(disk) = &disk {
            let store = disk.path().join("store");
            let table = format!("[store.embedded]\npath = \"{}\"\n", store.display());
            config.push_str(&table);
        }
        let node = databases::start(name, &config, BRANCHES.into_iter().zip(&shops));
        Self { name, node, shops, ways, disk }
    }

    /// The coordinator is killed, and starts again; where it is now.
    fn kill(&mut self, bank: &Bank) {
        self.node.signal(Signal::KILL);
        self.node.was_killed();
        self.node = self.node.again(self.name, &[]);
        let (address, token) = self.node.door();
        *bank.coordinator.lock() = (address, token.to_owned());
    }

    async fn breaks(&mut self, fault: Fault, bank: &Bank) {
        let pause = async |seconds: u64| tokio::time::sleep(Duration::from_secs(seconds)).await;
        match fault {
            Fault::Kill => self.kill(bank),
            Fault::Pause(seconds) => {
                self.node.signal(Signal::STOP);
                pause(seconds).await;
                self.node.signal(Signal::CONT);
            }
            Fault::Crash(which) => self.shops[which].crash().await,
            Fault::Slow(which, milliseconds) => {
                self.ways[which].lags(Duration::from_millis(milliseconds));
                pause(3).await;
                self.ways[which].lags(Duration::ZERO);
            }
            Fault::Cut(which, seconds) => {
                self.ways[which].cut();
                pause(seconds).await;
                self.ways[which].mend();
            }
            Fault::Clock(seconds) => {
                self.node.clock_steps(seconds);
                self.kill(bank);
            }
            Fault::Full(seconds) => {
                let Some(disk) = &self.disk else { return };
                disk.fill();
                pause(seconds).await;
                disk.empty();
                self.kill(bank);
            }
        }
    }
}

/// Runs the bank for `span`, and until each of `faults` has come and enough was seen; `wrong` is a
/// mistake that its coordinator makes. Returns what is wrong in the end, and how many transfers were
/// done.
async fn run(
    name: &'static str,
    span: Duration,
    faults: &[Fault],
    wrong: Option<&str>,
) -> Result<usize, String> {
    let mut world = Box::pin(World::open(name)).await;
    if let Some(wrong) = wrong {
        world.node.crashes_at(wrong);
    }
    let (address, token) = world.node.door();
    let bank = Arc::new(Bank {
        coordinator: Mutex::new((address, token.to_owned())),
        doors: world.shops.each_ref().map(Door::of),
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
    let has_seen_enough = || match wrong {
        Some(_) => !bank.missing.lock().is_empty(),
        None => ENOUGH < bank.done(),
    };
    let mut to_come = faults.iter();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if to_come.len() == 0 {
            let is_over = span <= began.elapsed();
            if is_over && (has_seen_enough() || PATIENCE < began.elapsed()) {
                break;
            }
            to_come = faults.iter();
        }
        if let Some(fault) = to_come.next() {
            world.breaks(*fault, &bank).await;
        }
    }
    bank.closed.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    settles(&bank, &world.shops).await?;
    let World { node, .. } = &world;
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
        Fault::Cut(0, 3),
        Fault::Crash(2),
        Fault::Clock(3_600),
        Fault::Pause(3),
        Fault::Slow(2, 40),
        Fault::Crash(0),
        Fault::Full(3),
        Fault::Clock(-3_600),
        Fault::Pause(6),
        Fault::Cut(2, 3),
        Fault::Clock(0),
        Fault::Slow(1, 150),
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
