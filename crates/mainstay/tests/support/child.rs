//! Programs that others wrote, run to their end.

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

#[track_caller]
fn run(command: &mut Command) -> Output {
    let output = command.output();
    output.map_err(|error| format!("{command:?} does not start: {error}")).unwrap()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}
