//! Participants that die, nodes that are replaced, databases that crash and networks that are cut while their coordinator
//! lives: whatever was in hand ends as its initiator wished, in real databases and at services that
//! keep a barrier. Nothing stays prepared, receipts say the same as the decision, and money that one
//! gives the other has.
//!
//! `MAINSTAY_CRASHES=saga` plays only those cases whose names hold that.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests run by the clock of this machine, and fail by panicking"
)]

#[path = "support/databases.rs"]
mod databases;
#[path = "support/door.rs"]
mod door;
#[path = "support/partner.rs"]
mod partner;
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
use std::path::Path;
use std::time::{Duration, Instant};

use door::Door;
use mainstay_api::barrier;
use mainstay_txn::resource::Kind;
use partner::Partner;
use rustix::process::Signal;
use serde_json::{Value, json};
use shop::Shop;
use support::etcd::Etcd;
use support::gateway::Gateway;
use support::participant::Participant;
use support::relay::Relay;
use support::wait::until;

/// No sweep overtakes an initiator that tries again.
const GRACE_SECONDS: u64 = 30;

const PATIENCE: Duration = Duration::from_mins(1);

/// Who takes part, by the name of its database.
const PARTNERS: [&str; 2] = ["orders", "stock"];

/// What a transaction moves, from the first to the second.
const AMOUNTS: [i64; 2] = [-10, 10];

#[test]
fn a_partner() {
    partner::serve_if_asked();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// A branch in each database, prepared by the application.
    Xa,
    Saga,
    Tcc,
}

/// What breaks, of the one that is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    /// It dies with its work done, and neither committed nor prepared.
    Before,
    /// It dies when that is done, and nobody was told.
    After,
    /// Its database crashes before the branch is prepared.
    Crash,
    /// It dies when it has voted, and is back when all is over.
    Down,
    /// The coordinator cannot reach it, or its database, while its initiator does.
    Cut,
}

impl Break {
    /// In which modes that says something of its own.
    const fn modes(self) -> &'static [Mode] {
        match self {
            Self::Before | Self::After | Self::Cut => &[Mode::Xa, Mode::Saga, Mode::Tcc],
            Self::Crash | Self::Down => &[Mode::Xa],
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    breaks: Break,
    mode: Mode,
    /// Which of [`PARTNERS`].
    struck: usize,
    commits: bool,
}

impl Case {
    fn chosen() -> Vec<Self> {
        let part = std::env::var("MAINSTAY_CRASHES").unwrap_or_default();
        let mut cases = Vec::new();
        for breaks in [Break::Before, Break::After, Break::Crash, Break::Down, Break::Cut] {
            for &mode in breaks.modes() {
                for (struck, commits) in [(0, true), (0, false), (1, true), (1, false)] {
                    cases.push(Self { breaks, mode, struck, commits });
                }
            }
        }
        cases.retain(|case| part == "all" || case.gid().contains(&part));
        cases
    }

    fn gid(&self) -> String {
        let Self { breaks, mode, struck, commits } = self;
        let end = if *commits { "commits" } else { "aborts" };
        format!("{breaks:?}-{mode:?}-{}-{end}", PARTNERS[*struck]).to_lowercase()
    }

    const fn end(&self) -> &'static str {
        if self.commits { "committed" } else { "aborted" }
    }

    /// The word for the partner that is struck, in what it does of `op`.
    fn word(&self, op: &str) -> Option<String> {
        let word = match self.breaks {
            Break::Before => "before",
            Break::After => "after",
            Break::Crash => "wait",
            Break::Down | Break::Cut => return None,
        };
        Some(format!("{word} {} {op}", self.gid()))
    }
}

/// The coordinator, the ways it goes, and who is there. An initiator goes straight to partners.
struct World {
    node: Gateway,
    shops: [Shop; 2],
    partners: [Partner; 2],
    to_partners: [Relay; 2],
    to_databases: [Relay; 2],
    /// The third of a saga, which refuses what is to abort.
    last: Participant,
}

impl World {
    async fn open() -> Self {
        let (orders, stock) = tokio::join!(Shop::open(Kind::Postgres), Shop::open(Kind::MariaDb));
        let mut shops = [orders, stock];
        for shop in &shops {
            opens_books(shop).await;
        }
        let partners = shops.each_ref().map(|shop| Partner::start(&Door::of(shop)));
        let to_partners = partners.each_ref().map(|partner| Relay::to(partner.address));
        let to_databases = shops.each_ref().map(|shop| Relay::to_socket(shop.socket()));
        for (shop, relay) in shops.iter_mut().zip(&to_databases) {
            shop.through(relay.address);
        }
        let config = databases::config(1, GRACE_SECONDS);
        let node = databases::start("crash-partners", &config, PARTNERS.into_iter().zip(&shops));
        let last = Participant::start();
        Self { node, shops, partners, to_partners, to_databases, last }
    }

    async fn play(&mut self, case: &Case) {
        match case.mode {
            Mode::Xa => self.prepared(case).await,
            Mode::Saga => self.saga(case).await,
            Mode::Tcc => self.tried(case).await,
        }
        self.closes(case).await;
        if case.breaks == Break::Down {
            self.partners[case.struck].returns();
        }
    }

    /// Branches in both databases. The initiator of one that is to abort does so as soon as a vote is
    /// missing.
    async fn prepared(&mut self, case: &Case) {
        let gid = case.gid();
        let begun = self.ask("", &json!({ "gid": gid, "mode": "xa", "deadline_seconds": 300 }));
        let mut votes = Vec::new();
        for (which, resource) in PARTNERS.into_iter().enumerate() {
            let branch = branch(which);
            let joins = json!({ "kind": "resource", "resource": resource, "branch": branch });
            let joined = self.ask(&format!("/{gid}/branches"), &joins);
            let cluster = joined["xid"].as_str().unwrap().split(':').nth(1).unwrap();
            let path = format!("/branch/{cluster}/{gid}/{branch}/{}", AMOUNTS[which]);
            if !self.is_done(case, which, &path, "", "prepare").await {
                break;
            }
            votes.push(json!({
                "branch": branch, "resource": resource, "vote": "yes", "evidence": "listed",
            }));
        }
        if case.breaks == Break::Down {
            self.partners[case.struck].kill();
        }
        let submit = json!({
            "votes": votes, "begun_at": begun["created_at"], "deadline_at": begun["deadline_at"],
        });
        self.decides(case, &submit).await;
    }

    /// Try, confirm and cancel at both.
    async fn tried(&mut self, case: &Case) {
        let gid = case.gid();
        self.ask("", &json!({ "gid": gid, "mode": "tcc", "deadline_seconds": 300 }));
        for (which, amount) in AMOUNTS.iter().enumerate() {
            let (branch, at) = (branch(which), self.at(which));
            let targets = json!({ "confirm": at, "cancel": at });
            let joins = json!({ "kind": "endpoint", "branch": branch, "targets": targets });
            self.ask(&format!("/{gid}/branches"), &joins);
            let headers = format!(
                "mainstay-gid: {gid}\r\nmainstay-branch: {branch}\r\nmainstay-mode: tcc\r\n\
                 mainstay-op: try\r\n"
            );
            let path = format!("/operation/{amount}");
            if !self.is_done(case, which, &path, &headers, "try").await {
                break;
            }
        }
        self.decides(case, &json!({})).await;
    }

    /// A step at each; one that is to abort has a third step, which is refused.
    async fn saga(&mut self, case: &Case) {
        let (gid, is_cut) = (case.gid(), case.breaks == Break::Cut);
        let last = format!("/{gid}/last");
        let step = |at: Value| json!({ "action": at, "compensate": at });
        let mut steps = vec![step(self.at(0)), step(self.at(1))];
        if !case.commits {
            let at = |path: &str| json!({ "url": self.last.url(path) });
            steps.push(json!({ "action": at(&last), "compensate": at(&format!("{last}/undo")) }));
            // Undone is what was done before the way is cut.
            self.last.answers(&last, if is_cut { 503 } else { 409 }, "no room");
        } else if is_cut {
            self.to_partners[case.struck].cut();
        }
        if let Some(word) = case.word("action") {
            self.partners[case.struck].comes_to(&word);
        }
        self.ask("", &json!({ "gid": gid, "mode": "saga", "steps": steps }));
        if is_cut {
            if !case.commits {
                until("the third is asked", PATIENCE, || 0 < self.last.count(&last));
                self.to_partners[case.struck].cut();
                self.last.answers(&last, 409, "no room");
            }
            self.waits(case, i64::from(!case.commits)).await;
            self.to_partners[case.struck].mend();
        } else {
            self.partners[case.struck].has_died();
            self.holds_as_it_died(case).await;
            self.partners[case.struck].returns();
        }
    }

    /// Asks a partner for what an initiator asks for, and breaks what is to break; whether it is
    /// done in the end.
    async fn is_done(
        &mut self,
        case: &Case,
        which: usize,
        path: &str,
        headers: &str,
        op: &str,
    ) -> bool {
        let Some(word) = case.word(op).filter(|_| case.struck == which) else {
            self.asks(which, path, headers);
            return true;
        };
        self.partners[which].comes_to(&word);
        if case.breaks == Break::Crash {
            let answer = self.partners[which].asking(path);
            self.partners[which].is_waiting();
            self.shops[which].crash().await;
            self.partners[which].goes_on();
            assert_eq!(answer.join().unwrap(), Some(503), "{case:?}: there is nothing to vote for");
        } else {
            assert_eq!(self.partners[which].ask(path, headers), None, "{case:?}: it dies");
            self.partners[which].has_died();
            self.holds_as_it_died(case).await;
            self.partners[which].returns();
        }
        if case.commits {
            self.asks(which, path, headers);
        }
        case.commits
    }

    /// Asks a partner until it has done it.
    #[track_caller]
    fn asks(&self, which: usize, path: &str, headers: &str) {
        let mut seen = None;
        until(&format!("{path} is done"), PATIENCE, || {
            seen = self.partners[which].ask(path, headers);
            seen == Some(200)
        });
    }

    /// One that died has left all of what it did, or nothing. A database may need a moment to see
    /// that a session is gone.
    async fn holds_as_it_died(&self, case: &Case) {
        let is_done = case.breaks == Break::After;
        let prepared = usize::from(is_done && case.mode == Mode::Xa);
        let began = Instant::now();
        while self.shops[case.struck].prepared().await != prepared {
            assert!(began.elapsed() < PATIENCE, "{case:?}: not {prepared} prepared");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let entries = i64::from(is_done && case.mode != Mode::Xa);
        assert_eq!(self.entries(case, case.struck).await.0, entries, "{case:?}");
    }

    /// The initiator decides. Where the way is cut meanwhile, the one that is struck waits for it.
    async fn decides(&self, case: &Case, submit: &Value) {
        let way = match case.mode {
            Mode::Xa => &self.to_databases[case.struck],
            Mode::Saga | Mode::Tcc => &self.to_partners[case.struck],
        };
        let is_cut = case.breaks == Break::Cut;
        if is_cut {
            way.cut();
        }
        let (verb, nothing) = (if case.commits { "submit" } else { "abort" }, json!({}));
        let document = if case.commits { submit } else { &nothing };
        let decided = self.ask(&format!("/{}/{verb}", case.gid()), document);
        let wanted = if case.commits { "commit" } else { "abort" };
        assert_eq!(decided["decision"], wanted, "{case:?}: {decided}");
        if is_cut {
            self.waits(case, i64::from(case.mode != Mode::Xa)).await;
            way.mend();
        }
    }

    /// While the way is cut nothing is said to have ended, and the one that is struck has its
    /// `entries` and no more.
    async fn waits(&self, case: &Case, entries: i64) {
        let state = if case.commits { "committing" } else { "aborting" };
        until(state, PATIENCE, || self.show(case)["state"] == state);
        let prepared = usize::from(case.mode == Mode::Xa);
        for _look in 0..10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(self.show(case)["state"], state, "{case:?}");
            assert_eq!(self.shops[case.struck].prepared().await, prepared, "{case:?}");
            assert_eq!(self.entries(case, case.struck).await.0, entries, "{case:?}");
        }
    }

    /// It has ended as its initiator wished, everywhere.
    async fn closes(&self, case: &Case) {
        let mut seen = Value::Null;
        until(&format!("{case:?} ends"), PATIENCE, || {
            seen = self.show(case);
            seen["state"] == case.end()
        });
        for which in 0..2 {
            assert_eq!(
                self.shops[which].prepared().await,
                0,
                "{case:?}: {} holds",
                PARTNERS[which]
            );
            let amount = if case.commits { AMOUNTS[which] } else { 0 };
            let entries = (self.has_entries(case, which), amount);
            assert_eq!(self.entries(case, which).await, entries, "{case:?}: {seen}");
            let kinds = match (case.mode, case.commits) {
                (Mode::Saga | Mode::Tcc, _) => (0, 0),
                (Mode::Xa, true) => (1, 0),
                (Mode::Xa, false) => (0, i64::from(self.has_joined(case, which))),
            };
            let receipts = (self.receipts(case, which, "done"), self.receipts(case, which, "tomb"));
            assert_eq!(
                (receipts.0.await, receipts.1.await),
                kinds,
                "{case:?}: done, tombs: {seen}"
            );
        }
    }

    /// Whether a branch of it joined before its initiator gave up.
    fn has_joined(&self, case: &Case, which: usize) -> bool {
        case.commits || which <= case.struck || matches!(case.breaks, Break::Down | Break::Cut)
    }

    /// How many entries there are in the end: what was done once is undone once, and what was never
    /// done is not undone.
    fn has_entries(&self, case: &Case, which: usize) -> i64 {
        match (case.mode, case.commits) {
            (Mode::Xa | Mode::Saga, true) => 1,
            (Mode::Xa, false) => 0,
            // Confirming writes one too.
            (Mode::Tcc, true) | (Mode::Saga, false) => 2,
            (Mode::Tcc, false) => {
                let dies_before = case.breaks == Break::Before && which == case.struck;
                if dies_before || !self.has_joined(case, which) { 0 } else { 2 }
            }
        }
    }

    /// How many entries a partner has of it, and what they come to.
    async fn entries(&self, case: &Case, which: usize) -> (i64, i64) {
        let of = |what: &str| format!("SELECT {what} FROM entry WHERE gid = '{}'", case.gid());
        let shop = &self.shops[which];
        (shop.number(&of("COUNT(*)")).await, shop.number(&of("COALESCE(SUM(amount), 0)")).await)
    }

    async fn receipts(&self, case: &Case, which: usize, kind: &str) -> i64 {
        let (gid, branch) = (case.gid(), branch(which));
        let of = format!(
            "SELECT COUNT(*) FROM mainstay_receipt \
             WHERE gid = '{gid}' AND branch = '{branch}' AND kind = '{kind}'"
        );
        self.shops[which].number(&of).await
    }

    /// Where the coordinator calls a partner.
    fn at(&self, which: usize) -> Value {
        let (address, amount) = (self.to_partners[which].address, AMOUNTS[which]);
        json!({ "url": format!("http://{address}/operation/{amount}") })
    }

    fn show(&self, case: &Case) -> Value {
        let path = format!("/{}", case.gid());
        let answer = databases::ask(self.node.door(), ("GET", &path), &Value::Null);
        answer.unwrap().1
    }

    /// Asks until there is an answer that says something: a database that was down for a moment is
    /// left alone for another one.
    #[track_caller]
    fn ask(&self, path: &str, document: &Value) -> Value {
        let mut answer = None;
        until(path, PATIENCE, || {
            answer = databases::ask(self.node.door(), ("POST", path), document);
            answer.is_some()
        });
        let (status, document) = answer.unwrap();
        assert!(status < 300, "{path}: {status} {document}");
        document
    }

    /// Nobody made a mistake, and what one has given the other has.
    async fn balances(&self, cases: &[Case]) {
        assert_eq!(self.node.logged("panicked at"), 0, "see {}", self.node.log_path().display());
        let moved = i64::try_from(cases.iter().filter(|case| case.commits).count()).unwrap();
        for which in 0..2 {
            let all = self.shops[which].number("SELECT COALESCE(SUM(amount), 0) FROM entry").await;
            assert_eq!(all, moved * AMOUNTS[which], "{}", PARTNERS[which]);
        }
    }
}

/// The branch of a partner.
fn branch(which: usize) -> String {
    format!("0{}", which + 1)
}

/// What a partner writes: entries, and the rows of its barrier.
async fn opens_books(shop: &Shop) {
    let (engine, barrier) = match shop.settings.address.kind {
        Kind::Postgres => ("", barrier::TABLE_POSTGRES),
        Kind::MariaDb => (" ENGINE=InnoDB", barrier::TABLE_MARIADB),
    };
    for statement in [
        &format!("{}{engine}", partner::ENTRIES),
        barrier,
        "GRANT SELECT, INSERT ON entry TO shopkeeper",
        "GRANT SELECT, INSERT ON mainstay_barrier TO shopkeeper",
    ] {
        shop.administrate(statement).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_breaks_around_it_all_ends_as_its_initiator_wished() {
    let cases = Case::chosen();
    assert!(!cases.is_empty(), "no case has such a name");
    let mut world = World::open().await;
    for case in &cases {
        world.play(case).await;
    }
    world.balances(&cases).await;
}

/// A node of etcd that has died with what it began, and the one that took its place.
struct Failover {
    node: Gateway,
    gid: String,
    submit: Value,
    _etcd: Etcd,
}

impl Failover {
    /// Both databases have prepared for a transaction of which no more than that is known any more. What
    /// nobody speaks of is left alone for `grace_seconds`.
    async fn of(shops: &mut [Shop; 2], token: &Path, grace_seconds: u64) -> Self {
        let etcd = Etcd::start();
        let tables: String =
            PARTNERS.iter().zip(&*shops).map(|(name, shop)| shop.table(name)).collect();
        let config = |name: &str| {
            let listen = format!(
                "listen = \"127.0.0.1:0\"\nnode = \"{name}\"\ntoken_file = \"{}\"\n",
                token.display()
            );
            let lazy = "[transaction]\nlazy_flush_milliseconds = 10000\n";
            let store = format!(
                "[store]\nbackend = \"etcd\"\n[store.etcd]\nendpoints = [\"{}\"]\n",
                etcd.endpoint()
            );
            let config = databases::config(1, grace_seconds);
            let config = config.replacen("listen = \"127.0.0.1:0\"\n", &listen, 1);
            [&config.replace("[transaction]\n", lazy), &*tables, &store].concat()
        };
        let mut dies = Gateway::start_server("crash-failover-a", &config("a"));
        let node = dies.beside("crash-failover-b", &config("b"));
        let owned = |node: &Gateway| node.counted("mainstay_shard_owned_count", "");
        // One that is handed over as planned is forgotten by nobody.
        until("both own shards", PATIENCE, || {
            0 < owned(&node) && owned(&dies) + owned(&node) == 64
        });
        databases::until_ready(&dies, 2);
        databases::until_ready(&node, 2);
        // Of its own making is a name that the node asked owns.
        let ask = |node: &Gateway, path: &str, document: &Value| {
            let answer = databases::ask(node.door(), ("POST", path), document).unwrap();
            assert!(answer.0 < 300, "{path}: {answer:?}");
            answer.1
        };
        let begun = ask(&dies, "", &json!({ "mode": "xa", "deadline_seconds": 300 }));
        let gid = begun["gid"].as_str().unwrap().to_owned();
        let mut votes = Vec::new();
        for (which, resource) in PARTNERS.into_iter().enumerate() {
            let branch = branch(which);
            let joins = json!({ "kind": "resource", "resource": resource, "branch": branch });
            let joined = ask(&dies, &format!("/{gid}/branches"), &joins);
            let cluster = joined["xid"].as_str().unwrap().split(':').nth(1).unwrap();
            cluster.clone_into(&mut shops[which].cluster);
            shops[which].prepare_branch(&gid, &branch).await;
            votes.push(json!({
                "branch": branch, "resource": resource, "vote": "yes", "evidence": "listed",
            }));
        }
        dies.signal(Signal::KILL);
        dies.was_killed();
        until("the other owns all", PATIENCE, || owned(&node) == 64);
        let submit = json!({
            "votes": votes, "begun_at": begun["created_at"], "deadline_at": begun["deadline_at"],
        });
        Self { node, gid, submit, _etcd: etcd }
    }

    /// Asks the one that is left; nothing while it does not own the transaction yet.
    fn ask(&self, method: &str, path: &str, document: &Value) -> Option<(u16, Value)> {
        let path = format!("/{}{path}", self.gid);
        databases::ask(self.node.door(), (method, &path), document)
    }

    fn swept(&self) -> [u64; 2] {
        PARTNERS.map(|resource| {
            let label = format!("resource=\"{resource}\",result=\"done\"");
            self.node.counted("mainstay_resource_sweeps_total", &label)
        })
    }

    #[track_caller]
    fn ends(&self, state: &str) -> Value {
        let mut seen = Value::Null;
        until(state, PATIENCE, || {
            let answer = self.ask("GET", "", &Value::Null);
            seen = answer.map_or(Value::Null, |answer| answer.1);
            seen["state"] == state
        });
        seen
    }

    async fn closes(&self, shops: &[Shop; 2], kind: &str) {
        for (shop, resource) in shops.iter().zip(PARTNERS) {
            let of = format!(
                "SELECT COUNT(*) FROM mainstay_receipt WHERE gid = '{}' AND kind = '{kind}'",
                self.gid
            );
            assert_eq!((shop.prepared().await, shop.number(&of).await), (0, 1), "{resource}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_failover_has_forgotten_ends_as_the_first_who_writes_says() {
    let (orders, stock) = tokio::join!(Shop::open(Kind::Postgres), Shop::open(Kind::MariaDb));
    let mut shops = [orders, stock];
    let home = tempfile::TempDir::new().unwrap();
    let token = home.path().join("token");
    fs::write(&token, "a-token-that-nodes-share\n").unwrap();
    fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();

    // Sweeps meet it first, and leave it to its initiator.
    let left = Failover::of(&mut shops, &token, 60).await;
    until("nobody knows of it", PATIENCE, || {
        left.ask("GET", "", &Value::Null).is_some_and(|answer| answer.0 == 404)
    });
    let before = left.swept();
    until("both are swept", PATIENCE, || {
        before.iter().zip(left.swept()).all(|(before, now)| before + 1 < now)
    });
    assert_eq!((shops[0].prepared().await, shops[1].prepared().await), (1, 1));
    let decided = left.ask("POST", "/submit", &left.submit).unwrap();
    assert_eq!((decided.0, &decided.1["decision"]), (200, &json!("commit")), "{decided:?}");
    left.ends("committed");
    left.closes(&shops, "done").await;

    // Here they find nobody who speaks of it for too long.
    let swept = Failover::of(&mut shops, &token, 2).await;
    let ended = swept.ends("aborted");
    assert_eq!(ended["reason"]["why"], "orphan", "{ended}");
    let refused = swept.ask("POST", "/submit", &swept.submit).unwrap();
    let told = (refused.0, refused.1["code"].as_str());
    assert_eq!(told, (409, Some("transaction-aborted")), "{refused:?}");
    let began = Instant::now();
    while shops[0].prepared().await + shops[1].prepared().await != 0 {
        assert!(began.elapsed() < PATIENCE, "branches of one that was swept stay prepared");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    swept.closes(&shops, "tomb").await;
    let balances = [shops[0].balance().await, shops[1].balance().await];
    assert_eq!(balances, [90, 90], "one of two was committed");
}
