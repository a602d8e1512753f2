use proptest::prelude::*;

use super::*;
use crate::Invalid;

fn read(text: &str) -> Result<FaultPolicy, Invalid> {
    toml::from_str::<RawFault>(text).expect("known keys").try_into()
}

fn fault(rest: &str) -> FaultPolicy {
    let text = format!("match = {{ service = 'order' }}\nreason = 'test'\n{rest}");
    read(&text).expect("a legal fault")
}

fn seconds(seconds: u64) -> Instant {
    Instant::ZERO.plus(Duration::from_secs(seconds))
}

/// The attempt `route/service/instance`, with header `x-fault: on`.
fn target(path: &str) -> Target<'_> {
    let mut parts = path.split('/');
    let mut next = || parts.next().expect("three parts");
    Target {
        route: Some(next()).filter(|route| !route.is_empty()),
        service: next(),
        instance: next(),
        header: &|name| name.eq_ignore_ascii_case("x-fault").then_some(b"on"),
    }
}

/// Plays `script` to a table.
///
/// `+N` lets N seconds go by, `add:TTL` adds a fault on `order` and `clear:ID` ends one; `hit:ID`
/// and `miss` are what an attempt on `order` meets, `left:ID=S,…` is the list.
#[track_caller]
fn check(script: &str) {
    let (mut table, mut now) = (FaultTable::default(), Instant::ZERO);
    for step in script.split_whitespace() {
        let (word, rest) = step.split_once(':').unwrap_or((step, ""));
        let number = || rest.parse::<u64>().unwrap();
        match word {
            "add" => drop(table.add(now, fault(&format!("fault = 'reset'\nttl_seconds = {rest}")))),
            "clear" => drop(table.clear(now, FaultId(number()))),
            "hit" | "miss" => {
                let met = table.pick(now, &target("/order/1"), 7).map(|fault| fault.id.0);
                assert_eq!(met, rest.parse().ok(), "{step} of {script:?}");
            }
            "left" => {
                let left = table
                    .list(now)
                    .map(|(fault, left)| format!("{}={}", fault.id.0, left.as_secs()));
                assert_eq!(left.collect::<Vec<_>>().join(","), rest, "{step} of {script:?}");
            }
            _ => {
                let gap = step.strip_prefix('+').expect("a known word").parse().unwrap();
                now = now.plus(Duration::from_secs(gap));
            }
        }
    }
}

#[test]
fn a_fault_ends_by_itself() {
    check("miss add:60 hit:1 +59 hit:1 left:1=1 +1 miss left:");
    check("add:3 add:9 left:1=3,2=9 hit:1 +3 hit:2 left:2=6 +6 miss");
    check("add:9 add:3 hit:1 +3 left:1=6 +600000 miss");
    check("add:60 add:60 clear:1 hit:2 clear:2 miss clear:2 add:60 hit:3");
}

#[test]
fn a_clock_that_goes_back_revives_nothing() {
    let mut table = FaultTable::default();
    table.add(seconds(5), fault("fault = 'reset'")).expect("room");
    assert_eq!(table.next_wake(), Some(seconds(65)));
    table.poll(seconds(65));
    assert!(table.is_empty());
    assert!(table.pick(seconds(6), &target("/order/1"), 0).is_none());
    table.add(seconds(6), fault("fault = 'reset'")).expect("room");
    assert_eq!(table.next_wake(), Some(seconds(125)), "counted from the last moment seen");
    assert_eq!(table.clear_all(Instant::MAX), 0);
}

#[test]
fn a_table_is_bounded() {
    let mut table = FaultTable::default();
    let add = |table: &mut FaultTable, at| table.add(seconds(at), fault("fault = 'blackhole'"));
    for _ in 0..FAULTS_MAX {
        add(&mut table, 0).expect("room");
    }
    assert_eq!(add(&mut table, 59), Err(TableFull));
    assert!(add(&mut table, 60).is_ok());
}

#[test]
fn a_fault_meets_only_whom_it_is_for() {
    for (condition, meets) in [
        ("service = 'order'", "a/order/1 b/order/2 /order/1"),
        ("instance = '1'", "a/order/1 a/stock/1 /order/1"),
        ("route = 'a'", "a/order/1 a/stock/1"),
        ("route = 'a', service = 'order', instance = '1'", "a/order/1"),
        ("service = 'order', header = { name = 'X-Fault' }", "a/order/1 b/order/2 /order/1"),
        (
            "service = 'order', header = { name = 'x-fault', value = 'on' }",
            "a/order/1 b/order/2 /order/1",
        ),
        ("service = 'order', header = { name = 'x-fault', value = 'off' }", ""),
        ("header = { name = 'x-other' }", ""),
    ] {
        let text = format!("match = {{ {condition} }}\nreason = 'x'\nfault = 'reset'");
        let policy = read(&text).expect(condition);
        let all = ["a/order/1", "b/order/2", "a/stock/1", "/order/1"];
        let met = all.into_iter().filter(|path| policy.matches.holds(&target(path)));
        assert_eq!(met.collect::<Vec<_>>().join(" "), meets, "{condition}");
    }
}

#[test]
fn every_kind_can_be_written() {
    let abort = |answer| FaultKind::Abort(answer);
    for (text, want) in [
        (
            "{ delay = { seconds = 2, jitter = 25 } }",
            FaultKind::Delay { span: Duration::from_secs(2), jitter_percent: 25.0 },
        ),
        ("{ abort = { status = 503 } }", abort(Answer::Http(503))),
        ("{ abort = { grpc = 14 } }", abort(Answer::Grpc(14))),
        ("'reset'", FaultKind::Reset),
        ("'blackhole'", FaultKind::Blackhole),
        (
            "{ slow_body = { bytes_per_second = 10 } }",
            FaultKind::SlowBody { bytes_per_second: NonZeroU64::MIN.saturating_add(9) },
        ),
        ("'connect_timeout'", FaultKind::ConnectTimeout),
        ("{ truncate = { after_bytes = 3 } }", FaultKind::Truncate { after_bytes: 3 }),
        ("{ truncate = {} }", FaultKind::Truncate { after_bytes: 0 }),
    ] {
        let policy = fault(&format!("fault = {text}"));
        assert_eq!(policy.kind, want);
        assert!(text.contains(policy.kind.as_str()), "{text}");
        assert_eq!((policy.share_millionths, policy.ttl), (1_000_000, Duration::from_mins(1)));
    }
    let kind = fault("fault = { delay = { seconds = 2, jitter = 25 } }").kind;
    assert_eq!([kind.delay(0), kind.delay(u64::MAX)], [1_500, 2_500].map(Duration::from_millis));
    assert_eq!(FaultKind::Reset.delay(9), Duration::ZERO);
    assert_eq!(fault("fault = 'reset'\nttl = 5").ttl, Duration::from_secs(5));
}

#[test]
fn a_wrong_fault_is_named() {
    let legal = [("match", "{ service = 'a' }"), ("reason", "'x'"), ("fault", "'reset'")];
    for (key, value, path) in [
        ("match", "{}", "match.service"),
        ("match", "{ header = {} }", "match.header.name"),
        ("reason", "'  '", "reason"),
        ("percent", "0", "percent"),
        ("percent", "100.1", "percent"),
        ("ttl_seconds", "0", "ttl_seconds"),
        ("ttl_seconds", "3601", "ttl_seconds"),
        ("fault", "{ delay = {} }", "fault.delay.seconds"),
        ("fault", "{ delay = { seconds = 1, jitter = 101 } }", "fault.delay.jitter"),
        ("fault", "{ abort = {} }", "fault.abort"),
        ("fault", "{ abort = { status = 503, grpc = 14 } }", "fault.abort"),
        ("fault", "{ abort = { status = 600 } }", "fault.abort.status"),
        ("fault", "{ abort = { grpc = 0 } }", "fault.abort.grpc"),
        ("fault", "{ slow_body = { bytes_per_second = 0 } }", "fault.slow_body.bytes_per_second"),
    ] {
        let kept = legal.into_iter().filter(|(other, _)| *other != key).chain([(key, value)]);
        let lines: Vec<_> = kept.map(|(key, value)| format!("{key} = {value}")).collect();
        let text = lines.join("\n");
        assert_eq!(read(&text).expect_err(value).path, path, "{text}");
    }
    assert_eq!(read("match = { service = 'a' }\nreason = 'x'").expect_err("no kind").path, "fault");
    assert!(toml::from_str::<RawFault>("fault = { reset = {}, blackhole = {} }").is_err());
    assert!(toml::from_str::<RawFault>("fault = 'gravity'").is_err());
}

proptest! {
    /// A whole share meets every attempt, whatever the draw.
    #[test]
    fn all_is_all(draw: u64) {
        let mut table = FaultTable::default();
        table.add(Instant::ZERO, fault("fault = 'reset'")).unwrap();
        prop_assert!(table.pick(Instant::ZERO, &target("/order/1"), draw).is_some());
    }

    /// A share meets about that share of evenly spread draws, and two shares meet independently.
    #[test]
    fn a_share_is_a_share(percent in 1u32..100, seed: u64) {
        let mut table = FaultTable::default();
        for _ in 0..2 {
            table.add(Instant::ZERO, fault(&format!("fault = 'reset'\npercent = {percent}"))).unwrap();
        }
        let mut met = [0u32; 3];
        for n in 0..4_000 {
            let draw = mix(seed, n);
            let fault = table.pick(Instant::ZERO, &target("/order/1"), draw);
            met[fault.map_or(0, |fault| usize::try_from(fault.id.0).unwrap())] += 1;
        }
        let share = f64::from(percent) / 100.0;
        for (met, want) in [(met[1], share), (met[2], share * (1.0 - share))] {
            // Six standard deviations of 4,000 fair draws.
            prop_assert!((f64::from(met) / 4_000.0 - want).abs() < 0.05, "{met} for {want}");
        }
    }

    /// No fault outlives its ttl, and none is forgotten before.
    #[test]
    fn none_outlives_its_ttl(
        steps in prop::collection::vec((0u64..40, prop::option::of(1u64..60)), 1..60),
    ) {
        let (mut table, mut now, mut model) = (FaultTable::default(), Instant::ZERO, Vec::new());
        for (gap, ttl) in steps {
            now = now.plus(Duration::from_secs(gap));
            if let Some(ttl) = ttl {
                let policy = FaultPolicy { ttl: Duration::from_secs(ttl), ..fault("fault = 'reset'") };
                model.push((table.add(now, policy).unwrap(), now.plus(Duration::from_secs(ttl))));
            }
            let alive: Vec<_> = model.iter().filter(|(_, until)| now < *until).map(|(id, _)| *id).collect();
            prop_assert_eq!(table.pick(now, &target("/order/1"), 0).map(|fault| fault.id), alive.first().copied());
            prop_assert_eq!(table.list(now).map(|(fault, _)| fault.id).collect::<Vec<_>>(), alive);
        }
    }
}
