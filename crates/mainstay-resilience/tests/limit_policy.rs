//! The `[limit.N]` table: what it resolves to, and what it refuses.

use std::num::NonZeroU32;
use std::time::Duration;

use mainstay_resilience::limit::{
    Algorithm, Cost, Kind, LimitPolicy, Limiter, Mode, OnDeny, Order, Quota, RawLimit, Semaphore,
    Waiting,
};

fn read(toml: &str) -> Result<LimitPolicy, String> {
    let raw: RawLimit = toml::from_str(toml).map_err(|error| error.message().to_owned())?;
    LimitPolicy::try_from(raw).map_err(|invalid| invalid.to_string())
}

fn n(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).expect("not 0")
}

#[track_caller]
fn check_kind(toml: &str, want: Kind) {
    let policy = read(toml).expect(toml);
    assert_eq!(policy.kind, want, "{toml}");
    // Exactly one of the two takes it.
    let timed = Limiter::new(&policy, mainstay_core::Instant::ZERO).is_some();
    assert_ne!(timed, Semaphore::new(&policy).is_some(), "{toml}");
}

#[test]
fn defaults_are_those_of_the_reference() {
    let policy = read("max = 100").expect("enough");
    let quota = Quota { max: n(100), window: Duration::from_secs(1) };
    let want = LimitPolicy {
        kind: Kind::Bucket { quota, burst: n(100) },
        mode: Mode::Enforce,
        cost: Cost::ONE,
        key: Vec::new(),
        keys_max: n(65_536),
        overrides: Vec::new(),
        headers: false,
        on_deny: OnDeny::Fail,
        scale_switch: None,
    };
    assert_eq!(policy, want);
    assert!(read("max = 1\nkey = ['tenant']").expect("keyed").headers);

    let waiting =
        |seconds, queue_max| Waiting { wait_max: Duration::from_secs_f64(seconds), queue_max };
    check_kind("kind = 'pacing'\nmax = 100", Kind::Pacing { quota, waiting: waiting(0.5, 1_024) });
    let warm_up = Duration::from_secs(10);
    check_kind(
        "kind = 'warm_up'\nmax = 100",
        Kind::WarmUp { quota, waiting: waiting(0.5, 1_024), warm_up, cold_factor: 3.0 },
    );
    check_kind(
        "kind = 'concurrency'\nmax = 7",
        Kind::Concurrency { max: n(7), waiting: waiting(0.0, 0), order: Order::Fifo },
    );
    check_kind(
        "kind = 'adaptive'",
        Kind::Adaptive {
            algorithm: Algorithm::Gradient,
            floor: n(5),
            ceiling: n(1_000),
            initial: n(20),
            tolerance: 1.5,
            sample: Duration::from_secs(1),
            waiting: waiting(0.0, 0),
            order: Order::Fifo,
        },
    );
}

#[test]
fn what_is_wrong_is_named_as_it_was_written() {
    for (toml, want) in WRONG {
        assert_eq!(read(toml).map(|_| ()), Err((*want).to_owned()), "{toml}");
    }
    let unknown = read("max = 5\nkey = ['ip']").expect_err("no such part");
    assert!(unknown.starts_with("key[0]: must be `client_address`"), "{unknown}");
    assert!(read("maximum = 5").expect_err("no such key").contains("maximum"));
    assert!(read("max = 5\nkind = 'leaky'").expect_err("no such kind").contains("leaky"));
}

#[test]
fn a_limit_as_written_survives_being_written_again() {
    let text = "kind = 'sliding'\nmax = 10\nkey = ['principal']\noverrides = [{ key = ['batch'], max = 50 }]";
    let raw: RawLimit = toml::from_str(text).expect("a limit");
    let again: RawLimit =
        serde_json::from_str(&serde_json::to_string(&raw).expect("JSON")).expect("the same");
    assert_eq!(raw, again);
}

/// As written, and what is said about it.
const WRONG: &[(&str, &str)] = &[
    ("", "max: is required"),
    ("max = 0", "max: must be at least 1; to refuse every call turn a switch off"),
    ("max = 1\nwindow_seconds = 0", "window_seconds: must be 0.01 to 3600 seconds, found 0"),
    ("max = 1\nwindow_seconds = nan", "window_seconds: must be 0.01 to 3600 seconds, found NaN"),
    ("max = 1\nburst = 0", "burst: must be at least 1, found 0"),
    (
        "max = 1\nwindow_seconds = 3600\nburst = 9000",
        "burst: must refill within a year at 1 per window, found 9000",
    ),
    ("max = 5\ncost = 6", "cost: must be at most what the limit holds, 5, found 6"),
    ("max = 5\ncost = 0", "cost: must be at least 1, found 0"),
    ("max = 5\nedge = 'full'", "edge: means nothing to a limit of kind `bucket`"),
    (
        "max = 5\nwait_max_seconds = 1",
        "wait_max_seconds: means nothing to a limit of kind `bucket`",
    ),
    ("kind = 'adaptive'\nmax = 5", "max: means nothing to a limit of kind `adaptive`"),
    (
        "kind = 'concurrency'\nmax = 5\nkey = ['tenant']",
        "key: means nothing to a limit of kind `concurrency`",
    ),
    ("kind = 'sliding'\nmax = 5\nsub_windows = 11", "sub_windows: must be 1 to 10, found 11"),
    (
        "kind = 'counter'\nmax = 5\nwait_max_seconds = 11",
        "wait_max_seconds: must be at most 10 windows",
    ),
    ("kind = 'warm_up'\nmax = 5\ncold_factor = 1", "cold_factor: must be 1.1 to 100, found 1"),
    (
        "kind = 'concurrency'\nmax = 5\nqueue_max = 5",
        "queue_max: means nothing while `wait_max_seconds` is 0",
    ),
    (
        "kind = 'concurrency'\nmax = 5\nwait_max_seconds = 5",
        "wait_max_seconds: means nothing while `queue_max` is 0",
    ),
    ("kind = 'adaptive'\nfloor = 50\nceiling = 40", "ceiling: must be 50 to 4294967295, found 40"),
    ("kind = 'adaptive'\ninitial = 2", "initial: must be 5 to 1000, found 2"),
    ("max = 5\nkeys_max = 9", "keys_max: means nothing without `key`"),
    ("max = 5\nkey = ['tenant']\nkeys_max = 0", "keys_max: must be 1 to 1048576, found 0"),
    (
        "max = 5\nkey = ['service', 'query:']",
        "key[1]: must name a parameter after the `:`, 1 to 128 bytes without control characters, found \"\"",
    ),
    (
        "max = 5\nkey = ['path']",
        "key[0]: must not be all of the path; name one capture of it with `path:NAME`",
    ),
    (
        "max = 5\nkey = ['tenant']\noverrides = [{ key = [], max = 1 }]",
        "overrides[0].key: must have 1 values, one for each part of `key`",
    ),
    ("max = 5\nkey = ['tenant']\noverrides = [{ key = ['a'] }]", "overrides[0].max: is required"),
    (
        "max = 5\ncost = 2\nkey = ['tenant']\noverrides = [{ key = ['a'], max = 1 }]",
        "overrides[0].max: must hold at least one call's `cost`, 2",
    ),
    (
        "max = 5\nkey = ['tenant']\noverrides = [{ key = ['a'], max = 1 }, { key = ['a'], max = 2 }]",
        "overrides[1].key: stands in an earlier entry already",
    ),
];
