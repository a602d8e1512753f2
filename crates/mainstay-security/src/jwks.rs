//! The keys of one issuer over time: when they are fetched, and what holds while they cannot be.
//!
//! ```text
//!          fetched                due, and a fetch failed            stale_max is over
//!  empty ──────────▶ fresh ──────────────────────────────▶ stale ──────────────────▶ expired
//!                      ▲               fetched               │        fetched           │
//!                      └─────────────────────────────────────┴──────────────────────────┘
//! ```
//!
//! An issuer that rotates its keys publishes the new one and signs with it, sometimes within the
//! same minute. A verifier that only looks every few minutes refuses good tokens until then (an
//! hour, with some). This one asks again as soon as a token names a key that it does not know. So
//! that nobody can make it ask as often as he likes, such fetches come from a bucket, and a name
//! that the answer did not have either is remembered for a minute. Only names that were asked for
//! before the fetch began are: what a later one named may have been published meanwhile.
//!
//! The machine has no clock and fetches nothing. What it wants done is told by [`Fetch`] and
//! [`Effect`]; whoever drives it calls [`Jwks::poll`] at [`Jwks::due`] and hands in what came.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Instant;

use crate::jws::{Fingerprint, KeySet};

/// How long keys are believed in that could not be fetched again: a day, in which somebody notices.
pub const STALE_MAX: Duration = Duration::from_hours(24);

/// Until the next fetch, where the answer does not say.
pub const MAX_AGE: Duration = Duration::from_mins(5);

/// What an answer may say: more often than once a minute is a burden for the issuer, and after
/// more than an hour a key that was withdrawn would still count.
pub const MAX_AGE_RANGE: [Duration; 2] = [Duration::from_mins(1), Duration::from_hours(1)];

/// Between failed fetches, at first and at most.
const RETRY: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(1)];

/// Fetches because of unknown names: one in so long, and as many at once.
const BUCKET: (Duration, u32) = (Duration::from_secs(10), 3);

/// How long a name is remembered that no key bears.
const UNKNOWN: Duration = Duration::from_mins(1);

/// Names that are remembered, of 40 bytes each. Who sends more of them gets the oldest asked for
/// again, which the bucket bounds.
const UNKNOWN_MAX: usize = 1_024;

/// The keys of one issuer; see the [module](self).
#[derive(Debug)]
pub struct Jwks {
    stale_max: Duration,
    keys: Option<Arc<KeySet>>,
    /// When the keys came.
    fetched: Instant,
    /// When they were to be fetched again.
    fresh_until: Instant,
    /// When the next fetch is due.
    due: Instant,
    /// Fetches that failed in a row.
    failures: u32,
    /// What the fetch under way was asked for.
    fetching: Option<Vec<Fingerprint>>,
    bucket: Bucket,
    unknown: VecDeque<(Fingerprint, Instant)>,
    /// The last moment seen.
    now: Instant,
}

/// Fetch the keys, and hand in what comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the machine waits for what comes of it"]
pub struct Fetch;

/// Where the keys stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There never were any.
    Empty,
    /// They are as new as the issuer wants.
    Fresh,
    /// They could not be fetched again, and hold on.
    Stale,
    /// They could not be fetched again for too long.
    Expired,
}

impl State {
    /// Word for people and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Expired => "expired",
        }
    }
}

/// What a token's unknown key leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A fetch is under way, or [`Fetch`] says to begin one: look again when it is over.
    Wait(Option<Fetch>),
    /// It came meanwhile: look again.
    Known,
    /// There is no such key, as far as may be asked.
    Unknown,
}

/// What a fetch brought.
#[derive(Debug)]
pub struct Answer {
    /// The keys.
    pub keys: KeySet,
    /// How long the issuer says that they hold.
    pub max_age: Option<Duration>,
}

/// What follows from a fetch.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Verify with these keys until then.
    Publish {
        /// The keys.
        keys: Arc<KeySet>,
        /// When they are expired, unless others come.
        until: Instant,
    },
    /// The answer had no key that can be used, so what there is stays.
    Useless,
}

impl Jwks {
    /// Knows no keys yet, and wants them at once.
    pub fn new(now: Instant, stale_max: Duration) -> Self {
        Self {
            stale_max,
            keys: None,
            fetched: now,
            fresh_until: now,
            due: now,
            failures: 0,
            fetching: None,
            bucket: Bucket::full(now),
            unknown: VecDeque::new(),
            now,
        }
    }

    /// Begins a fetch if one is due.
    pub fn poll(&mut self, now: Instant) -> Option<Fetch> {
        self.turn(now);
        (self.fetching.is_none() && self.due <= self.now).then(|| self.begin(Vec::new()))
    }

    /// When to [`poll`](Self::poll) next; [`Instant::MAX`] while a fetch is under way.
    pub fn due(&self) -> Instant {
        if self.fetching.is_some() { Instant::MAX } else { self.due }
    }

    /// Begins a fetch because somebody says so, unless one is under way.
    pub fn refresh(&mut self, now: Instant) -> Option<Fetch> {
        self.turn(now);
        self.fetching.is_none().then(|| self.begin(Vec::new()))
    }

    /// A token names the key `kid`, which is unknown.
    pub fn ask(&mut self, now: Instant, kid: &str) -> Asked {
        self.turn(now);
        if self.keys(now).is_some_and(|keys| keys.names(kid)) {
            return Asked::Known;
        }
        let kid = Fingerprint::of(kid.as_bytes());
        if self.unknown.iter().any(|(unknown, _)| *unknown == kid) {
            return Asked::Unknown;
        }
        if self.fetching.is_some() {
            return Asked::Wait(None);
        }
        if !self.bucket.take(self.now) {
            return Asked::Unknown;
        }
        Asked::Wait(Some(self.begin(vec![kid])))
    }

    /// Takes what a fetch brought; `None` where it failed. `draw` spreads the next one.
    pub fn answered(&mut self, now: Instant, draw: u64, answer: Option<Answer>) -> Option<Effect> {
        self.turn(now);
        let asked = self.fetching.take().unwrap_or_default();
        let useless = answer.as_ref().is_some_and(|answer| answer.keys.is_empty());
        let Some(Answer { keys, max_age }) = answer.filter(|answer| !answer.keys.is_empty()) else {
            self.due = self.now.plus(backoff(self.failures));
            self.failures = self.failures.saturating_add(1);
            return useless.then_some(Effect::Useless);
        };
        self.failures = 0;
        let [min, max] = MAX_AGE_RANGE;
        let age = jittered(max_age.unwrap_or(MAX_AGE).clamp(min, max), draw);
        (self.fetched, self.due) = (self.now, self.now.plus(age));
        self.fresh_until = self.due;
        for kid in asked {
            let named = |key: &crate::jws::Key| {
                key.kid().is_some_and(|name| Fingerprint::of(name.as_bytes()) == kid)
            };
            if !keys.iter().any(named) {
                self.remember(kid);
            }
        }
        // A name that was unknown and is no longer must not wait for its minute to be over.
        let names: Vec<Fingerprint> =
            keys.iter().filter_map(|key| Some(Fingerprint::of(key.kid()?.as_bytes()))).collect();
        self.unknown.retain(|(kid, _)| !names.contains(kid));
        let keys = Arc::new(keys);
        self.keys = Some(Arc::clone(&keys));
        Some(Effect::Publish { keys, until: self.expires() })
    }

    /// Where the keys stand at `now`.
    pub fn state(&self, now: Instant) -> State {
        let now = self.now.max(now);
        match &self.keys {
            None => State::Empty,
            Some(_) if self.expires() <= now => State::Expired,
            Some(_) if 0 < self.failures && self.fresh_until <= now => State::Stale,
            Some(_) => State::Fresh,
        }
    }

    /// The keys, unless they are expired at `now`.
    pub fn keys(&self, now: Instant) -> Option<&Arc<KeySet>> {
        self.keys.as_ref().filter(|_| self.now.max(now) < self.expires())
    }

    /// How old the keys are; `None` while there are none.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.keys.as_ref().map(|_| self.now.max(now).since(self.fetched))
    }

    /// Fetches that failed since the last one that did not.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn expires(&self) -> Instant {
        self.fetched.plus(self.stale_max)
    }

    fn begin(&mut self, asked: Vec<Fingerprint>) -> Fetch {
        self.fetching = Some(asked);
        Fetch
    }

    fn remember(&mut self, kid: Fingerprint) {
        if self.unknown.len() == UNKNOWN_MAX {
            self.unknown.pop_front();
        }
        self.unknown.push_back((kid, self.now.plus(UNKNOWN)));
    }

    /// Lets time pass up to `now`; it never goes back.
    fn turn(&mut self, now: Instant) {
        self.now = self.now.max(now);
        while self.unknown.front().is_some_and(|(_, until)| *until <= self.now) {
            self.unknown.pop_front();
        }
    }
}

/// How long to wait after a fetch failed: 1, 2, 4 … 60 s.
fn backoff(failed_before: u32) -> Duration {
    let [first, most] = RETRY;
    first.saturating_mul(1 << failed_before.min(6)).min(most)
}

/// `age`, ±10 %: gateways that were started together do not ask together for ever.
fn jittered(age: Duration, draw: u64) -> Duration {
    let thousandths = 900 + u32::try_from(draw % 201).unwrap_or_default();
    age * thousandths / 1_000
}

/// Reads how long an answer holds from its `cache-control` (RFC 9111, section 5.2.2): `None` where
/// it does not say. One that must not be kept is asked for as often as may be.
pub fn max_age(cache_control: &str) -> Option<Duration> {
    let mut age = None;
    for directive in cache_control.split(',') {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return Some(Duration::ZERO),
            "max-age" => {
                let seconds = value.trim().trim_matches('"').parse().ok();
                age = age.or_else(|| seconds.map(Duration::from_secs));
            }
            _ => (),
        }
    }
    age
}

/// A token bucket in nanoseconds: what is saved up buys fetches at [`BUCKET`]'s price.
#[derive(Debug)]
struct Bucket {
    saved: Duration,
    at: Instant,
}

impl Bucket {
    fn full(now: Instant) -> Self {
        Self { saved: BUCKET.0 * BUCKET.1, at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let (price, most) = BUCKET;
        self.saved = self.saved.saturating_add(now.since(self.at)).min(price * most);
        self.at = now;
        let left = self.saved.checked_sub(price);
        self.saved = left.unwrap_or(self.saved);
        left.is_some()
    }
}
