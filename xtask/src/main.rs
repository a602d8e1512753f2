//! Automation of this repository: `cargo xtask ci | tidy | models | docs [--check] | bench NAME | prove bank|calls|crashes|transactions`.
//!
//! No dependencies, so that it builds in a second on a machine that has nothing yet. Anything that
//! needs the program itself (the reference pages) is asked of the program.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line of its own")]

mod docs;
mod prove;
mod telemetry;
mod tidy;

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// What a task says when it fails: one line for each fault.
type Outcome = Result<(), Vec<String>>;

const USAGE: &str = "\
cargo xtask TASK
  ci              everything a change must pass
  tidy            crate edges, purity, lengths
  models          every order in which threads can meet at what workers share, tried by loom; orders
                  in which tasks meet at a lane of the transaction log, drawn by shuttle
  docs [--check]  writes docs/reference, or fails when it is stale
  bench NAME …    runs bench/NAME/run
  prove bank [--minutes N]
                  moves money between three databases that long, 10 minutes unless told, while the
                  coordinator and the databases die, the network between them is slow and cut, a
                  clock is wrong and a disk full
  prove calls [--record]
                  holds a release build to what is promised under 2,000 requests a second;
                  prints the report, or keeps it with its date in bench/results
  prove crashes   ends the coordinator at every moment between two steps, in every mode of
                  transaction, on real databases; and breaks all that is around it
  prove transactions [SEEDS]
                  plays that many simulated runs of coordinators, 10,000 unless told";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["ci"] => ci(),
        ["tidy"] => tidy::run(&root()),
        ["models"] => models(),
        ["docs"] => docs::run(&root(), docs::Mode::Write),
        ["docs", "--check"] => docs::run(&root(), docs::Mode::Check),
        ["bench", name, rest @ ..] => bench(name, rest),
        ["prove", "bank"] => prove::bank("10"),
        ["prove", "bank", "--minutes", minutes] => prove::bank(minutes),
        ["prove", "calls"] => prove::calls(&root(), prove::Report::Print),
        ["prove", "calls", "--record"] => prove::calls(&root(), prove::Report::Keep),
        ["prove", "crashes"] => prove::crashes(),
        ["prove", "transactions"] => prove::transactions("10000"),
        ["prove", "transactions", seeds] => prove::transactions(seeds),
        _ => Err(vec![USAGE.to_owned()]),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(faults) => {
            for fault in faults {
                eprintln!("{fault}");
            }
            ExitCode::FAILURE
        }
    }
}

/// The root of the workspace: this crate lies one folder below it.
fn root() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().map(Into::into).unwrap_or(own)
}

/// Everything a change must pass, cheapest first; the first failure ends it.
fn ci() -> Outcome {
    cargo(&["fmt", "--all", "--check"], &[])?;
    tidy::run(&root())?;
    cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"], &[])?;
    docs::run(&root(), docs::Mode::Check)?;
    let doc = ["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"];
    cargo(&doc, &[("RUSTDOCFLAGS", "-D warnings")])?;
    cargo(&["test", "--workspace", "--locked"], &[])?;
    models()
}

/// Tries the orders in which a thread is interrupted at most three times: all of them would take
/// hours, and what is found later is rare (M. Musuvathi, S. Qadeer: Iterative Context Bounding for
/// Systematic Testing of Multithreaded Programs, PLDI 2007). In a folder of its own, since the flag
/// makes every crate another one. The orders of tasks at a lane are too many to try: they are drawn.
fn models() -> Outcome {
    let variables = [("RUSTFLAGS", "--cfg mainstay_loom"), ("LOOM_MAX_PREEMPTIONS", "3")];
    let test = ["test", "-p", "mainstay-call", "--locked", "--target-dir", "target/models"];
    cargo(&[&test[..], &["--lib", "modelled"]].concat(), &variables)?;
    cargo(&[&test[..], &["--test", "loom_circuit"]].concat(), &variables)?;
    let lanes = ["test", "-p", "mainstay-txn", "--features", "modelled", "--locked"];
    cargo(&[&lanes[..], &["--lib", "modelled"]].concat(), &[])
}

fn cargo(arguments: &[&str], variables: &[(&str, &str)]) -> Outcome {
    let line = format!("cargo {}", arguments.join(" "));
    println!("# {line}");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(root()).envs(variables.iter().copied());
    finish(&mut command, &line)
}

/// Runs the scenario `bench/NAME/run` with the arguments that follow.
fn bench(name: &str, arguments: &[&str]) -> Outcome {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || !name.chars().all(plain) {
        return Err(vec![format!("`{name}` is no name of a scenario")]);
    }
    let script = root().join("bench").join(name).join("run");
    if !script.is_file() {
        return Err(vec![format!("there is no {}", script.display())]);
    }
    finish(Command::new(&script).args(arguments).current_dir(root()), &format!("bench {name}"))
}

fn finish(command: &mut Command, line: &str) -> Outcome {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(vec![format!("{line}: {status}")]),
        Err(error) => Err(vec![format!("{line}: {error}")]),
    }
}
