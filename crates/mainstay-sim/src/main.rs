//! `mainstay-sim`: plays seeds, and says how to play one that fails again.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Parser, ValueEnum};
use mainstay_sim::{Mutant, Outcome, transactions, world};
use parking_lot::Mutex;

/// What runs are about.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Subject {
    /// Store, locks, watches and sessions.
    Coordination,
    /// Coordinators of transactions.
    Transactions,
}

/// A subject, and the mistake that is built in.
#[derive(Clone, Copy, Debug)]
enum Play {
    Coordination(Option<Mutant>),
    Transactions(Option<transactions::Mutant>),
}

impl Play {
    /// # Errors
    ///
    /// What mistakes there are, when there is no such one.
    fn new(subject: Subject, mutant: Option<&str>) -> Result<Self, String> {
        Ok(match subject {
            Subject::Coordination => Self::Coordination(mutant.map(named).transpose()?),
            Subject::Transactions => Self::Transactions(mutant.map(named).transpose()?),
        })
    }

    fn seed(self, seed: u64, trace: bool) -> Outcome {
        match self {
            Self::Coordination(mutant) => world::play(seed, mutant, trace),
            Self::Transactions(mutant) => transactions::play(seed, mutant, trace),
        }
    }

    fn command(self, seed: u64) -> String {
        match self {
            Self::Coordination(mutant) => world::command(seed, mutant),
            Self::Transactions(mutant) => transactions::command(seed, mutant),
        }
    }
}

/// The mistake called `name`.
fn named<M: ValueEnum>(name: &str) -> Result<M, String> {
    M::from_str(name, false).map_err(|_unknown| {
        let all = M::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let all: Vec<_> = all.map(|value| value.get_name().to_owned()).collect();
        format!("there is no mutant `{name}`; there are {}", all.join(", "))
    })
}

/// Plays simulated runs, each from a seed.
#[derive(Debug, Parser)]
#[command(name = "mainstay-sim")]
struct Arguments {
    /// What runs are about.
    #[arg(value_enum, default_value = "coordination")]
    subject: Subject,
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
    #[arg(long)]
    mutant: Option<String>,
    /// How many runs at once; one for each core unless told.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let play = match Play::new(arguments.subject, arguments.mutant.as_deref()) {
        Ok(play) => play,
        Err(why) => return refused(&why),
    };
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
                    let outcome = play.seed(first.wrapping_add(at), arguments.trace);
                    for (what, number) in &outcome.counts {
                        *totals.lock().entry(what).or_default() += number;
                    }
                    if outcome.wrong.is_some() {
                        tell(&outcome, play);
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

#[expect(clippy::print_stderr, reason = "the complaint of a command")]
fn refused(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(2)
}

#[expect(clippy::print_stdout, reason = "the output of a command")]
fn tell(outcome: &Outcome, play: Play) {
    let wrong = outcome.wrong.as_deref().unwrap_or_default();
    println!("seed {} fails: {wrong}", outcome.seed);
    println!("  {}", play.command(outcome.seed));
}

#[expect(clippy::print_stdout, reason = "the output of a command")]
fn summary(count: u64, failed: &[u64], totals: &std::collections::BTreeMap<&'static str, u64>) {
    for (what, number) in totals {
        println!("{number:>10}  {what}");
    }
    println!("{count} seeds, {} failed", failed.len());
}
