//! What takes longer than a change may: promises with figures, and many seeds, on a release build;
//! coordinators that die at every point, and a bank that is open for long, on one that checks itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Outcome;

/// What becomes of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// It is printed.
    Print,
    /// It is printed, and kept under today's date.
    Keep,
}

/// Runs the proof for calls; its report comes even when a promise was broken.
pub(crate) fn calls(root: &Path, report: Report) -> Outcome {
    let file = match report {
        Report::Print => root.join("target").join("prove-calls.md"),
        Report::Keep => root.join("bench/results").join(format!("calls-{}.md", today()?)),
    };
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(|error| vec![error.to_string()])?;
    }
    // What an earlier run left must not pass for this one's report.
    fs::remove_file(&file).or_else(absent).map_err(|error| vec![error.to_string()])?;
    let test = ["test", "--release", "--locked", "-p", "mainstay", "--test", "prove_calls"];
    let how = ["--", "--ignored", "--nocapture"];
    let path = file.display().to_string();
    let proved = crate::cargo(&[&test[..], &how].concat(), &[("MAINSTAY_PROVE_REPORT", &path)]);
    if let Ok(text) = fs::read_to_string(&file) {
        println!("{text}");
    }
    proved
}

/// Plays simulated runs of coordinators of transactions; a seed that fails is told with the command
/// that plays it again.
pub(crate) fn transactions(seeds: &str) -> Outcome {
    let run = ["run", "--release", "--locked", "-p", "mainstay-sim", "--", "transactions"];
    crate::cargo(&[&run[..], &["--seeds", seeds]].concat(), &[])
}

/// Plays every case of a coordinator that dies, and of what breaks around one that lives. Not a release build: the coordinator is to check
/// itself meanwhile.
pub(crate) fn crashes() -> Outcome {
    let test = ["test", "--locked", "-p", "mainstay"];
    let tests = ["--test", "crash_matrix", "--test", "crash_partners"];
    crate::cargo(&[&test[..], &tests].concat(), &[("MAINSTAY_CRASHES", "all")])
}

/// Lets the bank be open for `minutes`.
pub(crate) fn bank(minutes: &str) -> Outcome {
    let number: Option<u64> = minutes.parse().ok().filter(|minutes| (1..=1440).contains(minutes));
    let number = number.ok_or_else(|| vec![format!("`{minutes}` is not 1 to 1440 minutes")])?;
    let test = ["test", "--locked", "-p", "mainstay", "--test", "bank"];
    crate::cargo(&test, &[("MAINSTAY_BANK_SECONDS", &(number * 60).to_string())])
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// The date in UTC, as `date` has it: this crate has no calendar.
fn today() -> Result<String, Vec<String>> {
    let output = Command::new("date").args(["-u", "+%F"]).output();
    let output = output.map_err(|error| vec![format!("date: {error}")])?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
