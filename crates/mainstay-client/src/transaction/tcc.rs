//! Try, confirm, cancel.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use mainstay_api::transaction::{
    BeginTransaction, BranchKind, BranchTargets, RegisterBranch, Registered, Target, Transaction,
    WhenPrepared,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::asking::{self, NoAnswer, Open, insist, post};
use super::participant::{self, Said};
use super::{Body, PATIENCE, TxError, at, begin, new_gid};
use crate::client::{Client, Shared};

/// A transaction of try, confirm and cancel, before it is begun.
#[derive(Clone, Debug)]
#[must_use = "nothing is begun before `run`"]
pub struct Tcc {
    client: Client,
    begin: BeginTransaction,
    patience: Duration,
}

/// An open transaction, which branches are asked to join. Clones are the same one; after it has
/// been decided nobody can join. `E` is what the program's own statements return.
#[derive(Debug)]
pub struct OpenTcc<E = Infallible> {
    shared: Arc<Shared>,
    gid: Arc<str>,
    patience: Duration,
    business: PhantomData<fn() -> E>,
}

impl<E> Clone for OpenTcc<E> {
    fn clone(&self) -> Self {
        let Self { shared, gid, patience, business } = self;
        let (shared, gid) = (Arc::clone(shared), Arc::clone(gid));
        Self { shared, gid, patience: *patience, business: *business }
    }
}

/// Where a branch reserves, makes that good, or gives it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TccTargets {
    /// Reserves; called by this program.
    pub r#try: Target,
    /// Makes it good; called by the coordinator.
    pub confirm: Target,
    /// Gives it up; called by the coordinator, perhaps without a try before.
    pub cancel: Target,
}

impl Tcc {
    pub(super) fn new(client: Client, name: String) -> Self {
        Self { client, begin: begin("tcc", name), patience: PATIENCE }
    }

    /// Its name, 1 to 128 bytes; one that nobody has used unless told. What was begun before under
    /// that name is not run again, as its branches would join once more; [`TxError`] says what
    /// became of it.
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

    /// Confirms, or cancels, branch by branch.
    pub fn ordered(mut self) -> Self {
        self.begin.ordered = true;
        self
    }

    /// How long servers may be silent before it counts as unknown; 15 s unless told.
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Begins it, lets `business` ask branches to join, and commits: when this returns without an
    /// error every branch will be confirmed, if not yet now. An error of `business`, and a panic,
    /// cancels them.
    ///
    /// # Errors
    ///
    /// What `business` returned; else [`TxError`].
    ///
    /// # Cancel safety
    ///
    /// Before the decision it is aborted in the background, which is counted; the decision itself
    /// may have been made.
    pub async fn run<T, E, F, Running>(self, business: F) -> Result<T, TxError<E>>
    where
        F: FnOnce(OpenTcc<E>) -> Running,
        Running: Future<Output = Result<T, TxError<E>>>,
    {
        let Self { client, mut begin, patience } = self;
        let gid = begin.gid.get_or_insert_with(new_gid).clone();
        let shared = client.shared;
        // Armed before it is sent: what was begun, and dropped before the answer, is aborted too.
        let mut open = Open::new(Arc::clone(&shared), gid.clone(), patience);
        let call = post("/transactions".to_owned(), Duration::ZERO).document(&begin);
        let begun = insist::<Transaction>(&shared, &call, patience).await;
        if let Err(error) = begun.map_err(NoAnswer::of_begin).and_then(asking::unused) {
            // Should it have been begun here, no branch is in it: its deadline ends it.
            open.disarm();
            return Err(error.with_business());
        }
        let opened = OpenTcc {
            shared: Arc::clone(&shared),
            gid: gid.as_str().into(),
            patience,
            business: PhantomData,
        };
        let value = match business(opened).await {
            Ok(value) => value,
            Err(error) => {
                open.abort("its initiator failed".to_owned()).await;
                return Err(error);
            }
        };
        let decided = asking::submit(&shared, &gid, asking::decided(), patience).await;
        // Whatever came of it, nothing is decided against it from here on: if nobody has heard of
        // the submit, the deadline aborts.
        open.disarm();
        decided.map(|_| value).map_err(TxError::with_business)
    }
}

impl<E> OpenTcc<E> {
    /// Its name.
    pub fn gid(&self) -> &str {
        &self.gid
    }

    /// Lets `service` join with `ask`: by its `/try`, now, and `/confirm` or `/cancel` later.
    /// Returns what the try answered.
    ///
    /// # Errors
    ///
    /// [`TxError::Aborted`] when it refuses, or what it answered means neither yes nor no: return
    /// it, and the branch is cancelled with the others.
    ///
    /// # Cancel safety
    ///
    /// Whether it was tried is open; it is confirmed or cancelled with the others.
    pub async fn branch<T: DeserializeOwned + Default>(
        &self,
        service: &str,
        ask: &(impl Serialize + Sync),
    ) -> Result<T, TxError<E>> {
        let [r#try, confirm, cancel] =
            ["/try", "/confirm", "/cancel"].map(|path| at(service, path));
        self.branch_at(&TccTargets { r#try, confirm, cancel }, ask).await
    }

    /// The same for a branch that is called elsewhere.
    ///
    /// # Errors
    ///
    /// As [`OpenTcc::branch`].
    ///
    /// # Cancel safety
    ///
    /// As [`OpenTcc::branch`].
    pub async fn branch_at<T: DeserializeOwned + Default>(
        &self,
        targets: &TccTargets,
        ask: &(impl Serialize + Sync),
    ) -> Result<T, TxError<E>> {
        let body = Body::of(ask).checked()?;
        // Chosen here, so that a registration without an answer can be sent again.
        let branch = new_gid();
        self.register(&branch, targets, body.clone()).await?;
        let called =
            participant::Called { gid: &self.gid, branch: &branch, op: "try", mode: "tcc" };
        let said = participant::call(&self.shared, called, &targets.r#try, body.as_deref());
        let answer = match said.await? {
            Said::Done(answer) => answer,
            Said::NotDone(why) => return Err(self.aborted(why)),
        };
        if answer.is_empty() {
            return Ok(T::default());
        }
        let read = serde_json::from_slice(&answer);
        read.map_err(|error| self.aborted(format!("the answer to a try: {error}")))
    }

    /// Durable before it is tried: from then on the branch is cancelled whatever happens.
    async fn register(
        &self,
        branch: &str,
        targets: &TccTargets,
        payload: Option<Box<RawValue>>,
    ) -> Result<(), TxError<E>> {
        let targets = BranchTargets {
            confirm: Some(targets.confirm.clone()),
            cancel: Some(targets.cancel.clone()),
            ..BranchTargets::default()
        };
        let register = RegisterBranch {
            branch: Some(branch.to_owned()),
            kind: BranchKind::Endpoint,
            resource: None,
            targets,
            prepare: WhenPrepared::Own,
            payload,
            payload_base64: None,
            content_type: None,
            headers: BTreeMap::new(),
        };
        let call = post(asking::path(&self.gid, "/branches"), Duration::ZERO).document(&register);
        let joined = insist::<Registered>(&self.shared, &call, self.patience).await;
        joined.map(drop).map_err(|error| error.of_join(&self.gid).with_business())
    }

    fn aborted(&self, why: String) -> TxError<E> {
        TxError::Aborted { gid: self.gid.to_string(), why }
    }
}
