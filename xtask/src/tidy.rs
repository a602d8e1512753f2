//! What no compiler checks: which crate may use which, what pure crates never touch, how long a
//! file is.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Outcome;

/// What each crate may use of ours, layer by layer: never upwards, never sideways in a layer.
const EDGES: &[(&str, &[&str])] = &[
    ("mainstay-core", &[]),
    ("mainstay-resilience", &["core"]),
    ("mainstay-analysis", &["core"]),
    ("mainstay-security", &["core"]),
    ("mainstay-store", &["core"]),
    ("mainstay-store-etcd", &["core", "store"]),
    ("mainstay-api", &["core"]),
    ("mainstay-call", &["core", "resilience"]),
    ("mainstay-coord", &["core", "store"]),
    ("mainstay-txn", &["core", "store", "api"]),
    ("mainstay-monitor", &["core", "analysis", "security", "store"]),
    ("mainstay-proxy", &["core", "resilience", "security", "call"]),
    ("mainstay-client", &["core", "resilience", "call", "api"]),
    (
        "mainstay-sim",
        &[
            "core",
            "resilience",
            "analysis",
            "security",
            "store",
            "store-etcd",
            "api",
            "call",
            "coord",
            "txn",
        ],
    ),
];

/// The product may use every crate.
const PRODUCT: &str = "mainstay";

/// Crates that decide and never act.
const PURE: &[&str] =
    &["mainstay-core", "mainstay-resilience", "mainstay-analysis", "mainstay-security"];

/// Crates a pure crate never depends on.
const IMPURE_CRATES: &[&str] = &[
    "tokio",
    "tokio-util",
    "hyper",
    "hyper-util",
    "rand",
    "fastrand",
    "getrandom",
    "tracing",
    "log",
    "socket2",
    "rustix",
    "libc",
    "notify",
    "quanta",
    "parking_lot",
    "tempfile",
];

/// What a pure crate never writes, and what it writes instead.
const IMPURE_WORDS: &[(&str, &str)] = &[
    ("tokio::", "machines do not wait"),
    ("std::net", "addresses are in `core::net`; sockets are the caller's"),
    ("std::fs", "files are the caller's"),
    ("std::env", "settings are arguments"),
    ("std::thread", "threads are the caller's"),
    ("std::process", "processes are the caller's"),
    ("Instant::now", "take `now` as an argument"),
    ("SystemTime::now", "take the moment as an argument"),
    ("rand::", "take the draw as an argument"),
    ("tracing::", "return what happened; the caller reports it"),
    ("println!", "return what happened; the caller reports it"),
];

/// The same, inside `use std::{…}`.
const IMPURE_MODULES: &[&str] = &["net", "fs", "env", "thread", "process"];

/// Lines of a file without its tests; more is worth a note, not a failure.
const LINES_NOTED: usize = 400;

/// Checks every crate under `crates/`.
pub(crate) fn run(root: &Path) -> Outcome {
    let mut faults = Vec::new();
    let mut crates: Vec<PathBuf> = list(&root.join("crates"));
    crates.retain(|path| path.join("Cargo.toml").is_file());
    for path in &crates {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let manifest = fs::read_to_string(path.join("Cargo.toml")).unwrap_or_default();
        faults.extend(wrong_edges(&name, &manifest));
        let is_pure = PURE.contains(&name.as_ref());
        for file in sources(&path.join("src")) {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let shown = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            if file.ends_with("mod.rs") {
                faults.push(format!("{shown}: name it after its folder, beside it"));
            }
            if is_test(&file) {
                continue;
            }
            if is_pure {
                faults.extend(
                    impure_lines(&text).map(|(line, why)| format!("{shown}:{line}: {why}")),
                );
            }
            let lines = without_tests(&text).count();
            if LINES_NOTED < lines {
                println!("note: {shown} has {lines} lines without its tests");
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// Dependencies of crate `name` that it may not have.
fn wrong_edges(name: &str, manifest: &str) -> Vec<String> {
    let Some((_, allowed)) = EDGES.iter().find(|(crate_name, _)| *crate_name == name) else {
        let known = name == PRODUCT;
        return if known { Vec::new() } else { vec![format!("{name}: not in the table of xtask")] };
    };
    let mut faults = Vec::new();
    for dependency in dependencies(manifest) {
        let ours = dependency.strip_prefix("mainstay-");
        if dependency == PRODUCT || ours.is_some_and(|short| !allowed.contains(&short)) {
            faults.push(format!("{name} may not use {dependency}"));
        }
        if PURE.contains(&name) && IMPURE_CRATES.contains(&dependency) {
            faults.push(format!("{name} is pure and may not use {dependency}"));
        }
    }
    faults
}

/// Names under `[dependencies]`, targets included; those for tests and builds may be any.
fn dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    manifest.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            let of_target = header.starts_with("target.") && header.ends_with(".dependencies");
            inside = header == "dependencies" || of_target;
            return header.strip_prefix("dependencies.");
        }
        let name = line.split(['=', '.', ' ']).next().unwrap_or("");
        (inside && !name.is_empty() && !name.starts_with('#')).then_some(name)
    })
}

/// Numbers of lines that act, with what to do instead.
fn impure_lines(text: &str) -> impl Iterator<Item = (usize, &'static str)> {
    without_tests(text).enumerate().filter_map(|(index, line)| {
        let code = line.split("//").next().unwrap_or("");
        let word = IMPURE_WORDS.iter().find(|(word, _)| has_path(code, word)).map(|(_, why)| *why);
        let grouped = code.trim_start().strip_prefix("use std::{").is_some_and(|list| {
            let names = list.split([',', '}', ':', ';']).map(str::trim);
            names.into_iter().any(|name| IMPURE_MODULES.contains(&name))
        });
        let why = word.or_else(|| grouped.then_some("a pure crate does not act"))?;
        Some((index + 1, why))
    })
}

/// Whether `word` stands in `code` as a path of its own, not as the end of a longer name.
fn has_path(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code.get(..at).unwrap_or("").chars().next_back();
        let after = code.get(at + word.len()..).unwrap_or("").chars().next();
        let in_name = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !in_name(before) && (word.ends_with([':', '!']) || !in_name(after))
    })
}

/// The lines before the tests of a file.
pub(crate) fn without_tests(text: &str) -> impl Iterator<Item = &str> {
    let mut lines = text.lines().peekable();
    let mut over = false;
    std::iter::from_fn(move || {
        let line = lines.next()?;
        let next_is_inline = lines.peek().is_some_and(|next| next.trim_end().ends_with('{'));
        over |= line.trim() == "#[cfg(test)]" && next_is_inline;
        (!over).then_some(line)
    })
}

/// A file that is compiled for tests alone.
pub(crate) fn is_test(file: &Path) -> bool {
    let is_tests = |part: std::path::Component<'_>| {
        let name = part.as_os_str().to_string_lossy();
        matches!(name.as_ref(), "tests" | "tests.rs" | "proptests.rs")
    };
    file.components().any(is_tests)
}

/// The sources in `folder` and below it, in order of names.
pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in list(folder) {
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files
}

/// What lies in `folder`, in order of names.
pub(crate) fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort_unstable();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, want: &[usize]) {
        let lines: Vec<usize> = impure_lines(source).map(|(line, _)| line).collect();
        assert_eq!(lines, want, "{source}");
    }

    #[test]
    fn acting_is_found_where_it_is_code() {
        check("use std::net::TcpStream;", &[1]);
        check("let x = 1;\nlet t = std::time::Instant::now();", &[2]);
        check("use std::{fmt, fs};", &[1]);
        check("use core::net::IpAddr;", &[]);
        check("// std::fs is not used", &[]);
        check("use std::fmt;\n#[cfg(test)]\nmod tests {\n    use std::fs;", &[]);
        check("#[cfg(test)]\nmod tests;\nuse std::fs;", &[3]);
        check("let operand::x = strand::y;", &[]);
        check("std::envelope()", &[]);
    }

    #[test]
    fn an_edge_upwards_or_sideways_is_found() {
        let manifest = "[dependencies]\nmainstay-core = { workspace = true }\n\
                        mainstay-call.workspace = true\ntokio = \"1\"\n[dev-dependencies]\n\
                        mainstay-proxy = { workspace = true }\n";
        let faults = wrong_edges("mainstay-resilience", manifest);
        assert_eq!(
            faults,
            [
                "mainstay-resilience may not use mainstay-call",
                "mainstay-resilience is pure and may not use tokio",
            ]
        );
        assert!(wrong_edges("mainstay", manifest).is_empty());
        assert_eq!(wrong_edges("mainstay-common", "").len(), 1);
    }
}
