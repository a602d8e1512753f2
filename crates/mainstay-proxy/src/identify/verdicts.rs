//! Tokens that were verified lately, so that the same one is not verified again.
//!
//! A table of a fixed size in sets of [`WAYS`], found by the token's hash. Readers load a pointer
//! and compare; a writer puts another pointer in the place of the one that ends first. Nothing waits
//! for anything, and two workers that write the same place lose one entry, which is verified again.
//! Only tokens that were believed have a place, so nobody who cannot make them can push out others.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::{HeaderName, HeaderValue};
use mainstay_call::context::Caller;
use mainstay_core::Instant;
use mainstay_security::jws::{Fingerprint, KeyId, KeySet};

use super::Issuer;

/// Places. Of 300 bytes and the header fields each: some 5 MiB when all are taken.
pub(super) const VERDICTS_MAX: usize = 10_000;

/// Places that one token may lie in.
const WAYS: usize = 4;

/// How long a token is not verified again.
pub(super) const KEPT: Duration = Duration::from_mins(1);

/// A token that is believed.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) fingerprint: Fingerprint,
    pub(super) issuer: Arc<Issuer>,
    pub(super) caller: Arc<Caller>,
    /// What services are told.
    pub(super) fields: Box<[(HeaderName, HeaderValue)]>,
    /// Proved by this key,
    pub(super) key: KeyId,
    /// of this set.
    pub(super) keys: Arc<KeySet>,
    /// Until when it need not be verified again.
    pub(super) until: Instant,
}

/// The table; see the [module](self).
pub(super) struct Verdicts(Box<[ArcSwapOption<Verdict>]>);

impl Default for Verdicts {
    fn default() -> Self {
        Self((0..VERDICTS_MAX).map(|_| ArcSwapOption::empty()).collect())
    }
}

impl Verdicts {
    /// What was found of the token, if that still holds at `now`.
    pub(super) fn get(&self, token: &Fingerprint, now: Instant) -> Option<Arc<Verdict>> {
        self.places(token).iter().find_map(|place| {
            let held = place.load();
            let found = held.as_ref().filter(|held| held.fingerprint == *token)?;
            (now < found.until).then(|| Arc::clone(found))
        })
    }

    /// Keeps `verdict`, in the place of the one that ends first among those it could lie beside.
    pub(super) fn keep(&self, verdict: Arc<Verdict>) {
        let ends = |place: &&ArcSwapOption<Verdict>| match &*place.load() {
            Some(held) if held.fingerprint != verdict.fingerprint => held.until,
            Some(_) | None => Instant::ZERO,
        };
        if let Some(place) = self.places(&verdict.fingerprint).iter().min_by_key(ends) {
            place.store(Some(verdict));
        }
    }

    fn places(&self, token: &Fingerprint) -> &[ArcSwapOption<Verdict>] {
        let sets = (VERDICTS_MAX / WAYS) as u64;
        let set = usize::try_from(token.place() % sets).unwrap_or_default();
        self.0.get(set * WAYS..(set + 1) * WAYS).unwrap_or_default()
    }
}

impl std::fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verdicts").finish_non_exhaustive()
    }
}
