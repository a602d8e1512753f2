//! What must be true of every history of a lock.
//!
//! Three checks, none of which knows how the locks are made. *Holds* lie between the store's
//! revision at which a holder was granted the lock and the one at which its place went; no two of
//! them overlap, and the later one has the larger token. *Calls* (acquire, release) as their callers
//! saw them can be put into one order in which a lock is only ever taken when it is free. *Writes*
//! made under the lock never go back to a smaller token.

use mainstay_store::Revision;
use porcupine_rs::{Model, Operation};

use super::is_linearizable;

/// One hold, as its holder and the store saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The fencing token.
    pub token: u64,
    /// The revision in which it was granted.
    pub granted: Revision,
    /// The revision that ended its place.
    pub ended: Revision,
}

/// Holds lie one after the other, and tokens rise with them.
///
/// # Errors
///
/// Two that do not.
pub fn holds_do_not_overlap(mut holds: Vec<Hold>) -> Result<(), String> {
    holds.sort_by_key(|hold| hold.granted);
    for pair in holds.windows(2) {
        let [first, second] = pair else { continue };
        if second.granted < first.ended {
            return Err(format!("{first:?} and {second:?} overlap"));
        }
        if second.token <= first.token {
            return Err(format!("{second:?} has no larger token than {first:?}"));
        }
    }
    Ok(())
}

/// Tokens of writes, in the order in which they arrived, never fall.
///
/// # Errors
///
/// Where they do.
pub fn writes_do_not_go_back(tokens: &[u64]) -> Result<(), String> {
    match tokens.windows(2).find(|pair| pair[1] < pair[0]) {
        Some(pair) => Err(format!("a write with token {} after one with {}", pair[1], pair[0])),
        None => Ok(()),
    }
}

/// A call, as its caller saw it: it took effect between `called` and `returned`.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Who called.
    pub client: u32,
    /// What came of it.
    pub what: What,
    /// When, in the order of everything.
    pub called: i64,
    /// When it returned; [`OPEN`](super::OPEN) for one whose end nobody saw.
    pub returned: i64,
}

/// What was called.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// Was granted this token.
    Acquire(u64),
    /// Gave it back, or lost it.
    Release(u64),
}

/// A lock: who holds it, and the last token it gave.
#[derive(Clone, Debug)]
struct Lock;

impl Model for Lock {
    type State = (Option<u64>, u64);
    type Op = What;
    type Metadata = ();

    fn init() -> Self::State {
        (None, 0)
    }

    fn step(state: &Self::State, op: &Self::Op) -> (bool, Self::State) {
        match (*op, *state) {
            (What::Acquire(token), (None, last)) => (last < token, (Some(token), token)),
            (What::Acquire(_), (Some(_), _)) => (false, *state),
            (What::Release(token), (held, last)) => (held == Some(token), (None, last)),
        }
    }
}

/// The calls can be put into one order a lock allows.
///
/// # Errors
///
/// The calls, if they cannot.
pub fn calls_are_linearizable(calls: &[Call]) -> Result<(), String> {
    let operations: Vec<Operation<Lock>> = calls
        .iter()
        .map(|call| Operation {
            client_id: Some(call.client),
            op: call.what,
            call_time: call.called,
            return_time: call.returned,
            metadata: None,
        })
        .collect();
    is_linearizable(&operations)
}

#[cfg(test)]
mod tests {
    use super::super::OPEN;
    use super::*;

    #[test]
    fn the_checks_find_what_is_wrong() {
        let hold = |token, granted, ended| Hold {
            token,
            granted: Revision::new(granted),
            ended: Revision::new(ended),
        };
        assert!(holds_do_not_overlap(vec![hold(9, 9, 12), hold(4, 5, 9)]).is_ok());
        assert!(holds_do_not_overlap(vec![hold(4, 5, 10), hold(9, 9, 12)]).is_err());
        assert!(holds_do_not_overlap(vec![hold(4, 5, 6), hold(4, 9, 12)]).is_err());
        assert!(writes_do_not_go_back(&[1, 1, 2]).is_ok());
        assert!(writes_do_not_go_back(&[2, 1]).is_err());
        let call = |what, called, returned| Call { client: 0, what, called, returned };
        let fine = [
            call(What::Acquire(1), 0, 1),
            call(What::Acquire(2), 0, 9),
            call(What::Release(1), 2, 5),
            call(What::Release(2), 10, OPEN),
        ];
        assert!(calls_are_linearizable(&fine).is_ok());
        let both = [call(What::Acquire(1), 0, 1), call(What::Acquire(2), 2, 3)];
        assert!(calls_are_linearizable(&both).is_err());
        let falling = [
            call(What::Acquire(2), 0, 1),
            call(What::Release(2), 2, 3),
            call(What::Acquire(1), 4, 5),
        ];
        assert!(calls_are_linearizable(&falling).is_err());
    }
}
