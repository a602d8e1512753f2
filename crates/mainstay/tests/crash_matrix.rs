//! A coordinator that dies at any moment between two of its steps, on its real store, with real
//! databases and services: whatever was in hand ends as its initiator wished and as it was told,
//! nothing stays prepared, and no money is made or lost.
//!
//! Among them is a coordinator that lives on where the answer to a batch is lost. What happens to
//! participants, databases and networks is in `crash_partners.rs`.
//!
//! A part of all cases is run at a change; `MAINSTAY_CRASHES=all`, or `cargo xtask prove crashes`,
//! runs each of them, and `MAINSTAY_CRASHES=saga` those whose names hold that.
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

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mainstay_txn::resource::Kind;
use rustix::process::Signal;
use serde_json::{Value, json};
use shop::Shop;
use support::gateway::Gateway;
use support::participant::Participant;
use support::wait::until;

/// How long it leaves alone what nobody speaks of: longer than a restart takes, so that no sweep
/// overtakes an initiator that asks again.
const GRACE_SECONDS: u64 = 30;

const PATIENCE: Duration = Duration::from_mins(1);

/// What is asked of databases, by the name of each.
const DATABASES: [&str; 2] = ["orders", "stock"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    /// Two-phase commit of a branch in `PostgreSQL`.
    Orders,
    /// The same in `MariaDB`.
    Stock,
    /// The same in both.
    Both,
    /// Two-phase commit of two services that are asked to prepare.
    Called,
    Saga,
    Tcc,
    Message,
}

impl Mode {
    const ALL: [Self; 7] =
        [Self::Orders, Self::Stock, Self::Both, Self::Called, Self::Saga, Self::Tcc, Self::Message];

    /// Which of [`DATABASES`] take part, and as which branch.
    const fn databases(self) -> &'static [(usize, &'static str)] {
        match self {
            Self::Orders => &[(0, "01")],
            Self::Stock => &[(1, "01")],
            Self::Both => &[(0, "01"), (1, "02")],
            Self::Called | Self::Saga | Self::Tcc | Self::Message => &[],
        }
    }

    /// The moments that a transaction goes through which ends so.
    fn points(self, commits: bool) -> Vec<&'static str> {
        let mut points = vec!["begin-taken", "begin-kept", "batch-applied", "answer-lost"];
        points.extend(["all-told", "end-sent"]);
        points.extend(if commits {
            ["commit-taken", "commit-kept"]
        } else {
            ["abort-taken", "abort-kept"]
        });
        if !matches!(self, Self::Saga | Self::Message) {
            points.extend(["branch-kept", "branch-ended", "branch-told"]);
        }
        match self {
            Self::Orders | Self::Stock | Self::Both => points.push("lazy-waits"),
            Self::Called => points.push("vote-taken"),
            Self::Saga | Self::Message if commits => points.push("action-answered"),
            // One that ends so was to be committed first.
            Self::Saga => {
                points.extend(["commit-taken", "commit-kept", "action-answered", "step-undone"]);
            }
            Self::Tcc | Self::Message => {}
        }
        points
    }
}

/// Which transaction, how its initiator wants it to end, and where its coordinator dies, or does not
/// hear of a batch.
#[derive(Clone, Copy, Debug)]
struct Case {
    mode: Mode,
    commits: bool,
    point: &'static str,
}

impl Case {
    fn all() -> Vec<Self> {
        let ends = Mode::ALL.into_iter().flat_map(|mode| [(mode, true), (mode, false)]);
        let cases = ends.flat_map(|(mode, commits)| {
            mode.points(commits).into_iter().map(move |point| Self { mode, commits, point })
        });
        cases.collect()
    }

    /// Up to three of each point, turning through modes and ends.
    fn some() -> Vec<Self> {
        let all = Self::all();
        let points: BTreeSet<&str> = all.iter().map(|case| case.point).collect();
        let mut some = Vec::new();
        for (turn, point) in points.into_iter().enumerate() {
            let of: Vec<Self> = all.iter().filter(|case| case.point == point).copied().collect();
            let places = [3 * turn, 3 * turn + 5, 3 * turn + 9];
            let places: BTreeSet<usize> = places.iter().map(|at| at % of.len()).collect();
            some.extend(places.into_iter().map(|at| of[at]));
        }
        some
    }

    /// Those that this run is to play.
    fn chosen() -> Vec<Self> {
        match std::env::var("MAINSTAY_CRASHES") {
            Ok(all) if all == "all" => Self::all(),
            Ok(part) => {
                let mut cases = Self::all();
                cases.retain(|case| case.gid().contains(&part));
                cases
            }
            Err(_) => Self::some(),
        }
    }

    fn gid(&self) -> String {
        let mode = format!("{:?}", self.mode).to_lowercase();
        format!("{mode}-{}-{}", if self.commits { "commits" } else { "aborts" }, self.point)
    }

    /// Whether it is about a batch, which is of no transaction.
    fn is_of_batch(&self) -> bool {
        matches!(self.point, "batch-applied" | "answer-lost" | "lazy-waits")
    }

    /// Whether it is about the batch that decides, not the first.
    fn is_of_decision(&self) -> bool {
        matches!(self.point, "batch-applied" | "answer-lost")
    }

    /// Whether its coordinator dies, or only does not hear that a batch was applied.
    fn is_deadly(&self) -> bool {
        self.point != "answer-lost"
    }

    const fn end(&self) -> &'static str {
        if self.commits { "committed" } else { "aborted" }
    }
}

/// An initiator that lives on, what takes part, and the coordinator that dies.
struct World {
    node: Gateway,
    shops: [Shop; 2],
    services: Participant,
    /// The coordinator has died in the case that is played.
    died: bool,
}

impl World {
    async fn open() -> Self {
        let (orders, stock) = tokio::join!(Shop::open(Kind::Postgres), Shop::open(Kind::MariaDb));
        let shops = [orders, stock];
        let config = databases::config(1, GRACE_SECONDS);
        let node = databases::start("crash-matrix", &config, DATABASES.into_iter().zip(&shops));
        Self { node, shops, services: Participant::start(), died: false }
    }

    /// Plays `case` to where its initiator knows that it was heard, and the coordinator has died
    /// and is back, or lives on.
    async fn play(&mut self, case: &Case) {
        self.died = false;
        match case.point {
            _ if case.is_of_decision() => {}
            "lazy-waits" => self.node.crashes_at(case.point),
            point => self.node.crashes_at(&format!("{point} {}", case.gid())),
        }
        match case.mode {
            Mode::Orders | Mode::Stock | Mode::Both => self.databases(case).await,
            Mode::Called => self.called(case),
            Mode::Saga => self.saga(case),
            Mode::Tcc => self.tcc(case),
            Mode::Message => self.message(case),
        }
        if !case.is_deadly() {
            until(&format!("{case:?}: it happens"), PATIENCE, || self.node.has_crashed());
            assert!(!self.died && !self.node.is_over(), "{case:?}: it lives on");
        } else if !self.died {
            until(&format!("{case:?}: it dies"), PATIENCE, || self.node.is_over());
            self.revive();
        }
    }

    fn revive(&mut self) {
        self.node.was_killed();
        self.died = true;
        self.node = self.node.again("crash-matrix-again", &[]);
    }

    async fn databases(&mut self, case: &Case) {
        let begin = json!({ "gid": case.gid(), "mode": "xa", "deadline_seconds": 300 });
        let begun = self.begins(&begin);
        self.prepares(&begin, case.mode).await;
        let vote = |(which, branch): &(usize, &str)| {
            let resource = DATABASES[*which];
            json!({ "branch": branch, "resource": resource, "vote": "yes", "evidence": "listed" })
        };
        let votes: Vec<Value> = case.mode.databases().iter().map(vote).collect();
        let submit = json!({
            "votes": votes, "begun_at": begun["created_at"], "deadline_at": begun["deadline_at"],
        });
        self.decides(case, &submit);
    }

    /// A branch of each database of `mode` joins what was begun by `begin`, and is prepared.
    async fn prepares(&mut self, begin: &Value, mode: Mode) {
        let gid = begin["gid"].as_str().unwrap();
        for (which, branch) in mode.databases() {
            let (which, branch) = (*which, *branch);
            let resource = DATABASES[which];
            let joins = json!({ "kind": "resource", "resource": resource, "branch": branch });
            let joined = self.joins(begin, &joins);
            let cluster = joined["xid"].as_str().unwrap().split(':').nth(1).unwrap();
            cluster.clone_into(&mut self.shops[which].cluster);
            self.shops[which].prepare_branch(gid, branch).await;
        }
    }

    fn called(&mut self, case: &Case) {
        let gid = case.gid();
        let begin = json!({ "gid": gid, "mode": "xa", "deadline_seconds": 300 });
        self.begins(&begin);
        for branch in ["01", "02"] {
            let targets = self.targets(&gid, branch, &["prepare", "commit", "rollback"]);
            let joins = json!({
                "kind": "endpoint", "branch": branch, "prepare": "called", "targets": targets,
            });
            self.joins(&begin, &joins);
        }
        if !case.commits {
            self.services.answers(&format!("/{gid}/02/prepare"), 409, "no room");
        }
        self.arms(case);
        let answer = self.ask("POST", &format!("/{gid}/submit"), &json!({}));
        let told = (answer.0, answer.1["code"].as_str());
        let wanted = if case.commits { (200, None) } else { (409, Some("transaction-aborted")) };
        assert_eq!(told, wanted, "{case:?}: {answer:?}");
    }

    fn saga(&mut self, case: &Case) {
        let gid = case.gid();
        if !case.commits {
            self.services.answers(&format!("/{gid}/02/action"), 409, "no money");
        }
        let step = |branch: &str| {
            let targets = self.targets(&gid, branch, &["action", "compensate"]);
            json!({ "action": targets["action"], "compensate": targets["compensate"] })
        };
        let begin = json!({ "gid": gid, "mode": "saga", "steps": [step("01"), step("02")] });
        self.arms(case);
        self.begins(&begin);
    }

    fn tcc(&mut self, case: &Case) {
        let gid = case.gid();
        let begin = json!({ "gid": gid, "mode": "tcc", "deadline_seconds": 300 });
        self.begins(&begin);
        for branch in ["01", "02"] {
            let targets = self.targets(&gid, branch, &["confirm", "cancel"]);
            let joins = json!({ "kind": "endpoint", "branch": branch, "targets": targets });
            self.joins(&begin, &joins);
        }
        self.decides(case, &json!({}));
    }

    fn message(&mut self, case: &Case) {
        let gid = case.gid();
        let at = |op: &str| json!({ "url": self.services.url(&format!("/{gid}/{op}")) });
        let begin = json!({
            "gid": gid, "mode": "message", "deadline_seconds": 300,
            "check": at("check"), "steps": [{ "action": at("01/action") }],
        });
        self.begins(&begin);
        self.decides(case, &json!({}));
    }

    /// Where `branch` is called for each of `ops`.
    fn targets(&self, gid: &str, branch: &str, ops: &[&str]) -> Value {
        let url = |op: &&str| {
            let url = self.services.url(&format!("/{gid}/{branch}/{op}"));
            ((*op).to_owned(), json!({ "url": url }))
        };
        Value::Object(ops.iter().map(url).collect())
    }

    fn begins(&mut self, begin: &Value) -> Value {
        let begun = self.ask("POST", "", begin);
        assert!(matches!(begun.0, 200 | 201), "{begun:?}");
        begun.1
    }

    /// A branch joins what was begun by `begin`. That may be lost while nobody waits for it to be
    /// durable: there is nothing yet to be undone, and it is begun again.
    fn joins(&mut self, begin: &Value, branch: &Value) -> Value {
        let path = format!("/{}/branches", begin["gid"].as_str().unwrap());
        loop {
            let joined = self.ask("POST", &path, branch);
            if joined.0 < 300 {
                return joined.1;
            }
            assert_eq!((joined.0, &begin["mode"]), (404, &json!("xa")), "{path}: {joined:?}");
            self.begins(begin);
        }
    }

    /// The batch at which it is to happen comes next.
    fn arms(&self, case: &Case) {
        if case.is_of_decision() {
            self.node.crashes_at(case.point);
        }
    }

    /// The initiator asks for the end it wants, and is told that it is decided.
    fn decides(&mut self, case: &Case, submit: &Value) {
        self.arms(case);
        let gid = case.gid();
        let answer = if case.commits {
            self.ask("POST", &format!("/{gid}/submit"), submit)
        } else {
            self.ask("POST", &format!("/{gid}/abort"), &json!({}))
        };
        match answer.0 {
            200 => {
                let wanted = if case.commits { "commit" } else { "abort" };
                assert_eq!(answer.1["decision"], wanted, "{case:?}: {answer:?}");
            }
            // Presumed: what was begun is forgotten, and a sweep ends what is prepared.
            404 => assert!(!case.commits, "{case:?}: {answer:?}"),
            _ => panic!("{case:?}: {answer:?}"),
        }
    }

    /// Asks, again and again, until there is an answer that says what became of it.
    fn ask(&mut self, method: &str, path: &str, document: &Value) -> (u16, Value) {
        let began = Instant::now();
        loop {
            if let Some(answer) = databases::ask(self.node.door(), (method, path), document) {
                return answer;
            }
            assert!(began.elapsed() < PATIENCE, "{method} {path}: no answer");
            std::thread::sleep(Duration::from_millis(20));
            if self.node.is_over() {
                self.revive();
            }
        }
    }

    /// It has ended as its initiator was told, everywhere.
    async fn closes(&mut self, case: &Case) {
        let gid = case.gid();
        let began = Instant::now();
        let ended = loop {
            let (_, seen) = self.ask("GET", &format!("/{gid}"), &Value::Null);
            if seen["state"] == case.end() {
                break seen;
            }
            let other = if case.commits { "aborted" } else { "committed" };
            assert_ne!(seen["state"], other, "{case:?}: {seen}");
            assert!(began.elapsed() < PATIENCE, "{case:?} does not end: {seen}");
            std::thread::sleep(Duration::from_millis(50));
        };
        for (which, branch) in case.mode.databases() {
            let kind = if case.commits { "done" } else { "tomb" };
            let of = format!(
                "SELECT COUNT(*) FROM mainstay_receipt \
                 WHERE gid = '{gid}' AND branch = '{branch}' AND kind = '{kind}'"
            );
            // That a branch joined may be forgotten: then a sweep rolls it back, and later.
            let mut branches = ended["branches"].as_array().unwrap().iter();
            let is_known = branches.any(|known| known["branch"] == *branch);
            while self.shops[*which].number(&of).await != 1 {
                let waits = !case.commits && !is_known && began.elapsed() < PATIENCE;
                assert!(waits, "{case:?}: no {kind} in {}: {ended}", DATABASES[*which]);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        self.heard(case);
    }

    /// Nothing is in hand of `case`, nor waits to be written, so that the next batch is of the next
    /// case.
    async fn rests_after(&mut self, case: &Case) {
        self.closes(case).await;
        until("all is written", PATIENCE, || {
            self.node.counted("mainstay_transaction_log_queue_records", "") == 0
        });
    }

    /// Its coordinator made no mistake, nothing is prepared any more, and of the money there is what `cases` left.
    async fn balances(&self, cases: &[Case]) {
        assert_eq!(self.node.logged("panicked at"), 0, "see {}", self.node.log_path().display());
        for (which, shop) in self.shops.iter().enumerate() {
            let took = |case: &&Case| {
                case.commits && case.mode.databases().iter().any(|(database, _)| *database == which)
            };
            let taken = i64::try_from(cases.iter().filter(took).count()).unwrap();
            assert_eq!(shop.prepared().await, 0, "{} holds a branch", DATABASES[which]);
            assert_eq!(shop.balance().await, 100 - 10 * taken, "{}", DATABASES[which]);
        }
    }

    /// Services heard what was decided, and never the opposite.
    #[track_caller]
    fn heard(&self, case: &Case) {
        let gid = case.gid();
        let count = |op: &str| self.services.count(&format!("/{gid}/{op}"));
        let (done, undone) = match (case.mode, case.commits) {
            (Mode::Called, true) => ("commit", "rollback"),
            (Mode::Called, false) => ("rollback", "commit"),
            (Mode::Tcc, true) => ("confirm", "cancel"),
            (Mode::Tcc, false) => ("cancel", "confirm"),
            (Mode::Saga, true) => ("action", "compensate"),
            (Mode::Saga, false) => return self.compensated(case),
            (Mode::Message, commits) => {
                assert_eq!(0 < count("01/action"), commits, "{case:?}: delivered");
                assert_eq!(count("check"), 0, "{case:?}: nobody had to ask");
                return;
            }
            (Mode::Orders | Mode::Stock | Mode::Both, _) => return,
        };
        for branch in ["01", "02"] {
            assert!(0 < count(&format!("{branch}/{done}")), "{case:?}: {branch} was not told");
            assert_eq!(count(&format!("{branch}/{undone}")), 0, "{case:?}: {branch} was told both");
        }
    }

    /// What was done is undone, the last first.
    #[track_caller]
    fn compensated(&self, case: &Case) {
        let prefix = format!("/{}/", case.gid());
        let paths = self.services.paths();
        let asked: Vec<&str> = paths.iter().filter_map(|path| path.strip_prefix(&prefix)).collect();
        let last = |op: &str| asked.iter().rposition(|asked| *asked == op);
        let first = |op: &str| asked.iter().position(|asked| *asked == op);
        for branch in ["01", "02"] {
            let (action, undo) = (format!("{branch}/action"), format!("{branch}/compensate"));
            assert!(last(&action) < first(&undo), "{case:?}: {branch} in {asked:?}");
        }
        let in_order = first("02/compensate") < first("01/compensate");
        assert!(in_order, "{case:?}: undone in the order {asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_is_in_hand_ends_as_it_was_told_wherever_its_coordinator_dies() {
    let cases = Case::chosen();
    assert!(!cases.is_empty(), "no case has such a name");
    let (of_batches, others): (Vec<Case>, Vec<Case>) =
        cases.iter().copied().partition(Case::is_of_batch);
    let mut world = World::open().await;
    for case in &of_batches {
        world.play(case).await;
        world.rests_after(case).await;
    }
    for case in &others {
        world.play(case).await;
    }
    for case in &others {
        world.closes(case).await;
    }
    world.balances(&cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_an_initiator_leaves_prepared_is_rolled_back() {
    let mut world = World::open().await;
    let left = Case { mode: Mode::Both, commits: false, point: "left" };
    let killed = Case { point: "left-and-killed", ..left };
    for case in [left, killed] {
        let begin = json!({ "gid": case.gid(), "mode": "xa", "deadline_seconds": 15 });
        world.begins(&begin);
        world.prepares(&begin, case.mode).await;
    }
    world.node.signal(Signal::KILL);
    world.revive();
    for case in [left, killed] {
        world.closes(&case).await;
    }
    world.balances(&[left, killed]).await;
}

#[test]
fn a_change_is_tried_at_every_point_and_in_every_mode() {
    let (all, some) = (Case::all(), Case::some());
    let points = |cases: &[Case]| cases.iter().map(|case| case.point).collect::<BTreeSet<_>>();
    assert_eq!(points(&some), points(&all));
    for mode in Mode::ALL {
        for commits in [true, false] {
            let of = |case: &&Case| (case.mode, case.commits) == (mode, commits);
            assert!(some.iter().any(|case| of(&case)), "{mode:?}, commits: {commits}");
        }
        assert!(1 < some.iter().filter(|case| case.mode == mode).count(), "{mode:?}");
    }
}
