//! Two-phase commits: branches in databases of this program, and in services.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

#[cfg(any(feature = "mysql", feature = "postgres"))]
use mainstay_api::transaction::Evidence;
use mainstay_api::transaction::{
    BeginTransaction, BranchTargets, BranchVote, SubmitTransaction, Target, Transaction, VoteWord,
};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::joining::{self, Joining};
use super::{PATIENCE, TxError, asking, at, begin, new_gid};
#[cfg(any(feature = "mysql", feature = "postgres"))]
use crate::branch::{Begun, BranchError, BranchName};
use crate::client::Client;

/// A two-phase commit, before it is begun.
#[derive(Clone, Debug)]
#[must_use = "nothing is begun before `run`"]
pub struct Xa {
    client: Client,
    begin: BeginTransaction,
    patience: Duration,
}

/// An open two-phase commit, which branches join. Clones are the same one; after it has been
/// decided nobody can join. `E` is what the program's own statements return.
#[derive(Debug)]
pub struct OpenXa<E = Infallible> {
    joining: Joining,
    /// Of branches that have joined: no, until they are prepared. A branch that joined and was not
    /// done aborts the transaction, also after a failover that has forgotten that it joined.
    votes: Arc<Mutex<Vec<BranchVote>>>,
    business: PhantomData<fn() -> E>,
}

impl<E> Clone for OpenXa<E> {
    fn clone(&self) -> Self {
        let Self { joining, votes, business } = self;
        Self { joining: joining.clone(), votes: Arc::clone(votes), business: *business }
    }
}

/// A branch that a service keeps prepared by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XaTargets {
    /// Does the work and prepares it; called by this program.
    pub action: Target,
    /// Makes it good; called by the coordinator.
    pub commit: Target,
    /// Gives it up; called by the coordinator, perhaps without an action before.
    pub rollback: Target,
}

impl Xa {
    pub(super) fn new(client: Client, name: String) -> Self {
        Self { client, begin: begin("xa", name), patience: PATIENCE }
    }

    /// Its name, 1 to 48 of `A-Z`, `a-z`, `0-9`, `.`, `_` and `-`, as databases bear it; one that
    /// nobody has used unless told. What was begun before under that name is not run again:
    /// [`TxError::Aborted`] if it was aborted; else [`TxError::Unknown`], also if it was committed,
    /// as what its first run returned is not known any more. Which of them it is stands in `why`.
    pub fn gid(mut self, gid: impl Into<String>) -> Self {
        self.begin.gid = Some(gid.into());
        self
    }

    /// What it can be found by, one of at most 16.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.begin.labels.insert(key.into(), value.into());
        self
    }

    /// When it is aborted if it has not been decided; what the configuration says unless told, at
    /// most an hour.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.begin.deadline_seconds = Some(deadline.as_secs_f64());
        self
    }

    /// Commits in the order in which branches joined, and rolls back in the other. Its begin is
    /// durable before its first branch joins, since no submit says the order again.
    pub fn ordered(mut self) -> Self {
        self.begin.ordered = true;
        self
    }

    /// How long servers may be silent before it counts as unknown; 15 s unless told.
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Begins it, lets `business` do its branches, and commits: when this returns without an error
    /// it is decided to commit, and every branch will be committed, if not yet now. An error of
    /// `business`, and a panic, roll all of them back.
    ///
    /// # Errors
    ///
    /// What `business` returned; else [`TxError`].
    ///
    /// # Cancel safety
    ///
    /// Before the decision it is aborted in the background, which is counted; the decision itself
    /// may have been made. The session of a branch that was being done is not to be used again.
    pub async fn run<T, E, F, Running>(self, business: F) -> Result<T, TxError<E>>
    where
        F: FnOnce(OpenXa<E>) -> Running,
        Running: Future<Output = Result<T, TxError<E>>>,
    {
        let Self { client, begin, patience } = self;
        let votes: Arc<Mutex<Vec<BranchVote>>> = Arc::default();
        let open = |joining| {
            business(OpenXa { joining, votes: Arc::clone(&votes), business: PhantomData })
        };
        // With when it was begun it also counts after a failover that has forgotten that.
        let submit = |begun: Transaction| SubmitTransaction {
            votes: votes.lock().clone(),
            begun_at: Some(begun.summary.created_at),
            deadline_at: begun.summary.deadline_at,
            ..asking::decided()
        };
        joining::run(client, begin, patience, open, submit).await
    }
}

impl<E> OpenXa<E> {
    /// Its name.
    pub fn gid(&self) -> &str {
        self.joining.gid()
    }

    /// Does a branch in `PostgreSQL`: `business` runs in a local transaction on `client`, which is
    /// in none, and is prepared then. `resource` is what the coordinator's configuration calls the
    /// database.
    ///
    /// # Errors
    ///
    /// [`TxError::Business`] of what `business` returned; [`TxError::Aborted`] when the branch
    /// could not be prepared, as when a statement failed whose error `business` did not return. All
    /// branches are rolled back, also if the error is not passed on.
    ///
    /// # Cancel safety
    ///
    /// Not safe: the session may be in a transaction. Drop the client, and give it back to no pool;
    /// the same if `business` panics.
    #[cfg(feature = "postgres")]
    pub async fn postgres<T, F>(
        &self,
        resource: &str,
        client: &tokio_postgres::Client,
        business: F,
    ) -> Result<T, TxError<E>>
    where
        F: AsyncFnOnce(&tokio_postgres::Client) -> Result<T, E>,
    {
        use crate::branch::postgres;

        let name = self.join(resource).await?;
        self.is_new(postgres::begin(client, name.name(), WRITER).await)?;
        let value = match business(client).await {
            Ok(value) => value,
            Err(error) => {
                // Should that fail the session is over, and nothing of it stays.
                drop(postgres::give_up(client).await);
                return Err(TxError::Business(error));
            }
        };
        postgres::prepare(client, name.name()).await.map_err(|error| self.not_done(&error))?;
        self.votes_yes(&name, None);
        Ok(value)
    }

    /// The same in `MariaDB`. The session ends with the branch, since nobody else could commit it
    /// before; one of a pool is not given back.
    ///
    /// # Errors
    ///
    /// As [`OpenXa::postgres`], but for a statement that failed and whose error `business` did not
    /// return: `MariaDB` takes back that statement alone and goes on, and what is left of the branch
    /// is committed with the others. Return every error, unless the branch is right without its
    /// statement.
    ///
    /// # Cancel safety
    ///
    /// Safe on a connection of its own: the session ends, and takes back what is not prepared. When
    /// the future is dropped, one of a pool goes back there; so that the branch ends, the pool has
    /// to reset connections, as it does unless told otherwise (`PoolOpts::with_reset_connection`).
    /// If `business` panics, the session ends in both cases.
    #[cfg(feature = "mysql")]
    pub async fn mysql<T, F>(
        &self,
        resource: &str,
        mut connection: mysql_async::Conn,
        business: F,
    ) -> Result<T, TxError<E>>
    where
        F: AsyncFnOnce(&mut mysql_async::Conn) -> Result<T, E>,
    {
        use crate::branch::mysql;

        let name = self.join(resource).await?;
        let begun = mysql::begin(&mut connection, name.name(), WRITER).await;
        if let Err(error) = self.is_new(begun) {
            // A pool that it came from must not hand it on.
            drop(connection.disconnect().await);
            return Err(error);
        }
        let value = match business(&mut connection).await {
            Ok(value) => value,
            Err(error) => {
                drop(mysql::give_up(&mut connection, name.name()).await);
                drop(connection.disconnect().await);
                return Err(TxError::Business(error));
            }
        };
        let prepared = mysql::prepare(connection, name.name()).await;
        let prepared = prepared.map_err(|error| self.not_done(&error))?;
        self.votes_yes(&name, Some(prepared.session_id.to_string()));
        Ok(value)
    }

    /// Lets `service` do a branch of its own by a call of `path`, which also prepares it; the
    /// coordinator calls `/commit` or `/rollback` there later. Returns what the call answered.
    ///
    /// # Errors
    ///
    /// [`TxError::Aborted`] when it refuses, or what it answered means neither yes nor no: return
    /// it, and all branches are rolled back.
    ///
    /// # Cancel safety
    ///
    /// Whether it was done is open; it is committed or rolled back with the others.
    pub async fn endpoint<T: DeserializeOwned + Default>(
        &self,
        service: &str,
        path: &str,
        ask: &(impl Serialize + Sync),
    ) -> Result<T, TxError<E>> {
        let [commit, rollback] = ["/commit", "/rollback"].map(|path| at(service, path));
        self.endpoint_at(&XaTargets { action: at(service, path), commit, rollback }, ask).await
    }

    /// The same for a branch that is called elsewhere.
    ///
    /// # Errors
    ///
    /// As [`OpenXa::endpoint`].
    ///
    /// # Cancel safety
    ///
    /// As [`OpenXa::endpoint`].
    pub async fn endpoint_at<T: DeserializeOwned + Default>(
        &self,
        targets: &XaTargets,
        ask: &(impl Serialize + Sync),
    ) -> Result<T, TxError<E>> {
        let branch = new_gid();
        let ends = BranchTargets {
            commit: Some(targets.commit.clone()),
            rollback: Some(targets.rollback.clone()),
            ..BranchTargets::default()
        };
        let call = self.joining.call(&branch, ("xa", "action"), (&targets.action, ends), ask);
        let answer = call.await?;
        // No vote came before: that it joined is durable, and a branch without a vote aborts.
        self.votes.lock().push(BranchVote {
            branch,
            resource: None,
            vote: VoteWord::Yes,
            evidence: None,
            session_id: None,
        });
        Ok(answer)
    }
}

/// Who writes receipts, for whoever reads the table.
#[cfg(any(feature = "mysql", feature = "postgres"))]
const WRITER: &str = "mainstay-client";

/// A branch that has joined.
#[cfg(any(feature = "mysql", feature = "postgres"))]
struct Joined {
    name: BranchName,
    branch: String,
}

#[cfg(any(feature = "mysql", feature = "postgres"))]
impl Joined {
    const fn name(&self) -> &BranchName {
        &self.name
    }
}

#[cfg(any(feature = "mysql", feature = "postgres"))]
impl<E> OpenXa<E> {
    /// Lets a branch of `resource` join.
    async fn join(&self, resource: &str) -> Result<Joined, TxError<E>> {
        let branch = new_gid();
        let joined =
            self.joining.register(&branch, Some(resource), BranchTargets::default(), None).await?;
        self.votes.lock().push(BranchVote {
            branch: branch.clone(),
            resource: Some(resource.to_owned()),
            vote: VoteWord::No,
            evidence: None,
            session_id: None,
        });
        // `ms:CLUSTER:GID:BRANCH`
        let Some(cluster) = joined.xid.as_deref().and_then(|xid| xid.split(':').nth(1)) else {
            let xid = joined.xid.as_deref().unwrap_or("nothing");
            let why = format!(
                "a branch of {resource} joined, and the coordinator gave it {xid} for a name \
                 instead of `ms:CLUSTER:GID:BRANCH`"
            );
            return Err(self.joining.aborted(why));
        };
        let name = BranchName::new(cluster, self.gid(), &branch);
        let name = name.map_err(|invalid| self.joining.aborted(invalid.to_string()))?;
        Ok(Joined { name, branch })
    }

    /// Its database holds the branch prepared, and has said so.
    fn votes_yes(&self, joined: &Joined, session_id: Option<String>) {
        let mut votes = self.votes.lock();
        if let Some(vote) = votes.iter_mut().find(|vote| vote.branch == joined.branch) {
            (vote.vote, vote.evidence) = (VoteWord::Yes, Some(Evidence::Listed));
            vote.session_id = session_id;
        }
    }

    /// Whether a branch began; its name is new, so nobody else can have done it.
    fn is_new<D: std::error::Error + 'static>(
        &self,
        begun: Result<Begun, BranchError<D>>,
    ) -> Result<(), TxError<E>> {
        match begun {
            Ok(Begun::New) => Ok(()),
            Ok(Begun::Already) => {
                Err(self.joining.aborted("its branch was done before".to_owned()))
            }
            Err(error) => Err(self.not_done(&error)),
        }
    }

    fn not_done(&self, error: &(dyn std::error::Error + 'static)) -> TxError<E> {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let causes: Vec<String> = causes.map(ToString::to_string).collect();
        self.joining.aborted(causes.join(": "))
    }
}
