//! The reference pages, printed by the program they describe; log events are read off the sources.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{Outcome, telemetry};

/// Files of `docs/reference`: the word `mainstay reference` knows each by, and what it ends in.
const PAGES: [(&str, &str); 4] =
    [("cli", "md"), ("config", "md"), ("openapi", "json"), ("telemetry", "md")];

/// What to do with a page that differs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Write it.
    Write,
    /// Fail.
    Check,
}

/// Prints every page and compares it with the file.
pub(crate) fn run(root: &Path, mode: Mode) -> Outcome {
    let mut faults = Vec::new();
    for (page, ending) in PAGES {
        let path = root.join("docs/reference").join(page).with_extension(ending);
        let printed = print(root, page).and_then(|text| whole(root, page, text));
        match (printed, mode) {
            (Err(fault), _) => faults.push(fault),
            (Ok(text), Mode::Check) => {
                if fs::read_to_string(&path).unwrap_or_default() != text {
                    faults.push(format!("{} is stale: run `cargo xtask docs`", path.display()));
                }
            }
            (Ok(text), Mode::Write) => {
                let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
                if let Err(error) = folder.and_then(|()| fs::write(&path, text)) {
                    faults.push(format!("{}: {error}", path.display()));
                }
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// The page with what the program cannot say of itself.
fn whole(root: &Path, page: &str, text: String) -> Result<String, String> {
    if page != "telemetry" {
        return Ok(text);
    }
    let sources = telemetry::product(root);
    let faults = telemetry::faults(&text, &sources);
    if faults.is_empty() { Ok(text + &telemetry::events(&sources)) } else { Err(faults.join("\n")) }
}

fn print(root: &Path, page: &str) -> Result<String, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let printed = Command::new(cargo)
        .args(["run", "--quiet", "--package", "mainstay", "--", "reference", page])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if printed.status.success() {
        String::from_utf8(printed.stdout).map_err(|error| format!("{page}: {error}"))
    } else {
        Err(String::from_utf8_lossy(&printed.stderr).into_owned())
    }
}
