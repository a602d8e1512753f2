//! What must be true of every history of a lock, and a lock of which it is not.
//!
//! Three checks, none of which knows how the locks are made. *Holds* lie between the store's
//! revision at which a holder was granted the lock and the one at which its place went; no two of
//! them overlap, and the later one has the larger token. *Calls* (acquire, release) as their callers
//! saw them can be put into one order in which a lock is only ever taken when it is free
//! (linearizability, by `porcupine`). *Writes* made under the lock never go back to a smaller
//! token.

use std::collections::BTreeMap;

use mainstay_store::{Change, Key, Range, Revision, Store, WatchItem, WatchRequest};
use porcupine_rs::{Model, Operation};

/// One hold, as its holder and the store saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) token: u64,
    /// The revision in which it was granted.
    pub(crate) granted: Revision,
    /// The revision that ended its place.
    pub(crate) ended: Revision,
}

/// Holds lie one after the other, and tokens rise with them.
pub(crate) fn holds_do_not_overlap(mut holds: Vec<Hold>) -> Result<(), String> {
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
pub(crate) fn writes_do_not_go_back(tokens: &[u64]) -> Result<(), String> {
    match tokens.windows(2).find(|pair| pair[1] < pair[0]) {
        Some(pair) => Err(format!("a write with token {} after one with {}", pair[1], pair[0])),
        None => Ok(()),
    }
}

/// A call, as its caller saw it: it took effect between `called` and `returned`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) client: u32,
    pub(crate) what: What,
    pub(crate) called: i64,
    /// `i64::MAX` for one whose end nobody saw.
    pub(crate) returned: i64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
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
pub(crate) fn calls_are_linearizable(calls: &[Call]) -> Result<(), String> {
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
    if porcupine_rs::check_operations(&operations) {
        Ok(())
    } else {
        Err(format!("no order explains {calls:?}"))
    }
}

/// What the store saw of `range` from its beginning on: when each life of each key began and
/// ended, and each value put at `register`, in order.
pub(crate) struct Log {
    /// By key and create revision.
    pub(crate) ends: BTreeMap<(Key, Revision), Revision>,
    pub(crate) register: Vec<u64>,
}

/// Reads it up to the present.
pub(crate) async fn log(store: &dyn Store, range: Range, register: &Key) -> Log {
    let until = store.status().await.expect("it always tells").revision;
    let all = WatchRequest::new(Range::all()).from(Revision::FIRST.next()).previous().quiet();
    let mut watch = store.watch(all).expect("there is room");
    let mut log = Log { ends: BTreeMap::new(), register: Vec::new() };
    loop {
        let (revision, events) = match watch.next().await {
            Some(WatchItem::Changes { revision, events }) => (revision, events),
            Some(WatchItem::Created { .. } | WatchItem::Bookmark { .. }) => continue,
            other => panic!("history is gone: {other:?}"),
        };
        for event in &events {
            if event.key() == register
                && let Some(entry) = event.entry()
            {
                log.register.push(number(&entry.value));
            }
            if let (Change::Delete(key), Some(previous)) = (&event.change, &event.previous)
                && range.contains(key)
            {
                log.ends.insert((key.clone(), previous.create_revision), revision);
            }
        }
        if until <= revision {
            return log;
        }
    }
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).expect("digits").parse().expect("a number")
}

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
    assert!(writes_do_not_go_back(&[1, 1, 2]).is_ok() && writes_do_not_go_back(&[2, 1]).is_err());
    let call = |what, called, returned| Call { client: 0, what, called, returned };
    let fine = [
        call(What::Acquire(1), 0, 1),
        call(What::Acquire(2), 0, 9),
        call(What::Release(1), 2, 5),
        call(What::Release(2), 10, i64::MAX),
    ];
    assert!(calls_are_linearizable(&fine).is_ok());
    let both = [call(What::Acquire(1), 0, 1), call(What::Acquire(2), 2, 3)];
    assert!(calls_are_linearizable(&both).is_err());
    let falling =
        [call(What::Acquire(2), 0, 1), call(What::Release(2), 2, 3), call(What::Acquire(1), 4, 5)];
    assert!(calls_are_linearizable(&falling).is_err());
}
