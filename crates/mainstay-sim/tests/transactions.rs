//! Seeds of coordinators of transactions, each played to its end; and every mistake is found.

#![expect(clippy::panic, reason = "a test that cannot go on has failed")]

use mainstay_sim::transactions::{Mutant, command, play};

#[test]
fn whatever_goes_wrong_it_ends_as_it_was_decided_and_told() {
    let count = std::env::var("MAINSTAY_SIM_SEEDS").ok().and_then(|count| count.parse().ok());
    let mut counts = std::collections::BTreeMap::<&str, u64>::new();
    for seed in 0..count.unwrap_or(SEEDS) {
        let outcome = play(seed, None, false);
        if let Some(wrong) = outcome.wrong {
            panic!("seed {seed}: {wrong}\nplay it again: {}", command(seed, None));
        }
        for (what, number) in outcome.counts {
            *counts.entry(what).or_default() += number;
        }
    }
    // A run in which nothing happens proves nothing.
    for what in [
        "answers believed",
        "duplicates",
        "empty rollbacks",
        "hanging calls",
        "messages delivered",
        "messages dropped",
        "mishaps of nodes",
        "mishaps of the store",
        "nodes killed",
        "nodes replaced while they lived",
        "sagas aborted",
        "sagas committed",
        "tries cancelled",
        "tries confirmed",
        "two-phase commits aborted",
        "two-phase commits committed",
    ] {
        assert!(0 < counts.get(what).copied().unwrap_or(0), "no seed had any {what}: {counts:?}");
    }
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    for seed in [3, 7, 11] {
        let digests: Vec<u64> = [(); 3].map(|()| play(seed, None, false).digest).into();
        assert!(digests.iter().all(|digest| *digest == digests[0]), "seed {seed}: {digests:?}");
    }
}

/// Plays until the mistake is found, by one of the checks it breaks.
#[track_caller]
fn finds(mutant: Mutant, told: &[&str]) {
    for seed in 0..SEEDS {
        if let Some(wrong) = play(seed, Some(mutant), false).wrong {
            let is_told = told.iter().any(|told| wrong.contains(told));
            assert!(is_told, "{mutant:?}, seed {seed}: {wrong}");
            return;
        }
    }
    panic!("{mutant:?} was not found in {SEEDS} seeds");
}

#[test]
fn an_unknown_outcome_taken_for_done_is_found() {
    finds(Mutant::UnknownIsDone, &["and its branches", "set aside"]);
}

#[test]
fn silence_of_the_store_taken_for_written_is_found() {
    finds(
        Mutant::SilenceIsWritten,
        &["and the log says", "no such branch", "and is gone", "was told"],
    );
}

#[test]
fn effects_before_their_record_is_written_are_found() {
    finds(Mutant::EffectBeforeWritten, &["and the log says", "no such branch"]);
}

#[test]
fn batches_that_compare_no_epoch_are_found() {
    finds(Mutant::NoEpoch, &["by session"]);
}

#[test]
fn participants_without_a_barrier_are_found() {
    finds(Mutant::NoBarrier, &["and its branches"]);
}

/// A minute on two cores; more by `MAINSTAY_SIM_SEEDS`, or the command.
const SEEDS: u64 = 200;
