//! A message as a receipt.

use std::sync::Arc;

use mainstay_call::deferred::{Receipt, ReceiptState};
use mainstay_core::Moment;
use mainstay_txn::transaction::OpRecord;
use mainstay_txn::{Op, OpState, State, Transaction};

use crate::transaction::deliveries::status_of;

/// How far the request with the receipt `id` is.
pub(crate) fn receipt(id: &str, transaction: &Transaction) -> Receipt {
    let register = &transaction.register;
    let record = transaction.branches.first().and_then(|branch| branch.op(Op::Action));
    let shown = record.map_or(OpState::Waiting, OpRecord::shown);
    let failed = record.map_or(0, |record| record.attempts);
    let state = match register.state {
        State::Committed => ReceiptState::Done,
        state if state.is_final() => ReceiptState::Dead,
        _ if transaction.is_calling() => ReceiptState::Delivering,
        _ => ReceiptState::Queued,
    };
    let answered = shown == OpState::Done || state == ReceiptState::Delivering;
    let next = record.filter(|record| state == ReceiptState::Queued && 0 < record.attempts);
    let status = record.filter(|_| state == ReceiptState::Dead);
    Receipt {
        id: Arc::from(id),
        state,
        queued_at: moment(transaction.created_at),
        tries: failed.saturating_add(u32::from(answered)),
        next_try_at: next.map(|record| moment(record.next_at)),
        ended_at: register.finished_at.map(moment),
        status: status.and_then(|record| status_of(record.last_error.as_deref()?)),
    }
}

/// Whether it was given up, or ended by an operator.
pub(crate) const fn is_dead(transaction: &Transaction) -> bool {
    matches!(transaction.register.state, State::Aborted)
}

fn moment(at: mainstay_txn::Moment) -> Moment {
    Moment::from_unix_millis(at.unix_millis())
}
