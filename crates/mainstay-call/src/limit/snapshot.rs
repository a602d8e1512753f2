//! What of a limit outlives a restart, and the secret that keys are hashed with.

use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use mainstay_core::{Clock as _, Instant};
use mainstay_resilience::limit::{Keyed, Kind, LimitPolicy, QuotaLeft};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::{Gate, SharedLimit};
use crate::clock::MonotonicClock;

/// What keys are hashed with. Nobody outside knows it, so nobody can make two keys meet or aim at
/// a slot; whoever takes over what was counted under hashes takes over this as well.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySecret([u64; 2]);

impl KeySecret {
    /// A new one, from the process's hash seed, which comes from the operating system.
    pub fn new() -> Self {
        Self([0, 1].map(|half: u64| RandomState::new().hash_one(half)))
    }

    /// The hash of a key's values, one for each part.
    pub(super) fn hash<T: AsRef<str>>(self, values: &[T]) -> u128 {
        let Self([a, b]) = self;
        let mut hasher = SipHasher13::new_with_keys(a, b);
        for value in values {
            value.as_ref().hash(&mut hasher);
        }
        hasher.finish128().as_u128()
    }
}

impl Default for KeySecret {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeySecret")
    }
}

/// What was used of a limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitSnapshot {
    /// Of a limit without keys.
    Lone(QuotaLeft),
    /// Of the quotas of its keys.
    Keyed {
        /// By hash, as hexadecimal digits; those nearest to their limit.
        keys: Vec<(String, QuotaLeft)>,
        /// Keys that had used something and are not among them.
        omitted: usize,
    },
}

/// Shorter windows are over before a process is back.
const WINDOW_MIN: Duration = Duration::from_secs(10);

/// Keys of a limit that are kept: those that have used most of their quota, since forgetting the
/// others frees nobody who is at a limit. Each is about 100 bytes, written up to twice a second.
const KEYS_MAX: usize = 4_096;

/// Slots of a table that are looked at under one lock: about 20 µs.
const SLOTS_AT_ONCE: usize = 1_024;

impl SharedLimit {
    /// What is worth keeping over a restart, if anything.
    pub fn snapshot(&self) -> Option<LimitSnapshot> {
        let now = MonotonicClock.now();
        if !outlives(&self.policy()) {
            return None;
        }
        match &self.gate {
            Gate::Bucket(bucket) => bucket.snapshot(now).map(LimitSnapshot::Lone),
            Gate::Lone(machine) => machine.lock().snapshot(now).map(LimitSnapshot::Lone),
            Gate::Keyed(machine) => keys(machine, now),
            Gate::InFlight(_) => None,
        }
    }

    /// Begins with what a process before this one wrote down `elapsed` ago. For a limit that
    /// nobody has asked yet. What belongs to another kind of limit is left alone.
    pub fn restore(&self, kept: &LimitSnapshot, elapsed: Duration) {
        let now = MonotonicClock.now();
        if !outlives(&self.policy()) {
            return;
        }
        match (&self.gate, kept) {
            (Gate::Bucket(bucket), LimitSnapshot::Lone(quota)) => {
                bucket.restore(now, quota, elapsed);
            }
            (Gate::Lone(machine), LimitSnapshot::Lone(quota)) => {
                machine.lock().restore(now, quota, elapsed);
            }
            (Gate::Keyed(machine), LimitSnapshot::Keyed { keys, .. }) => {
                let read = |(key, quota): &(String, QuotaLeft)| {
                    Some((u128::from_str_radix(key, 16).ok()?, quota.clone()))
                };
                let keys: Vec<_> = keys.iter().take(KEYS_MAX).filter_map(read).collect();
                machine.lock().restore(now, &keys, elapsed);
            }
            _ => (),
        }
    }
}

/// Whether a limit counts over so long that a restart would be noticed.
fn outlives(policy: &LimitPolicy) -> bool {
    let counts =
        matches!(policy.kind, Kind::Counter { .. } | Kind::Sliding { .. } | Kind::Bucket { .. });
    counts && policy.kind.quota().is_some_and(|quota| WINDOW_MIN <= quota.window)
}

/// Takes the keys of a table piece by piece, so that no call waits for all of them.
fn keys(machine: &Mutex<Keyed>, now: Instant) -> Option<LimitSnapshot> {
    let (mut all, mut omitted, mut from) = (Vec::new(), 0, Some(0));
    while let Some(begin) = from {
        let (some, next) = machine.lock().snapshot(now, begin, SLOTS_AT_ONCE);
        all.extend(some);
        if 2 * KEYS_MAX < all.len() {
            omitted += keep_most_used(&mut all);
        }
        from = next;
    }
    omitted += keep_most_used(&mut all);
    // In a fixed order, so that what did not change is seen not to have changed.
    all.sort_unstable_by_key(|(key, _)| *key);
    let write = |(key, quota): (u128, QuotaLeft)| (format!("{key:032x}"), quota);
    let keys: Vec<_> = all.into_iter().map(write).collect();
    (!keys.is_empty()).then_some(LimitSnapshot::Keyed { keys, omitted })
}

/// How many had to go.
fn keep_most_used(all: &mut Vec<(u128, QuotaLeft)>) -> usize {
    let surplus = all.len().saturating_sub(KEYS_MAX);
    if surplus > 0 {
        all.select_nth_unstable_by_key(KEYS_MAX, |(key, quota)| {
            (std::cmp::Reverse(quota.share()), *key)
        });
        all.truncate(KEYS_MAX);
    }
    surplus
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mainstay_resilience::limit::RawLimit;

    use super::*;
    use crate::limit::{Answer, Key};

    fn limit(text: &str, secret: KeySecret) -> Arc<SharedLimit> {
        let raw: RawLimit = toml::from_str(text).unwrap();
        let policy = Arc::new(LimitPolicy::try_from(raw).unwrap());
        Arc::new(SharedLimit::with_secret("api".into(), policy, secret))
    }

    /// Whether a call of `user` is let through.
    fn asks(limit: &Arc<SharedLimit>, user: &str) -> bool {
        let values = [user.into()];
        let key = Key { hash: limit.hash(&values), values: &values };
        let answer = limit.ask(MonotonicClock.now(), key, Instant::MAX);
        matches!(answer, Answer::Granted(..))
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_used_stays_used_over_a_restart() {
        for text in [
            "max = 2\nwindow_seconds = 60",
            "kind = 'counter'\nmax = 2\nwindow_seconds = 60",
            "kind = 'counter'\nmax = 2\nwindow_seconds = 60\nkey = ['principal']",
            "kind = 'sliding'\nmax = 2\nwindow_seconds = 60\nkey = ['principal']",
        ] {
            let (secret, keyed) = (KeySecret::new(), text.contains("key"));
            let before = limit(text, secret);
            assert!(asks(&before, "ann") && asks(&before, "ann") && !asks(&before, "ann"));
            let kept = serde_json::to_string(&before.snapshot().unwrap()).unwrap();
            let kept: LimitSnapshot = serde_json::from_str(&kept).unwrap();
            let after = limit(text, secret);
            after.restore(&kept, Duration::from_secs(5));
            assert!(!asks(&after, "ann"), "{text}");
            assert_eq!(asks(&after, "bob"), keyed, "{text}");
            tokio::time::sleep(Duration::from_secs(61)).await;
            assert!(asks(&after, "ann"), "{text}");
        }
        // A second is over before a process is back.
        let short = limit("kind = 'counter'\nmax = 2", KeySecret::new());
        assert!(asks(&short, "ann") && short.snapshot().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_keys_those_at_their_limit_are_kept() {
        let text = "kind = 'counter'\nmax = 4\nwindow_seconds = 60\nkey = ['principal']";
        let secret = KeySecret::new();
        let before = limit(text, secret);
        for n in 0..3 * KEYS_MAX {
            assert!(asks(&before, &format!("user-{n}")));
        }
        for _ in 0..3 {
            assert!(asks(&before, "user-7"));
        }
        let kept = before.snapshot().unwrap();
        let LimitSnapshot::Keyed { keys, omitted } = &kept else { panic!("it has keys") };
        assert_eq!((keys.len(), *omitted), (KEYS_MAX, 2 * KEYS_MAX));
        let after = limit(text, secret);
        after.restore(&kept, Duration::ZERO);
        assert!(!asks(&after, "user-7"));
    }
}
