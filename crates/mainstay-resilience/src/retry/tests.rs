mod backoff;
mod config;
mod hint;

use mainstay_core::Instant;
use proptest::prelude::*;

use super::*;
use crate::Congestion;

/// An attempt that ended as `text` says, with nothing else to be said about it: a status,
/// `grpc:N`, or a failure by name. A POST, fifteen seconds from its deadline.
fn attempt(text: &str) -> Attempt {
    let ending = match text {
        "timeout" => Ending::Failed(Failure::RequestTimeout),
        "connect-timeout" => Ending::Failed(Failure::ConnectTimeout),
        "connect-failed" => Ending::Failed(Failure::ConnectFailed { identity: false }),
        "identity" => Ending::Failed(Failure::ConnectFailed { identity: true }),
        "unprocessed" => Ending::Failed(Failure::Unprocessed),
        "pool" => Ending::Failed(Failure::Congestion(Congestion::PoolExhausted)),
        "stalled" => Ending::Failed(Failure::Congestion(Congestion::WriteStalled)),
        "lost" => Ending::Failed(Failure::Congestion(Congestion::Lost { sent: true })),
        "lost-unsent" => Ending::Failed(Failure::Congestion(Congestion::Lost { sent: false })),
        "truncated" => Ending::Failed(Failure::Truncated),
        "malformed" => Ending::Failed(Failure::Malformed),
        "deadline" => Ending::Failed(Failure::Deadline { sent: false }),
        "cancelled" => Ending::Failed(Failure::Cancelled),
        other => Ending::Answered(match other.strip_prefix("grpc:") {
            Some(code) => Answer::Grpc(code.parse().unwrap()),
            None => Answer::Http(other.parse().unwrap()),
        }),
    };
    Attempt {
        ending,
        idempotent: false,
        committed: false,
        arriving: 1,
        pushback: None,
        retry_after: None,
        remaining: Duration::from_secs(15),
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn policy(table: &str) -> RetryPolicy {
    toml::from_str::<RawRetry>(table).expect("known keys").try_into().expect("a legal policy")
}

/// Plays attempts to a policy without jitter, each `result[:modifier…]=want`.
///
/// Modifiers: `i` idempotent, `c` committed, `a2` arrived as attempt 2, `p70` pushed back 70 ms,
/// `p-` pushed back for good, `r2000` `Retry-After` of 2,000 ms, `d30` 30 ms to the deadline.
/// Wants: a wait in ms, `free` for a transparent retry, or why it stopped.
#[track_caller]
fn check(table: &str, script: &str) {
    let policy = policy(&format!("{table}\nbackoff = {{ jitter = 'none' }}"));
    let mut progress = Progress::default();
    for step in script.split_whitespace() {
        let (text, want) = step.split_once('=').expect("result=want");
        let mut parts = text.split('/');
        let mut attempt = attempt(parts.next().unwrap());
        for part in parts {
            let (letter, rest) = part.split_at(1);
            let millis = || ms(rest.parse().unwrap());
            match letter {
                "i" => attempt.idempotent = true,
                "c" => attempt.committed = true,
                "a" => attempt.arriving = rest.parse().unwrap(),
                "p" if rest == "-" => attempt.pushback = Some(Pushback::Never),
                "p" => attempt.pushback = Some(Pushback::After(millis())),
                "r" => attempt.retry_after = Some(millis()),
                "d" => attempt.remaining = millis(),
                _ => panic!("no such modifier: {part}"),
            }
        }
        let got = match policy.decide(&mut progress, &attempt, 0) {
            Retry::Again { transparent: true, after } => {
                format!("free{}", u8::from(!after.is_zero()))
            }
            Retry::Again { after, .. } => after.as_millis().to_string(),
            Retry::Stop(why) => why.as_str().to_owned(),
        };
        let want = if want == "free" { "free0" } else { want };
        assert_eq!(got, want, "{step} of {script:?}: {progress:?}");
    }
}

#[test]
fn attempts_are_counted_in_all() {
    check("", "503/i=25 503/i=50 503/i=attempts");
    check("attempts = 1", "503/i=attempts");
    check("attempts = 5", "timeout/i=25 timeout/i=50 502/i=100 lost/i=200 504/i=attempts");
}

#[test]
fn only_what_cannot_harm_is_repeated() {
    for (result, unknown, idempotent) in [
        ("timeout", "not-idempotent", "25"),
        ("lost", "not-idempotent", "25"),
        ("stalled", "not-idempotent", "25"),
        ("503", "not-idempotent", "25"),
        ("lost-unsent", "25", "25"),
        ("connect-timeout", "25", "25"),
        ("connect-failed", "25", "25"),
        ("pool", "25", "25"),
        ("429", "25", "25"),
        ("503/r0", "25", "25"),
        ("grpc:8", "25", "25"),
        ("identity", "not-retryable", "not-retryable"),
        ("truncated", "not-retryable", "not-retryable"),
        ("malformed", "not-retryable", "not-retryable"),
        ("deadline", "not-retryable", "not-retryable"),
        ("cancelled", "not-retryable", "not-retryable"),
        ("200", "not-retryable", "not-retryable"),
        ("404", "not-retryable", "not-retryable"),
        ("500", "not-retryable", "not-retryable"),
        ("grpc:14", "not-retryable", "not-retryable"),
    ] {
        check("", &format!("{result}={unknown}"));
        check("", &format!("{result}/i={idempotent}"));
    }
}

#[test]
fn the_list_decides_what_helps() {
    check("retry_on = ['404', ' 5xx ']", "404/i=25");
    check("retry_on = ['5xx']", "500/i=25 404/i=not-retryable");
    check("retry_on = ['5xx']", "429/i=not-retryable");
    check("retry_on = ['429']", "429=25");
    check("retry_on = ['Unavailable', 'grpc:10']", "grpc:14/i=25 grpc:10/i=50");
    check("retry_on = ['refused']", "503/i=not-retryable");
    check("retry_on = ['refused']", "503/r900=900");
    check("retry_on = []", "connect-failed/i=not-retryable");
}

#[test]
fn a_stream_nobody_processed_is_sent_again_once_for_free() {
    check("", "unprocessed=free unprocessed=25 unprocessed=50 unprocessed=attempts");
    check("attempts = 1", "unprocessed=free unprocessed=attempts");
    check("retry_on = []", "unprocessed=free unprocessed=not-retryable");
    check("", "503/i=25 unprocessed=free 503/i=50 503/i=attempts");
    check("", "unprocessed/c=committed");
    check("", "unprocessed/d0=deadline");
    check("", "unprocessed/a3=free unprocessed/a3=25");
}

#[test]
fn a_result_that_would_not_be_repeated_wins_over_every_limit() {
    check("attempts = 1", "404/i/c/d0=not-retryable");
    check("attempts = 1", "timeout/c/d0=not-idempotent");
    check("attempts = 2", "503/i=25 404/i=not-retryable");
    check("attempts = 1", "503/i/c/d0=committed");
}

#[test]
fn a_retry_that_cannot_begin_before_the_deadline_is_not_made() {
    check("", "503/i/d25=deadline");
    check("", "503/i/d26=25");
    check("", "503/r2000/d2000=deadline");
}

#[test]
fn a_hint_is_waited_for_if_it_is_short_enough() {
    check("", "503/r2000=2000 429/r10=50");
    check("", "503/r10000=10000");
    check("", "503/r10001=pushback");
    check("retry_after_max_seconds = 0", "429/r1=pushback");
    check("retry_after_max_seconds = 0", "429/r0=25");
}

#[test]
fn a_pushback_is_waited_for_exactly_and_starts_the_intervals_anew() {
    let table = "attempts = 5\nretry_on = ['unavailable']";
    check(table, "grpc:14/i=25 grpc:14/i=50 grpc:14/i/p7=7 grpc:14/i=25 grpc:14/i=attempts");
    check(table, "grpc:14/i/p0=0 grpc:14/i/p-=pushback");
    check(table, "grpc:14/i/p14999=14999 grpc:14/i/p15000=deadline");
    check(table, "grpc:13/i/p7=not-retryable");
}

#[test]
fn tiers_do_not_multiply() {
    check("", "503/i/a2=attempts");
    check("", "timeout/i/a2=attempts");
    check("", "429/a2=attempts");
    check("", "connect-failed/a2=25 lost-unsent/a2=50 pool/a2=attempts");
}

/// Every instance fails, a thousand calls a second, five attempts a call: in a minute the upstream
/// must see no more than the calls, their share of retries, and the minimum.
#[test]
fn a_storm_of_failures_is_bounded_by_the_budget() {
    let policy = policy("attempts = 5");
    let mut budget = crate::budget::Budget::new(policy.budget, Instant::ZERO);
    let (calls, mut sent, mut stopped) = (60_000u64, 0u64, 0u64);
    let failed = Attempt { idempotent: true, ..attempt("503") };
    for call in 0..calls {
        let now = Instant::ZERO.plus(ms(call));
        budget.first_attempt(now);
        let (mut progress, mut credit) = (Progress::default(), None);
        loop {
            sent += 1;
            budget.done(crate::budget::Ended::Badly, credit.take());
            let Retry::Again { .. } = policy.decide(&mut progress, &failed, call) else { break };
            credit = budget.try_take(now);
            if credit.is_none() {
                stopped += 1;
                break;
            }
        }
        budget.call_ended();
    }
    let bound = calls + calls / 5 + 10 * 70; // The minimum of each second, and of one ttl before.
    assert!(sent <= bound, "{sent} sent for {calls} calls");
    assert!(
        calls + calls / 5 <= sent && stopped != 0,
        "{sent} sent: the share is there to be used"
    );
}

#[test]
fn a_hedge_waits_for_time_or_for_a_loss() {
    let policy =
        policy("hedge = { after_seconds = 0.1, extra = 2, non_fatal = ['503', 'connect'] }");
    let hedge = policy.hedge.expect("given");
    let sent = Instant::from_nanos(9);
    let race = Race {
        idempotent: true,
        committed: false,
        arriving: 1,
        sent: 0,
        last_sent: sent,
        lost_one: false,
    };
    for (race, want) in [
        (race, Start::At(sent.plus(ms(100)))),
        (Race { lost_one: true, ..race }, Start::Now),
        (Race { sent: 1, ..race }, Start::At(sent.plus(ms(100)))),
        (Race { sent: 2, lost_one: true, ..race }, Start::Never),
        (Race { idempotent: false, ..race }, Start::Never),
        (Race { committed: true, ..race }, Start::Never),
        (Race { arriving: 2, ..race }, Start::Never),
    ] {
        assert_eq!(hedge.next(&race), want, "{race:?}");
    }
    for (text, want) in
        [("503", true), ("connect-failed", true), ("identity", false), ("200", false)]
    {
        assert_eq!(hedge.is_non_fatal(attempt(text).ending, false), want, "{text}");
    }
}

fn any_ending() -> impl Strategy<Value = Ending> {
    let failures = [
        "timeout",
        "connect-timeout",
        "connect-failed",
        "identity",
        "unprocessed",
        "pool",
        "stalled",
        "lost",
        "lost-unsent",
        "truncated",
        "malformed",
        "deadline",
        "cancelled",
    ];
    prop_oneof![
        proptest::sample::select(failures.as_slice().to_vec())
            .prop_map(|text| attempt(text).ending),
        (200u16..600).prop_map(|status| Ending::Answered(Answer::Http(status))),
        (0u32..20).prop_map(|code| Ending::Answered(Answer::Grpc(code))),
    ]
}

proptest! {
    /// Whatever a policy lists, a call that is not idempotent is repeated only after an attempt
    /// that provably did nothing; no retry begins at or after the deadline, none after the call is
    /// committed; and a call is sent at most `attempts` times and once for free.
    #[test]
    fn no_retry_can_harm(
        attempts in 1u32..=5,
        endings in prop::collection::vec((any_ending(), any::<bool>(), any::<bool>()), 1..12),
        hint in prop::option::of(0u64..20_000),
        remaining in 0u64..20_000,
        draw: u64,
    ) {
        let all = "['connect', 'timeout', 'congestion', 'refused', 'refused-stream', '5xx', '404', \
            '200', 'unknown', 'internal', 'unavailable']";
        let policy = policy(&format!("attempts = {attempts}\nretry_on = {all}"));
        let mut progress = Progress::default();
        let mut sent = 1;
        for (ending, idempotent, committed) in endings {
            let retry_after = hint.map(ms);
            let attempt = Attempt { ending, idempotent, committed, retry_after, remaining: ms(remaining), ..attempt("200") };
            let Retry::Again { after, .. } = policy.decide(&mut progress, &attempt, draw) else { break };
            sent += 1;
            prop_assert!(after < attempt.remaining);
            prop_assert!(!committed);
            let harmless = match ending {
                Ending::Failed(failure) => failure.effect() == Effect::None,
                Ending::Answered(answer) => answer.is_refusal(hint.is_some()),
            };
            prop_assert!(idempotent || harmless, "{ending:?}");
        }
        prop_assert!(sent <= attempts + 1);
        prop_assert!(progress.number() <= attempts);
    }
}
