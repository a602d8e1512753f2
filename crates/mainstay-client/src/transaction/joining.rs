//! What transactions have in common that branches join while they are open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_api::transaction::{
    BeginTransaction, BranchKind, BranchTargets, RegisterBranch, Registered, SubmitTransaction,
    Target, Transaction, WhenPrepared,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::asking::{self, NoAnswer, Open, insist, post};
use super::participant::{self, Called, Said};
use super::{Body, TxError, new_gid};
use crate::client::{Client, Shared};

/// An open transaction. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Joining {
    shared: Arc<Shared>,
    gid: Arc<str>,
    patience: Duration,
}

/// Begins what `begin` says, lets `business` have branches join, and commits by what `submit`
/// makes of the begin's answer. An error of `business`, a panic, and a future that is dropped abort
/// it.
pub(super) async fn run<T, E, Running>(
    client: Client,
    mut begin: BeginTransaction,
    patience: Duration,
    business: impl FnOnce(Joining) -> Running,
    submit: impl FnOnce(Transaction) -> SubmitTransaction,
) -> Result<T, TxError<E>>
where
    Running: Future<Output = Result<T, TxError<E>>>,
{
    let gid = begin.gid.get_or_insert_with(new_gid).clone();
    let shared = client.shared;
    // Armed before it is sent: what was begun, and dropped before the answer, is aborted too.
    let mut open = Open::new(Arc::clone(&shared), gid.clone(), patience);
    let call = post("/transactions".to_owned(), Duration::ZERO).document(&begin);
    let begun = insist::<Transaction>(&shared, &call, patience).await;
    let begun = match begun.map_err(NoAnswer::of_begin).and_then(unused) {
        Ok(begun) => begun,
        Err(error) => {
            // Should it have been begun here, no branch is in it: its deadline ends it.
            open.disarm();
            return Err(error.with_business());
        }
    };
    let joining = Joining { shared: Arc::clone(&shared), gid: gid.as_str().into(), patience };
    let value = match business(joining).await {
        Ok(value) => value,
        Err(error) => {
            open.abort("its initiator failed".to_owned()).await;
            return Err(error);
        }
    };
    let decided = asking::submit(&shared, &gid, submit(begun), patience).await;
    // Whatever came of it, nothing is decided against it from here on: if nobody has heard of the
    // submit, the deadline aborts.
    open.disarm();
    decided.map(|_| value).map_err(TxError::with_business)
}

/// Refuses what was begun before, and has branches or an end already.
fn unused(begun: Transaction) -> Result<Transaction, TxError> {
    let begun = asking::outcome(begun)?;
    if begun.summary.state == "active" && begun.branches.is_empty() {
        return Ok(begun);
    }
    let why = format!("it was begun before, and is {}", begun.summary.state);
    Err(TxError::Unknown { gid: begun.summary.gid, why })
}

impl Joining {
    /// Its name.
    pub(super) fn gid(&self) -> &str {
        &self.gid
    }

    /// Lets a service join as `branch`, which the coordinator ends at `targets`, and calls it at
    /// `target` for the operation `op` of a transaction of `mode`. Returns what that answered.
    pub(super) async fn call<T: DeserializeOwned + Default, E>(
        &self,
        branch: &str,
        (mode, op): (&str, &str),
        (target, targets): (&Target, BranchTargets),
        ask: &(impl Serialize + Sync),
    ) -> Result<T, TxError<E>> {
        let body = Body::of(ask).checked()?;
        // Durable before it is called: from then on it is undone whatever happens.
        self.register(branch, None, targets, body.clone()).await?;
        let called = Called { gid: &self.gid, branch, op, mode };
        let said = participant::call(&self.shared, called, target, body.as_deref());
        let answer = match said.await? {
            Said::Done(answer) => answer,
            Said::NotDone(why) => return Err(self.aborted(why)),
        };
        // Whoever wants to hear nothing, as with `()`, takes any answer.
        if answer.is_empty() || size_of::<T>() == 0 {
            return Ok(T::default());
        }
        let read = serde_json::from_slice(&answer);
        read.map_err(|error| self.aborted(format!("the answer of a branch: {error}")))
    }

    /// Lets `branch` join: in the database `resource`, or at `targets`. Its name is the caller's, so
    /// that a registration without an answer can be sent again.
    pub(super) async fn register<E>(
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

    /// It cannot be committed any more.
    pub(super) fn aborted<E>(&self, why: String) -> TxError<E> {
        TxError::Aborted { gid: self.gid.to_string(), why }
    }
}
