//! `mainstay-sim`: plays seeds, and says how to play one that fails again.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use mainstay_sim::{Mutant, Outcome, play};
use parking_lot::Mutex;

/// Plays simulated runs of store, locks, watches and sessions, each from a seed.
#[derive(Debug, Parser)]
#[command(name = "mainstay-sim")]
struct Arguments {
    /// How many seeds to play.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Plays this seed only.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Tells every step of each run on the standard error.
    #[arg(long)]
    trace: bool,
    /// Builds a mistake in; then some seed has to fail.
    #[arg(long, value_enum)]
    mutant: Option<Mutant>,
    /// How many runs at once; one for each core unless told.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (first, count) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.from, arguments.seeds),
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = arguments.threads.unwrap_or(cores).max(1);
    let next = AtomicU64::new(0);
    let failed = Mutex::new(Vec::new());
    let totals = Mutex::new(std::collections::BTreeMap::<&'static str, u64>::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if count <= at {
                        return;
                    }
                    let outcome = play(first.wrapping_add(at), arguments.mutant, arguments.trace);
                    for (what, number) in &outcome.counts {
                        *totals.lock().entry(what).or_default() += number;
                    }
                    if outcome.wrong.is_some() {
                        tell(&outcome, arguments.mutant);
                        failed.lock().push(outcome.seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    summary(count, &failed, &totals.into_inner());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, reason = "the output of a command")]
fn tell(outcome: &Outcome, mutant: Option<Mutant>) {
    let wrong = outcome.wrong.as_deref().unwrap_or_default();
    println!("seed {} fails: {wrong}", outcome.seed);
    println!("  {}", mainstay_sim::world::command(outcome.seed, mutant));
}

#[expect(clippy::print_stdout, reason = "the output of a command")]
fn summary(count: u64, failed: &[u64], totals: &std::collections::BTreeMap<&'static str, u64>) {
    for (what, number) in totals {
        println!("{number:>10}  {what}");
    }
    println!("{count} seeds, {} failed", failed.len());
}
