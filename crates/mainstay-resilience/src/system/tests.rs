use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Instant {
    Instant::ZERO.plus(Duration::from_secs(seconds))
}

fn cpu(percent: f64) -> Reading {
    Reading { cpu_percent: percent, ..Reading::default() }
}

/// A process that answers 100 calls a second in 50 ms each, so that it carries 5.
fn steady() -> System {
    let mut system = System::new(SystemPolicy::default(), at(0));
    for second in 0..3 {
        for _ in 0..100 {
            let call = system.admit(at(second), Priority::Normal).unwrap();
            system.record(at(second), call, Duration::from_millis(50));
        }
    }
    assert!((system.carries().unwrap() - 5.0).abs() < 1e-9);
    system
}

/// Lets calls in at second 3 until one is shed; how many got in.
fn room(system: &mut System, priority: Priority) -> usize {
    (0..100).take_while(|_| system.admit(at(3), priority).is_ok()).count()
}

/// Readings of the processor, one a second; a letter a reading, `!` over and `.` not.
#[track_caller]
fn check(readings: &[f64], want: &str) {
    let mut system = System::new(SystemPolicy::default(), at(0));
    let over: String = (0..)
        .zip(readings)
        .map(|(second, &percent)| {
            system.observe(at(second), cpu(percent));
            if system.over().is_some() { '!' } else { '.' }
        })
        .collect();
    assert_eq!(over, want, "{readings:?}");
}

#[test]
fn a_caller_that_counts_itself_is_told_the_same() {
    let mut own = System::new(SystemPolicy::default(), at(0));
    for second in 0..3 {
        own.learn(at(second), 100, Duration::from_secs(5));
    }
    assert_eq!(own.carries(), steady().carries());
    assert_eq!(own.weigh(at(3), Priority::Low, [99; 4]), Ok(()), "there is no shortage");
    own.observe(at(3), cpu(90.0));
    let mut counted = steady();
    counted.observe(at(3), cpu(90.0));
    let got_in = room(&mut counted, Priority::Normal);
    let mut in_flight = [9, 0, 0, 0];
    while own.weigh(at(3), Priority::Normal, in_flight).is_ok() {
        in_flight[Priority::Normal as usize] += 1;
    }
    assert_eq!(in_flight[Priority::Normal as usize] as usize, got_in);
    assert_eq!(own.shed_total(), 1);
    assert_eq!(own.weigh(at(3), Priority::Critical, [99; 4]), Ok(()));
}

#[test]
fn a_shortage_begins_at_its_threshold_and_ends_five_points_below() {
    check(&[84.9, 85.0, 84.0, 80.1, 80.0, 84.9, 85.0], ".!!!..!");
    let mut system = System::new(SystemPolicy::default(), at(0));
    let began = system.observe(at(1), cpu(90.0));
    assert!(matches!(began, Some(Change::Began(Over { short: Short::Cpu, .. }))), "{began:?}");
    assert_eq!(system.observe(at(2), cpu(91.0)), None);
    assert!(matches!(system.observe(at(3), cpu(10.0)), Some(Change::Ended(_))));
    let memory = Reading { memory_percent: 90.0, ..Reading::default() };
    system.observe(at(4), memory);
    assert_eq!(system.over().map(|over| (over.short, over.since)), Some((Short::Memory, at(4))));
    let load = Reading { load_per_core: 99.0, ..Reading::default() };
    system.observe(at(5), load);
    assert_eq!(system.over(), None, "load is off by default");
}

#[test]
fn a_shortage_nobody_confirms_ends_by_itself() {
    let mut system = System::new(SystemPolicy::default(), at(0));
    system.observe(at(1), cpu(99.0));
    assert_eq!((system.next_wake(), system.poll(at(5))), (Some(at(6)), None));
    assert!(matches!(system.poll(at(6)), Some(Change::Ended(_))));
}

#[test]
fn sheds_only_while_short_and_only_what_it_cannot_carry() {
    assert_eq!(room(&mut steady(), Priority::Low), 100);
    let mut system = steady();
    system.observe(at(3), cpu(95.0));
    // More than five must be in flight, so the sixth still gets in.
    assert_eq!(room(&mut system, Priority::Normal), 6);
    let shed = system.admit(at(3), Priority::Normal).unwrap_err();
    assert_eq!((shed.in_flight, shed.carries, shed.over.short), (6, 5, Short::Cpu));
    assert_eq!(system.shed_total(), 2);
    system.observe(at(3), cpu(50.0));
    assert_eq!(room(&mut system, Priority::Normal), 100);
}

#[test]
fn the_lowest_priority_goes_first_and_critical_calls_never() {
    let mut system = steady();
    system.observe(at(3), cpu(95.0));
    assert_eq!(room(&mut system, Priority::Low), 6);
    assert_eq!(room(&mut system, Priority::Normal), 6, "low ones do not count against them");
    assert_eq!(room(&mut system, Priority::Low), 0);
    assert_eq!(room(&mut system, Priority::High), 6);
    assert_eq!(room(&mut system, Priority::Normal), 0);
    assert_eq!(room(&mut system, Priority::Critical), 100);
    assert_eq!(room(&mut system, Priority::High), 0);
}

#[test]
fn a_process_that_has_shown_nothing_sheds_nothing() {
    let mut system = System::new(SystemPolicy::default(), at(3));
    system.observe(at(3), cpu(95.0));
    assert_eq!(room(&mut system, Priority::Normal), 100);
}

/// One second of `(calls that came back, their mean latency in ms)` each, then a shortage: how
/// many calls may be in flight, so that one more is shed.
#[test]
fn what_is_shed_exceeds_the_best_rate_times_the_best_latency() {
    let table: [(&[(u64, u64)], u32); 7] = [
        (&[(100, 50)], 5),
        (&[(100, 50), (200, 50)], 10),
        // The best rate of one second, the best latency of another.
        (&[(100, 50), (200, 100)], 10),
        (&[(200, 100), (0, 0), (100, 50)], 10),
        // One call may always be in flight.
        (&[(1, 1)], 1),
        // A fraction of a call is none: 7.5 are exceeded by the eighth.
        (&[(150, 50)], 7),
        (&[(1000, 32)], 32),
    ];
    for (seconds, most) in table {
        let mut system = System::new(SystemPolicy::default(), at(0));
        let mut now = at(0);
        for &(calls, latency_ms) in seconds {
            now = now.plus(Duration::from_secs(1));
            system.learn(now, calls, Duration::from_millis(calls * latency_ms));
        }
        let weigh = |system: &mut System, in_flight| {
            system.weigh(now, Priority::Normal, [0, in_flight, 0, 0]).is_ok()
        };
        assert!(weigh(&mut system, 10_000), "no shortage: {seconds:?}");
        system.observe(now, cpu(85.0));
        assert!(weigh(&mut system, most), "{most} in flight, {seconds:?}");
        assert!(!weigh(&mut system, most + 1), "{} in flight, {seconds:?}", most + 1);
    }
}

#[test]
fn a_long_second_is_no_better_than_a_short_one() {
    let mut system = System::new(SystemPolicy::default(), at(0));
    system.learn(at(0), 0, Duration::ZERO);
    system.learn(at(2), 200, Duration::from_secs(10));
    let carries = system.carries().unwrap();
    assert!((carries - 5.0).abs() < 1e-9, "200 calls of 50 ms in two seconds: {carries}");
}

#[test]
fn shedding_does_not_make_room_for_more_shedding() {
    // Somebody else keeps the processor busy for a minute. A thousand calls of 10 ms come each
    // second, by chance now more and now fewer at once, so that a part is shed.
    let mut system = System::new(SystemPolicy::default(), at(0));
    for second in 1..=10 {
        system.learn(at(second), 1_000, Duration::from_secs(10));
    }
    for second in 11..=70 {
        system.observe(at(second), cpu(95.0));
        let fit =
            (0..20).filter(|&n| system.weigh(at(second), Priority::Normal, [0, n, 0, 0]).is_ok());
        let answered = fit.count() as u64 * 80;
        system.learn(
            at(second),
            answered,
            Duration::from_millis(10) * u32::try_from(answered).unwrap(),
        );
    }
    assert!(
        system.weigh(at(70), Priority::Normal, [0, 10, 0, 0]).is_ok(),
        "{:?}",
        system.carries()
    );
    assert!(system.weigh(at(70), Priority::Normal, [0, 11, 0, 0]).is_err());
    system.observe(at(71), cpu(1.0));
    system.poll(at(90));
    assert_eq!(system.carries(), None, "after the shortage ten seconds are ten seconds");
}

#[test]
fn what_it_carries_is_of_the_last_ten_seconds() {
    let mut system = steady();
    system.poll(at(11));
    assert!(system.carries().is_some());
    system.poll(at(12));
    assert_eq!(system.carries(), None);
    system.poll(Instant::MAX);
    assert_eq!(system.carries(), None);
}

#[test]
fn a_policy_refuses_what_makes_no_sense() {
    let read = |text: &str| SystemPolicy::try_from(toml::from_str::<RawSystem>(text).unwrap());
    let problem = read("cpu_percent_max = 101").unwrap_err().to_string();
    assert_eq!(problem, "cpu_percent_max: must be 0 to 100, found 101");
    assert_eq!(read("cpu_percent_max = 0").unwrap().cpu_percent_max, None);
    let default = SystemPolicy::default();
    assert_eq!((default.memory_percent_max, default.load_per_core_max), (Some(90.0), None));
    assert_eq!(serde_json::to_string(&Priority::High).unwrap(), "\"high\"");
}

proptest! {
    /// Calls in flight are those let in and not yet back, and a critical call always gets in.
    #[test]
    fn counts_what_is_in_flight(ops in prop::collection::vec((0u8..7, 0u64..2_000), 1..200)) {
        let mut system = System::new(SystemPolicy::default(), Instant::ZERO);
        let (mut now, mut out) = (Instant::ZERO, Vec::new());
        for (op, n) in ops {
            now = now.plus(Duration::from_millis(n));
            let priorities =
                [Priority::Low, Priority::Normal, Priority::High, Priority::Critical];
            match (op, out.pop()) {
                (5, Some(call)) => system.record(now, call, Duration::from_millis(n)),
                (6, Some(call)) => system.cancel(now, call),
                (4, call) => {
                    system.observe(now, cpu(if n % 2 == 0 { 99.0 } else { 1.0 }));
                    out.extend(call);
                }
                (op, call) => {
                    out.extend(call);
                    let priority = priorities[usize::from(op) % 4];
                    let answer = system.admit(now, priority);
                    prop_assert!(answer.is_ok() || priority != Priority::Critical);
                    out.extend(answer.ok());
                }
            }
            prop_assert_eq!(system.in_flight() as usize, out.len());
        }
    }
}
