//! Verbs, asked until there is an answer that means something.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use mainstay_api::transaction::{AbortTransaction, SubmitTransaction, Transaction, WaitFor};
use mainstay_core::Effect;
use mainstay_core::problem::Code;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

use super::TxError;
use crate::client::Shared;
use crate::clock;
use crate::control::{Call, segment};
use crate::error::ClientError;
use crate::pause::pause;

/// For the answer to one try, beside what it is told to wait: a commit, on a busy server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one request waits for a decision.
const WAIT: Duration = Duration::from_secs(10);

/// An answer that did not come in time.
#[derive(Debug)]
pub(super) struct NoAnswer {
    /// What was heard last.
    pub(super) error: ClientError,
    /// What the tries may have done, all together.
    pub(super) effect: Effect,
}

/// Asks for `call` until it is answered, other than that somebody is busy or away, for up to
/// `patience`.
pub(super) async fn insist<T: DeserializeOwned>(
    shared: &Shared,
    call: &Call,
    patience: Duration,
) -> Result<T, NoAnswer> {
    let began = clock::now();
    let (mut tries, mut effect) = (0, Effect::None);
    loop {
        let error = match shared.control.ask(call).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if error.effect() != Effect::None {
            effect = Effect::Unknown;
        }
        if !error.is_passing() || patience <= clock::now().since(began) {
            return Err(NoAnswer { error, effect });
        }
        tries += 1;
        pause(tries, error.retry_after()).await;
    }
}

/// `rest` of a transaction.
pub(super) fn path(gid: &str, rest: &str) -> String {
    format!("/transactions/{}{rest}", segment(gid))
}

/// A request that waits on the server for up to `wait`.
pub(super) fn post(path: String, wait: Duration) -> Call {
    Call::new(Method::POST, path, wait + ANSWER_TIMEOUT)
}

/// Commits what was begun as `gid`.
pub(super) async fn submit(
    shared: &Shared,
    gid: &str,
    submit: SubmitTransaction,
    patience: Duration,
) -> Result<Transaction, TxError> {
    let submit = SubmitTransaction { wait_seconds: Some(WAIT.as_secs_f64()), ..submit };
    let call = post(path(gid, "/submit"), WAIT).document(&submit);
    insist(shared, &call, patience).await.map_err(|error| error.of_submit(gid))
}

/// Waits until the transaction has ended, as long as servers answer at least every `patience`.
pub(super) async fn ended(
    shared: &Shared,
    gid: &str,
    patience: Duration,
) -> Result<Transaction, TxError> {
    let query = format!("?wait=done&wait_seconds={}", WAIT.as_secs());
    let call = Call::new(Method::GET, path(gid, &query), WAIT + ANSWER_TIMEOUT);
    loop {
        let began = clock::now();
        let seen: Transaction = match insist(shared, &call, patience).await {
            Ok(seen) => seen,
            Err(NoAnswer { error, .. }) => return Err(unknown(gid, &error)),
        };
        if ["committed", "aborted", "mixed"].contains(&seen.summary.state.as_str()) {
            return Ok(seen);
        }
        // One that is stuck is answered at once.
        let took = clock::now().since(began);
        tokio::time::sleep(STUCK_PAUSE.saturating_sub(took)).await;
    }
}

/// How often a transaction is looked at that does not get on.
const STUCK_PAUSE: Duration = Duration::from_secs(1);

/// Aborts what was begun as `gid`; if nobody answers, its deadline does.
pub(super) async fn abort(shared: &Shared, gid: &str, detail: String, patience: Duration) {
    let document = AbortTransaction { detail: Some(detail), reason: None };
    let call = post(path(gid, "/abort"), Duration::ZERO).document(&document);
    // 409: it was decided before, one way or the other.
    drop(insist::<Transaction>(shared, &call, patience).await);
}

pub(super) fn unknown(gid: &str, error: &ClientError) -> TxError {
    TxError::Unknown { gid: gid.to_owned(), why: error.to_string() }
}

/// What came of a transaction that is decided.
pub(super) fn outcome(seen: Transaction) -> Result<Transaction, TxError> {
    let gid = seen.summary.gid.clone();
    if seen.summary.state == "mixed" {
        return Err(TxError::Mixed { gid });
    }
    if seen.summary.decision.as_deref() != Some("abort") {
        return Ok(seen);
    }
    let reason = seen.summary.reason.map(|reason| format!("{}: {}", reason.why, reason.detail));
    Err(TxError::Aborted { gid, why: reason.unwrap_or_default() })
}

impl NoAnswer {
    /// Of a request that does nothing by itself.
    pub(super) fn of_begin(self) -> TxError {
        self.error.into()
    }

    /// Of a branch that was to join: it was not tried.
    pub(super) fn of_join(self, gid: &str) -> TxError {
        let is_over =
            [Code::TransactionDeadlinePassed, Code::TransactionNotActive, Code::TransactionUnknown];
        if is_over.into_iter().any(|code| self.error.is(code)) {
            return TxError::Aborted { gid: gid.to_owned(), why: self.error.to_string() };
        }
        self.error.into()
    }

    /// Of the request that decides.
    pub(super) fn of_submit(self, gid: &str) -> TxError {
        let Self { error, effect } = self;
        if error.is(Code::TransactionAborted) {
            return TxError::Aborted { gid: gid.to_owned(), why: error.to_string() };
        }
        if error.is(Code::TransactionMixed) {
            return TxError::Mixed { gid: gid.to_owned() };
        }
        // A refusal says nothing of a try before it that may have arrived.
        if effect == Effect::None { error.into() } else { unknown(gid, &error) }
    }
}

/// A transaction that is open: dropped before it is decided, it is aborted in the background.
#[derive(Debug)]
pub(super) struct Open {
    shared: Arc<Shared>,
    runtime: Handle,
    gid: String,
    patience: Duration,
    is_armed: bool,
}

impl Open {
    /// `gid` has been begun. Must be called within a tokio runtime.
    pub(super) fn new(shared: Arc<Shared>, gid: String, patience: Duration) -> Self {
        Self { shared, runtime: Handle::current(), gid, patience, is_armed: true }
    }

    /// It is decided, or left to its deadline or check.
    pub(super) fn disarm(&mut self) {
        self.is_armed = false;
    }

    /// Aborts it, and waits for that.
    pub(super) async fn abort(mut self, detail: String) {
        abort(&self.shared, &self.gid, detail, self.patience).await;
        self.disarm();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.is_armed {
            return;
        }
        self.shared.transactions_dropped.fetch_add(1, Ordering::Relaxed);
        let (shared, gid, patience) = (Arc::clone(&self.shared), self.gid.clone(), self.patience);
        let tasks = shared.tasks.clone();
        tasks.spawn_on(&self.runtime, "transaction-abort", |_stop| async move {
            abort(&shared, &gid, "its initiator went away".to_owned(), patience).await;
        });
    }
}

/// The wait of a submit.
pub(super) fn decided() -> SubmitTransaction {
    SubmitTransaction { wait: Some(WaitFor::Decided), ..SubmitTransaction::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::problem;

    #[test]
    fn a_refusal_takes_nothing_back_that_an_earlier_try_may_have_done() {
        let came = |effect| {
            let refused = problem(Code::PermissionMissing, "no".to_owned(), Some(Effect::None));
            let error = ClientError::Refused(Box::new(refused));
            NoAnswer { error, effect }.of_submit("order-1")
        };
        assert!(matches!(came(Effect::None), TxError::Refused(_)));
        assert!(matches!(came(Effect::Unknown), TxError::Unknown { gid, .. } if gid == "order-1"));
    }

    #[test]
    fn a_branch_comes_too_late_for_what_is_over() {
        let came = |code| {
            let refused = problem(code, "late".to_owned(), Some(Effect::None));
            let error = ClientError::Refused(Box::new(refused));
            NoAnswer { error, effect: Effect::None }.of_join("trip-1")
        };
        for code in
            [Code::TransactionDeadlinePassed, Code::TransactionNotActive, Code::TransactionUnknown]
        {
            assert!(matches!(came(code), TxError::Aborted { .. }), "{code}");
        }
        assert!(matches!(came(Code::BranchTargetDenied), TxError::Refused(_)));
    }
}
