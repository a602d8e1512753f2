use std::sync::Mutex;

use super::*;

fn at(seconds: f64) -> Instant {
    Instant::ZERO.plus(Duration::from_secs_f64(seconds))
}

/// Plays `script` to a time window of `seconds` in `parts`, then compares calls, failures, slow
/// calls and mean latency (milliseconds). A word is `moment:latency`, in seconds and milliseconds,
/// `f` for failed, `t` for timed out, nothing for good; slow begins at one second.
#[track_caller]
fn check(seconds: u64, parts: usize, script: &str, now: f64, want: (u64, u64, u64, u128)) {
    let mut window = TimeWindow::new(Duration::from_secs(seconds), parts, Instant::ZERO);
    for word in script.split_whitespace() {
        let (moment, rest) = word.split_once(':').unwrap();
        let latency = rest.trim_end_matches(['f', 't']);
        let outcome = match rest.strip_prefix(latency) {
            Some("f") => Outcome::Failure,
            Some("t") => Outcome::RequestTimeout,
            _ => Outcome::Success,
        };
        window.advance(at(moment.parse().unwrap()));
        let latency = Duration::from_millis(latency.parse().unwrap());
        window.add(Sample::new(outcome, latency, 1_000_000_000));
    }
    window.advance(at(now));
    let total = window.total();
    let mean = total.mean_latency().as_millis();
    assert_eq!((total.calls, total.failures, total.slow, mean), want, "{script} at {now}");
}

#[test]
fn worked_examples() {
    let three = "0:100f 0.1:100 0.8:1000f";
    check(5, 5, three, 0.8, (3, 2, 1, 400));
    check(5, 5, three, 4.8, (3, 2, 1, 400));
    check(5, 5, three, 5.8, (0, 0, 0, 0));
    let each_second = "0:1 1:1 2:1 3:1 4:1 5:1 6:1 7:1 8:1 9:1";
    check(10, 10, each_second, 9.999, (10, 0, 0, 1));
    check(10, 10, each_second, 10.0, (9, 0, 0, 1));
    check(10, 10, each_second, 11.0, (8, 0, 0, 1));
    check(10, 10, "0:1", 9.999_999_999, (1, 0, 0, 1));
    check(10, 10, "0:1", 10.0, (0, 0, 0, 0));
    check(10, 10, "0:10000 1:10000f 2:100 3:100 4:100", 5.0, (5, 1, 2, 4060));
    // Any jump, and a window that is no multiple of its parts.
    check(10, 10, "0:1 3000000000:1", 3_000_000_001.0, (1, 0, 0, 1));
    check(10, 3, "0:1 3.4:1", 9.9, (2, 0, 0, 1));
}

#[test]
fn sixteen_threads_adding_one_make_sixteen() {
    let window = Mutex::new(TimeWindow::new(Duration::from_secs(1), 1, Instant::ZERO));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            let add =
                || window.lock().unwrap().add(Sample::new(Outcome::Success, Duration::ZERO, 1));
            scope.spawn(add);
        }
    });
    assert_eq!(window.into_inner().unwrap().total().calls, 16);
}

#[test]
fn a_share_is_judged_only_from_the_minimum_on() {
    let tally = Tally { calls: 5, failures: 3, slow: 2, ..Tally::default() };
    assert_eq!((tally.failure_percent(6), tally.failure_percent(5)), (None, Some(60.0)));
    assert_eq!((tally.slow_percent(0), Tally::default().slow_percent(0)), (Some(40.0), None));
}

#[test]
fn a_sample_survives_packing() {
    for outcome in [Outcome::Success, Outcome::ConnectTimeout, Outcome::Refused, Outcome::Failure] {
        for latency in [Duration::ZERO, Duration::from_nanos(77), Duration::MAX] {
            let sample = Sample::new(outcome, latency, 50);
            assert_eq!(Sample::unpack(sample.pack()), sample);
        }
    }
}

#[test]
fn sub_windows_of_a_count_window_shrink_at_one_end_and_grow_at_the_other() {
    let mut window = CountWindow::new(6, 3);
    let add = |window: &mut CountWindow, i: u64| {
        let outcome = if i.is_multiple_of(3) { Outcome::Failure } else { Outcome::Success };
        window.add(Instant::from_nanos(i), Sample::new(outcome, Duration::from_nanos(i), 5));
    };
    for i in 0..6 {
        add(&mut window, i);
    }
    let starts = |window: &CountWindow| -> Vec<(u64, u64)> {
        window.sub_windows().map(|sub| (sub.start.as_nanos(), sub.tally.calls)).collect()
    };
    assert_eq!(starts(&window), [(0, 2), (2, 2), (4, 2)]);
    add(&mut window, 6);
    assert_eq!(starts(&window), [(0, 1), (2, 2), (4, 2), (6, 1)]);
    add(&mut window, 7);
    assert_eq!(starts(&window), [(2, 2), (4, 2), (6, 2)]);
    let latencies: Vec<_> = window.samples().map(|s| s.latency_nanos).collect();
    assert_eq!(latencies, [2, 3, 4, 5, 6, 7]);
}
