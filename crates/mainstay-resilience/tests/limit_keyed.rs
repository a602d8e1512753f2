//! A quota for each key, in bounded memory.

use std::fmt::Write as _;
use std::time::Duration;

use mainstay_core::Instant;
use mainstay_resilience::limit::{Cost, Decision, KeyText, Keyed, LimitPolicy, RawLimit};

fn policy(toml: &str) -> LimitPolicy {
    let raw: RawLimit = toml::from_str(toml).expect("a limit");
    LimitPolicy::try_from(raw).expect("a valid limit")
}

/// A limit by principal; `toml` says the rest.
fn keyed(toml: &str) -> Keyed {
    let policy = policy(&format!("key = ['principal']\n{toml}"));
    Keyed::new(&policy, Instant::ZERO, |values| hash(&values[0])).expect("a limit that tells time")
}

/// FNV-1a over 128 bits, finished so that both halves depend on every byte: a stand-in for the
/// keyed hash of the caller.
fn hash(text: &str) -> u128 {
    let prime = 0x0000_0000_0100_0000_0000_0000_0000_013b_u128;
    let offset = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    let fnv = text.bytes().fold(offset, |h, b| (h ^ u128::from(b)).wrapping_mul(prime));
    spread(fnv)
}

/// A bijection that scatters consecutive numbers.
fn spread(n: u128) -> u128 {
    let mut x = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    x ^= x >> 67;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9_94d0_49bb_1331_11eb);
    x ^ (x >> 61)
}

fn ms(n: u64) -> Instant {
    Instant::ZERO.plus(Duration::from_millis(n))
}

fn ask(limit: &mut Keyed, now: Instant, key: u128) -> Decision {
    limit.ask(now, key, Cost::ONE, Instant::MAX, |text| {
        let _cut: Result<(), _> = write!(text, "{key:x}");
    })
}

fn granted(limit: &mut Keyed, now: Instant, key: u128) -> bool {
    matches!(ask(limit, now, key), Decision::Granted { .. })
}

/// Plays `script` of `name` or `name*count` words, each followed by `+` where all are granted or
/// `-` where none is, and of `@ms`.
#[track_caller]
fn check(toml: &str, script: &str) {
    let mut limit = keyed(toml);
    let mut now = Instant::ZERO;
    for word in script.split_whitespace() {
        if let Some(moment) = word.strip_prefix('@') {
            now = ms(moment.parse().expect("milliseconds"));
            continue;
        }
        let (calls, sign) = word.split_at(word.len() - 1);
        let (name, times) = calls.split_once('*').unwrap_or((calls, "1"));
        for n in 0..times.parse().expect("a number") {
            let got = granted(&mut limit, now, hash(name));
            assert_eq!(got, sign == "+", "{word} {n} of {script:?} ({toml})");
        }
    }
}

#[test]
fn each_key_has_its_own_quota() {
    for kind in ["counter", "sliding", "bucket"] {
        check(&format!("kind = '{kind}'\nmax = 2"), "a*2+ a- b*2+ b- a- @2000 a*2+ a- b*2+");
    }
    check("kind = 'pacing'\nmax = 2\nwait_max_seconds = 0", "a+ a- b+ b- @500 a+ a-");
    check("kind = 'warm_up'\nmax = 2\nwait_max_seconds = 0", "a+ a- b+ b- @2000 a+ a-");
}

#[test]
fn an_override_holds_for_its_exact_key() {
    let limit = "max = 2\noverrides = [{ key = ['batch'], max = 5 }, { key = ['x'], max = 1 }]";
    check(limit, "a*2+ a- batch*5+ batch- x+ x- batc*2+ batc-");
}

#[test]
fn a_change_of_policy_keeps_every_key_and_finds_new_overrides() {
    let mut limit = keyed("max = 10");
    for (name, times) in [("a", 9), ("b", 2), ("c", 10)] {
        for _ in 0..times {
            assert!(granted(&mut limit, ms(0), hash(name)));
        }
    }
    let changed = "key = ['principal']\nmax = 4\noverrides = [{ key = ['b'], max = 1 }]";
    assert!(limit.set_policy(ms(0), &policy(changed), |values| hash(&values[0])));
    let left = |limit: &Keyed, name| limit.usage_of(ms(0), hash(name)).expect("known").remaining();
    assert_eq!(["a", "b", "c"].map(|name| left(&limit, name)), [1, 1, 0]);
    limit.set_scale(ms(0), 50);
    assert_eq!(["a", "b", "c"].map(|name| left(&limit, name)), [1, 1, 0]);
    let counter = "key = ['principal']\nkind = 'counter'\nmax = 9";
    assert!(limit.set_policy(ms(0), &policy(counter), |values| hash(&values[0])));
    assert_eq!(["a", "b", "c"].map(|name| left(&limit, name)), [1, 1, 0]);
    assert_eq!(limit.usage().keys, 3);
}

#[test]
fn a_table_made_smaller_forgets_those_nearest_to_untouched() {
    let mut limit = keyed("max = 10\nkeys_max = 100");
    for key in 0..100 {
        for _ in 0..=key / 10 {
            assert!(granted(&mut limit, ms(0), spread(key)));
        }
    }
    let smaller = "key = ['principal']\nmax = 10\nkeys_max = 20";
    assert!(limit.set_policy(ms(0), &policy(smaller), |values| hash(&values[0])));
    let known = |key| limit.usage_of(ms(0), spread(key)).is_some();
    assert!((0..80).all(|key| !known(key)) && (80..100).all(known));
    assert_eq!((limit.usage().keys, limit.usage().evictions), (20, 80));
}

#[test]
fn a_receipt_of_a_forgotten_key_returns_nothing() {
    let mut limit = keyed("max = 1\nkeys_max = 1");
    let Decision::Granted { receipt, .. } = ask(&mut limit, ms(0), hash("a")) else {
        panic!("the first call is granted")
    };
    assert!(granted(&mut limit, ms(0), hash("b")));
    assert!(granted(&mut limit, ms(0), hash("a")), "forgotten, so new");
    limit.refund(ms(0), hash("a"), receipt);
    assert!(!granted(&mut limit, ms(0), hash("a")));
}

#[test]
fn a_refund_goes_to_its_key() {
    let mut limit = keyed("max = 1");
    let Decision::Granted { receipt, .. } = ask(&mut limit, ms(0), hash("a")) else {
        panic!("the first call is granted")
    };
    assert!(granted(&mut limit, ms(0), hash("b")));
    limit.refund(ms(0), hash("a"), receipt);
    assert!(granted(&mut limit, ms(0), hash("a")));
    assert!(!granted(&mut limit, ms(0), hash("b")));
}

#[test]
fn ten_million_keys_stay_within_the_bound() {
    let mut limit = keyed("max = 3\nkeys_max = 1000");
    for n in 0..10_000_000_u64 {
        let now = Instant::from_nanos(n * 1_000);
        assert!(granted(&mut limit, now, spread(u128::from(n))), "a new key has its whole quota");
    }
    let usage = limit.usage();
    assert_eq!((usage.keys, usage.keys_max, usage.evictions), (1_000, 1_000, 9_999_000));
    assert_eq!(limit.top(1_000).len(), 100);
}

#[test]
fn a_flood_of_new_keys_does_not_free_a_limited_one() {
    for kind in ["counter", "sliding", "bucket"] {
        let mut limit =
            keyed(&format!("kind = '{kind}'\nmax = 2\nwindow_seconds = 60\nkeys_max = 800"));
        // Seven of eight keys are at their limit.
        for key in 0..700 {
            assert!((0..2).all(|_| granted(&mut limit, ms(key), spread(u128::from(key)))));
        }
        for n in 0..100_000_u64 {
            assert!(granted(&mut limit, ms(1_000 + n / 100), spread(u128::from(1_000_000 + n))));
        }
        for key in 0..700 {
            assert!(!granted(&mut limit, ms(2_000), spread(key)), "{kind}: {key} was let go");
        }
    }
}

#[test]
fn a_table_full_of_limited_keys_still_takes_new_ones() {
    let mut limit = keyed("max = 1\nwindow_seconds = 60\nkeys_max = 64");
    for key in 0..10_000 {
        assert!(granted(&mut limit, ms(0), spread(key)));
    }
    assert_eq!((limit.usage().keys, limit.usage().evictions), (64, 10_000 - 64));
}

#[test]
fn the_index_finds_every_key_after_many_evictions() {
    let mut limit = keyed("max = 1000\nkeys_max = 50");
    let mut seed = 7_u128;
    for n in 0..50_000_u64 {
        seed = spread(seed);
        let key = spread(seed % 120);
        let before = limit.usage_of(ms(n), key).map_or(0, |usage| usage.used);
        assert!(granted(&mut limit, ms(n), key));
        let usage = limit.usage_of(ms(n), key).expect("just asked");
        assert!(before < usage.used || usage.used == 1, "{before} before, {usage:?}");
    }
    let known = (0..120).filter(|&key| limit.usage_of(ms(50_000), spread(key)).is_some());
    assert_eq!(known.count(), 50);
}

#[test]
fn those_who_ask_most_are_known_by_name_even_in_a_flood() {
    let mut limit = keyed("max = 5\nkeys_max = 1000");
    let (mut names, mut asked) = (0, 0);
    for round in 0..200_u64 {
        for heavy in 0..50 {
            let key = hash(&format!("heavy-{heavy}"));
            let name = |text: &mut KeyText| {
                names += 1;
                let _cut: Result<(), _> = write!(text, "heavy-{heavy}");
            };
            drop(limit.ask(ms(round), key, Cost::ONE, Instant::MAX, name));
        }
        for light in 0..500_u64 {
            asked += 1;
            drop(ask(&mut limit, ms(round), spread(u128::from(round * 500 + light))));
        }
    }
    let top = limit.top(50);
    assert!(top.iter().all(|key| key.text.starts_with("heavy-")), "{top:?}");
    assert!(top.iter().all(|key| key.count == 200), "{top:?}");
    assert!(names <= 100 && asked == 100_000, "text was asked for {names} times");
}

#[test]
fn the_text_of_a_key_is_cut_at_a_whole_character() {
    let mut text = KeyText::default();
    assert!(write!(text, "{}", "a".repeat(127)).is_ok());
    assert!(write!(text, "é").is_err());
    assert!(write!(text, "b").is_err(), "what follows must not close up to what was cut");
    assert_eq!(text.as_str().len(), 127);
}
