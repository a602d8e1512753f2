//! Places that a global transaction holds, instead of a session.
//!
//! `bind` takes a place off its session, so that it survives its caller, and writes the gid and
//! the token into it. The coordinator of the transaction ends it when the outcome is final; a
//! sweep finds those whose end was missed ([`Locks::bound`](super::Locks::bound)). Until then
//! nobody else is granted the lock: that is the point of it.

use mainstay_store::{Compare, Key, Revision};

use super::record::Token;
use crate::keys::Place;
use crate::name::Gid;

/// Proof that something was handed over to a transaction.
#[derive(Debug)]
pub struct Bound {
    place: BoundPlace,
}

impl Bound {
    pub(super) const fn new(place: BoundPlace) -> Self {
        Self { place }
    }

    /// The fencing token; the same as before.
    pub const fn token(&self) -> Token {
        self.place.token
    }

    /// A compare for any batch: it holds as long as the transaction has the place.
    pub fn guard(&self) -> Compare {
        Compare::created_at(&self.place.key, self.place.created)
    }

    /// What the coordinator needs in order to end it.
    pub const fn place(&self) -> &BoundPlace {
        &self.place
    }
}

/// A place that a transaction holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundPlace {
    /// What is held.
    pub place: Place,
    /// The transaction.
    pub gid: Gid,
    /// Its fencing token.
    pub token: Token,
    pub(super) key: Key,
    pub(super) created: Revision,
}

impl BoundPlace {
    pub(super) fn new(place: &Place, key: &Key, created: Revision, token: Token, gid: Gid) -> Self {
        Self { place: place.clone(), gid, token, key: key.clone(), created }
    }
}

/// Some of the places that transactions hold.
#[derive(Clone, Debug)]
pub struct BoundPage {
    /// In the order of their keys.
    pub places: Vec<BoundPlace>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Key>,
}
