//! Who is picked: draws, weights, levels, panic, circuits.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::time::Duration;

use mainstay_core::Instant;
use mainstay_resilience::balance::{
    Ask, BalancePolicy, Candidate, Kind, Load, Order, PanicReason, Picker, RawBalance, RoundRobin,
    Snapshot, Unpicked,
};
use mainstay_resilience::hash::Function;
use proptest::prelude::*;

const ASK: Ask<'static> =
    Ask { now: Instant::ZERO, draws: [0; 3], hash: None, attempt: 0, tried: &[] };

fn policy(text: &str) -> BalancePolicy {
    let raw: RawBalance = toml::from_str(text).unwrap();
    raw.try_into().unwrap()
}

/// Instances written as text, named a, b, c, …: each word is a weight, with `!` if unusable, `~` if
/// in another zone, and `/n` for priority n.
fn fleet(text: &str) -> Vec<Candidate<'static>> {
    const NAMES: [&str; 26] = [
        "a:1", "b:1", "c:1", "d:1", "e:1", "f:1", "g:1", "h:1", "i:1", "j:1", "k:1", "l:1", "m:1",
        "n:1", "o:1", "p:1", "q:1", "r:1", "s:1", "t:1", "u:1", "v:1", "w:1", "x:1", "y:1", "z:1",
    ];
    let instance = |(word, name): (&str, &'static &'static str)| {
        let (marks, priority) = word.split_once('/').unwrap_or((word, "0"));
        Candidate {
            address: name,
            name,
            weight: marks.trim_end_matches(['!', '~']).parse().unwrap(),
            priority: priority.parse().unwrap(),
            same_zone: !marks.contains('~'),
            usable: !marks.contains('!'),
            since: Instant::ZERO,
        }
    };
    text.split_whitespace().zip(&NAMES).map(instance).collect()
}

fn picker(settings: &str, instances: &[Candidate<'_>]) -> Picker {
    let snapshot = Snapshot { instances, order: Order::Listed, protected: false };
    Picker::new(&policy(settings), &snapshot, Instant::ZERO)
}

fn letters(picks: impl IntoIterator<Item = usize>) -> String {
    picks.into_iter().map(|i| char::from(b'a' + u8::try_from(i).unwrap())).collect()
}

/// Draws that go round: every remainder as often as any other.
fn draws(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Shares of 100,000 seeded draws among `instances`, in percent, rounded.
#[track_caller]
fn check_shares(settings: &str, instances: &str, loads: &[u32], want: &[u32]) {
    let instances = fleet(instances);
    let picker = picker(settings, &instances);
    let load = |i| Load { in_flight: loads.get(i).copied().unwrap_or(0), ..Load::default() };
    let mut draw = draws(7);
    let mut counts = vec![0_u32; instances.len()];
    for _ in 0..100_000 {
        let ask = Ask { draws: [draw(), draw(), draw()], ..ASK };
        counts[picker.pick(&ask, load, |_| true).unwrap()] += 1;
    }
    let got: Vec<u32> = counts.iter().map(|count| (count + 500) / 1_000).collect();
    let off = got.iter().zip(want).any(|(got, want)| got.abs_diff(*want) > 1);
    assert!(!off && got.len() == want.len(), "{settings}: {got:?} %, not {want:?} %");
}

#[test]
fn round_robin_is_smooth() {
    let cases = [
        ("5 1 1", "aabacaaaabacaa"),
        ("1 2", "babbab"),
        ("1 1 1", "abcabc"),
        ("2 2", "abab"),
        ("3 0 1", "aacaaaca"),
        ("2 9! 1", "acaaca"),
    ];
    for (instances, want) in cases {
        let instances = fleet(instances);
        let picker = picker("kind = 'round_robin'", &instances);
        let mut turns = RoundRobin::default();
        let picks = (0..want.len()).map(|_| turns.pick(&picker, &ASK, |_| true).unwrap());
        assert_eq!(letters(picks), want);
    }
}

#[test]
fn round_robin_goes_on_when_the_set_changes() {
    let both = fleet("1 1 1");
    let before = picker("kind = 'round_robin'", &both);
    let mut turns = RoundRobin::default();
    assert_eq!(turns.pick(&before, &ASK, |_| true), Ok(0));
    // `a` leaves; it was b's turn, and still is. Indices: b is 0 now, c is 1.
    let after = picker("kind = 'round_robin'", &both[1..]);
    let mut turns = turns.moved(2, |new| Some(new + 1));
    let picks: Vec<_> = (0..4).map(|_| turns.pick(&after, &ASK, |_| true).unwrap()).collect();
    assert_eq!(picks, [0, 1, 0, 1]);
}

#[test]
fn two_choices_give_the_worked_shares() {
    let instances = fleet("1 1 1 1 1");
    let picker = picker("", &instances);
    let load = |i: usize| Load { in_flight: u32::try_from(i).unwrap(), ..Load::default() };
    let mut counts = [0; 5];
    for (d0, d1) in (0..5).flat_map(|d0| (0..4).map(move |d1| (d0, d1))) {
        let ask = Ask { draws: [d0 + 5 * 10_u64.pow(9), d1, 0], ..ASK };
        counts[picker.pick(&ask, load, |_| true).unwrap()] += 1;
    }
    assert_eq!(counts, [8, 6, 4, 2, 0], "of 20: .4 .3 .2 .1 0");
}

#[test]
fn the_draws_decide_and_ties_go_to_the_first() {
    let pick = |settings: &str, instances: &str, draws: [u64; 2], loads: &[u32]| {
        let instances = fleet(instances);
        let ask = Ask { draws: [draws[0], draws[1], 0], ..ASK };
        let load = |i: usize| Load { in_flight: loads[i], ..Load::default() };
        letters(picker(settings, &instances).pick(&ask, load, |_| true))
    };
    // Equal loads: the first draw, whatever the second.
    assert_eq!(pick("", "1 1 1", [1, 0], &[4, 4, 4]), "b");
    assert_eq!(pick("", "1 1 1", [1, 1], &[4, 4, 4]), "b");
    // The second draw steps over the first.
    assert_eq!(pick("", "1 1 1", [1, 1], &[4, 4, 3]), "c");
    assert_eq!(pick("", "1 1 1", [1, 0], &[3, 4, 0]), "a");
    // (1 + 1)/1 against (3 + 1)/3.
    assert_eq!(pick("", "1 3", [0, 0], &[1, 3]), "b");
    assert_eq!(pick("", "1 3", [0, 0], &[1, 5]), "a");
    // Least connections.
    assert_eq!(pick("choices = 0", "1 1 1 1", [0, 0], &[3, 2, 1, 1]), "c");
    assert_eq!(pick("choices = 0", "1 1 1 1", [3, 0], &[3, 2, 1, 1]), "d");
    assert_eq!(pick("choices = 16", "1 1 1 1", [0, 0], &[3, 2, 1, 1]), "c");
    // Alone.
    assert_eq!(pick("", "1", [9, 9], &[7]), "a");
}

#[test]
fn shares_follow_weights_choices_and_levels() {
    check_shares("kind = 'random'", "5 3 2 0", &[], &[50, 30, 20, 0]);
    check_shares("kind = 'maglev'", "5 3 2", &[], &[50, 30, 20]);
    check_shares("kind = 'round_robin'", "1 4", &[], &[20, 80]);
    // Three of five with distinct loads: 6, 3 and 1 of 10 triples.
    check_shares("choices = 3", "1 1 1 1 1", &[0, 1, 2, 3, 4], &[60, 30, 10, 0, 0]);
    let six = "1 1 1 1 1 1 1! 1! 1! 1!";
    let want = [14, 14, 14, 14, 14, 14, 0, 0, 0, 0, 8, 8];
    check_shares("kind = 'random'", &format!("{six} 1/1 1/1"), &[], &want);
    let zone = "kind = 'random'\nzone_preference = true";
    check_shares(zone, &format!("{six} 1~ 1~"), &[], &want);
    check_shares(zone, "1~ 1~ 1", &[], &[0, 0, 100]);
    check_shares("kind = 'random'", "1~ 1", &[], &[50, 50]);
}

#[test]
fn worked_levels_are_shown() {
    let levels = |instances: &str| -> Vec<(u32, u32)> {
        let instances = fleet(instances);
        picker("", &instances).levels().map(|level| (level.health, level.load)).collect()
    };
    let rest = "1/1 1/1 1/1";
    assert_eq!(levels(&format!("1 1 1 1 1 1 1! 1! 1! 1! {rest}")), [(84, 84), (100, 16)]);
    assert_eq!(levels(&format!("1 1 1 1 1! 1! 1! 1! 1! 1! {rest}")), [(56, 56), (100, 44)]);
}

#[test]
fn panic_is_a_state_that_begins_and_ends() {
    let second = |s| Instant::ZERO.plus(Duration::from_secs(s));
    let policy = policy("kind = 'random'");
    let (well, ill) = (fleet("1 1 1 1"), fleet("1 1! 1! 1!"));
    let at = |instances, protected, picker: &Picker, now| {
        let next =
            picker.renew(&policy, &Snapshot { instances, order: Order::Listed, protected }, now);
        let panic = next.levels().next().unwrap().panic.map(|p| (p.reason, p.since));
        (next, panic)
    };
    let picker = picker("", &well);
    let (picker, panic) = at(&ill, false, &picker, second(1));
    assert_eq!(panic, Some((PanicReason::FewUsable, second(1))));
    let all: BTreeSet<usize> = (0..100)
        .map(|d| picker.pick(&Ask { draws: [d; 3], ..ASK }, |_| Load::default(), |_| true).unwrap())
        .collect();
    assert_eq!(all.len(), 4, "all are used");
    let (picker, panic) = at(&ill, true, &picker, second(2));
    assert_eq!(panic, Some((PanicReason::Protected, second(1))));
    let (picker, panic) = at(&well, false, &picker, second(3));
    assert_eq!(panic, None);
    let (_, panic) = at(&well, true, &picker, second(4));
    assert_eq!(panic, Some((PanicReason::Protected, second(4))));
}

#[test]
fn who_can_be_picked() {
    use Unpicked::{CircuitOpen, NoInstance, Panic};
    let pick = |settings: &str, instances: &str, admits: &str| {
        let instances = fleet(instances);
        let admits = |i| admits.contains(&letters([i]));
        picker(settings, &instances)
            .pick(&ASK, |_| Load::default(), admits)
            .map(|index| letters([index]))
    };
    let ok = |name: &str| Ok(name.to_owned());
    for kind in ["random", "least_request", "peak_ewma", "round_robin", "ring_hash", "maglev"] {
        let kind = format!("kind = '{kind}'");
        assert_eq!(pick(&kind, "", "abc"), Err(NoInstance));
        assert_eq!(pick(&kind, "0 0", "abc"), Err(NoInstance), "weight 0 is never picked");
        assert_eq!(pick(&kind, "1 1 1", ""), Err(CircuitOpen));
        assert_eq!(pick(&kind, "1 1 1", "c"), ok("c"));
        // One of three: in panic, so b may answer; its circuit still may not be overridden.
        assert_eq!(pick(&kind, "1 1! 1!", "b"), ok("b"));
        assert_eq!(pick(&kind, "1! 1! 1!", "c"), ok("c"));
        assert_eq!(pick(&kind, "1! 1! 1!", ""), Err(CircuitOpen));
        assert_eq!(pick(&format!("{kind}\npanic = 'fail'"), "1 1! 1!", "abc"), Err(Panic));
        assert_eq!(pick(&format!("{kind}\npanic_percent = 0"), "1 1! 1!", "bc"), Err(CircuitOpen));
        assert_eq!(pick(&format!("{kind}\npanic_percent = 0"), "1! 1!", "ab"), Err(NoInstance));
        // The first level can carry the load, but its circuits are open.
        assert_eq!(pick(&kind, "1 1 1/1", "c"), ok("c"));
    }
}

#[test]
fn a_retry_goes_to_another_instance_while_there_is_one() {
    for kind in ["random", "least_request", "peak_ewma", "round_robin", "ring_hash", "maglev"] {
        let instances = fleet("1 1 1 1/1");
        let picker = picker(&format!("kind = '{kind}'"), &instances);
        let mut turns = RoundRobin::default();
        let mut tried = Vec::new();
        for attempt in 0..5 {
            let hash = Some(Function::Xxh64.hash(b"key"));
            let ask = Ask { attempt, tried: &tried, hash, draws: [5, 6, 7], ..ASK };
            let index = match picker.kind() {
                Kind::RoundRobin => turns.pick(&picker, &ask, |_| true),
                _ => picker.pick(&ask, |_| Load::default(), |_| true),
            };
            tried.push(index.unwrap());
        }
        let mut first: Vec<usize> = tried[..4].to_vec();
        assert_eq!(first[3], 3, "{kind}: the other level comes last");
        first.sort_unstable();
        assert_eq!(first, [0, 1, 2, 3], "{kind}");
    }
}

#[test]
fn a_newcomer_gets_its_part() {
    let second = |s| Instant::ZERO.plus(Duration::from_secs(s));
    let mut instances = fleet("1 1");
    instances[1].since = second(1_000);
    let settings = "kind = 'random'\nslow_start_seconds = 60";
    for (age, want) in [(0, 9.1), (6, 9.1), (15, 20.0), (30, 33.3), (60, 50.0), (3_600, 50.0)] {
        let picker = picker(settings, &instances);
        let mut draw = draws(age);
        let ask = |draws| Ask { now: second(1_000 + age), draws, ..ASK };
        let picks = (0..20_000).map(|_| {
            picker.pick(&ask([draw(), draw(), draw()]), |_| Load::default(), |_| true).unwrap()
        });
        let got = f64::from(u32::try_from(picks.sum::<usize>()).unwrap()) / 200.0;
        assert!((got - want).abs() < 1.0, "{age} s: {got} %");
    }
    // Least request: one call at a tenth of the weight weighs like ten.
    let picker = picker("slow_start_seconds = 60", &instances);
    let pick = |in_flight| {
        let load = move |i| Load { in_flight: [in_flight, 0][i], ..Load::default() };
        picker.pick(&Ask { now: second(1_000), draws: [1, 0, 0], ..ASK }, load, |_| true)
    };
    assert_eq!((pick(8), pick(10)), (Ok(0), Ok(1)));
}

fn any_fleet() -> impl Strategy<Value = Vec<Candidate<'static>>> {
    let instance = (0_u32..5, any::<bool>(), 0_u32..3, any::<bool>());
    prop::collection::vec(instance, 0..12).prop_map(|instances| {
        let words = instances.iter().map(|(weight, usable, priority, zone)| {
            let (bang, tilde) = (if *usable { "" } else { "!" }, if *zone { "" } else { "~" });
            format!("{weight}{bang}{tilde}/{priority}")
        });
        fleet(&words.collect::<Vec<_>>().join(" "))
    })
}

proptest! {
    /// Whatever the fleet: a pick has weight and admits; it is usable unless a level is in panic;
    /// and whenever an instance is usable and admits, somebody is picked, a fresh one if there is.
    #[test]
    fn picks_only_who_may_be_picked(
        instances in any_fleet(),
        kind in prop::sample::select(vec![
            "random", "least_request", "peak_ewma", "round_robin", "ring_hash", "maglev",
            "least_request'\nchoices = 0#'", "peak_ewma'\nchoices = 3#'",
        ]),
        admitting in any::<u16>(),
        tried in prop::collection::vec(0_usize..12, 0..4),
        draws in any::<[u64; 3]>(),
        hash in any::<Option<u64>>(),
        loads in any::<[u32; 12]>(),
    ) {
        let settings = format!("kind = '{kind}'\nzone_preference = true\ntable_size = 101");
        let settings = settings.replace("#''", "");
        let picker = picker(&settings, &instances);
        let admits = |i: usize| admitting >> i & 1 == 1;
        let ask = Ask { draws, hash, tried: &tried, ..ASK };
        let load = |i: usize| Load { in_flight: loads[i], ..Load::default() };
        let got = match picker.kind() {
            Kind::RoundRobin => RoundRobin::default().pick(&picker, &ask, admits),
            _ => picker.pick(&ask, load, admits),
        };
        let panics = picker.levels().any(|level| level.panic.is_some());
        match got {
            Ok(index) => {
                let instance = &instances[index];
                prop_assert!(instance.weight > 0 && admits(index));
                prop_assert!(instance.usable || panics);
                if tried.contains(&index) {
                    let fresh = |i: &usize| instances[*i].usable && instances[*i].weight > 0
                        && admits(*i) && !tried.contains(i);
                    prop_assert_eq!((0..instances.len()).find(fresh), None);
                }
            }
            Err(_) => {
                let could = |i: &usize| instances[*i].usable && instances[*i].weight > 0 && admits(*i);
                prop_assert_eq!((0..instances.len()).find(could), None);
            }
        }
    }

    /// Over one turn every instance gets exactly its weight, and never more than one call ahead.
    #[test]
    fn a_turn_is_exact(weights in prop::collection::vec(1_u32..9, 1..8)) {
        let text: Vec<String> = weights.iter().map(u32::to_string).collect();
        let instances = fleet(&text.join(" "));
        let picker = picker("kind = 'round_robin'", &instances);
        let mut turns = RoundRobin::default();
        let mut counts = vec![0_u32; weights.len()];
        for _ in 0..weights.iter().sum::<u32>() {
            counts[turns.pick(&picker, &ASK, |_| true).unwrap()] += 1;
        }
        prop_assert_eq!(counts, weights);
    }

    /// A key goes where it went before, whoever else is there, as long as its instance is usable
    /// and its level keeps its load; a removed instance is never picked.
    #[test]
    fn others_do_not_move_a_key(
        key in any::<u64>(),
        gone in 0_usize..8,
        kind in prop::sample::select(vec!["ring_hash", "ring_hash'\nring = 'xxh64", "maglev"]),
    ) {
        let settings = format!("kind = '{kind}'\nring_min = 256\ntable_size = 251");
        let mut instances = fleet("1 1 1 1 1 1 1 1");
        let ask = Ask { hash: Some(key), ..ASK };
        let pick = |picker: &Picker| picker.pick(&ask, |_| Load::default(), |_| true).unwrap();
        let before_picker = picker(&settings, &instances);
        let before = pick(&before_picker);
        instances[gone].usable = false;
        let snapshot = Snapshot { instances: &instances, order: Order::Listed, protected: false };
        let after = pick(&before_picker.renew(&policy(&settings), &snapshot, Instant::ZERO));
        prop_assert_ne!(after, gone);
        prop_assert!(before == gone || before == after);
    }
}
