//! Puts, locks and registrations over the network, beside etcd and ZooKeeper.
//!
//! Each round starts every server in turn on the same disk, in an order that is rotated from one
//! round to the next, and lets the same clients do the same to it; reported are medians.

mod scenario;
mod server;
mod zookeeper;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bench_measure::{Round, least, machine, median, most};
use scenario::{What, round};
use server::{Kind, Server};

struct Arguments {
    parts: Vec<(What, usize)>,
    seconds: Duration,
    rounds: usize,
    folder: PathBuf,
    mainstay: PathBuf,
}

fn main() {
    let arguments = arguments();
    let folder = arguments.folder.join(format!("coord-{}", std::process::id()));
    let (there, missing): (Vec<Kind>, Vec<Kind>) =
        Kind::ALL.into_iter().partition(|kind| kind.is_there(&arguments.mainstay));
    let mut results: BTreeMap<(What, usize, Kind), Vec<Round>> = BTreeMap::new();
    for turn in 0..arguments.rounds {
        let mut order = there.clone();
        order.rotate_left(turn % there.len().max(1));
        for kind in order {
            let server = Server::start(kind, &arguments.mainstay, &folder);
            for &(what, clients) in &arguments.parts {
                let result = round(&server, what, clients, arguments.seconds);
                results.entry((what, clients, kind)).or_default().push(result);
            }
        }
    }
    drop(std::fs::remove_dir_all(&folder));
    println!("{} rounds of {} s.", arguments.rounds, arguments.seconds.as_secs());
    println!("{}\n", conditions());
    if !missing.is_empty() {
        println!("Not installed here, and left out: {missing:?}.\n");
    }
    println!(
        "| what | clients | server | a second | least | most | × | p50 ms | p99 ms | CPU µs each | bytes written each | RSS MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for ((what, clients, kind), rounds) in &results {
        let of = |read: fn(&Round) -> f64| median(rounds.iter().map(read));
        let rates = rounds.iter().map(|round| round.per_second);
        let ours = results.get(&(*what, *clients, Kind::Mainstay));
        let ours = ours.into_iter().flatten().map(|round| round.per_second);
        let rate = median(rates.clone());
        println!(
            "| {} | {clients} | {kind:?} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {:.1} | {:.0} | {:.0} |",
            what.named(),
            rate,
            least(rates.clone()),
            most(rates),
            median(ours) / rate,
            of(|round| round.p50_ms),
            of(|round| round.p99_ms),
            of(|round| round.cpu_micros),
            of(|round| round.written_bytes),
            of(|round| round.resident_mib),
        );
    }
    println!("\n× is our rate divided by that server's, of the same run.");
}

/// What the figures were measured on and against.
fn conditions() -> String {
    let version = |command: &str, argument: &str| {
        let out = std::process::Command::new(command).arg(argument).output();
        let text = out.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
        text.unwrap_or_default().lines().next().unwrap_or("none").to_owned()
    };
    format!(
        "Machine: {} at the end. Peers: {}; ZooKeeper of Debian's package.",
        machine(),
        version("etcd", "--version"),
    )
}

fn arguments() -> Arguments {
    let mut arguments = Arguments {
        parts: Vec::new(),
        seconds: Duration::from_secs(8),
        rounds: 3,
        folder: PathBuf::from("../out"),
        mainstay: PathBuf::from("../../target/release/mainstay"),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "store" => arguments.parts.extend([(What::Put, 1), (What::Put, 256), (What::Get, 64)]),
            "lock" => arguments.parts.push((What::Lock, 64)),
            "registry" => arguments.parts.extend([(What::Register, 64), (What::Beat, 64)]),
            "--seconds" => {
                arguments.seconds = Duration::from_secs(value().parse().expect("seconds"))
            }
            "--rounds" => arguments.rounds = value().parse().expect("a number of rounds"),
            "--folder" => arguments.folder = value().into(),
            "--mainstay" => arguments.mainstay = value().into(),
            other => panic!(
                "{other}: say store, lock or registry, --seconds, --rounds, --folder, --mainstay"
            ),
        }
    }
    assert!(!arguments.parts.is_empty(), "say store, lock or registry");
    arguments
}
