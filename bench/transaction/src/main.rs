//! Transactions beside the DTM server and commits of PostgreSQL, on the same disk.
//!
//! Servers run on core 0, one at a time, clients and participants on core 1. Each round lets every
//! server do the same, in an order that is rotated from one round to the next; reported are medians.

mod backlog;
mod coordinator;
mod participants;
mod postgresql;
mod saga;
mod xa;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bench_measure::{Round, disk, least, machine, median, most};

use coordinator::{Binaries, Coordinator, Kind};
use participants::Participant;
use postgresql::{Commits, PLAIN, Postgresql, TWO_PHASES};

struct Arguments {
    saga: bool,
    xa: bool,
    backlog: bool,
    seconds: Duration,
    rounds: usize,
    folder: PathBuf,
    binaries: Binaries,
}

/// Clients of a saga.
const CLIENTS: [usize; 4] = [1, 16, 64, 256];

fn main() {
    let arguments = arguments();
    let folder = arguments.folder.join(format!("transaction-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    println!("{} rounds of {} s.", arguments.rounds, arguments.seconds.as_secs());
    println!("At the beginning: {}\n", machine());
    if arguments.saga {
        sagas(&arguments, &folder);
    }
    if arguments.xa {
        two_phases(&arguments, &folder);
    }
    if arguments.backlog {
        backlogs(&arguments, &folder);
    }
    println!("At the end: {}", machine());
    drop(std::fs::remove_dir_all(&folder));
}

fn sagas(arguments: &Arguments, folder: &Path) {
    let kinds = [Kind::Mainstay, Kind::Dtm].map(|kind| (kind, arguments.binaries.of(kind)));
    let mut there: Vec<(Kind, &Path)> =
        kinds.iter().filter_map(|(kind, binary)| Some((*kind, (*binary)?))).collect();
    let postgresql = Postgresql::binaries();
    let mut disks = Vec::new();
    let mut rounds: BTreeMap<(usize, Kind), Vec<Round>> = BTreeMap::new();
    let mut commits: BTreeMap<(&str, usize), Vec<Commits>> = BTreeMap::new();
    for _ in 0..arguments.rounds {
        disks.push(disk::syncs(&folder.join("probe"), arguments.seconds / 2));
        for (kind, binary) in &there {
            let participant = Participant::start();
            let coordinator = Coordinator::start(*kind, binary, folder, "", None);
            for clients in CLIENTS {
                let result = saga::round(&coordinator, &participant, clients, arguments.seconds);
                rounds.entry((clients, *kind)).or_default().push(result);
            }
            drop(coordinator);
            drop(std::fs::remove_dir_all(folder.join(format!("{kind:?}"))));
        }
        if let Some(binaries) = &postgresql {
            let server = Postgresql::start(binaries, folder);
            for (name, script) in [("commit", PLAIN), ("prepare and commit", TWO_PHASES)] {
                for clients in [1, 16, 64] {
                    let result = server.commits(script, clients, arguments.seconds);
                    commits.entry((name, clients)).or_default().push(result);
                }
            }
        }
        there.rotate_left(1);
    }
    println!(
        "The disk appends 4 KiB and syncs {:.0} times a second ({:.0} to {:.0}).\n",
        median(disks.iter().copied()),
        least(disks.iter().copied()),
        most(disks.iter().copied())
    );
    println!(
        "| sagas of two steps | clients | a second | least | most | × | p50 ms | p99 ms | p99.9 ms | CPU µs each | bytes written each | RSS MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for ((clients, kind), results) in &rounds {
        let of = |read: fn(&Round) -> f64| median(results.iter().map(read));
        let rates = results.iter().map(|round| round.per_second);
        let ours = rounds.get(&(*clients, Kind::Mainstay)).into_iter().flatten();
        println!(
            "| {kind:?} | {clients} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} |",
            median(rates.clone()),
            least(rates.clone()),
            most(rates.clone()),
            median(ours.map(|round| round.per_second)) / median(rates),
            of(|round| round.p50_ms),
            of(|round| round.p99_ms),
            of(|round| round.p999_ms),
            of(|round| round.cpu_micros),
            of(|round| round.written_bytes),
            of(|round| round.resident_mib),
        );
    }
    println!("\n| PostgreSQL, `pgbench` | clients | a second | mean ms | CPU µs each | syncs each |");
    println!("|---|---|---|---|---|---|");
    for ((name, clients), results) in &commits {
        let of = |read: fn(&Commits) -> f64| median(results.iter().map(read));
        println!(
            "| {name} | {clients} | {:.0} | {:.2} | {:.0} | {:.2} |",
            of(|commits| commits.per_second),
            of(|commits| commits.mean_ms),
            of(|commits| commits.cpu_micros),
            of(|commits| commits.syncs),
        );
    }
    println!("\n| syncs a saga, in a run under strace | 1 client | 64 clients |\n|---|---|---|");
    if Command::new("strace").arg("-V").output().is_err() {
        println!("| strace is not installed | | |");
    } else {
        there.sort_unstable();
        for (kind, binary) in &there {
            let counted = [1, 64].map(|clients| {
                let counted = saga::syncs(*kind, binary, folder, clients);
                drop(std::fs::remove_dir_all(folder.join(format!("{kind:?}"))));
                counted.unwrap_or(f64::NAN)
            });
            println!("| {kind:?} | {:.2} | {:.2} |", counted[0], counted[1]);
        }
    }
    println!();
}

fn two_phases(arguments: &Arguments, folder: &Path) {
    let (Some(binary), Some(binaries)) =
        (arguments.binaries.of(Kind::Mainstay), Postgresql::binaries())
    else {
        return println!("Two-phase commits take `postgresql-15` and a binary of ours.\n");
    };
    let mut rounds: BTreeMap<usize, Vec<(Round, Commits)>> = BTreeMap::new();
    for _ in 0..arguments.rounds {
        let database = Postgresql::start(&binaries, folder);
        xa::prepare(&database);
        let coordinator =
            Coordinator::start(Kind::Mainstay, binary, folder, &xa::settings(&database), None);
        for clients in [1, 16, 64] {
            let alone = database.commits(TWO_PHASES, clients, arguments.seconds);
            let round = xa::round(&coordinator, &database, clients, arguments.seconds);
            rounds.entry(clients).or_default().push((round, alone));
        }
        drop(coordinator);
        drop(std::fs::remove_dir_all(folder.join("Mainstay")));
    }
    println!(
        "| xa, two branches in one PostgreSQL: clients | a second | `pgbench` prepare and commit ÷ 2 | × | p50 ms | p99 ms | p99.9 ms | CPU µs each, of the coordinator |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (clients, results) in &rounds {
        let of = |read: fn(&Round) -> f64| median(results.iter().map(|(round, _)| read(round)));
        let rate = of(|round| round.per_second);
        let alone = median(results.iter().map(|(_, alone)| alone.per_second)) / 2.0;
        println!(
            "| {clients} | {rate:.0} | {alone:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} |",
            rate / alone,
            of(|round| round.p50_ms),
            of(|round| round.p99_ms),
            of(|round| round.p999_ms),
            of(|round| round.cpu_micros),
        );
    }
    println!();
}

fn backlogs(arguments: &Arguments, folder: &Path) {
    let Some(binary) = arguments.binaries.of(Kind::Mainstay) else { return };
    println!("| {} sagas left by kill -9 | serving after s | ended after s | KiB each |", backlog::SAGAS);
    println!("|---|---|---|---|");
    for (name, hanging) in [("all participants well", false), ("one of ten hangs; the other nine tenths", true)] {
        let results: Vec<_> = (0..arguments.rounds)
            .map(|_| backlog::round(binary, &folder.join("backlog"), hanging))
            .collect();
        println!(
            "| {name} | {:.2} | {:.1} | {:.1} |",
            median(results.iter().map(|result| result.serving_seconds)),
            median(results.iter().map(|result| result.ended_seconds)),
            median(results.iter().map(|result| result.kib_each)),
        );
    }
    println!();
}

fn arguments() -> Arguments {
    let mut arguments = Arguments {
        saga: false,
        xa: false,
        backlog: false,
        seconds: Duration::from_secs(8),
        rounds: 3,
        folder: PathBuf::from("../out"),
        binaries: Binaries { mainstay: PathBuf::from("../../target/release/mainstay"), dtm: None },
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "saga" => arguments.saga = true,
            "xa" => arguments.xa = true,
            "backlog" => arguments.backlog = true,
            "--seconds" => {
                arguments.seconds = Duration::from_secs(value().parse().expect("seconds"));
            }
            "--rounds" => arguments.rounds = value().parse().expect("a number of rounds"),
            "--folder" => arguments.folder = value().into(),
            "--mainstay" => arguments.binaries.mainstay = value().into(),
            "--dtm" => arguments.binaries.dtm = Some(value().into()),
            other => panic!(
                "{other}: say saga, xa or backlog, --seconds, --rounds, --folder, --mainstay, --dtm"
            ),
        }
    }
    let is_any = arguments.saga || arguments.xa || arguments.backlog;
    assert!(is_any, "say saga, xa or backlog");
    let Binaries { mainstay, dtm } = &arguments.binaries;
    for binary in std::iter::once(mainstay).chain(dtm) {
        let is_there = binary.is_file();
        assert!(is_there, "no binary at {} (paths begin in bench/transaction)", binary.display());
    }
    arguments
}
