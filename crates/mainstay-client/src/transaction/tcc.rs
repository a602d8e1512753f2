//! Try, confirm, cancel.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::time::Duration;

use mainstay_api::transaction::{BeginTransaction, BranchTargets, Target};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::joining::{self, Joining};
use super::{PATIENCE, TxError, asking, at, begin, new_gid};
use crate::client::Client;

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
    joining: Joining,
    business: PhantomData<fn() -> E>,
}

impl<E> Clone for OpenTcc<E> {
    fn clone(&self) -> Self {
        Self { joining: self.joining.clone(), business: PhantomData }
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
    /// that name is not run again, as its branches would join once more: [`TxError::Aborted`] if it
    /// was aborted; else [`TxError::Unknown`], also if it was committed, as what its first run
    /// returned is not known any more. Which of them it is stands in `why`.
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
        let Self { client, begin, patience } = self;
        let open = |joining| business(OpenTcc { joining, business: PhantomData });
        joining::run(client, begin, patience, open, |_begun| asking::decided()).await
    }
}

impl<E> OpenTcc<E> {
    /// Its name.
    pub fn gid(&self) -> &str {
        self.joining.gid()
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
        let ends = BranchTargets {
            confirm: Some(targets.confirm.clone()),
            cancel: Some(targets.cancel.clone()),
            ..BranchTargets::default()
        };
        self.joining.call(&new_gid(), ("tcc", "try"), (&targets.r#try, ends), ask).await
    }
}
