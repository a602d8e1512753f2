use super::*;

/// The delays, in ms, of intervals 1, 2, 3 … under `table`, one for each draw.
#[track_caller]
fn check(table: &str, first: u32, draws: &[u64], want: &[u64]) {
    let backoff = backoff(table);
    let delays = (first..).zip(draws).map(|(n, draw)| backoff.delay(n, *draw));
    assert_eq!(
        delays.collect::<Vec<_>>(),
        want.iter().copied().map(ms).collect::<Vec<_>>(),
        "{table}"
    );
}

/// As [`check`], for one interval and draws given as a number from 0 to 1.
#[track_caller]
fn check_unit(table: &str, n: u32, draws: &[f64], want: &[u64]) {
    let backoff = backoff(table);
    let delays = draws.iter().map(|share| backoff.delay(n, draw(*share)));
    assert_eq!(
        delays.collect::<Vec<_>>(),
        want.iter().copied().map(ms).collect::<Vec<_>>(),
        "{table}"
    );
}

fn backoff(table: &str) -> Backoff {
    toml::from_str::<RawBackoff>(table).expect("known keys").try_into().expect("legal")
}

/// The draw that stands for `share`, from 0 to 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "53 bits"
)]
fn draw(share: f64) -> u64 {
    ((share * (u64::MAX >> 11) as f64) as u64) << 11
}

#[test]
fn full_jitter_is_the_draw_modulo_the_interval() {
    check("", 1, &[190, 190, 190], &[15, 40, 90]);
    check(
        "base_seconds = 0.1\nmax_seconds = 1.2",
        1,
        &[149, 350, 751, 2399, 2399],
        &[49, 150, 351, 799, 1199],
    );
    check("base_seconds = 0.1", 4, &[2999, 2999], &[599, 999]);
    check("base_seconds = 0.001\nshape = 'constant'", 1, &[7, u64::MAX], &[0, 0]);
}

#[test]
fn a_percentage_blurs_both_ways() {
    let constant = "shape = 'constant'\nbase_seconds = 1\njitter = 25";
    check_unit(constant, 1, &[0.0, 0.4, 0.6, 1.0], &[750, 950, 1050, 1250]);
    let linear = "shape = 'linear'\nbase_seconds = 1\njitter = 25";
    check_unit(linear, 3, &[0.0, 0.4, 0.5, 0.6, 1.0], &[2250, 2850, 3000, 3150, 3750]);
    check_unit("shape = 'constant'\nbase_seconds = 0.1\njitter = 50", 9, &[0.0, 1.0], &[50, 150]);
}

#[test]
fn what_overflows_is_the_longest_interval() {
    let table = "base_seconds = 0.1\nmax_seconds = 100\njitter = 'none'";
    let backoff = backoff(table);
    for n in [12, 13, 1024, 1025, 2_000, u32::MAX] {
        assert_eq!(backoff.delay(n, 0), ms(100_000), "n = {n}");
    }
    check(
        table,
        1,
        &[0; 11],
        &[100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 100_000],
    );
    check("shape = 'linear'\njitter = 'none'", u32::MAX - 3, &[0, 0], &[250, 250]);
}

proptest! {
    /// Whatever the shape, a delay is never longer than the longest interval, blurred upwards.
    #[test]
    fn no_delay_exceeds_the_cap(
        shape in 0usize..3,
        base in 1u64..60_000,
        multiplier in 1.0f64..100.0,
        max in 1u64..3_600_000,
        percent in 0.0f64..=100.0,
        n: u32,
        draw: u64,
    ) {
        let shape = [Shape::Constant, Shape::Linear, Shape::Exponential][shape];
        let (base, max) = (ms(base), ms(max));
        let delay = |jitter| Backoff { shape, base, multiplier, max, jitter }.delay(n, draw);
        let interval = delay(Jitter::None);
        prop_assert!(interval <= max && interval >= base.min(max));
        prop_assert!(delay(Jitter::Full) < interval);
        let blurred = delay(Jitter::Percent(percent)).as_secs_f64();
        let share = percent / 100.0;
        prop_assert!(blurred <= interval.as_secs_f64() * (1.0 + share) + 1e-6);
        prop_assert!(blurred >= interval.as_secs_f64() * (1.0 - share) - 1e-6);
    }

    /// gRPC's rule: min(initial · multiplier^(n − 1), max), give or take a fifth.
    #[test]
    fn a_grpc_policy_blurs_by_a_fifth(n in 1u32..40, draw: u64) {
        let policy = config::grpc(r#"{"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "1s",
            "backoffMultiplier": 1.5, "retryableStatusCodes": ["UNAVAILABLE"]}"#).unwrap();
        let interval = (0.1 * 1.5f64.powi(i32::try_from(n).unwrap() - 1)).min(1.0);
        let delay = policy.backoff.delay(n, draw).as_secs_f64();
        prop_assert!((interval * 0.8 - 1e-6..=interval * 1.2 + 1e-6).contains(&delay));
    }
}
