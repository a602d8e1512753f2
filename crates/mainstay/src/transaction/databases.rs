//! Databases that take part in transactions, as this node knows them.
//!
//! They are what is configured, and may change while the process runs. Each has two loops: one looks
//! whether it is set up to take part, the other holds what is prepared there against the log. A
//! database that is away, or cannot prepare, keeps nobody from starting: whoever wants a branch in
//! it is told, and what was decided waits until it is back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mainstay_api::transaction::BarrierKey;
use mainstay_store::Put;
use mainstay_txn::database::Cluster;
use mainstay_txn::port::{Outgoing, Surroundings, To};
use mainstay_txn::resource::{
    Failure, Fault, Figures, LogStanding, NotAttested, NotPurged, Purged, ResourceSettings,
    Resources, Sighting, Standing, SweepSettings, Sweeper,
};
use mainstay_txn::run::VerbError;
use mainstay_txn::{Coordinator, Moment, Op, Outcome, ResourceName};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::NotAdmitted;
use super::events::{CannotPrepare, DatabaseAway, DatabaseReady, LogSilent};

/// How often a database that can take part is looked at.
const CHECK_EVERY: Duration = Duration::from_secs(30);

/// The same for one that cannot, or does not answer: it is back for everybody within this time.
const CHECK_AGAIN: Duration = Duration::from_secs(5);

/// Before a call is tried again that waits until a database has said how far the log was.
const HELD_AGAIN: Duration = Duration::from_secs(1);

/// How long databases may keep the coordinator from taking part when the process starts. What one
/// says that answers later holds it up from then on.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(2);

/// What to do where the coordinator cannot log in.
const LET_IN: &str = "the user in `url`, `password_file`, `ca_file`, or whom the server lets in";

/// The databases of this node. Clones stand for the same.
#[derive(Clone)]
pub struct Databases(Arc<Shared>);

struct Shared {
    sweeps: SweepSettings,
    surroundings: Arc<dyn Surroundings>,
    known: Mutex<BTreeMap<ResourceName, Known>>,
    figures: Figures,
    /// Once the log has said whose branches are ours.
    resources: OnceLock<Arc<Resources>>,
    /// Once there is a coordinator to ask what the log says.
    sweeper: OnceLock<Arc<Sweeper>>,
    /// Told whenever one was looked at.
    looked: watch::Sender<()>,
    /// Set once each was looked at, or had the time for it.
    are_looked_at: AtomicBool,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Where the tasks run: a reload comes from elsewhere.
    runtime: Handle,
}

/// A database that is configured.
struct Known {
    settings: ResourceSettings,
    checked: Option<Checked>,
    /// Ends its loops.
    stop: CancellationToken,
}

/// What was found when a database was looked at.
#[derive(Clone, Debug)]
pub struct Checked {
    /// When.
    pub at: Moment,
    /// What keeps it from taking part, or why it could not be asked.
    pub found: Result<Vec<Fault>, Failure>,
}

/// A database as it stands.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What it goes by.
    pub settings: ResourceSettings,
    /// What was found last.
    pub checked: Option<Checked>,
    /// Its sessions; none before the coordinator has started.
    pub standing: Option<Standing>,
    /// How the log stands beside what it was told, once that was looked at.
    pub log: Option<LogStanding>,
}

/// A database cannot be removed: live transactions have branches in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("live transactions have branches in database `{resource}`")]
pub struct InUse {
    /// Which.
    pub resource: ResourceName,
}

impl Databases {
    /// Those of `settings`, swept as `sweeps` says. Nothing is connected to yet. Must be called
    /// within a tokio runtime.
    pub(super) fn new(
        settings: Vec<ResourceSettings>,
        sweeps: SweepSettings,
        surroundings: Arc<dyn Surroundings>,
    ) -> Self {
        let stop = CancellationToken::new();
        // Where there is none, nobody is waited for.
        let are_looked_at = AtomicBool::new(settings.is_empty());
        let known = settings.into_iter().map(|settings| {
            let stop = stop.child_token();
            (settings.name.clone(), Known { settings, checked: None, stop })
        });
        Self(Arc::new(Shared {
            sweeps,
            surroundings,
            known: Mutex::new(known.collect()),
            figures: Figures::default(),
            resources: OnceLock::new(),
            sweeper: OnceLock::new(),
            looked: watch::Sender::new(()),
            are_looked_at,
            stop,
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
        }))
    }

    /// Speaks to them from now on, as the node `node` of `cluster`; again is no more than once.
    pub(super) fn open(&self, cluster: Cluster, node: &str) {
        let shared = &self.0;
        // Held, so that a reload comes before or after.
        let known = shared.known.lock();
        shared.resources.get_or_init(|| {
            let settings = settings(&known);
            let resources = Resources::new(cluster, node, settings, &shared.surroundings);
            Arc::new(resources.counted_by(shared.figures.clone()))
        });
    }

    /// Looks after them from now on, by what `coordinator` knows.
    pub(super) fn look_after(&self, coordinator: Coordinator) {
        let shared = &self.0;
        let Some(resources) = shared.resources.get() else { return };
        // Held, so that one that is added meanwhile gets its loops once.
        let known = shared.known.lock();
        shared.sweeper.get_or_init(|| {
            let (resources, surroundings) = (Arc::clone(resources), &shared.surroundings);
            let sweeper =
                Sweeper::new(resources, coordinator, Arc::clone(surroundings), shared.sweeps);
            Arc::new(sweeper)
        });
        for (name, known) in &*known {
            self.start(name, &known.stop);
        }
    }

    /// Waits until each was looked at, and has said whether the log is as new as what it was told;
    /// for two seconds at most, since one that is away keeps nobody from starting.
    ///
    /// # Cancel safety
    ///
    /// Safe: it waits again.
    pub(super) async fn first_look(&self) {
        let shared = &self.0;
        let mut looked = shared.looked.subscribe();
        let all = looked.wait_for(|()| {
            let known = shared.known.lock();
            known.values().all(|known| known.checked.is_some())
        });
        // Who is away is told by its own loop.
        drop(tokio::time::timeout(FIRST_LOOK_MAX, all).await);
        shared.are_looked_at.store(true, Ordering::Release);
    }

    /// Whether that was waited for.
    pub(super) fn are_looked_at(&self) -> bool {
        self.0.are_looked_at.load(Ordering::Acquire)
    }

    fn start(&self, name: &ResourceName, stop: &CancellationToken) {
        let Some(sweeper) = self.0.sweeper.get().map(Arc::clone) else { return };
        let (swept, until) = (name.clone(), stop.clone());
        let sweep = async move { sweeper.keep_sweeping(&swept, until).await };
        self.spawn("transaction sweep", sweep);
        let (own, name, stop) = (self.clone(), name.clone(), stop.clone());
        self.spawn("transaction database", async move { own.keep_checking(&name, &stop).await });
    }

    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let task = task.instrument(tracing::info_span!("task", name));
        drop(self.0.tasks.spawn_on(task, &self.0.runtime));
    }

    async fn keep_checking(&self, name: &ResourceName, stop: &CancellationToken) {
        loop {
            let checked = tokio::select! {
                checked = self.check(name) => checked,
                () = stop.cancelled() => return,
            };
            let is_fit = checked.is_some_and(|checked| checked.found.is_ok_and(|f| f.is_empty()));
            let nap = if is_fit { CHECK_EVERY } else { CHECK_AGAIN };
            tokio::select! {
                () = tokio::time::sleep(nap) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Looks whether `name` is set up to take part, and how the log stands beside what it was told
    /// unless that is known; `None` if there is no such database, or the coordinator has not
    /// started.
    ///
    /// # Cancel safety
    ///
    /// Safe: whether the database was told of the log is open, and a sweep tells it again.
    pub async fn check(&self, name: &ResourceName) -> Option<Checked> {
        let resources = self.0.resources.get()?;
        let found = resources.check(name).await;
        if let Some(sweeper) = self.0.sweeper.get()
            && sweeper.standing(name) != Some(LogStanding::UpToDate)
        {
            match sweeper.attest(name).await {
                // What the database says, the check has found as well, or the next one does.
                Ok(_) | Err(NotAttested::Database(_)) => {}
                Err(NotAttested::Log(error)) => {
                    LogSilent { resource: name.as_str(), error: &error }.emit();
                }
            }
        }
        let checked = Checked { at: self.0.surroundings.now(), found };
        {
            let mut known = self.0.known.lock();
            let known = known.get_mut(name)?;
            tell(name, known.checked.as_ref(), &checked);
            known.checked = Some(checked.clone());
        }
        // Whoever waits looks at them all, so it is told when they are not held any more.
        self.0.looked.send_replace(());
        Some(checked)
    }

    /// Puts what is counted into `registry`.
    pub(super) fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        self.0.figures.register(registry);
    }

    /// Makes the tables of `resource` that are not there, then looks at it; `None` as for
    /// [`Databases::check`].
    ///
    /// # Errors
    ///
    /// [`Failure`].
    ///
    /// # Cancel safety
    ///
    /// Which tables are made is open; calling again does no harm.
    pub async fn init(&self, resource: &ResourceName) -> Option<Result<Checked, Failure>> {
        if let Err(failure) = self.0.resources.get()?.init(resource).await {
            return Some(Err(failure));
        }
        Some(Ok(self.check(resource).await?))
    }

    /// All of them as they stand, by name.
    pub fn all(&self) -> Vec<Shown> {
        let known = self.0.known.lock();
        known.values().map(|known| self.shown(known)).collect()
    }

    /// One of them as it stands.
    pub fn get(&self, name: &ResourceName) -> Option<Shown> {
        let known = self.0.known.lock();
        known.get(name).map(|known| self.shown(known))
    }

    fn shown(&self, known: &Known) -> Shown {
        let Known { settings, checked, .. } = known;
        let standing =
            self.0.resources.get().and_then(|resources| resources.standing(&settings.name));
        let log = self.0.sweeper.get().and_then(|sweeper| sweeper.standing(&settings.name));
        Shown { settings: settings.clone(), checked: checked.clone(), standing, log }
    }

    /// Whether a branch may join that lies in `resource`: it is there, and can prepare.
    pub(super) fn admit(&self, resource: &ResourceName) -> Result<(), NotAdmitted> {
        let known = self.0.known.lock();
        let unknown = || NotAdmitted::ResourceUnknown { resource: resource.clone() };
        let away = || NotAdmitted::Away { resource: resource.clone(), retry_after: CHECK_AGAIN };
        let cannot = |why| NotAdmitted::CannotPrepare { resource: resource.clone(), why };
        match &known.get(resource).ok_or_else(unknown)?.checked {
            Some(Checked { found: Ok(faults), .. }) if faults.is_empty() => Ok(()),
            Some(Checked { found: Ok(faults), .. }) => {
                let whats: Vec<_> = faults.iter().map(|fault| fault.what.as_str()).collect();
                Err(cannot(whats.join("; ")))
            }
            Some(Checked { found: Err(Failure::Denied(_)), .. }) => {
                Err(cannot("the coordinator cannot log in, and its own log says why".to_owned()))
            }
            None | Some(Checked { found: Err(_), .. }) => Err(away()),
        }
    }

    /// Whether `resource` is configured.
    pub(super) fn has(&self, resource: &ResourceName) -> bool {
        self.0.known.lock().contains_key(resource)
    }

    /// Ends a branch, or says whether it is prepared.
    pub(super) async fn call(&self, call: &Outgoing) -> Outcome {
        let To::Resource { resource, .. } = &call.to else {
            return Outcome::Unknown("not a branch of a database".to_owned());
        };
        let shared = &self.0;
        let unsent = |why: &str| {
            let (why, retry_after) = (why.to_owned(), Some(HELD_AGAIN));
            Outcome::Unsent { why, retry_after }
        };
        let (Some(resources), Some(sweeper)) = (shared.resources.get(), shared.sweeper.get())
        else {
            return unsent("databases are not spoken to yet");
        };
        // While any objects, the coordinator calls nobody.
        match sweeper.standing(resource) {
            Some(LogStanding::UpToDate)
                if call.op == Op::Rollback && !sweeper.has_heard(&call.gid) =>
            {
                unsent("another database of it has not said yet how far the log was")
            }
            Some(LogStanding::UpToDate) => resources.call(call).await,
            Some(_) => unsent("transaction log is behind what the database was told"),
            None => unsent("database has not said yet how far the log was"),
        }
    }

    /// Goes by the log as it is; `record` says who wants that. Returns its number, and which
    /// databases did not answer. `None` before the coordinator has started.
    ///
    /// # Errors
    ///
    /// [`VerbError`].
    ///
    /// # Cancel safety
    ///
    /// Whether it was accepted is open; accepting it again does no harm.
    pub async fn accept_log(
        &self,
        record: Put,
    ) -> Option<Result<(u64, Vec<ResourceName>), VerbError>> {
        Some(self.0.sweeper.get()?.accept_log(record).await)
    }

    /// Whether nothing keeps `wanted` from being all there are.
    ///
    /// # Errors
    ///
    /// [`InUse`] of one that would go, or become one of another kind.
    pub(super) fn rehearse(
        &self,
        wanted: &[ResourceSettings],
        coordinator: Option<&Coordinator>,
    ) -> Result<(), InUse> {
        let Some(coordinator) = coordinator else { return Ok(()) };
        let stays = |known: &ResourceSettings| {
            let is_it = |wanted: &ResourceSettings| {
                wanted.name == known.name && wanted.address.kind == known.address.kind
            };
            wanted.iter().any(is_it)
        };
        let mut going = settings(&self.0.known.lock());
        going.retain(|known| !stays(known) && coordinator.uses(&known.name));
        match going.into_iter().next() {
            Some(used) => Err(InUse { resource: used.name }),
            None => Ok(()),
        }
    }

    /// Goes by `wanted` from now on.
    pub(super) fn replace(&self, wanted: Vec<ResourceSettings>) {
        let shared = &self.0;
        // Sessions say good-bye on tasks of their own.
        let _inside = shared.runtime.enter();
        let mut known = shared.known.lock();
        if let Some(resources) = shared.resources.get() {
            resources.replace(wanted.clone());
        }
        let mut before = std::mem::take(&mut *known);
        if let Some(sweeper) = shared.sweeper.get() {
            // Another database under the same name was told of another log.
            let is_there = |known: &ResourceSettings| {
                wanted.iter().any(|to| to.name == known.name && to.address == known.address)
            };
            sweeper.forget(|name| before.get(name).is_some_and(|known| is_there(&known.settings)));
        }
        for settings in wanted {
            let name = settings.name.clone();
            match before.remove(&name) {
                // Its loops go on.
                Some(same) if same.settings == settings => {
                    known.insert(name, same);
                }
                changed => {
                    if let Some(changed) = changed {
                        changed.stop.cancel();
                    }
                    let stop = shared.stop.child_token();
                    self.start(&name, &stop);
                    known.insert(name, Known { settings, checked: None, stop });
                }
            }
        }
        for gone in before.values() {
            gone.stop.cancel();
        }
    }

    /// What `resource` holds prepared and what is to become of it; unless it is `report_only`, that
    /// is done. `None` before the coordinator has started.
    ///
    /// # Errors
    ///
    /// [`Failure`], when the database cannot be asked.
    ///
    /// # Cancel safety
    ///
    /// Safe: whatever was under way is found by the next sweep.
    pub async fn sweep(
        &self,
        resource: &ResourceName,
        report_only: bool,
    ) -> Option<Result<Vec<Sighting>, Failure>> {
        let sweeper = self.0.sweeper.get()?;
        Some(sweeper.sweep(resource, report_only).await)
    }

    /// Deletes old rows of the barrier of `resource` behind `after`, for a few seconds. `None`
    /// before the coordinator has started.
    ///
    /// # Errors
    ///
    /// [`NotPurged`].
    ///
    /// # Cancel safety
    ///
    /// How many were deleted is open; what was not is found by another round.
    pub async fn purge_barrier(
        &self,
        resource: &ResourceName,
        age: Duration,
        after: BarrierKey,
    ) -> Option<Result<Purged, NotPurged>> {
        let sweeper = self.0.sweeper.get()?;
        Some(sweeper.purge_barrier(resource, age, after).await)
    }

    /// Ends loops and sessions, waiting up to `grace` for each; returns how many are left.
    pub(super) async fn shutdown(&self, grace: Duration) -> usize {
        let shared = &self.0;
        shared.stop.cancel();
        shared.tasks.close();
        let ended = tokio::time::timeout(grace, shared.tasks.wait()).await;
        let left = if ended.is_ok() { 0 } else { shared.tasks.len() };
        let sessions = match shared.resources.get() {
            Some(resources) => resources.shutdown(grace).await,
            None => 0,
        };
        left + sessions
    }
}

impl std::fmt::Debug for Databases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.known.lock().keys()).finish()
    }
}

fn settings(known: &BTreeMap<ResourceName, Known>) -> Vec<ResourceSettings> {
    known.values().map(|known| known.settings.clone()).collect()
}

/// Tells the operator when a database is found otherwise than before.
fn tell(name: &ResourceName, before: Option<&Checked>, now: &Checked) {
    if before.is_some_and(|before| before.found == now.found) {
        return;
    }
    let resource = name.as_str();
    match &now.found {
        Ok(faults) if faults.is_empty() => DatabaseReady { resource }.emit(),
        Ok(faults) => {
            for Fault { what, fix, .. } in faults {
                CannotPrepare { resource, what, fix }.emit();
            }
        }
        Err(Failure::Denied(what)) => CannotPrepare { resource, what, fix: LET_IN }.emit(),
        Err(error) => DatabaseAway { resource, error }.emit(),
    }
}

#[cfg(test)]
mod tests {
    use mainstay_core::ManualClock;
    use mainstay_store::Memory;
    use mainstay_txn::port::{Answering, Hooks, Participants};
    use mainstay_txn::resource::{Address, Kind};
    use mainstay_txn::run::{Ports, Settings};
    use mainstay_txn::{Finding, Gid, State};

    use super::*;
    use crate::transaction::NodeClock;

    /// Nobody is called, and nothing ends.
    struct Nobody;

    impl Participants for Nobody {
        fn call(&self, _: Outgoing) -> Answering<'_, Outcome> {
            Box::pin(async { Outcome::Unknown("nobody is there".to_owned()) })
        }
    }

    impl Hooks for Nobody {
        fn ended(&self, _: &Gid, _: State) -> Answering<'_, Result<(), String>> {
            Box::pin(async { Ok(()) })
        }

        fn found(&self, _: &Gid, _: &Finding) {}
    }

    fn database(name: &str, user: &str) -> ResourceSettings {
        let url = format!("mariadb://{user}@%2Fnowhere%2Fsocket/shop");
        let address = Address::parse(Kind::MariaDb, &url).unwrap();
        ResourceSettings::new(ResourceName::new(name).unwrap(), address)
    }

    #[tokio::test]
    async fn a_reload_starts_loops_of_what_is_new_or_changed_alone() {
        let surroundings: Arc<dyn Surroundings> = Arc::new(NodeClock::new());
        let ports = Ports {
            store: Arc::new(Memory::new(ManualClock::default())),
            participants: Arc::new(Nobody),
            hooks: Arc::new(Nobody),
            surroundings: Arc::clone(&surroundings),
        };
        let coordinator = Coordinator::start(Settings::new("n1"), ports).await.unwrap();
        let (orders, stock) = (database("orders", "a"), database("stock", "a"));
        let databases =
            Databases::new(vec![orders.clone()], SweepSettings::default(), surroundings);
        databases.open(coordinator.identity().cluster.clone(), "n1");
        let loops = || databases.0.tasks.len();
        assert_eq!(loops(), 0);
        databases.look_after(coordinator.clone());
        assert_eq!(loops(), 2);
        // Nobody has looked at the first yet: on this thread nothing runs meanwhile.
        databases.replace(vec![orders, stock.clone()]);
        assert_eq!(loops(), 4, "those of the first go on");
        databases.replace(vec![database("orders", "b"), stock]);
        assert_eq!(loops(), 6, "two are being ended");
        while 4 < loops() {
            tokio::task::yield_now().await;
        }
        databases.replace(Vec::new());
        assert_eq!(databases.shutdown(Duration::from_secs(5)).await, 0);
        assert_eq!(coordinator.shutdown(Duration::from_secs(5)).await, 0);
    }
}
