//! The report.

use std::process::Command;

use crate::rounds::{Case, Figures};

pub fn print(cases: &[Case], figures: &[Figures], rounds: u64, millis: u64) {
    println!("Machine: {}\n", machine());
    println!("Versions: {}\n", versions());
    println!(
        "Method: {rounds} rounds of {millis} ms a case, after one to warm up; every round runs all \
         cases, beginning with another one and turning round each time. Figures are nanoseconds \
         per operation of one thread: median of the rounds, least and most. Ratios are of the \
         medians: ours, in the row marked †, / that peer. Allocations: the most per operation in any round.\n"
    );
    let mut group = "";
    for (case, figure) in cases.iter().zip(figures) {
        if case.group != group {
            group = case.group;
            println!("### {}{}\n", group[..1].to_uppercase(), &group[1..]);
            println!(
                "| what | median ns | least – most | target | ours / peer | reads a clock | allocations |"
            );
            println!("|---|---:|---:|---:|---:|---|---:|");
        }
        let target = match case.target {
            Some(target) if figure.median <= target => format!("≤ {target}: held"),
            Some(target) => {
                format!("≤ {target}: missed by {:.0} %", (figure.median / target - 1.0) * 100.0)
            }
            None => "–".to_owned(),
        };
        let ratio = ours(cases, figures, case)
            .map_or("–".to_owned(), |ours| format!("{:.2}", ours.median / figure.median));
        let who = match (case.ours, case.basis) {
            (true, true) => "**Mainstay**† ",
            (true, false) => "**Mainstay** ",
            (false, _) => "",
        };
        println!(
            "| {who}{} | {:.1} | {:.1} – {:.1} | {target} | {ratio} | {} | {:.3} |",
            case.name, figure.median, figure.least, figure.most, case.clock, figure.allocations,
        );
        let last = cases.iter().rposition(|other| other.group == group);
        if last.is_some_and(|last| std::ptr::eq(case, &cases[last])) {
            println!();
        }
    }
}

/// What a peer is measured against.
fn ours<'a>(cases: &[Case], figures: &'a [Figures], peer: &Case) -> Option<&'a Figures> {
    let basis = |case: &Case| case.basis && case.group == peer.group && !peer.ours;
    cases.iter().zip(figures).find(|(case, _)| basis(case)).map(|(_, figures)| figures)
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{}, {cores} cores, Linux {}, load average {load} at the end",
        model.unwrap_or("unknown processor"),
        kernel.trim(),
    )
}

fn versions() -> String {
    let lock = include_str!("../Cargo.lock");
    let peers =
        ["recloser", "failsafe", "tower-resilience-circuitbreaker", "governor", "ratelimit"];
    let version = |name: &str| {
        let mut lines = lock.lines().skip_while(|line| *line != format!("name = \"{name}\""));
        let version = lines.nth(1).and_then(|line| line.split('"').nth(1)).unwrap_or("?");
        format!("{name} {version}")
    };
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    let peers: Vec<String> = peers.into_iter().map(version).collect();
    format!("{}; {}", peers.join(", "), rustc.unwrap_or_default())
}
