//! One unit granted by a bucket that never runs dry.

use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::FakeRelativeClock;
use governor::{Quota, RateLimiter};
use mainstay_core::Instant;
use mainstay_resilience::limit::{
    Cost, Decision, KeyText, Keyed, Kind, LimitPolicy, Limiter, Rate, RawLimit, gcra,
};
use parking_lot::Mutex;

use crate::rounds::{Case, now};

/// Units a second, and the burst: more than any loop here takes.
const RATE: u32 = 1_000_000_000;
const KEYS: usize = 1_000;

pub fn cases() -> Vec<Case> {
    let mut all = direct();
    all.extend(two_threads());
    all.extend(keyed());
    all
}

/// A bucket shared without a lock, by the function the machine is made of.
struct Word {
    tat: AtomicU64,
    rate: Rate,
}

impl Word {
    fn new() -> Self {
        let Kind::Bucket { quota, burst } = policy(&[]).kind else { panic!("the default kind") };
        Self { tat: AtomicU64::new(0), rate: Rate::new(quota, burst.get()) }
    }

    #[inline]
    fn ask(&self, now: Instant) {
        let mut tat = self.tat.load(Ordering::Relaxed);
        loop {
            let next = gcra(tat, now, &self.rate, Cost::ONE).expect("never dry");
            match self.tat.compare_exchange_weak(tat, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => tat = seen,
            }
        }
    }
}

fn direct() -> Vec<Case> {
    const GROUP: &str = "bucket, direct, one thread";
    let mut alone = limiter();
    let locked = Mutex::new(limiter());
    let word = Word::new();
    let (clocked, still) = (RateLimiter::direct(quota()), still());
    let full = "as many units as it may hold";
    let own = ratelimit::Ratelimiter::builder(u64::from(RATE)).initial_available(u64::from(RATE));
    let own = own.build().expect(full);
    let steps = ratelimit::Builder::with_clock(u64::from(RATE), Steps::default());
    let fixed = steps.initial_available(u64::from(RATE)).build().expect(full);
    vec![
        Case::ours(GROUP, "machine alone, with what is left and when it is whole", Some(18.0))
            .op(move |now| grant(alone.ask_by(now, Cost::ONE, Instant::MAX))),
        Case::ours(GROUP, "the same behind a mutex, as the product shares it", Some(18.0))
            .basis()
            .op(move |now| grant(locked.lock().ask_by(now, Cost::ONE, Instant::MAX))),
        Case::ours(GROUP, "`gcra` on an atomic word: yes or no", Some(18.0))
            .op(move |now| word.ask(now)),
        Case::peer(GROUP, "governor, its clock", "1 quanta read")
            .op(move |_| assert!(clocked.check().is_ok())),
        Case::peer(GROUP, "governor, clock that stands still", "1 atomic load")
            .op(move |_| assert!(still.check().is_ok())),
        Case::peer(GROUP, "ratelimit, its clock", "1 `Instant::now`")
            .op(move |_| assert!(own.try_wait().is_ok())),
        Case::peer(GROUP, "ratelimit, clock that counts", "1 atomic add")
            .op(move |_| assert!(fixed.try_wait().is_ok())),
    ]
}

fn two_threads() -> Vec<Case> {
    const GROUP: &str = "bucket, direct, two threads sharing it";
    vec![
        Case::ours(GROUP, "machine behind a mutex, as the product shares it", None)
            .basis()
            .two(Mutex::new(limiter()), |limiter, now| {
                grant(limiter.lock().ask_by(now, Cost::ONE, Instant::MAX))
            }),
        Case::ours(GROUP, "`gcra` on an atomic word: yes or no", None)
            .two(Word::new(), |word, now| word.ask(now)),
        Case::peer(GROUP, "governor, clock that stands still", "1 atomic load")
            .two(still(), |limiter, _| assert!(limiter.check().is_ok())),
    ]
}

fn keyed() -> Vec<Case> {
    const GROUP: &str = "bucket, 1,000 keys, one thread";
    let keys = || (0..KEYS).map(|n| format!("client-{n:04}")).collect::<Vec<_>>();
    let hashers = [RandomState::new(), RandomState::new()];
    let hash = move |key: &str| {
        let [a, b] = [0, 1].map(|n: usize| hashers[n].hash_one(key));
        u128::from(a) << 64 | u128::from(b)
    };
    let hashes: Vec<u128> = keys().iter().map(|key| hash(key)).collect();
    let (by_hash, by_text) = (Mutex::new(table()), Mutex::new(table()));
    let (texts, governed, stood) = (keys(), keys(), keys());
    let clocked = RateLimiter::keyed(quota());
    let still = RateLimiter::dashmap_with_clock(quota(), FakeRelativeClock::default());

    let [mut a, mut b, mut c, mut d] = [(); 4].map(|()| Turn::default());
    vec![
        Case::ours(GROUP, "behind a mutex, hash given", Some(50.0)).op(move |now| {
            grant(by_hash.lock().ask(now, hashes[a.next()], Cost::ONE, Instant::MAX, write));
        }),
        Case::ours(GROUP, "behind a mutex, with the two keyed hashes of the text", Some(50.0))
            .basis()
            .op(move |now| {
                let key = hash(&texts[b.next()]);
                grant(by_text.lock().ask(now, key, Cost::ONE, Instant::MAX, write));
            }),
        Case::peer(GROUP, "governor, DashMap by text, its clock", "1 quanta read")
            .op(move |_| assert!(clocked.check_key(&governed[c.next()]).is_ok())),
        Case::peer(GROUP, "governor, DashMap by text, clock that stands still", "1 atomic load")
            .op(move |_| assert!(still.check_key(&stood[d.next()]).is_ok())),
    ]
}

/// Goes through the keys in an order no prefetcher follows.
#[derive(Default)]
struct Turn(usize);

impl Turn {
    fn next(&mut self) -> usize {
        self.0 = (self.0 + 617) % KEYS;
        self.0
    }
}

/// A clock for ratelimit that costs next to nothing: ten nanoseconds later each time.
#[derive(Default)]
struct Steps(AtomicU64);

impl ratelimit::Clock for Steps {
    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.0.fetch_add(10, Ordering::Relaxed))
    }
}

fn write(text: &mut KeyText) {
    use std::fmt::Write;
    text.write_str("client").expect("short");
}

#[inline]
fn grant(decision: Decision) {
    assert!(matches!(black_box(decision), Decision::Granted { .. }));
}

fn policy(key: &[&str]) -> LimitPolicy {
    let key = key.iter().map(|part| (*part).to_owned()).collect();
    let raw = RawLimit { max: Some(RATE), key: Some(key), ..RawLimit::default() };
    LimitPolicy::try_from(raw).expect("in range")
}

pub fn limiter() -> Limiter {
    Limiter::new(&policy(&[]), now()).expect("a bucket tells time")
}

fn table() -> Keyed {
    Keyed::new(&policy(&["principal"]), now(), |_| 0).expect("a bucket tells time")
}

fn quota() -> Quota {
    Quota::per_second(NonZeroU32::new(RATE).expect("not zero"))
}

fn still() -> RateLimiter<
    governor::state::NotKeyed,
    governor::state::InMemoryState,
    FakeRelativeClock,
    governor::middleware::NoOpMiddleware<governor::nanos::Nanos>,
> {
    RateLimiter::direct_with_clock(quota(), FakeRelativeClock::default())
}
