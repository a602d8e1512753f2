use proptest::prelude::*;

use super::*;

const HOP: Duration = Duration::from_millis(5);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A call arrives with `remaining` ms left, `spent` ms go by here, an attempt begins: it must send
/// `sent` ms and wait `attempt` ms itself.
#[track_caller]
fn check(remaining: u64, spent: u64, sent: &str, attempt: u64) {
    let arrived = Instant::from_nanos(7);
    let deadline = Deadline::resolve(arrived, Some(ms(remaining)), false, Patience::default());
    let now = arrived.plus(ms(spent));
    let out = deadline.outgoing(now, HOP);
    assert_eq!(Digits::timeout_ms(out).as_str(), sent, "{remaining} ms, {spent} ms spent");
    assert_eq!(Digits::grpc_timeout(out).as_str(), format!("{sent}m"));
    assert_eq!(deadline.attempt_timeout(now, None), ms(attempt));
}

#[test]
fn the_worked_table() {
    check(1_000, 40, "955", 960);
    check(1_000, 400, "595", 600);
    check(6, 3, "1", 3);
}

#[test]
fn an_attempt_waits_no_longer_than_its_own_timeout() {
    let deadline = Deadline::resolve(Instant::ZERO, Some(ms(900)), false, Patience::default());
    let at = |now| deadline.attempt_timeout(Instant::ZERO.plus(ms(now)), Some(ms(400)));
    assert_eq!([at(0), at(600), at(900), at(5_000)], [ms(400), ms(300), ms(0), ms(0)]);
    assert!(!deadline.has_passed(Instant::ZERO.plus(ms(899))));
    assert!(deadline.has_passed(Instant::ZERO.plus(ms(900))));
}

#[test]
fn who_may_have_how_much_and_for_what() {
    use Covers::{Exchange, Head};
    let patience = Patience { timeout: ms(15_000), max: ms(300_000) };
    for (asked, trusted, want, covers) in [
        (None, false, 15_000, Head),
        (None, true, 15_000, Head),
        (Some(900), false, 900, Exchange),
        (Some(15_000), false, 15_000, Exchange),
        (Some(60_000), false, 15_000, Head),
        (Some(60_000), true, 60_000, Exchange),
        (Some(900_000), true, 300_000, Exchange),
        (Some(0), true, 0, Exchange),
    ] {
        let got = Deadline::resolve(Instant::ZERO, asked.map(ms), trusted, patience);
        let want = Deadline { at: Instant::ZERO.plus(ms(want)), covers };
        assert_eq!(got, want, "asked {asked:?}, trusted {trusted}");
    }
}

#[test]
fn a_timeout_is_read_strictly() {
    let hours = Duration::from_hours(99_999_999);
    for (text, want) in [
        ("1S", Some(ms(1_000))),
        ("250m", Some(ms(250))),
        ("2M", Some(Duration::from_mins(2))),
        ("99999999H", Some(hours)),
        ("7u", Some(Duration::from_micros(7))),
        ("00000008n", Some(Duration::from_nanos(8))),
        ("0m", Some(Duration::ZERO)),
        ("100000000n", None),
        ("", None),
        ("S", None),
        ("1", None),
        ("1s", None),
        ("-1S", None),
        ("+1S", None),
        ("1.5S", None),
        (" 1S", None),
        ("1S ", None),
        ("1 S", None),
        ("٣S", None),
    ] {
        assert_eq!(parse_grpc_timeout(text.as_bytes()).ok(), want, "grpc-timeout {text:?}");
    }
    for (text, want) in [
        ("1", Some(1)),
        ("0", Some(0)),
        ("999999999", Some(999_999_999)),
        ("1000000000", None),
        ("", None),
        ("1m", None),
        ("-1", None),
        ("0x10", None),
        ("1,000", None),
    ] {
        assert_eq!(parse_timeout_ms(text.as_bytes()).ok(), want.map(ms), "ms {text:?}");
    }
    let error = parse_grpc_timeout(b"soon").expect_err("no number");
    assert_eq!(error.header, "grpc-timeout");
}

#[test]
fn long_spans_are_written_in_larger_units() {
    for (seconds, millis, grpc) in [
        (0, "0", "0m"),
        (300, "300000", "300000m"),
        (99_999, "99999000", "99999000m"),
        (100_000, "100000000", "100000S"),
        (2_000_000, "999999999", "2000000S"),
        (100_000_000, "999999999", "1666666M"),
        (u64::MAX, "999999999", "99999999H"),
    ] {
        let span = Duration::from_secs(seconds);
        assert_eq!(Digits::timeout_ms(span).as_str(), millis, "{seconds} s");
        assert_eq!(Digits::grpc_timeout(span).as_str(), grpc, "{seconds} s");
    }
    assert_eq!(Digits::of(u32::MAX).to_string(), "4294967295");
}

proptest! {
    /// Whatever a stranger asks for, the deadline is neither later than the route's own nor later
    /// than what was asked.
    #[test]
    fn a_stranger_can_only_shorten(
        now: u64,
        asked in prop::option::of(any::<u64>()),
        timeout in 1u64..100_000,
        max in 1u64..1_000_000,
    ) {
        let (now, patience) = (Instant::from_nanos(now), Patience { timeout: ms(timeout), max: ms(max) });
        let deadline = Deadline::resolve(now, asked.map(ms), false, patience);
        prop_assert!(deadline.at <= now.plus(ms(timeout)));
        prop_assert!(asked.is_none_or(|asked| deadline.at <= now.plus(ms(asked))));
    }

    /// Even a trusted caller stays within what the route allows, and each hop tells the next one
    /// less than it has, but never nothing.
    #[test]
    fn it_shrinks_from_hop_to_hop(asked: u64, spent in 0u64..400_000, hop in 0u64..50) {
        let patience = Patience::default();
        let deadline = Deadline::resolve(Instant::ZERO, Some(ms(asked)), true, patience);
        prop_assert!(deadline.remaining(Instant::ZERO) <= patience.max);
        let now = Instant::ZERO.plus(ms(spent));
        let out = deadline.outgoing(now, ms(hop));
        prop_assert!(out == ms(1) || out + ms(hop) == deadline.remaining(now));
    }

    /// What is written is read back as the same span, to the unit it was written in.
    #[test]
    fn what_is_written_is_read_back(millis in 0u64..99_999_999) {
        prop_assert_eq!(parse_timeout_ms(Digits::timeout_ms(ms(millis)).as_bytes()), Ok(ms(millis)));
        prop_assert_eq!(parse_grpc_timeout(Digits::grpc_timeout(ms(millis)).as_bytes()), Ok(ms(millis)));
    }
}
