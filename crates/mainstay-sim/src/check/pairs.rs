//! Reads and writes of single keys are linearizable (Herlihy and Wing, TOPLAS 1990).
//!
//! Keys are independent, so each is checked by itself. Values are numbers that are written once
//! only, so a read tells which write it saw.

use std::collections::BTreeMap;

use porcupine_rs::{Model, Operation};

use super::{OPEN, is_linearizable};

/// A call, as its caller saw it: it took effect between `called` and `returned`.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Who called.
    pub client: u32,
    /// What was called, and what came of it.
    pub what: What,
    /// When, in the order of everything.
    pub called: i64,
    /// When it returned; [`OPEN`] for one whose end nobody saw.
    pub returned: i64,
}

/// What was called, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// This value was read; `None` if the key was not there.
    Read(Option<u64>),
    /// This value was put.
    Put(u64),
    /// `new` was put, if the value was `old`.
    Swap {
        /// What it had to be; `None` is no value.
        old: Option<u64>,
        /// What it was to become.
        new: u64,
        /// Whether it did; `None` if nobody knows.
        swapped: Option<bool>,
    },
    /// The key was deleted; whether it was there, if that is known.
    Delete(Option<bool>),
}

#[derive(Clone, Debug)]
struct Pair;

impl Model for Pair {
    type State = Option<u64>;
    type Op = What;
    type Metadata = ();

    fn init() -> Self::State {
        None
    }

    fn step(state: &Self::State, op: &Self::Op) -> (bool, Self::State) {
        match *op {
            What::Read(value) => (value == *state, *state),
            What::Put(value) => (true, Some(value)),
            What::Swap { old, new, swapped } => {
                let swaps = old == *state;
                let next = if swaps { Some(new) } else { *state };
                (swapped.is_none_or(|swapped| swapped == swaps), next)
            }
            What::Delete(deleted) => {
                (deleted.is_none_or(|deleted| deleted == state.is_some()), None)
            }
        }
    }
}

/// Everything that was done to some keys.
#[derive(Clone, Debug, Default)]
pub struct Pairs {
    calls: BTreeMap<String, Vec<Call>>,
}

impl Pairs {
    /// Adds a call to `key`.
    pub fn add(&mut self, key: &str, call: Call) {
        // What was read and never heard says nothing.
        if call.returned != OPEN || !matches!(call.what, What::Read(_)) {
            self.calls.entry(key.to_owned()).or_default().push(call);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.calls.values().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The calls of each key can be put into one order.
    ///
    /// # Errors
    ///
    /// The first key whose calls cannot.
    pub fn check(&self) -> Result<(), String> {
        for (key, calls) in &self.calls {
            let calls: Vec<Operation<Pair>> = calls
                .iter()
                .map(|call| Operation {
                    client_id: Some(call.client),
                    op: call.what,
                    call_time: call.called,
                    return_time: call.returned,
                    metadata: None,
                })
                .collect();
            is_linearizable(&calls).map_err(|what| format!("key {key}: {what}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether some calls are linearizable; each is what, when it began, when it ended.
    fn check(calls: &[(What, i64, i64)]) -> bool {
        let mut pairs = Pairs::default();
        for (client, &(what, called, returned)) in (0..).zip(calls) {
            pairs.add("k", Call { client, what, called, returned });
        }
        pairs.check().is_ok()
    }

    #[test]
    fn a_read_sees_the_last_write_before_it_or_one_beside_it() {
        use What::{Delete, Put, Read};
        assert!(check(&[(Put(1), 0, 1), (Read(Some(1)), 2, 3)]));
        assert!(!check(&[(Put(1), 0, 1), (Read(None), 2, 3)]), "a stale read");
        assert!(check(&[(Put(1), 0, 5), (Read(None), 2, 3)]), "beside it");
        let two = [(Put(1), 0, 1), (Put(2), 2, 9), (Read(Some(2)), 3, 4)];
        assert!(check(&two));
        assert!(!check(&[two[0], two[1], two[2], (Read(Some(1)), 5, 6)]), "back again");
        assert!(check(&[(Put(1), 0, 1), (Delete(Some(true)), 2, 3), (Read(None), 4, 5)]));
        assert!(!check(&[(Put(1), 0, 1), (Delete(Some(false)), 2, 3)]));
    }

    #[test]
    fn what_nobody_heard_of_may_have_happened_later_or_never() {
        use What::{Put, Read, Swap};
        let open = (Put(1), 0, OPEN);
        assert!(check(&[open, (Read(None), 2, 3), (Read(Some(1)), 4, 5)]));
        assert!(check(&[open, (Read(None), 2, 3)]));
        assert!(!check(&[open, (Read(Some(1)), 2, 3), (Read(None), 4, 5)]));
        let swap = (Swap { old: Some(7), new: 1, swapped: None }, 0, OPEN);
        assert!(!check(&[swap, (Read(Some(1)), 2, 3)]), "it was never 7");
    }

    #[test]
    fn of_two_swaps_from_one_value_one_fails() {
        let swap = |new, swapped| What::Swap { old: None, new, swapped: Some(swapped) };
        assert!(check(&[(swap(1, true), 0, 5), (swap(2, false), 0, 5)]));
        assert!(!check(&[(swap(1, true), 0, 5), (swap(2, true), 0, 5)]));
        assert!(!check(&[(swap(1, false), 0, 5)]));
    }
}
