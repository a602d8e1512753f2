//! What every history must be, whoever made it: the simulator, or tests with real processes.
//!
//! | of what | module |
//! |---|---|
//! | reads and writes of keys | [`pairs`] |
//! | locks | [`locks`] |
//! | watches | [`mainstay_store::conformance::validators`] |

pub mod locks;
pub mod pairs;

use std::time::Duration;

use porcupine_rs::{CheckResult, Model, Operation};

/// Whether `calls` can be put into one order that the model allows.
///
/// # Errors
///
/// What could not be, or not be decided in half a minute.
pub(crate) fn is_linearizable<M: Model>(calls: &[Operation<M>]) -> Result<(), String> {
    let verdict = porcupine_rs::check_operations_timeout(calls, DECIDED_WITHIN);
    let told = match verdict {
        CheckResult::Ok => return Ok(()),
        CheckResult::Illegal => "no order explains",
        CheckResult::Unknown => "could not be decided whether an order explains",
    };
    let lines = calls.iter().map(|call| {
        let (from, to) = (call.call_time, call.return_time);
        let to = if to == OPEN { "…".to_owned() } else { to.to_string() };
        format!("\n  {from}-{to} client {:?}: {:?}", call.client_id, call.op)
    });
    Err(std::iter::once(told.to_owned()).chain(lines).collect())
}

/// When a call returned whose end nobody saw.
pub const OPEN: i64 = i64::MAX;

const DECIDED_WITHIN: Duration = Duration::from_secs(30);
