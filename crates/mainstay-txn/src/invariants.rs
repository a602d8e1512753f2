//! Named truths about transactions.
//!
//! The properties of the machine, the model check and tests with a running coordinator ask the
//! same functions, so that the three cannot drift apart.

use crate::transaction::Transaction;
use crate::word::{Decision, Mode, Op};

/// I1: the decision is made once. A saga that goes forward may turn round once, and a message may
/// be given up.
pub fn decided_once(mode: Mode, decisions: &[Decision]) -> bool {
    match decisions {
        [] | [_] => true,
        [Decision::Commit, Decision::Abort] => matches!(mode, Mode::Saga | Mode::Message),
        _ => false,
    }
}

/// I2: nobody is told of a decision the log does not hold.
pub fn durable_before_told(op: Op, logged: Option<Decision>) -> bool {
    match op {
        Op::Commit | Op::Confirm | Op::Action => logged == Some(Decision::Commit),
        Op::Rollback | Op::Cancel | Op::Compensate => logged == Some(Decision::Abort),
        Op::Try | Op::Prepare | Op::Check => true,
    }
}

/// I4: operations only move forward.
pub fn ops_move_forward(before: &Transaction, after: &Transaction) -> bool {
    before
        .branches
        .iter()
        .zip(&after.branches)
        .all(|(before, after)| before.ops.iter().all(|op| op.state <= after.state_of(op.op)))
}

/// No branch is told both ways in the second phase.
pub fn told_one_way(ops: &[Op]) -> bool {
    let commits = ops.iter().any(|op| matches!(op, Op::Commit | Op::Confirm));
    let aborts = ops.iter().any(|op| matches!(op, Op::Rollback | Op::Cancel));
    !(commits && aborts)
}
