//! What the embedded store does in a second, in process, beside what its disk does.
//!
//! The disk comes first: how often a second 4 KiB can be appended and synced there. All else is
//! read against that. Every round measures disk and store in turn, so that whatever else the
//! machine does falls on both; reported are medians and the spread.

mod load;
mod rest;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bench_measure::{disk, least, machine, median, most};

/// How it is run.
struct Arguments {
    folder: PathBuf,
    seconds: Duration,
    rounds: usize,
    revisions: u64,
}

/// Closed-loop clients.
const CLIENTS: [usize; 3] = [1, 64, 256];

fn main() {
    let arguments = arguments();
    let folder = arguments.folder.join(format!("store-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    run(&arguments, &folder);
    std::fs::remove_dir_all(&folder).expect("the folder can be removed");
}

fn run(arguments: &Arguments, folder: &Path) {
    println!("values of {} bytes, {} rounds of {} s", load::VALUE_BYTES, arguments.rounds, arguments.seconds.as_secs());
    println!("{}\n", machine());
    let mut syncs = Vec::new();
    let mut puts: Vec<Vec<load::Puts>> = CLIENTS.map(|_| Vec::new()).into();
    for _ in 0..arguments.rounds {
        syncs.push(disk::syncs(&folder.join("probe"), arguments.seconds / 2));
        for (results, clients) in puts.iter_mut().zip(CLIENTS) {
            results.push(load::puts(&folder.join("puts"), clients, arguments.seconds));
        }
    }
    let disk = median(syncs.iter().copied());
    println!("| what | median | least | most |\n|---|---|---|---|");
    row("append 4 KiB and sync, a second", &syncs, 0);
    println!();
    println!("| clients | puts/s | least | most | commits/s | × syncs/s | puts a commit | p50 ms | p99 ms |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for (results, clients) in puts.iter().zip(CLIENTS) {
        let of = |what: fn(&load::Puts) -> f64| median(results.iter().map(what));
        let rates: Vec<f64> = results.iter().map(|result| result.per_second).collect();
        println!(
            "| {clients} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} | {:.1} | {:.2} | {:.2} |",
            median(rates.iter().copied()),
            least(rates.iter().copied()),
            most(rates.iter().copied()),
            of(|result| result.commits_per_second),
            of(|result| result.commits_per_second) / disk,
            of(|result| result.puts_a_commit),
            of(|result| result.p50_ms),
            of(|result| result.p99_ms),
        );
    }
    println!();
    println!("| what | median | least | most |\n|---|---|---|---|");
    let mut rows: Vec<(&str, Vec<f64>, usize)> = rest::ROWS.map(|(name, _, digits)| (name, Vec::new(), digits)).into();
    for _ in 0..arguments.rounds {
        for (row, (_, measure, _)) in rows.iter_mut().zip(rest::ROWS) {
            row.1.push(measure(&folder.join("rest"), arguments));
        }
    }
    for (name, values, digits) in rows {
        row(name, &values, digits);
    }
    println!("\nAt the end: {}", machine());
}

fn row(name: &str, values: &[f64], digits: usize) {
    let median = median(values.iter().copied());
    println!("| {name} | {median:.digits$} | {:.digits$} | {:.digits$} |", least(values.iter().copied()), most(values.iter().copied()));
}

fn arguments() -> Arguments {
    let mut arguments = Arguments {
        folder: PathBuf::from("../out"),
        seconds: Duration::from_secs(8),
        rounds: 3,
        revisions: 1_000_000,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_default();
        let number = || value.parse::<u64>().unwrap_or_else(|_| usage(&word));
        match word.as_str() {
            "--folder" => arguments.folder = value.into(),
            "--seconds" => arguments.seconds = Duration::from_secs(number().max(1)),
            "--rounds" => arguments.rounds = usize::try_from(number().max(1)).unwrap_or(1),
            "--revisions" => arguments.revisions = number(),
            _ => usage(&word),
        }
    }
    arguments
}

fn usage(word: &str) -> ! {
    panic!("`{word}`: bench/store/run [--seconds 8] [--rounds 3] [--folder PATH] [--revisions 1000000]")
}

/// The clock of the store under test.
#[derive(Clone, Copy)]
struct Uptime(Instant);

impl mainstay_core::Clock for Uptime {
    fn now(&self) -> mainstay_core::Instant {
        mainstay_core::Instant::ZERO.plus(self.0.elapsed())
    }
}
