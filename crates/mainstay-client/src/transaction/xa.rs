//! Two-phase commits: branches in databases of this program, and in services.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

#[cfg(any(feature = "mysql", feature = "postgres"))]
use mainstay_api::transaction::Evidence;
use mainstay_api::transaction::{
    BeginTransaction, BranchKind, BranchTargets, BranchVote, RegisterBranch, Registered,
    SubmitTransaction, Target, Transaction, VoteWord, WhenPrepared,
};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::asking::{self, NoAnswer, Open, insist, post};
use super::participant::{self, Said};
use super::{Body, PATIENCE, TxError, at, begin, new_gid};
#[cfg(any(feature = "mysql", feature = "postgres"))]
use crate::branch::{Begun, BranchError, BranchName};
use crate::client::{Client, Shared};
#[cfg(any(feature = "mysql", feature = "postgres"))]
use crate::error::ClientError;

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
    shared: Arc<Shared>,
    gid: Arc<str>,
    patience: Duration,
    /// Of branches that are prepared.
    votes: Arc<Mutex<Vec<BranchVote>>>,
    business: PhantomData<fn() -> E>,
}

impl<E> Clone for OpenXa<E> {
    fn clone(&self) -> Self {
        let Self { shared, gid, patience, votes, business } = self;
        let (shared, gid, votes) = (Arc::clone(shared), Arc::clone(gid), Arc::clone(votes));
        Self { shared, gid, patience: *patience, votes, business: *business }
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
    /// [`TxError`] says what became of it.
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

    /// Commits in the order in which branches joined, and rolls back in the other.
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
        let Self { client, mut begin, patience } = self;
        let gid = begin.gid.get_or_insert_with(new_gid).clone();
        let shared = client.shared;
        // Armed before it is sent: what was begun, and dropped before the answer, is aborted too.
        let mut open = Open::new(Arc::clone(&shared), gid.clone(), patience);
        let call = post("/transactions".to_owned(), Duration::ZERO).document(&begin);
        let begun = insist::<Transaction>(&shared, &call, patience).await;
        let begun = begun.map_err(NoAnswer::of_begin).and_then(asking::unused);
        let begun = match begun {
            Ok(begun) => begun,
            Err(error) => {
                // Should it have been begun here, no branch is in it: its deadline ends it.
                open.disarm();
                return Err(error.with_business());
            }
        };
        let opened = OpenXa {
            shared: Arc::clone(&shared),
            gid: gid.as_str().into(),
            patience,
            votes: Arc::default(),
            business: PhantomData,
        };
        let votes = Arc::clone(&opened.votes);
        let value = match business(opened).await {
            Ok(value) => value,
            Err(error) => {
                open.abort("its initiator failed".to_owned()).await;
                return Err(error);
            }
        };
        // With them it also counts after a failover that has forgotten the begin.
        let submit = SubmitTransaction {
            votes: votes.lock().clone(),
            begun_at: Some(begun.summary.created_at),
            deadline_at: begun.summary.deadline_at,
            ..asking::decided()
        };
        let decided = asking::submit(&shared, &gid, submit, patience).await;
        // Whatever came of it, nothing is decided against it from here on: if nobody has heard of
        // the submit, the deadline aborts.
        open.disarm();
        decided.map(|_| value).map_err(TxError::with_business)
    }
}

impl<E> OpenXa<E> {
    /// Its name.
    pub fn gid(&self) -> &str {
        &self.gid
    }

    /// Does a branch in `PostgreSQL`: `business` runs in a local transaction on `client`, which is
    /// in none, and is prepared then. `resource` is what the coordinator's configuration calls the
    /// database.
    ///
    /// # Errors
    ///
    /// [`TxError::Business`] of what `business` returned; [`TxError::Aborted`] when the branch
    /// could not be prepared. Return either, and all branches are rolled back.
    ///
    /// # Cancel safety
    ///
    /// Not safe: the session may be in a transaction. Drop the client.
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
        self.votes(name.vote(None));
        Ok(value)
    }

    /// The same in `MariaDB`. The session ends with the branch, since nobody else could commit it
    /// before.
    ///
    /// # Errors
    ///
    /// As [`OpenXa::postgres`].
    ///
    /// # Cancel safety
    ///
    /// Safe: the session ends.
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
        self.is_new(mysql::begin(&mut connection, name.name(), WRITER).await)?;
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
        self.votes(name.vote(Some(prepared.session_id.to_string())));
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
        let body = Body::of(ask).checked()?;
        // Durable before it is called: from then on it is rolled back whatever happens.
        let branch = new_gid();
        let registered = BranchTargets {
            commit: Some(targets.commit.clone()),
            rollback: Some(targets.rollback.clone()),
            ..BranchTargets::default()
        };
        self.register(&branch, None, registered, body.clone()).await?;
        let called =
            participant::Called { gid: &self.gid, branch: &branch, op: "action", mode: "xa" };
        let said = participant::call(&self.shared, called, &targets.action, body.as_deref());
        let answer = match said.await? {
            Said::Done(answer) => answer,
            Said::NotDone(why) => return Err(self.aborted(why)),
        };
        self.votes(BranchVote {
            branch,
            resource: None,
            vote: VoteWord::Yes,
            evidence: None,
            session_id: None,
        });
        if answer.is_empty() {
            return Ok(T::default());
        }
        let read = serde_json::from_slice(&answer);
        read.map_err(|error| self.aborted(format!("the answer of a branch: {error}")))
    }

    async fn register(
        &self,
        branch: &str,
        resource: Option<&str>,
        targets: BranchTargets,
        payload: Option<Box<RawValue>>,
    ) -> Result<Registered, TxError<E>> {
        let register = RegisterBranch {
            branch: Some(branch.to_owned()),
            kind: if resource.is_some() { BranchKind::Resource } else { BranchKind::Endpoint },
            resource: resource.map(str::to_owned),
            targets,
            prepare: WhenPrepared::Own,
            payload,
            payload_base64: None,
            content_type: None,
            headers: BTreeMap::new(),
        };
        let call = post(asking::path(&self.gid, "/branches"), Duration::ZERO).document(&register);
        let joined = insist::<Registered>(&self.shared, &call, self.patience).await;
        joined.map_err(|error| error.of_join(&self.gid).with_business())
    }

    fn votes(&self, vote: BranchVote) {
        self.votes.lock().push(vote);
    }

    fn aborted(&self, why: String) -> TxError<E> {
        TxError::Aborted { gid: self.gid.to_string(), why }
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
    resource: String,
}

#[cfg(any(feature = "mysql", feature = "postgres"))]
impl Joined {
    const fn name(&self) -> &BranchName {
        &self.name
    }

    /// It is prepared, and the database has said so.
    fn vote(self, session_id: Option<String>) -> BranchVote {
        BranchVote {
            branch: self.branch,
            resource: Some(self.resource),
            vote: VoteWord::Yes,
            evidence: Some(Evidence::Listed),
            session_id,
        }
    }
}

#[cfg(any(feature = "mysql", feature = "postgres"))]
impl<E> OpenXa<E> {
    /// Lets a branch of `resource` join.
    async fn join(&self, resource: &str) -> Result<Joined, TxError<E>> {
        let branch = new_gid();
        let joined = self.register(&branch, Some(resource), BranchTargets::default(), None).await?;
        // `ms:CLUSTER:GID:BRANCH`
        let cluster = joined.xid.as_deref().and_then(|xid| xid.split(':').nth(1));
        let name = BranchName::new(cluster.unwrap_or_default(), &self.gid, &branch);
        let why = "must be 1 to 48 of A-Z, a-z, 0-9, `.`, `_` and `-`";
        let name = name.map_err(|_invalid| ClientError::Invalid { what: "gid", why })?;
        Ok(Joined { name, branch, resource: resource.to_owned() })
    }

    /// Whether a branch began; its name is new, so nobody else can have done it.
    fn is_new<D: std::error::Error + 'static>(
        &self,
        begun: Result<Begun, BranchError<D>>,
    ) -> Result<(), TxError<E>> {
        match begun {
            Ok(Begun::New) => Ok(()),
            Ok(Begun::Already) => Err(self.aborted("its branch was done before".to_owned())),
            Err(error) => Err(self.not_done(&error)),
        }
    }

    fn not_done(&self, error: &(dyn std::error::Error + 'static)) -> TxError<E> {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let causes: Vec<String> = causes.map(ToString::to_string).collect();
        self.aborted(causes.join(": "))
    }
}
