//! What a decision costs: Mainstay's machines beside the crates people use for them today, in one
//! process and one run. Prints a Markdown report; see `bench/README.md`.

mod alloc;
mod circuits;
mod limits;
mod picks;
mod report;
mod rounds;
mod stack;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use crate::rounds::{Case, play};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, or: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(or)
    };
    let (rounds, millis) = (number("--rounds", 15), number("--millis", 20));
    let mut cases = vec![
        Case::peer("a clock read", "`std::time::Instant::now`", "itself")
            .op(|_| drop(black_box(std::time::Instant::now()))),
    ];
    cases.extend(circuits::cases());
    cases.extend(limits::cases());
    cases.extend(picks::cases());
    cases.extend(stack::cases());
    let figures = play(&mut cases, rounds as usize, Duration::from_millis(millis));
    report::print(&cases, &figures, rounds, millis);
    // Everything of ours is warm after the first round and must not allocate any more.
    let ours = cases.iter().zip(&figures).filter(|(case, _)| case.ours);
    let allocating: Vec<_> = ours.filter(|(_, figures)| figures.allocations > 0.0).collect();
    for (case, figures) in &allocating {
        eprintln!(
            "{} / {}: {} allocations per operation",
            case.group, case.name, figures.allocations
        );
    }
    if allocating.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
