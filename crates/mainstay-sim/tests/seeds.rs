//! Some hundred seeds, each played to its end; and every mistake of ours is found by some.

#![expect(clippy::panic, reason = "a test that cannot go on has failed")]

use std::sync::atomic::{AtomicU64, Ordering};

use mainstay_sim::world::command;
use mainstay_sim::{Mutant, Outcome, play};

/// Plays `count` seeds from `first` on, on every core; returns what became of them.
fn campaign(first: u64, count: u64) -> Vec<Outcome> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let players: Vec<_> = (0..cores)
            .map(|_| {
                scope.spawn(|| {
                    let mut outcomes = Vec::new();
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if count <= at {
                            return outcomes;
                        }
                        outcomes.push(play(first + at, None, false));
                    }
                })
            })
            .collect();
        let done = players.into_iter().map(|player| player.join().expect("a run does not panic"));
        done.flatten().collect()
    })
}

#[test]
fn whatever_goes_wrong_histories_are_right() {
    let count = std::env::var("MAINSTAY_SIM_SEEDS").ok().and_then(|count| count.parse().ok());
    let outcomes = campaign(0, count.unwrap_or(SEEDS));
    for outcome in &outcomes {
        if let Some(wrong) = &outcome.wrong {
            panic!(
                "seed {}: {wrong}\nplay it again: {}",
                outcome.seed,
                command(outcome.seed, None)
            );
        }
    }
    // A run in which nothing happens proves nothing.
    for what in [
        "pair calls",
        "pairs read at once",
        "locks held",
        "locks held from elsewhere",
        "locks lost",
        "sessions ended under a lock",
        "nodes killed",
        "unknown outcomes",
        "watch items",
        "watches begun anew",
        "writes refused by token",
    ] {
        let often = outcomes.iter().filter_map(|outcome| outcome.counts.get(what)).sum::<u64>();
        assert!(0 < often, "no seed had any {what}");
    }
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    for seed in [3, 7, 11] {
        let digests: Vec<u64> = [(); 3].map(|()| play(seed, None, false).digest).into();
        assert!(digests.iter().all(|digest| *digest == digests[0]), "seed {seed}: {digests:?}");
    }
}

/// Plays until the mistake is found; it has to be found in time, and by the check it breaks.
#[track_caller]
fn finds(mutant: Mutant, told: &str) {
    finds_from(0, mutant, told);
}

/// The same, from a seed near which it was found before.
#[track_caller]
fn finds_from(first: u64, mutant: Mutant, told: &str) {
    for seed in first..first + MUTANT_SEEDS {
        if let Some(wrong) = play(seed, Some(mutant), false).wrong {
            assert!(wrong.contains(told), "{mutant:?}, seed {seed}: {wrong}");
            return;
        }
    }
    panic!("{mutant:?} was not found in {MUTANT_SEEDS} seeds");
}

#[test]
fn a_watch_resumed_at_the_last_revision_is_found() {
    finds(Mutant::ResumeAtLast, "not ordered");
}

#[test]
fn a_watch_resumed_too_late_is_found() {
    finds(Mutant::ResumeTooLate, "not reliable");
}

#[test]
fn an_answer_before_the_commit_is_found() {
    finds(Mutant::AnswerBeforeCommit, "no order explains");
}

#[test]
fn leases_restored_without_time_are_found() {
    finds(Mutant::LeasesEndAtRestart, "believe at once");
}

#[test]
fn validity_counted_from_the_answer_is_found() {
    finds_from(17, Mutant::ValidityFromReply, "believe at once");
}

#[test]
fn writes_without_a_fence_are_found() {
    finds(Mutant::Unfenced, "resource: a write with token");
}

#[test]
fn a_lock_that_looks_before_it_takes_is_found() {
    finds(Mutant::LooksThenTakes, "believe at once");
}

#[test]
fn stale_reads_are_found() {
    finds(Mutant::StaleReads, "no order explains");
}

/// Half a minute on two cores; more by `MAINSTAY_SIM_SEEDS`, or the command.
const SEEDS: u64 = 80;

/// How many seeds a mistake may hide in.
const MUTANT_SEEDS: u64 = 100;
