//! What a log says about itself: written once, by whichever node is first.
//!
//! The cluster is part of what databases call prepared branches, so that several coordinators can
//! share one; the log's id tells a log that was made anew from the one that was there before; the
//! number of shards says where a transaction lies. None of them may change while there is a log.

use mainstay_store::{Batch, Compare, Error, Get, Put, Store};

use crate::database::Cluster;
use crate::log::{self, Meta, Unreadable};
use crate::name::Shards;
use crate::owner::ClaimError;

/// A log, as every node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// Whose prepared branches are ours.
    pub cluster: Cluster,
    /// A UUID.
    pub log_id: String,
    /// Its parts.
    pub shards: Shards,
}

/// Reads what the log in `store` is, or makes it one of `shards` parts. `draw` yields random
/// numbers.
///
/// # Errors
///
/// [`ClaimError`] when the store cannot be asked, or holds what this version cannot read.
///
/// # Cancel safety
///
/// Whether the log was made is open; calling again reads it.
pub async fn settle(
    store: &dyn Store,
    shards: Shards,
    draw: impl Fn() -> u32,
) -> Result<LogIdentity, ClaimError> {
    let key = log::meta();
    let first = Meta {
        cluster: (0..8).map(|_| letter(draw())).collect(),
        log_id: uuid(&draw),
        shards: u32::from(shards.count()),
    };
    let batch =
        Batch::new().when(Compare::missing(&key)).then(Put::new(key.clone(), first.write()));
    match store.apply(batch).await {
        // Whose was first is read.
        Ok(_) | Err(Error::OutcomeUnknown) => {}
        Err(error) => return Err(error.into()),
    }
    let entry = store.get(Get::new(key)).await?.entry.ok_or(Error::OutcomeUnknown)?;
    let Meta { cluster, log_id, shards } = Meta::read(&entry.value)?;
    let damaged = |what: &str| Unreadable::Damaged { what: what.to_owned() };
    let cluster = Cluster::new(&cluster).ok_or_else(|| damaged("its cluster is none"))?;
    let shards = u16::try_from(shards).ok().and_then(Shards::new);
    let shards = shards.ok_or_else(|| damaged("its shards are no power of two"))?;
    Ok(LogIdentity { cluster, log_id, shards })
}

/// One of `a-z` and `0-9`.
fn letter(draw: u32) -> char {
    let digit = u8::try_from(draw % 36).unwrap_or(0);
    char::from(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 })
}

/// A UUID of version 4 (RFC 9562).
fn uuid(draw: &impl Fn() -> u32) -> String {
    let (a, b, c, d) = (draw(), draw(), draw(), draw());
    let version = 0x4000 | (b & 0x0fff);
    let variant = 0x8000 | (c & 0x3fff);
    format!("{a:08x}-{:04x}-{version:04x}-{variant:04x}-{:04x}{d:08x}", b >> 16, c >> 16)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use mainstay_core::ManualClock;
    use mainstay_store::Memory;

    use super::*;

    #[tokio::test]
    async fn the_first_node_says_what_a_log_is_and_the_others_read_it() {
        let store = Memory::new(ManualClock::default());
        let drawn = Cell::new(0_u32);
        let draw = || {
            drawn.set(drawn.get().wrapping_add(0x9e37_79b9));
            drawn.get()
        };
        let four = Shards::new(4).unwrap();
        let made = settle(&store, four, draw).await.unwrap();
        let found = settle(&store, Shards::DEFAULT, draw).await.unwrap();
        assert_eq!(made, found, "also by a node that is configured otherwise");
        assert_eq!(found.shards, four);
        assert_eq!((made.log_id.len(), made.log_id.split('-').count()), (36, 5));
        let damaged = Meta { cluster: "X".to_owned(), log_id: String::new(), shards: 3 };
        let put = Put::new(log::meta(), damaged.write());
        store.apply(Batch::new().then(put)).await.unwrap();
        let refused = settle(&store, four, draw).await.unwrap_err();
        assert!(matches!(refused, ClaimError::Unreadable(_)), "{refused}");
    }
}
