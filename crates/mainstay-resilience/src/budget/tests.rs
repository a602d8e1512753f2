use proptest::prelude::*;

use super::*;
use crate::Invalid;

fn policy(text: &str) -> Result<BudgetPolicy, Invalid> {
    toml::from_str::<RawBudget>(text).expect("known keys").try_into()
}

/// Plays `script` to a budget.
///
/// Each word may be repeated by a leading number. `call` begins a call, `end` ends one, `take` is
/// granted a retry, `none` is refused one, `back` gives the oldest credit back, `ok` and `bad` end
/// an attempt sent without credit, `spent` one sent on the oldest credit; `+N` lets N ms go by.
#[track_caller]
fn check(table: &str, script: &str) {
    let mut now = Instant::from_nanos(11);
    let mut budget = Budget::new(policy(table).expect("a legal policy"), now);
    let mut credits = std::collections::VecDeque::new();
    for (index, step) in script.split_whitespace().enumerate() {
        if let Some(millis) = step.strip_prefix('+') {
            now = now.plus(Duration::from_millis(millis.parse().unwrap()));
            continue;
        }
        let word = step.trim_start_matches(|c: char| c.is_ascii_digit());
        let times = step.strip_suffix(word).unwrap().parse().unwrap_or(1);
        for nth in 1..=times {
            match word {
                "call" => budget.first_attempt(now),
                "end" => budget.call_ended(),
                "ok" => budget.done(Ended::Well, None),
                "bad" => budget.done(Ended::Badly, None),
                "other" => budget.done(Ended::Otherwise, None),
                "spent" => budget.done(Ended::Otherwise, credits.pop_front()),
                "back" => budget.give_back(now, credits.pop_front().expect("a credit")),
                "take" | "none" => {
                    let at = format!("step {index} of {script:?}, no. {nth} of {step}");
                    let credit = budget.try_take(now);
                    assert_eq!(credit.is_some(), word == "take", "{at}: {budget:?}");
                    credits.extend(credit);
                }
                _ => panic!("no such word: {word}"),
            }
        }
    }
}

const NO_MINIMUM: &str = "min_per_second = 0";

#[test]
fn thirty_first_attempts_allow_six_retries_and_the_minimum() {
    check("", "30call 106take none");
    check(NO_MINIMUM, "30call 6take none");
    check(NO_MINIMUM, "4call none call take none");
}

#[test]
fn a_budget_of_nothing_forbids_every_retry() {
    check("ratio_percent = 0\nmin_per_second = 0", "1000call none +60000 none");
    check("kind = 'concurrent'\nratio_percent = 0\nmin_concurrent = 0", "1000call none");
}

#[test]
fn what_was_counted_expires_by_tenths_of_the_ttl() {
    // First attempts of the first part are gone when the tenth part after it begins.
    check(NO_MINIMUM, "30call +9999 6take none");
    check(NO_MINIMUM, "30call +10000 none");
    // Retries expire likewise, each with its own part.
    check(NO_MINIMUM, "30call 6take +5000 30call 6take none +5000 none +1 none");
    check(NO_MINIMUM, "30call 2take +5000 30call 10take none +5000 none");
    check("ttl_seconds = 1\nmin_per_second = 3", "3take none +999 none +1 3take none");
    // A laptop that slept for two days.
    check("min_per_second = 1", "10take none +172800000 10take none");
}

#[test]
fn the_share_of_a_window_stays_when_every_call_fails() {
    check(NO_MINIMUM, "100call 100bad 100end 20take none");
}

#[test]
fn a_ratio_above_a_hundred_percent_is_exact() {
    check("ratio_percent = 1000\nmin_per_second = 0", "3call 30take none");
    check("ratio_percent = 33.3333\nmin_per_second = 0", "3call none call take none");
    check("ratio_percent = 0.0001\nmin_per_second = 0", "999999call none call take none");
}

#[test]
fn a_cancelled_retry_gives_its_credit_back_once_and_in_time() {
    check(NO_MINIMUM, "30call 6take none back take none");
    check(NO_MINIMUM, "30call 6take +3000 back take none");
    // Its part is over: there is nothing left to give back.
    check(NO_MINIMUM, "30call 6take +10000 30call 6back 6take none");
}

#[test]
fn concurrent_counts_retries_that_have_not_ended() {
    let table = "kind = 'concurrent'";
    check(table, "3take none"); // Twenty percent, floor three: the third yes, the fourth no.
    check(table, "20call 4take none");
    check(table, "24call 4take none");
    check(table, "25call 5take none");
    check(table, "25call 5take none 5end none");
    check(table, "3take none spent take none back take none");
    check(table, "3take none +3600000 none"); // Time alone ends no retry.
}

#[test]
fn tokens_allow_retries_above_half_the_balance() {
    let table = "kind = 'tokens'\ntokens_max = 10\ntoken_ratio = 0.5";
    check(table, "4bad take bad none"); // 6 is above half, 5 is not.
    check(table, "5bad none ok take");
    check(table, "40bad 10ok none ok take"); // Never below zero: 5.0 is not above half, 5.5 is.
    check(table, "100ok 4bad take bad none"); // Never above the full balance.
    check(table, "5bad 100other none");
    check("kind = 'tokens'\ntokens_max = 1\ntoken_ratio = 0.5466", "bad ok take bad none");
    check("kind = 'tokens'\ntokens_max = 0.5", "take bad none");
}

#[test]
fn a_retry_of_a_full_balance_is_judged_after_the_failure_is_counted() {
    check("kind = 'tokens'\ntokens_max = 2", "take bad none");
}

#[test]
fn three_decimals_of_a_token_are_kept() {
    for (ratio, want) in [(0.5466, 546), (0.546, 546), (0.29, 290), (1.0, 1_000), (0.001_9, 1)] {
        let table = format!("kind = 'tokens'\ntoken_ratio = {ratio:?}");
        let want = BudgetPolicy::Tokens { max_thousandths: 10_000, ratio_thousandths: want };
        assert_eq!(policy(&table), Ok(want), "{ratio}");
    }
}

#[test]
fn a_change_grants_nothing() {
    let now = Instant::from_nanos(5);
    let tokens = |max, ratio| {
        policy(&format!("kind = 'tokens'\ntokens_max = {max}\ntoken_ratio = {ratio}")).unwrap()
    };
    let mut budget = Budget::new(tokens(10, 1), now);
    (0..3).for_each(|_| budget.done(Ended::Badly, None));
    budget.set_policy(now, tokens(100, 2));
    let view = View::Tokens { balance_thousandths: 70_000, max_thousandths: 100_000 };
    assert_eq!(budget.view(now), view, "seven tenths stay seven tenths");
    assert_eq!(view.credits(), 20);

    let window = |min, ttl| {
        policy(&format!("ratio_percent = 0\nmin_per_second = {min}\nttl_seconds = {ttl}")).unwrap()
    };
    let mut budget = Budget::new(window(1, 10), now);
    for _ in 0..10 {
        assert!(budget.try_take(now).is_some());
    }
    budget.set_policy(now, window(2, 10));
    assert_eq!(budget.view(now).credits(), 10, "what was taken stays taken");
    budget.set_policy(now, window(1, 5));
    assert_eq!(budget.view(now).credits(), 0);
    assert!(budget.try_take(now.plus(Duration::from_millis(4_999))).is_none());
    assert!(budget.try_take(now.plus(Duration::from_secs(5))).is_some());
}

#[test]
fn a_credit_of_another_kind_ends_what_it_began_and_moves_nothing_else() {
    let now = Instant::from_nanos(5);
    let mut budget = Budget::new(policy("").unwrap(), now);
    let credits: Vec<_> = (0..4).map(|_| budget.try_take(now).expect("the minimum")).collect();
    budget.set_policy(now, policy("kind = 'concurrent'").unwrap());
    assert!(budget.try_take(now).is_none(), "four retries are out already");
    budget.set_policy(now, policy("ratio_percent = 0\nmin_per_second = 1").unwrap());
    let used: Vec<_> = (0..10).map(|_| budget.try_take(now).expect("a fresh window")).collect();
    for credit in credits {
        budget.give_back(now, credit);
    }
    assert!(budget.try_take(now).is_none(), "an old credit is no credit here");
    assert_eq!(used.len(), 10);
}

#[test]
fn only_a_window_waits_for_time() {
    let now = Instant::from_nanos(5);
    let mut budget = Budget::new(policy("").unwrap(), now);
    assert_eq!(budget.next_wake(), None);
    budget.first_attempt(now);
    assert_eq!(budget.next_wake(), Some(now.plus(Duration::from_secs(1))));
    budget.poll(now.plus(Duration::from_secs(10)));
    assert_eq!(budget.next_wake(), None);
    budget.first_attempt(now); // Earlier than what was seen: counts as last seen.
    let View::Window { first_attempts, .. } = budget.view(Instant::ZERO) else { panic!() };
    assert_eq!(first_attempts, 1);
    budget.poll(Instant::MAX);
    budget.first_attempt(Instant::MAX);
    assert!(budget.try_take(Instant::MAX).is_some());
}

#[test]
fn a_wrong_key_is_named() {
    for (table, path) in [
        ("ratio_percent = 1000.1", "ratio_percent"),
        ("ratio_percent = -1", "ratio_percent"),
        ("ratio_percent = nan", "ratio_percent"),
        ("ttl_seconds = 0.9", "ttl_seconds"),
        ("ttl_seconds = 61", "ttl_seconds"),
        ("tokens_max = 3", "tokens_max"),
        ("kind = 'tokens'\ntokens_max = 0", "tokens_max"),
        ("kind = 'tokens'\ntokens_max = 1000.5", "tokens_max"),
        ("kind = 'tokens'\ntoken_ratio = 0.0009", "token_ratio"),
        ("kind = 'tokens'\nratio_percent = 3", "ratio_percent"),
        ("kind = 'concurrent'\nttl_seconds = 3", "ttl_seconds"),
    ] {
        assert_eq!(policy(table).expect_err(table).path, path, "{table}");
    }
    assert_eq!(policy(""), Ok(BudgetPolicy::default()));
    assert!(toml::from_str::<RawBudget>("ratio = 3").is_err());
}

proptest! {
    /// Whatever the sequence, the retries of any ttl never exceed what its first attempts and the
    /// minimum allow: compared against a log of every event, over every span the window can cover.
    #[test]
    fn a_window_never_exceeds_its_bound(
        percent in 0u32..=300,
        min in 0u32..3,
        steps in prop::collection::vec((0u64..400, 0u8..4), 1..300),
    ) {
        let table = format!("ratio_percent = {percent}\nmin_per_second = {min}\nttl_seconds = 1");
        let mut now = Instant::from_nanos(99);
        let mut budget = Budget::new(policy(&table).unwrap(), now);
        let (mut first, mut retries) = (Vec::new(), Vec::new());
        for (gap, what) in steps {
            // Half of the gaps are none: bursts are what a budget is for.
            now = now.plus(Duration::from_millis(gap.saturating_sub(200)));
            if what == 0 {
                budget.first_attempt(now);
                first.push(now);
            } else if budget.try_take(now).is_some() {
                retries.push(now);
            }
            let within = |log: &[Instant], span: u64| {
                log.iter().filter(|at| now.since(**at) < Duration::from_millis(span)).count() as u64
            };
            // A retry counts for at least 0.9 s, a first attempt for at most 1 s.
            let allowed = within(&first, 1_000) * u64::from(percent) / 100 + u64::from(min);
            if retries.last() == Some(&now) {
                prop_assert!(within(&retries, 900) <= allowed);
            }
        }
    }

    /// Retries that have not ended never exceed the floor and the share of calls in flight.
    #[test]
    fn concurrent_never_exceeds_its_bound(steps in prop::collection::vec(0u8..6, 1..300)) {
        let now = Instant::ZERO;
        let mut budget = Budget::new(policy("kind = 'concurrent'\nratio_percent = 50").unwrap(), now);
        let (mut active, mut out) = (0u64, Vec::new());
        for step in steps {
            match step {
                0 => (budget.first_attempt(now), active += 1).0,
                1 if active != 0 => (budget.call_ended(), active -= 1).0,
                2 => out.pop().into_iter().for_each(|credit| budget.give_back(now, credit)),
                3 => out.pop().into_iter().for_each(|credit| budget.done(Ended::Badly, Some(credit))),
                _ => {
                    let room = (out.len() as u64) < (active / 2).max(3);
                    let credit = budget.try_take(now);
                    prop_assert_eq!(credit.is_some(), room);
                    out.extend(credit);
                }
            }
        }
    }

    /// A balance stays between nothing and full, and no retry is granted at half of it or below.
    #[test]
    fn tokens_stay_within_their_balance(
        max in 1u32..1_000_000,
        ratio in 1u32..5_000,
        steps in prop::collection::vec(0u8..3, 1..300),
    ) {
        let policy = BudgetPolicy::Tokens { max_thousandths: max, ratio_thousandths: ratio };
        let mut budget = Budget::new(policy, Instant::ZERO);
        for step in steps {
            budget.done([Ended::Well, Ended::Badly, Ended::Otherwise][usize::from(step)], None);
            let View::Tokens { balance_thousandths, max_thousandths } = budget.view(Instant::ZERO)
            else { unreachable!() };
            prop_assert!(balance_thousandths <= max_thousandths);
            let granted = budget.try_take(Instant::ZERO).is_some();
            prop_assert_eq!(granted, 2 * balance_thousandths > max_thousandths);
        }
    }
}
