//! Databases that take part in transactions, ended by the coordinator itself.
//!
//! An application prepares a branch on a session of its own and votes; from there on the
//! coordinator ends the branch with its own credentials, whether or not the application still
//! lives. What it asks a database, and what it concludes, is decided by [`Resolve`]; here is who
//! asks: a few sessions a database, kept open, each statement with a time limit.
//!
//! | what | module |
//! |---|---|
//! | where a database is, by what settings it is spoken to | `address`, `settings`, `tls` |
//! | sessions, kept and made anew | `pool` |
//! | what is said on a session | `postgresql`, `mariadb` |
//! | whether it is set up to take part; its tables | `check` |
//! | what is prepared held against the log; old receipts | `sweep` |
//! | whether the log is as new as databases know | `mark` |
//! | old rows of barriers | `purge` |
//! | why a database did not do as asked | `failure` |
//! | what is counted | `figures` |
//!
//! Everything that is asked about one branch is asked on one session: a second one might reach
//! another server behind the same name, and what one server lacks says nothing about another.

mod address;
mod check;
mod events;
mod failure;
mod figures;
mod mariadb;
mod mark;
mod pool;
mod postgresql;
mod purge;
mod settings;
mod sweep;
mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tracing::Instrument as _;

pub use address::{Address, AddressInvalid, Host};
pub use check::{Fault, barrier_grant, grants, tables};
pub use failure::Failure;
pub use figures::Figures;
pub use mark::{LogStanding, Mark, NotAttested};
pub use purge::{NotPurged, PURGE_AGE_MIN, Purged};
pub use settings::ResourceSettings;
pub use sweep::{Judged, Sighting, SweepSettings, Sweeper};
pub use tls::Tls;

use crate::database::{Cluster, Listed, Xid};
use crate::machine::Outcome;
use crate::moment::Moment;
use crate::name::ResourceName;
use crate::port::{Outgoing, Surroundings, To};
use crate::receipt::{Ask, Receipt, Resolve, Then, Told};
use crate::tasks::Tasks;
use crate::word::{Decision, Op};
use mainstay_api::transaction::BarrierKey;
use pool::{Lent, NoSession, Pool};
use purge::BarrierRow;

/// Whose protocol a resource speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `PostgreSQL`, 13 and later.
    Postgres,
    /// `MariaDB`, 10.5 and later.
    MariaDb,
}

impl Kind {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Postgres, Self::MariaDb];

    /// The word of the settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgresql",
            Self::MariaDb => "mariadb",
        }
    }

    /// The one `word` stands for.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == word)
    }

    const fn port(self) -> u16 {
        match self {
            Self::Postgres => 5432,
            Self::MariaDb => 3306,
        }
    }
}

/// A branch that a database lists as prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Whose it is.
    pub listed: Listed,
    /// As the database has it, for people.
    pub name: String,
    /// How long it has been prepared, where the database knows.
    pub age: Option<Duration>,
    /// Who prepared it, where the database knows.
    pub owner: Option<String>,
}

/// How a resource stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Since when it cannot be reached, and why.
    pub down: Option<(Moment, String)>,
    /// Sessions that are being used.
    pub in_use: usize,
}

/// The databases of a node.
pub struct Resources {
    cluster: Cluster,
    /// Who writes tombs, for whoever reads the table.
    writer: String,
    surroundings: Arc<dyn Surroundings>,
    pools: RwLock<BTreeMap<ResourceName, Arc<Pool>>>,
    tasks: Tasks,
    figures: Figures,
}

impl std::fmt::Debug for Resources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resources")
            .field("cluster", &self.cluster)
            .field("pools", &*self.pools.read())
            .finish_non_exhaustive()
    }
}

/// A session of either kind.
#[derive(Debug)]
enum Session {
    Postgres(postgresql::Session),
    MariaDb(Box<mariadb::Session>),
}

impl Resources {
    /// Those of `settings`, for the node `node` of `cluster`. Nothing is connected to yet.
    pub fn new(
        cluster: Cluster,
        node: &str,
        settings: Vec<ResourceSettings>,
        surroundings: &Arc<dyn Surroundings>,
    ) -> Self {
        let own = Self {
            cluster,
            writer: format!("coordinator {node}").chars().take(64).collect(),
            surroundings: Arc::clone(surroundings),
            pools: RwLock::default(),
            tasks: Tasks::default(),
            figures: Figures::default(),
        };
        own.replace(settings);
        own
    }

    /// The same, counted by `figures`.
    pub fn counted_by(mut self, figures: Figures) -> Self {
        self.figures = figures;
        self
    }

    /// Goes by `settings` from now on. Sessions of those that are as they were stay; those of the
    /// others are closed, once they come back if they are lent out.
    pub fn replace(&self, settings: Vec<ResourceSettings>) {
        let mut pools = self.pools.write();
        let mut before = std::mem::take(&mut *pools);
        for settings in settings {
            let name = settings.name.clone();
            let is_same = before.get(&name).is_some_and(|pool| *pool.settings() == settings);
            // One that was changed stays among those that are closed.
            let same = if is_same { before.remove(&name) } else { None };
            let pool = same.unwrap_or_else(|| {
                let surroundings = Arc::clone(&self.surroundings);
                Arc::new(Pool::new(settings, surroundings, self.tasks.clone()))
            });
            pools.insert(name, pool);
        }
        drop(pools);
        let pools = self.pools.read();
        for (name, gone) in &before {
            gone.close();
            if !pools.contains_key(name) {
                self.figures.forget(name);
            }
        }
    }

    fn pool(&self, resource: &ResourceName) -> Option<Arc<Pool>> {
        self.pools.read().get(resource).map(Arc::clone)
    }

    /// How `resource` stands; `None` if there is no such resource.
    pub fn standing(&self, resource: &ResourceName) -> Option<Standing> {
        let pool = self.pool(resource)?;
        let down = pool.down().map(|down| (down.since, down.why.to_string()));
        Some(Standing { down, in_use: pool.in_use() })
    }

    /// Closes what is open and opens nothing more, waiting up to `grace`; returns how many sessions
    /// of `PostgreSQL` are left. Those of `MariaDB` say good-bye by themselves.
    ///
    /// # Cancel safety
    ///
    /// Safe: sessions stay told to close, and calling again waits again.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        for pool in self.pools.read().values() {
            pool.close();
        }
        self.tasks.shutdown(grace).await
    }

    /// Ends a branch, or says whether it is prepared, as a call of the coordinator asks. It takes a
    /// few statements, each with the time limit of the resource, and up to 4 s of waiting in
    /// between before a missing receipt counts as missing: the timeout of the call is not for it.
    ///
    /// # Cancel safety
    ///
    /// Whether the branch was ended is open; asking again is always allowed.
    pub async fn call(&self, call: &Outgoing) -> Outcome {
        let To::Resource { resource, session_id } = &call.to else {
            return Outcome::Unknown("not a branch of a database".to_owned());
        };
        let Some(pool) = self.pool(resource) else {
            return Outcome::Denied(format!("this node has no resource `{resource}`"));
        };
        let xid = Xid::new(self.cluster.clone(), call.gid.clone(), call.branch.clone());
        let xid = match xid {
            Ok(xid) => xid,
            Err(error) => return Outcome::Denied(error.to_string()),
        };
        let held_by = session_id.as_deref().and_then(|id| id.parse().ok());
        match call.op {
            Op::Commit | Op::Rollback => {
                let (gid, branch) = (call.gid.as_str(), call.branch.as_str());
                let at = resource.as_str();
                let (decision, span) = if call.op == Op::Commit {
                    let span = tracing::debug_span!("resource.commit", resource = at, gid, branch);
                    (Decision::Commit, span)
                } else {
                    let span =
                        tracing::debug_span!("resource.rollback", resource = at, gid, branch);
                    (Decision::Abort, span)
                };
                let finished = self.finish(&pool, &xid, decision, held_by);
                let outcome = finished.instrument(span).await;
                if outcome == Outcome::Done {
                    self.figures.called(resource, decision);
                }
                outcome
            }
            Op::Prepare => self.is_prepared(&pool, &xid).await,
            op => Outcome::Unknown(format!("a database cannot be asked to {op}")),
        }
    }

    /// Whether the branch is prepared: a vote that came without evidence is looked after.
    async fn is_prepared(&self, pool: &Arc<Pool>, xid: &Xid) -> Outcome {
        let mut lent = match pool.lend().await {
            Ok(lent) => lent,
            Err(none) => return none.into(),
        };
        let answered = lent.session.ask(xid, Ask::List, &self.writer).await;
        lent.end(&answered);
        match answered.unwrap_or_else(Told::from) {
            Told::Listed(true) => Outcome::Done,
            Told::Listed(false) => Outcome::Refused("branch is not prepared".to_owned()),
            Told::Denied(why) => Outcome::Denied(why),
            Told::Busy(why) | Told::Unclear(why) => Outcome::Unknown(why),
            told => Outcome::Unknown(format!("asked for the list and was told {told:?}")),
        }
    }

    /// Ends a branch as was decided.
    async fn finish(
        &self,
        pool: &Arc<Pool>,
        xid: &Xid,
        decision: Decision,
        held_by: Option<u64>,
    ) -> Outcome {
        let mut lent = match pool.lend().await {
            Ok(lent) => lent,
            Err(none) => return none.into(),
        };
        let (mut resolve, mut ask) = Resolve::new(decision);
        let (answered, outcome) = loop {
            if let Ask::Look(wait) = ask {
                tokio::time::sleep(wait).await;
            }
            let answered = lent.session.ask(xid, ask, &self.writer).await;
            match resolve.told(answered.clone().unwrap_or_else(Told::from)) {
                Then::Ask(next) => ask = next,
                Then::Over(outcome) => break (answered.map(drop), outcome),
            }
        };
        let is_busy = matches!(answered, Err(Failure::Busy(_)));
        let waits = is_busy || matches!(outcome, Outcome::Held(_));
        let held_by = held_by.filter(|_| waits && pool.settings().kill_held_sessions);
        let answered = match held_by {
            // Whatever comes of it, the branch is asked about again.
            Some(id) => lent.session.end_held(id).await,
            None => answered,
        };
        lent.end(&answered);
        outcome
    }

    /// Ends a branch that a sweep has found.
    async fn end(&self, resource: &ResourceName, xid: &Xid, decision: Decision) -> Outcome {
        let Some(pool) = self.pool(resource) else {
            return Outcome::Denied(format!("this node has no resource `{resource}`"));
        };
        let outcome = self.finish(&pool, xid, decision, None).await;
        if outcome == Outcome::Done {
            self.figures.swept_up(resource, decision);
        }
        outcome
    }

    /// Gid and branch of receipts older than `age`, a thousand at most, passing over the `after`
    /// oldest.
    async fn old_receipts(
        &self,
        resource: &ResourceName,
        age: Duration,
        after: usize,
    ) -> Result<Vec<(String, String)>, Failure> {
        let mut lent = self.lend(resource).await?;
        let old = match &mut lent.session {
            Session::Postgres(session) => session.old_receipts(age, after).await,
            Session::MariaDb(session) => session.old_receipts(age, after).await,
        };
        lent.end(&old);
        old
    }

    /// Deletes receipts that are listed; returns how many.
    async fn delete_receipts(
        &self,
        resource: &ResourceName,
        keys: &[(String, String)],
    ) -> Result<u64, Failure> {
        if keys.is_empty() {
            return Ok(0);
        }
        let mut lent = self.lend(resource).await?;
        let deleted = match &mut lent.session {
            Session::Postgres(session) => session.delete_receipts(keys).await,
            Session::MariaDb(session) => session.delete_receipts(keys).await,
        };
        lent.end(&deleted);
        deleted
    }

    /// Rows of the barrier behind `after` by their key, a thousand at most, and whether each is
    /// older than `age`.
    async fn barrier_rows(
        &self,
        resource: &ResourceName,
        age: Duration,
        after: &BarrierKey,
    ) -> Result<Vec<BarrierRow>, Failure> {
        let mut lent = self.lend(resource).await?;
        let rows = match &mut lent.session {
            Session::Postgres(session) => session.barrier_rows(age, after).await,
            Session::MariaDb(session) => session.barrier_rows(age, after).await,
        };
        lent.end(&rows);
        rows
    }

    /// Deletes rows of the barrier that are listed, unless one is not older than `age` any more;
    /// returns how many.
    async fn delete_barrier_rows(
        &self,
        resource: &ResourceName,
        age: Duration,
        keys: &[BarrierKey],
    ) -> Result<u64, Failure> {
        if keys.is_empty() {
            return Ok(0);
        }
        let mut lent = self.lend(resource).await?;
        let deleted = match &mut lent.session {
            Session::Postgres(session) => session.delete_barrier_rows(age, keys).await,
            Session::MariaDb(session) => session.delete_barrier_rows(age, keys).await,
        };
        lent.end(&deleted);
        deleted
    }

    /// What `resource` lists as prepared, ours and others'.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn prepared(&self, resource: &ResourceName) -> Result<Vec<Prepared>, Failure> {
        let mut lent = self.lend(resource).await?;
        let listed = match &mut lent.session {
            Session::Postgres(session) => session.prepared(&self.cluster).await,
            Session::MariaDb(session) => session.prepared(&self.cluster).await,
        };
        lent.end(&listed);
        listed
    }

    /// What keeps `resource` from taking part: none if it can.
    ///
    /// # Errors
    ///
    /// [`Failure`], when it cannot be asked.
    ///
    /// # Cancel safety
    ///
    /// Safe: it changes nothing.
    pub async fn check(&self, resource: &ResourceName) -> Result<Vec<Fault>, Failure> {
        let mut lent = self.lend(resource).await?;
        let settings = lent.settings().clone();
        let ends_sessions = settings.kill_held_sessions;
        let facts = check::facts(&mut lent.session, &self.cluster, ends_sessions).await;
        lent.end(&facts);
        let (kind, user) = (settings.address.kind, &settings.address.user);
        Ok(check::faults(kind, &facts?, user))
    }

    /// What `resource` was told of our log.
    async fn mark(&self, resource: &ResourceName) -> Result<Option<Mark>, Failure> {
        let mut lent = self.lend(resource).await?;
        let mark = match &mut lent.session {
            Session::Postgres(session) => session.mark(&self.cluster).await,
            Session::MariaDb(session) => session.mark(&self.cluster).await,
        };
        lent.end(&mark);
        mark
    }

    /// Tells `resource` of our log.
    async fn write_mark(&self, resource: &ResourceName, mark: &Mark) -> Result<(), Failure> {
        let mut lent = self.lend(resource).await?;
        let written = match &mut lent.session {
            Session::Postgres(session) => session.write_mark(&self.cluster, mark).await,
            Session::MariaDb(session) => session.write_mark(&self.cluster, mark).await,
        };
        lent.end(&written);
        written
    }

    /// Where `resource` is; `None` if there is no such resource.
    fn address(&self, resource: &ResourceName) -> Option<Address> {
        self.pools.read().get(resource).map(|pool| pool.settings().address.clone())
    }

    /// All of them.
    fn names(&self) -> Vec<ResourceName> {
        self.pools.read().keys().cloned().collect()
    }

    /// Makes the tables of `resource` that are not there, with the coordinator's own credentials;
    /// [`tables`] and [`grants`] are for an administrator to do it.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    ///
    /// # Cancel safety
    ///
    /// Which tables are made is open; calling again does no harm.
    pub async fn init(&self, resource: &ResourceName) -> Result<(), Failure> {
        let mut lent = self.lend(resource).await?;
        let kind = lent.settings().address.kind;
        let made = async {
            let facts = check::facts(&mut lent.session, &self.cluster, false).await?;
            // An index of a table that is there may be looked for by its owner alone.
            for statement in check::missing(kind, &facts) {
                lent.session.run(statement).await?;
            }
            Ok(())
        };
        let made = made.await;
        lent.end(&made);
        made
    }

    async fn lend(&self, resource: &ResourceName) -> Result<Lent, Failure> {
        let pool = self.pool(resource);
        let pool = pool.ok_or_else(|| Failure::Denied(format!("no resource `{resource}`")))?;
        pool.lend().await.map_err(|none| none.why)
    }
}

/// A held session is ended after it has done nothing for this long.
const HELD_FOR: Duration = Duration::from_secs(10);

impl Session {
    async fn ask(&mut self, xid: &Xid, ask: Ask, writer: &str) -> Result<Told, Failure> {
        match self {
            Self::Postgres(session) => session.ask(xid, ask, writer).await,
            Self::MariaDb(session) => session.ask(xid, ask, writer).await,
        }
    }

    async fn end_held(&mut self, id: u64) -> Result<(), Failure> {
        match self {
            // Any session can end what another one has prepared.
            Self::Postgres(_) => Ok(()),
            Self::MariaDb(session) => session.end_session(id, HELD_FOR).await,
        }
    }

    /// Runs a statement that returns nothing.
    async fn run(&mut self, statement: &str) -> Result<(), Failure> {
        match self {
            Self::Postgres(session) => session.run(statement).await,
            Self::MariaDb(session) => session.run(statement).await,
        }
    }

    fn is_open(&self) -> bool {
        match self {
            Self::Postgres(session) => session.is_open(),
            Self::MariaDb(_) => true, // It is not known before it is asked.
        }
    }

    async fn ping(&mut self) -> Result<(), Failure> {
        match self {
            Self::Postgres(session) => session.run("").await,
            Self::MariaDb(session) => session.ping().await,
        }
    }
}

impl From<NoSession> for Outcome {
    fn from(NoSession { why, retry_after }: NoSession) -> Self {
        match why {
            Failure::Denied(why) => Self::Denied(why),
            why => Self::Unsent { why: why.to_string(), retry_after: Some(retry_after) },
        }
    }
}

/// Time limits of what is asked of a database.
#[derive(Clone, Copy, Debug)]
struct Within {
    statement: Duration,
}

impl Within {
    const fn new(statement: Duration) -> Self {
        Self { statement }
    }

    /// How long the database may take for a statement.
    const fn statement(self) -> Duration {
        self.statement
    }

    /// How long a connection may take.
    const fn connecting(self) -> Duration {
        Duration::from_secs(5)
    }

    async fn connect<T>(self, connecting: impl Future<Output = T>) -> Result<T, Failure> {
        within(self.connecting(), connecting).await
    }

    /// The database stops a statement by itself; this is for one that does not answer at all.
    async fn answer<T>(self, answer: impl Future<Output = T>) -> Result<T, Failure> {
        within(self.statement.saturating_add(Duration::from_secs(2)), answer).await
    }
}

async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, Failure> {
    let answered = tokio::time::timeout(limit, future).await;
    answered
        .map_err(|_elapsed| Failure::Lost(format!("no answer within {} s", limit.as_secs_f64())))
}

/// What the word in the table stands for.
fn receipt(kind: &str) -> Result<Receipt, Failure> {
    Receipt::parse(kind).ok_or_else(|| Failure::Said(format!("receipt of unknown kind {kind:?}")))
}
