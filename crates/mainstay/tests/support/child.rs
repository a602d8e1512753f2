//! Programs that others wrote, run to their end.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A proxy of this machine must not stand between a client and what it is tested against.
pub(crate) fn beside_no_proxy(command: &mut Command) {
    for name in ["http_proxy", "https_proxy", "all_proxy", "grpc_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
}

/// Runs it; it fails by saying why.
#[track_caller]
pub(crate) fn ends_well(command: &mut Command) {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, said(&output));
}

/// Runs what brings `what`, which this test cannot do without.
#[track_caller]
pub(crate) fn fetched(what: &str, command: &mut Command) {
    let output = run(command);
    assert!(
        output.status.success(),
        "{what} are missing, and this does not bring them: {command:?}\n{}\n\
         Run it once where the registry is reached; what it brings stays below target.",
        said(&output)
    );
}

/// A folder below the target directory with copies of `files` from `of`, and whether they were not
/// there like this before. Held by the caller as long as the lock lives.
#[track_caller]
pub(crate) fn copied(of: &Path, name: &str, files: &[&str]) -> (PathBuf, bool, File) {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name(name);
    fs::create_dir_all(&home).unwrap();
    let lock = File::create(home.join("lock")).unwrap();
    lock.lock().unwrap();
    let mut is_new = false;
    for file in files {
        let (wanted, at) = (fs::read(of.join(file)).unwrap(), home.join(file));
        if fs::read(&at).ok().as_ref() != Some(&wanted) {
            is_new = true;
            fs::write(at, wanted).unwrap();
        }
    }
    (home, is_new, lock)
}

/// The program that the Go sources in `of` make, built below the target directory, in `name`.
#[track_caller]
pub(crate) fn go_program(of: &Path, name: &str) -> PathBuf {
    let (home, is_new, _lock) = copied(of, name, &["go.mod", "go.sum", "main.go"]);
    let program = home.join("client");
    if is_new || !program.exists() {
        let mut build = Command::new("go");
        build.args(["build", "-mod=readonly", "-buildvcs=false", "-o"]).arg(&program);
        let build = build.current_dir(&home).env("CGO_ENABLED", "0");
        build.env("GOMODCACHE", home.join("modules")).env("GOCACHE", home.join("cache"));
        // What is read-only would stand in the way of `cargo clean`.
        fetched("modules of Go", build.env("GOFLAGS", "-modcacherw"));
    }
    program
}

#[track_caller]
fn run(command: &mut Command) -> Output {
    let output = command.output();
    output.map_err(|error| format!("{command:?} does not start: {error}")).unwrap()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}
