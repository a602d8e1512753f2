use proptest::prelude::*;

use super::*;

fn ms(millis: u64) -> Instant {
    Instant::ZERO.plus(Duration::from_millis(millis))
}

/// Plays `script` to the holder of a lease of 15 s (margin 1.5) that was asked for at 0.
///
/// Each line is a moment in milliseconds and an event: `poll` must answer with what follows
/// (`renew`, `wait MS`, `end WHY`); `ok SENT` is the answer to the try sent then; `fail` its
/// failure; `check` must say `MS` (until when) or why not.
#[track_caller]
fn check(script: &str) {
    let mut belief = Belief::granted(ms(0), Terms::new(Duration::from_secs(15)));
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let now = ms(words[0].parse().unwrap());
        match words[1..] {
            ["poll", ref want @ ..] => {
                let got = match belief.poll(now) {
                    Step::Renew => "renew".to_owned(),
                    Step::Wait(at) => format!("wait {}", at.as_nanos() / 1_000_000),
                    Step::End(loss) => format!("end {loss}"),
                };
                assert_eq!(got, want.join(" "), "{line}: {belief:?}");
            }
            ["check", want] => {
                let got = match belief.check(now) {
                    Ok(until) => (until.as_nanos() / 1_000_000).to_string(),
                    Err(loss) => loss.to_string(),
                };
                assert_eq!(got, want, "{line}: {belief:?}");
            }
            ["ok", sent] => belief.renewed(ms(sent.parse().unwrap()), now, Duration::from_secs(15)),
            ["fail"] => belief.failed(now),
            ["gone"] => belief.lost(Loss::SessionGone),
            ["stands", want] => {
                assert_eq!(format!("{:?}", belief.standing()), want, "{line}");
            }
            _ => panic!("{line}"),
        }
    }
}

#[test]
fn a_holder_whose_renewal_is_not_answered_stops_before_the_store_does() {
    check(
        "    40 poll  wait 5000
             40 check 13500
           5000 poll  renew
           5020 ok    5000
           5020 check 18500
          10000 poll  renew
          10000 poll  wait 12500
          12499 stands Held
          12500 poll  wait 13500
          12500 stands Jeopardy
          13500 poll  renew
          16000 poll  wait 17000
          17000 poll  renew
          17000 poll  wait 18500
          18499 check 18500
          18500 poll  end expired
          18500 check expired",
    );
}

#[test]
fn a_process_that_stood_still_has_lost_before_it_does_any_work() {
    check(
        "  5000 poll  renew
           5020 ok    5000
          40000 check expired
          40000 poll  end expired",
    );
}

#[test]
fn jeopardy_ends_with_the_next_renewal_that_works() {
    check(
        "  5000 poll  renew
           5100 fail
           5100 stands Jeopardy
           5100 check 13500
           6100 poll  renew
           6200 ok    6100
           6200 stands Held
           6200 check 19600
           6200 poll  wait 11100",
    );
}

#[test]
fn an_answer_heard_too_late_gives_nothing_back() {
    check(
        "  5000 poll  renew
          13500 ok    5000
          13500 check expired
          13600 poll  end expired",
    );
}

#[test]
fn the_first_reason_stays() {
    check(
        "  5000 poll  renew
           5010 gone
           5020 ok    5000
           5020 check session-gone
          99000 poll  end session-gone",
    );
}

#[test]
fn terms_follow_from_the_ttl() {
    // ttl, margin, valid, renewed, try, again, in ms.
    let table = [
        (2_000, 500, 1_500, 666, 333, 133),
        (5_000, 500, 4_500, 1_666, 833, 333),
        (15_000, 1_500, 13_500, 5_000, 2_500, 1_000),
        (3_600_000, 360_000, 3_240_000, 1_200_000, 600_000, 240_000),
    ];
    for (ttl, margin, valid, renewed, timeout, again) in table {
        let terms = Terms::new(Duration::from_millis(ttl));
        let spans = [
            terms.margin(),
            terms.valid_for(),
            terms.renew_every(),
            terms.try_timeout(),
            terms.retry_every(),
        ];
        let got = spans.map(|span| u64::try_from(span.as_millis()).unwrap());
        assert_eq!(got, [margin, valid, renewed, timeout, again], "ttl {ttl}");
    }
}

/// What may happen to a try, and how long until the driver looks again.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It arrives after so many ms, and its answer after as many again.
    Answered(u64),
    /// It arrives, and its answer is lost.
    Unheard,
    /// It never arrives.
    Lost,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        3 => (0u64..4_000).prop_map(Fate::Answered),
        1 => Just(Fate::Unheard),
        1 => Just(Fate::Lost),
    ]
}

proptest! {
    /// Whatever becomes of the messages and however long the process stands still, a holder that
    /// believes does so at least a margin before the store could end the lease; and once it has
    /// stopped it never believes again.
    #[test]
    fn a_holder_never_believes_longer_than_the_store(
        ttl_seconds in 2u64..60,
        rounds in prop::collection::vec((fate(), 0u64..20_000), 1..60),
    ) {
        let ttl = Duration::from_secs(ttl_seconds);
        let terms = Terms::new(ttl);
        let mut belief = Belief::granted(ms(0), terms);
        // The store received the grant when it was sent: the earliest there is.
        let mut store_deadline = ms(0).plus(ttl);
        let (mut now, mut stopped) = (ms(0), false);
        for (fate, pause_ms) in rounds {
            match belief.poll(now) {
                Step::End(_) => stopped = true,
                Step::Wait(at) => {
                    prop_assert!(now < at, "waits for what has passed");
                    now = at;
                }
                Step::Renew => {
                    prop_assert!(!stopped);
                    let sent = now;
                    match fate {
                        Fate::Answered(each_way) => {
                            let way = Duration::from_millis(each_way);
                            let arrived = sent.plus(way);
                            if arrived < store_deadline {
                                store_deadline = store_deadline.max(arrived.plus(ttl));
                                now = arrived.plus(way);
                                belief.renewed(sent, now, ttl);
                            } else {
                                belief.lost(Loss::SessionGone);
                            }
                        }
                        Fate::Unheard => {
                            if sent < store_deadline {
                                store_deadline = store_deadline.max(sent.plus(ttl));
                            }
                            belief.failed(sent);
                        }
                        Fate::Lost => belief.failed(sent),
                    }
                }
            }
            now = now.plus(Duration::from_millis(pause_ms));
            match belief.check(now) {
                Ok(until) => {
                    prop_assert!(!stopped, "believes again");
                    prop_assert!(now < until);
                    prop_assert!(until.plus(terms.margin()) <= store_deadline);
                }
                Err(_) => stopped = true,
            }
        }
    }

    /// A driver that does what it is told, at once, is never late: each try is spaced as the terms
    /// say, and with no answer at all the end comes exactly when belief ends.
    #[test]
    fn without_answers_the_end_comes_on_time(ttl_seconds in 2u64..3_600) {
        let terms = Terms::new(Duration::from_secs(ttl_seconds));
        let mut belief = Belief::granted(ms(0), terms);
        let (mut now, mut tries) = (ms(0), 0);
        loop {
            match belief.poll(now) {
                Step::Wait(at) => now = at,
                Step::Renew => tries += 1,
                Step::End(loss) => {
                    prop_assert_eq!(loss, Loss::Expired);
                    break;
                }
            }
        }
        prop_assert_eq!(now, ms(0).plus(terms.valid_for()));
        prop_assert!((2..=3).contains(&tries), "{tries} tries");
    }
}
