//! Reads, puts, swaps and deletes keys.

use mainstay_store::{
    Answer, Applied, Batch, Compare, Entry, Error, Get, Key, Op, Put, Store as _,
};

use crate::check::OPEN;
use crate::check::pairs::{Call, What};
use crate::node::Node;

/// A call as it was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Of which key.
    pub key: String,
    /// What was called.
    pub call: Call,
    /// The revision it was told, of a write.
    pub revision: u64,
    /// Nothing happened, for sure.
    pub refused: bool,
}

/// Calls until it is told to stop.
pub async fn run(node: Node, seen: super::Seen) {
    let client = seen.client();
    let mut last: Option<u64> = None;
    while !node.is_over() {
        node.sleep(node.draw.millis(10, 150)).await;
        if node.draw.once_in(10) {
            both(&node, &seen).await;
            continue;
        }
        let name = format!("kv/{}", node.draw.below(3));
        let key = key(&name);
        let new = u64::try_from(node.server.order()).unwrap_or(0);
        let kind = node.draw.below(10);
        let what = match kind {
            0..4 => What::Read(None),
            4..7 => What::Put(new),
            7..9 => What::Swap { old: last, new, swapped: None },
            _ => What::Delete(None),
        };
        let called = node.server.order();
        let call = Call { client, what, called, returned: OPEN };
        let at = seen.pair_begins(Seen { key: name, call, revision: 0, refused: false });
        let (what, revision, refused) = match what {
            What::Read(_) => match node.link.get(Get::new(key)).await {
                Ok(got) => {
                    last = got.entry.as_ref().map(number);
                    (Some(What::Read(last)), 0, false)
                }
                Err(_) => (None, 0, true),
            },
            other => outcome(other, node.link.apply(batch(other, &key)).await),
        };
        if what.is_none() && !refused {
            seen.count("unknown outcomes");
            continue;
        }
        let returned = node.server.order();
        seen.pair_ends(at, |seen| {
            seen.call.returned = returned;
            seen.call.what = what.unwrap_or(seen.call.what);
            (seen.revision, seen.refused) = (revision, refused);
        });
        if !refused {
            seen.progress(&node, "pair calls");
        }
    }
}

fn batch(what: What, key: &Key) -> Batch {
    let put = |value: u64| Put::new(key.clone(), value.to_string());
    match what {
        What::Put(value) => Batch::new().then(put(value)),
        What::Swap { old: Some(old), new, .. } => {
            Batch::new().when(Compare::value(key, old.to_string())).then(put(new))
        }
        What::Swap { old: None, new, .. } => {
            Batch::new().when(Compare::missing(key)).then(put(new))
        }
        What::Delete(_) | What::Read(_) => Batch::new().then(Op::delete(key)),
    }
}

/// What came of a batch: the call with its answer unless that is unknown, the revision of a write,
/// and whether nothing happened.
fn outcome(what: What, answer: Result<Applied, Error>) -> (Option<What>, u64, bool) {
    let applied = match answer {
        Ok(applied) => applied,
        Err(Error::OutcomeUnknown) => return (None, 0, false),
        Err(_) => return (None, 0, true),
    };
    let revision = applied.revision.get();
    match what {
        What::Swap { old, new, .. } => {
            let swapped = Some(applied.succeeded);
            let revision = if applied.succeeded { revision } else { 0 };
            (Some(What::Swap { old, new, swapped }), revision, false)
        }
        What::Delete(_) => {
            let deleted = match applied.answers.first() {
                Some(Answer::Delete { deleted, .. }) => Some(0 < *deleted),
                _ => None,
            };
            (Some(What::Delete(deleted)), 0, false)
        }
        other => (Some(other), revision, false),
    }
}

/// Writes two keys at once, or reads them: they are the same, always.
async fn both(node: &Node, seen: &super::Seen) {
    let (a, b) = (key("both/a"), key("both/b"));
    if node.draw.once_in(2) {
        let value = node.server.order().to_string();
        let batch = Batch::new().then(Put::new(a, value.clone())).then(Put::new(b, value));
        drop(node.link.apply(batch).await);
        return;
    }
    let Ok(applied) = node.link.apply(Batch::new().then(Op::get(&a)).then(Op::get(&b))).await
    else {
        return;
    };
    let values: Vec<Option<u64>> = applied
        .answers
        .iter()
        .map(|answer| match answer {
            Answer::Range(page) => page.entries.first().map(number),
            Answer::Put { .. } | Answer::Delete { .. } => None,
        })
        .collect();
    if values.first() != values.get(1) {
        node.server.wrong(format!("two keys that are always written at once are {values:?}"));
    }
    seen.count("pairs read at once");
}

/// The number a value is.
pub(crate) fn number(entry: &Entry) -> u64 {
    std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}

/// A key of the simulation.
pub(crate) fn key(name: &str) -> Key {
    Key::try_from(name).expect("a short name without NUL")
}
