//! What every table promises, whoever it is the twin of.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;

use mainstay_resilience::hash::{Function, Layout, Member, Table, table_size};
use proptest::prelude::*;

const LAYOUTS: [Layout; 3] =
    [Layout::Ketama, Layout::Ring { min: 1_024, max: 8_388_608 }, Layout::Maglev { size: 65_537 }];

fn names(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("10.0.{}.{}:8080", i / 256, i % 256)).collect()
}

fn members(names: &[String]) -> Vec<Member<'_>> {
    names.iter().map(|key| Member { key, weight: 1 }).collect()
}

fn hashes(layout: Layout, n: u32) -> impl Iterator<Item = u64> {
    (0..n).map(move |key| layout.function().hash(format!("key-{key}").as_bytes()))
}

/// Share of each member in 20,000 keys, in percent.
fn shares(layout: Layout, members: &[Member<'_>]) -> Vec<f64> {
    let table = Table::build(layout, members);
    let mut counts = vec![0_u32; members.len()];
    hashes(layout, 20_000).for_each(|hash| counts[table.first(hash).unwrap()] += 1);
    counts.into_iter().map(|count| f64::from(count) / 200.0).collect()
}

#[test]
fn keys_follow_weights() {
    let weighted = [("a:1", 1), ("b:1", 2), ("c:1", 0), ("d:1", 5)];
    let members = weighted.map(|(key, weight)| Member { key, weight });
    for (layout, tolerance) in LAYOUTS.into_iter().zip([4.0, 4.0, 1.0]) {
        let got = shares(layout, &members);
        for (share, want) in got.iter().zip([12.5, 25.0, 0.0, 62.5]) {
            assert!((share - want).abs() <= tolerance, "{layout:?}: {got:?}");
        }
    }
}

#[test]
fn a_table_without_members_has_no_answer() {
    for layout in LAYOUTS {
        assert_eq!(Table::build(layout, &[]).first(1), None);
        assert_eq!(Table::build(layout, &[Member { key: "a:1", weight: 0 }]).first(1), None);
        let one = Table::build(layout, &[Member { key: "a:1", weight: 1 }]);
        assert_eq!(one.first(u64::MAX), Some(0));
        assert_eq!(one.walk(7, 0).collect::<Vec<_>>(), [0], "never twice in a row");
    }
}

#[test]
fn a_walk_meets_everybody_beginning_with_the_owner() {
    let names = names(20);
    for layout in LAYOUTS {
        let table = Table::build(layout, &members(&names));
        for hash in hashes(layout, 50) {
            let walk = table.walk(hash, 0);
            assert_eq!(walk.clone().next(), table.first(hash));
            assert_eq!(walk.collect::<BTreeSet<_>>().len(), 20, "{layout:?}");
        }
    }
}

#[test]
fn another_attempt_starts_elsewhere_in_maglev_only() {
    let names = names(50);
    for layout in LAYOUTS {
        let table = Table::build(layout, &members(&names));
        let moved = hashes(layout, 1_000)
            .filter(|&hash| table.walk(hash, 1).next() != table.walk(hash, 0).next())
            .count();
        match layout {
            Layout::Maglev { .. } => assert!(moved > 900, "{moved}"),
            _ => assert_eq!(moved, 0),
        }
    }
    // hash XOR (2^64 − 1) − 1 + 1 is the complement.
    let table = Table::build(Layout::Maglev { size: 65_537 }, &members(&names));
    assert_eq!(table.walk(5, 1).next(), table.walk(!5, 0).next());
    assert_eq!(table.walk(5, 2).next(), table.walk(5 ^ (u64::MAX - 1), 0).next());
}

#[test]
fn one_change_moves_few_keys() {
    let names = names(20);
    for layout in LAYOUTS {
        let all = Table::build(layout, &members(&names));
        for gone in 0..names.len() {
            let mut fewer = members(&names);
            fewer.retain(|member| member.key != names[gone]);
            let fewer = Table::build(layout, &fewer);
            let (mut moved, mut others) = (0, 0);
            for hash in hashes(layout, 2_000) {
                let before = all.first(hash).unwrap();
                let after = fewer.first(hash).unwrap();
                let after = after + usize::from(after >= gone);
                moved += usize::from(before != after);
                others += usize::from(before != after && before != gone);
            }
            assert!(moved <= 2 * 2_000 / names.len(), "{layout:?}: {moved} of 2000 moved");
            // The other two count their points or slots anew, which moves a few more.
            if layout == Layout::Ketama {
                assert_eq!(others, 0, "keys of others moved");
            }
        }
    }
}

#[test]
fn maglev_tables_have_prime_sizes() {
    for size in [2, 3, 65_537, 5_000_011] {
        assert_eq!(table_size(size), Ok(size));
    }
    for (size, problem) in
        [(0, "2 to"), (1, "2 to"), (4, "5"), (65_536, "65537"), (5_000_012, "5000011")]
    {
        let error = table_size(size).unwrap_err();
        assert!(error.problem.contains(problem), "{error}");
    }
}

#[test]
fn more_members_than_slots_is_no_harm() {
    let names = names(20);
    let table = Table::build(Layout::Maglev { size: 7 }, &members(&names));
    assert_eq!(table.walk(3, 0).collect::<BTreeSet<_>>().len(), 7);
}

#[test]
fn a_ring_has_about_the_points_asked_for() {
    let share = |min, max| {
        let layout = Layout::Ring { min, max };
        Table::build(layout, &members(&names(10))).walk(0, 0).count()
    };
    // Neighbours of the same owner count once, so a tenth is missing.
    assert!((880..=970).contains(&share(1_024, 8_388_608)), "{}", share(1_024, 8_388_608));
    assert!((80..=101).contains(&share(1_024, 100)), "{}", share(1_024, 100));
}

proptest! {
    /// Only members with a weight own keys, whatever the names, weights and layout.
    #[test]
    fn owners_are_members(
        given in prop::collection::vec((".{0,12}", 0_u32..4), 0..9),
        hash in any::<u64>(),
        attempt in 0_u32..4,
    ) {
        let members: Vec<Member<'_>> =
            given.iter().map(|(key, weight)| Member { key, weight: *weight }).collect();
        let heavy: BTreeSet<usize> =
            (0..members.len()).filter(|&i| members[i].weight > 0).collect();
        let maglev = Layout::Maglev { size: 251 };
        for layout in [Layout::Ketama, Layout::Ring { min: 64, max: 128 }, maglev] {
            let hash = match layout.function() {
                Function::Crc32 => hash >> 32,
                Function::Xxh64 => hash,
            };
            let walked: BTreeSet<usize> =
                Table::build(layout, &members).walk(hash, attempt).collect();
            prop_assert!(walked.is_subset(&heavy));
            prop_assert_eq!(walked.is_empty(), heavy.is_empty());
        }
    }
}
