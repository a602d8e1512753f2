//! What a sweep does with prepared branches, by what the log says of them.

use std::sync::Arc;
use std::time::Duration;

use mainstay_api::barrier;
use mainstay_api::transaction::BarrierKey;
use mainstay_core::{Clock, Instant};
use mainstay_store::{Batch, Memory, Put, Store};
use mainstay_txn::log::{self, Meta};
use mainstay_txn::port::{Answering, Hooks, Outgoing, Participants, Surroundings};
use mainstay_txn::resource::{
    Failure, Judged, Kind, NotPurged, Purged, Resources, SweepSettings, Sweeper, barrier_grant,
};
use mainstay_txn::run::{Ports, Settings, Until};
use mainstay_txn::{
    Begin, BranchId, By, Coordinator, Finding, Gid, Mode, NewBranch, Outcome, Part, Payload,
    ResourceName, State, Submit, Vote, VoteOf,
};

use crate::relay::Relay;
use crate::shop::{CLUSTER, Here, Shop};

/// The monotonic clock of this machine.
#[derive(Debug)]
struct Ticking(std::time::Instant);

impl Clock for Ticking {
    fn now(&self) -> Instant {
        Instant::ZERO.plus(self.0.elapsed())
    }
}

/// Says that everything is done and does nothing: what it leaves is for the sweep.
struct Careless;

impl Participants for Careless {
    fn call(&self, _call: Outgoing) -> Answering<'_, Outcome> {
        Box::pin(async { Outcome::Done })
    }
}

impl Hooks for Careless {
    fn ended(&self, _gid: &Gid, _state: State) -> Answering<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn found(&self, _gid: &Gid, _finding: &Finding) {}
}

struct World {
    shop: Shop,
    coordinator: Coordinator,
    resources: Arc<Resources>,
    surroundings: Arc<dyn Surroundings>,
}

impl World {
    async fn new(kind: Kind) -> Self {
        Self::of(Shop::open(kind).await).await
    }

    async fn of(shop: Shop) -> Self {
        let store = Memory::new(Ticking(std::time::Instant::now()));
        let log_id = "00000000-0000-4000-8000-000000000000".to_owned();
        let meta = Meta { cluster: CLUSTER.to_owned(), log_id, shards: 4 };
        store.apply(Batch::new().then(Put::new(log::meta(), meta.write()))).await.unwrap();
        let ticked = store.clone();
        tokio::spawn(async move {
            loop {
                ticked.tick();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let surroundings: Arc<dyn Surroundings> = Arc::new(Here::new());
        let ports = Ports {
            store: Arc::new(store),
            participants: Arc::new(Careless),
            hooks: Arc::new(Careless),
            surroundings: Arc::clone(&surroundings),
        };
        let coordinator = Coordinator::start(Settings::new("n1"), ports).await.unwrap();
        let resources = Arc::new(shop.resources());
        Self { shop, coordinator, resources, surroundings }
    }

    fn name(&self) -> &ResourceName {
        &self.shop.settings.name
    }

    fn sweeper(&self, orphan_grace: Duration) -> Sweeper {
        let receipt_retention = Duration::ZERO;
        let settings = SweepSettings { orphan_grace, receipt_retention, ..Default::default() };
        let (resources, coordinator) = (Arc::clone(&self.resources), self.coordinator.clone());
        Sweeper::new(resources, coordinator, Arc::clone(&self.surroundings), settings)
    }

    /// Begins a transaction with branch `01` at the database, and prepares it there.
    async fn begin(&self, gid: &str) -> Gid {
        let gid = Gid::new(gid).unwrap();
        self.coordinator.begin(Begin::new(gid.clone(), Mode::Xa)).await.unwrap();
        let branch = NewBranch {
            branch: Some(BranchId::number(1)),
            part: Part::Resource(self.name().clone()),
            after: Vec::new(),
            payload: Payload::default(),
        };
        self.coordinator.register(&gid, branch).await.unwrap();
        self.shop.prepare(gid.as_str()).await;
        gid
    }

    /// The vote of branch `01`.
    fn vote(&self, vote: Vote) -> Submit {
        let resource = Some(self.name().clone());
        let branch = BranchId::number(1);
        Submit { votes: vec![VoteOf { branch, resource, vote, listed: true, session_id: None }] }
    }

    async fn end(&self, gid: &Gid) -> State {
        let patience = Duration::from_secs(10);
        self.coordinator.wait(gid, Until::Done, patience).await.unwrap().transaction.state()
    }

    /// Sweeps, and says what was made of each branch, by gid.
    async fn sweep(&self, sweeper: &Sweeper, report_only: bool) -> Vec<(String, String)> {
        let sightings = sweeper.sweep(self.name(), report_only).await.unwrap();
        let said = |judged: &Judged| match judged {
            Judged::Verdict(verdict, Some(Outcome::Done)) => format!("{verdict:?}, done"),
            Judged::Verdict(verdict, None) => format!("{verdict:?}"),
            other => format!("{other:?}"),
        };
        let mut said: Vec<_> = sightings
            .iter()
            .map(|sighting| (sighting.prepared.name.clone(), said(&sighting.judged)))
            .collect();
        said.sort();
        said
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_postgresql_holds_ends_as_the_log_says() {
    Box::pin(ends_as_the_log_says(World::new(Kind::Postgres).await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_mariadb_holds_ends_as_the_log_says() {
    Box::pin(ends_as_the_log_says(World::new(Kind::MariaDb).await)).await;
}

async fn ends_as_the_log_says(world: World) {
    let active = Box::pin(set_up(&world)).await;
    // A report ends nothing; and nobody waits long enough to take the orphan for one.
    let patient = world.sweeper(Duration::from_hours(1));
    let reported = world.sweep(&patient, true).await;
    assert_eq!((reported.len(), world.shop.prepared().await), (6, 6), "{reported:?}");
    for (name, said) in world.sweep(&patient, false).await {
        assert_eq!(said, what_it_says(&name), "{name}");
    }
    assert_eq!((world.shop.prepared().await, world.shop.balance().await), (3, 90));
    Box::pin(takes_the_orphan(&world)).await;
    Box::pin(forgets_receipts(&world, &active)).await;
    Box::pin(keeps_receipts_of_what_it_may_not_know(&world)).await;
    assert_eq!(world.coordinator.shutdown(Duration::from_secs(5)).await, 0);
}

/// Six branches are prepared; returns the transaction that is active.
async fn set_up(world: &World) -> Gid {
    let active = world.begin("active").await;
    let committed = world.begin("committed").await;
    world.coordinator.submit(&committed, world.vote(Vote::Yes), None).await.unwrap();
    let aborted = world.begin("aborted").await;
    world.coordinator.abort(&aborted, By::Initiator("test".to_owned())).await.unwrap();
    assert_eq!(world.end(&committed).await, State::Committed);
    assert_eq!(world.end(&aborted).await, State::Aborted);
    world.shop.prepare_branch("committed", "02").await;
    world.shop.prepare("orphan").await;
    world.shop.prepare_foreign().await;
    settled(world).await;
    active
}

/// Of the branch called `name`.
fn what_it_says(name: &str) -> &'static str {
    match name {
        name if name.contains("active") || name.contains("orphan") => "Leave",
        name if name.contains("somebody") => "Foreign",
        name if name.contains("aborted") => "Rollback, done",
        name if name.contains("02") => "RollbackUnvoted, done",
        _ => "Commit, done",
    }
}

/// The orphan is decided about, durably, and ends by the next sweep; somebody else's stays.
async fn takes_the_orphan(world: &World) {
    let hasty = world.sweeper(Duration::ZERO);
    let says_orphan = |said: &[(String, String)]| said.iter().any(|(_, said)| said == "Orphan");
    let reported = world.sweep(&hasty, true).await;
    assert!(says_orphan(&reported), "{reported:?}");
    let orphan = Gid::new("orphan").unwrap();
    assert!(world.coordinator.get(&orphan).await.is_err(), "a report decides nothing");
    let swept = world.sweep(&hasty, false).await;
    assert!(says_orphan(&swept), "{swept:?}");
    assert_eq!(world.end(&orphan).await, State::Aborted);
    world.sweep(&hasty, false).await;
    assert_eq!((world.shop.prepared().await, world.shop.balance().await), (2, 90));
}

/// Those of what is over go once they are old, that of what lives stays.
async fn forgets_receipts(world: &World, active: &Gid) {
    let hasty = world.sweeper(Duration::ZERO);
    world.coordinator.submit(active, world.vote(Vote::Yes), None).await.unwrap();
    assert_eq!(world.end(active).await, State::Committed);
    world.sweep(&hasty, false).await;
    let receipts = "SELECT COUNT(*) FROM mainstay_receipt";
    assert_eq!(world.shop.number(receipts).await, 5, "two that are done, three tombs");
    world.begin("live").await;
    let of_live = "INSERT INTO mainstay_receipt (gid, branch, kind, written_by)
        VALUES ('live', '09', 'done', 'test')";
    world.shop.administrate(of_live).await;
    // What has ended is live until its end is written, a moment later.
    let mut deleted = 0;
    for _ in 0..100 {
        deleted += hasty.forget_receipts(world.name()).await.unwrap();
        if 5 <= deleted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((deleted, world.shop.number(receipts).await), (5, 1), "that of `live` stays");
    Box::pin(forgets_many_receipts(world, &hasty)).await;
    assert_eq!(world.shop.number(receipts).await, 1);
}

/// A busy database has more of them at each sweep than a few pages hold.
async fn forgets_many_receipts(world: &World, sweeper: &Sweeper) {
    let number = match world.shop.settings.address.kind {
        Kind::Postgres => "generate_series(1, 12000) AS old(seq)",
        Kind::MariaDb => "seq_1_to_12000",
    };
    let many = format!(
        "INSERT INTO mainstay_receipt (gid, branch, kind, written_by)
        SELECT CONCAT('old-', seq), '01', 'done', 'test' FROM {number}"
    );
    world.shop.administrate(&many).await;
    assert_eq!(sweeper.forget_receipts(world.name()).await.unwrap(), 12_000);
}

/// A log that is behind what the database was told takes nothing for over.
async fn keeps_receipts_of_what_it_may_not_know(world: &World) {
    let hasty = world.sweeper(Duration::ZERO);
    assert_eq!(hasty.forget_receipts(world.name()).await.unwrap(), 0, "nobody has looked yet");
    let receipt = "INSERT INTO mainstay_receipt (gid, branch, kind, written_by)
        VALUES ('unheard-of', '01', 'done', 'test')";
    world.shop.administrate(receipt).await;
    let told = |by: &str| format!("UPDATE mainstay_coordinator SET sequence = sequence {by} 1000");
    world.shop.administrate(&told("+")).await;
    world.sweep(&hasty, false).await;
    assert_eq!(hasty.forget_receipts(world.name()).await.unwrap(), 0);
    world.shop.administrate(&told("-")).await;
    world.sweep(&hasty, false).await;
    assert_eq!(hasty.forget_receipts(world.name()).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_barrier_of_postgresql_loses_what_is_old_and_over() {
    Box::pin(loses_what_is_old_and_over(World::new(Kind::Postgres).await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_barrier_of_mariadb_loses_what_is_old_and_over() {
    Box::pin(loses_what_is_old_and_over(World::new(Kind::MariaDb).await)).await;
}

async fn loses_what_is_old_and_over(world: World) {
    let sweeper = world.sweeper(Duration::from_hours(1));
    let kind = world.shop.settings.address.kind;
    let (table, many) = match kind {
        Kind::Postgres => (barrier::TABLE_POSTGRES, "generate_series(1, 2500) AS many(seq)"),
        Kind::MariaDb => (barrier::TABLE_MARIADB, "seq_1_to_2500"),
    };
    world.shop.administrate(table).await;
    let denied = purge(&world, &sweeper).await;
    assert!(matches!(denied, Err(NotPurged::Table(Failure::Denied(_)))), "{denied:?}");
    world.shop.administrate(&barrier_grant(kind, "coordinator")).await;
    let live = Gid::new("live").unwrap();
    world.coordinator.begin(Begin::new(live.clone(), Mode::Xa)).await.unwrap();
    for (gid, from, hours) in
        [("CONCAT('old-', seq)", many, 3), ("'live'", "", 3), ("'young'", "", 1)]
    {
        let from = if from.is_empty() { String::new() } else { format!(", {from}") };
        let rows = format!(
            "INSERT INTO mainstay_barrier (mode, gid, branch, op, seq, reason, written_at)
            SELECT 'tcc', {gid}, '01', op, '01', op, current_timestamp - INTERVAL '{hours}' HOUR
            FROM (SELECT 'try' AS op UNION SELECT 'confirm') AS ops{from}"
        );
        world.shop.administrate(&rows).await;
    }
    purges_nothing_while_behind(&world, &sweeper).await;
    purges_two_hours(&world, &sweeper, &live).await;
    assert_eq!(world.coordinator.shutdown(Duration::from_secs(5)).await, 0);
}

const LEFT: &str = "SELECT COUNT(*) FROM mainstay_barrier";

async fn purges_nothing_while_behind(world: &World, sweeper: &Sweeper) {
    // Of a log that is behind nobody is taken for over.
    let told = |by: &str| format!("UPDATE mainstay_coordinator SET sequence = sequence {by} 1000");
    sweeper.attest(world.name()).await.unwrap();
    world.shop.administrate(&told("+")).await;
    let behind = purge(world, sweeper).await;
    assert!(matches!(behind, Err(NotPurged::Behind(_))), "{behind:?}");
    assert_eq!(world.shop.number(LEFT).await, 5_004);
    world.shop.administrate(&told("-")).await;
}

async fn purges_two_hours(world: &World, sweeper: &Sweeper, live: &Gid) {
    let purged = purge(world, sweeper).await.unwrap();
    let want = Purged { rows: 5_004, deleted: 5_000, kept: 2, next: None };
    assert_eq!((purged, world.shop.number(LEFT).await), (want, 4));
    world.coordinator.abort(live, By::Initiator("test".to_owned())).await.unwrap();
    assert_eq!(world.end(live).await, State::Aborted);
    // What has ended is live until its end is written, a moment later.
    let mut purged = purge(world, sweeper).await.unwrap();
    for _ in 0..100 {
        if purged.kept == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        purged = purge(world, sweeper).await.unwrap();
    }
    assert_eq!((purged.deleted, world.shop.number(LEFT).await), (2, 2), "young ones stay");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_barrier_of_a_distant_mariadb_is_purged_in_parts_that_stay_purged() {
    // More rows than a round has time for, 20 ms each.
    const ROWS: u64 = 300;
    let mut shop = Shop::open(Kind::MariaDb).await;
    let relay = Relay::to_socket(shop.socket());
    shop.through(relay.address);
    let world = World::of(shop).await;
    let sweeper = world.sweeper(Duration::from_hours(1));
    world.shop.administrate(barrier::TABLE_MARIADB).await;
    world.shop.administrate(&barrier_grant(Kind::MariaDb, "coordinator")).await;
    let rows = format!(
        "INSERT INTO mainstay_barrier (mode, gid, branch, op, seq, reason, written_at)
        SELECT 'saga', CONCAT('old-', seq), '01', 'action', '01', 'action',
        current_timestamp - INTERVAL '3' HOUR FROM seq_1_to_{ROWS}"
    );
    world.shop.administrate(&rows).await;
    sweeper.attest(world.name()).await.unwrap();

    relay.lags(Duration::from_millis(10));
    let (age, first) = (Duration::from_hours(2), BarrierKey::default());
    let round = sweeper.purge_barrier(world.name(), age, first).await.unwrap();
    let left = u64::try_from(world.shop.number(LEFT).await).unwrap();
    assert!(0 < left && left < ROWS, "{left} rows are left after {round:?}");
    assert_eq!((round.rows, round.deleted, round.kept), (ROWS - left, ROWS - left, 0));
    // It goes on behind the last one that is gone.
    relay.lags(Duration::ZERO);
    let next = round.next.clone().unwrap();
    let rest = sweeper.purge_barrier(world.name(), age, next).await.unwrap();
    let want = Purged { rows: left, deleted: left, kept: 0, next: None };
    assert_eq!((rest, world.shop.number(LEFT).await), (want, 0));
    assert_eq!(world.coordinator.shutdown(Duration::from_secs(5)).await, 0);
}

/// Purges rows of two hours and more, round after round, and adds up what they did.
async fn purge(world: &World, sweeper: &Sweeper) -> Result<Purged, NotPurged> {
    let mut all = Purged { next: Some(BarrierKey::default()), ..Purged::default() };
    while let Some(after) = all.next {
        let age = Duration::from_hours(2);
        let round = sweeper.purge_barrier(world.name(), age, after).await?;
        let Purged { rows, deleted, kept, next } = round;
        let (rows, deleted, kept) = (all.rows + rows, all.deleted + deleted, all.kept + kept);
        all = Purged { rows, deleted, kept, next };
    }
    Ok(all)
}

/// Waits until the sessions of `MariaDB` that have prepared are gone.
async fn settled(world: &World) {
    if matches!(world.shop.settings.address.kind, Kind::MariaDb) {
        let sessions =
            "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'shopkeeper'";
        while world.shop.number(sessions).await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
