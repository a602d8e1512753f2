//! Whole command lines, without a process.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;

/// What a command line wrote, and its exit code.
struct Said {
    out: String,
    err: String,
    code: u8,
}

fn run_line(line: &[&str]) -> Said {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut session = Session {
        out: &mut out,
        err: &mut err,
        terminal: false,
        columns: None,
        variable: |_| None,
        global: Global::default(),
    };
    let arguments = ["mainstay"].iter().chain(line).map(OsString::from).collect();
    let code = run(arguments, &mut session);
    let text = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).expect("text");
        anstream::adapter::strip_str(&text).to_string()
    };
    Said { out: text(out), err: text(err), code }
}

/// The line, split at blanks, ends with `code` and says `what` on stderr.
#[track_caller]
fn check(line: &str, code: u8, what: &[&str]) {
    let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
    let said = run_line(&words);
    assert_eq!(said.code, code, "{line}: {}{}", said.out, said.err);
    for what in what {
        assert!(said.err.contains(what), "{line}: no {what:?} in\n{}", said.err);
    }
}

#[test]
fn no_word_of_another_tool_runs_anything_and_each_gets_its_line() {
    assert!(30 <= words::WORDS.len());
    let given: BTreeSet<&str> = words::WORDS.iter().map(|word| word.given).collect();
    assert_eq!(given.len(), words::WORDS.len(), "a word stands twice");
    let command = command();
    for word in &words::WORDS {
        let (line, want) = if word.verb {
            (vec!["circuit", word.given, "x"], format!("mainstay circuit {} x", word.instead))
        } else {
            (vec!["-o", "table", word.given, "x"], format!("mainstay {} x", word.instead))
        };
        assert!(command.find_subcommand(word.given).is_none(), "{} is real", word.given);
        let said = run_line(&line);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{line:?}");
        assert!(said.err.contains(&want), "{line:?}: no `{want}` in\n{}", said.err);
        assert!(said.err.contains(&format!("the word is `{}`", word.instead)), "{}", said.err);
    }
}

#[test]
fn a_word_for_something_not_built_yet_says_so() {
    check("kv get a", 2, &["the word is `config`", "mainstay config get a"]);
    check("intention list", 2, &["the word is `policy`", "this version has no `policy` yet"]);
    check("ls", 2, &["the word is `list`", "mainstay NOUN list"]);
    check("breaker ls", 2, &["next: mainstay circuit ls"]);
}

#[test]
fn a_wrong_line_is_usage_and_says_what_to_type() {
    check("", 2, &["error[usage]", "one of: dev, server, gateway, run, settings, service"]);
    check("circuit", 2, &["error[usage]", "list", "next: mainstay circuit --help"]);
    check("circit list", 2, &["there is no `circit`", "did you mean `circuit`?"]);
    check("circuit list --colour", 2, &["error[usage]", "unexpected argument"]);
    check("route test GET", 2, &["missing: <URL>"]);
    check("check --format xml", 2, &["error[usage]", "'xml'"]);
    check("fault clear", 2, &["missing: "]);
    check("help nonsense", 2, &["there is no `nonsense` to help with"]);
    check("explain circuit-opn --control http://127.0.0.1:1", 6, &["`circuit-open`?"]);
    check("explain", 2, &["missing: <SUBJECT>"]);
}

#[test]
fn a_change_that_stops_calls_needs_a_reason_before_anything_is_sent() {
    for verb in ["force-open", "force-close"] {
        check(&format!("circuit {verb} x --yes"), 2, &["error[reason-required]", "--reason"]);
        check(&format!("circuit {verb} x --yes --reason ab"), 2, &["3 to 500", "this one 2"]);
        let long = "x".repeat(501);
        check(&format!("circuit {verb} x --yes --reason {long}"), 2, &["this one 501"]);
    }
    check("circuit force-open x --reason why", 2, &["every call through it is refused", "--yes"]);
}

#[test]
fn values_are_checked_before_anything_is_sent() {
    check("circuit force-close x --reason why --expires soon", 2, &["`soon` is no span of time"]);
    check("fault set delay", 2, &["`delay` is no fault", "delay=SECONDS"]);
    check("fault set abort=200", 2, &["`abort=200` is no fault"]);
    check("fault set reset=1", 2, &["`reset=1` is no fault"]);
    check("fault set reset --ttl 2h", 2, &["--ttl is at most 1h"]);
    check("fault set reset --percent 0", 2, &["--percent is above 0"]);
    check("route test GET / -H nonsense", 2, &["`nonsense` is no header"]);
    check("circuit list --control https://x", 2, &["no address of a control plane"]);
}

#[test]
fn spans_are_read_with_their_unit() {
    let cases = [("90s", Some(90.0)), ("15m", Some(900.0)), ("2h", Some(7200.0)), ("7", Some(7.0))];
    let bad = [("", None), ("s", None), ("-1s", None), ("0", None), ("1d", None), ("分", None)];
    for (text, want) in cases.into_iter().chain(bad) {
        assert_eq!(calls::span(text).ok(), want, "{text:?}");
    }
}

#[test]
fn nobody_listening_is_exit_6_with_the_next_step() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    drop(listener);
    let lines = [
        "settings reload",
        "route test GET /",
        "circuit list",
        "circuit show x",
        "circuit force-open x --reason why --yes",
        "circuit reset x",
        "limit usage x",
        "fault set reset --reason why",
        "fault clear --all",
        "fault list",
        "explain 01JD3Q9F",
        "check",
        "check --live",
    ];
    for line in lines {
        let line = format!("{line} --control {url}");
        check(&line, 6, &["error[control-unreachable]", "next: mainstay dev"]);
    }
}

#[test]
fn errors_for_programs_are_one_problem_document() {
    let said = run_line(&["-o", "json", "circuit", "force-open", "x"]);
    let document: serde_json::Value = serde_json::from_str(&said.err).expect("a document");
    assert_eq!(document["code"], "reason-required");
    assert_eq!((document["exit"].as_u64(), said.code), (Some(2), 2));
    let said = run_line(&["-ojson", "circit"]);
    let document: serde_json::Value = serde_json::from_str(&said.err).expect("a document");
    assert_eq!(document["code"], "usage");
    assert_eq!(said.out, "");
}

#[test]
fn a_code_is_explained_offline_in_the_language_asked_for() {
    let said = run_line(&["explain", "circuit-open"]);
    assert!(said.out.starts_with("# circuit-open\n") && said.code == 0);
    let said = run_line(&["explain", "circuit-open", "--lang", "zh_CN"]);
    assert!(said.out.contains("熔断器"), "{}", said.out);
    let said = run_line(&["explain", "usage", "--lang", "zh"]);
    assert!(said.out.starts_with("# usage\n") && !said.err.is_empty());
    let said = run_line(&["explain", "check-memory"]);
    assert!(said.out.starts_with("# check-memory\n"));
    let said = run_line(&["explain", "server.listen"]);
    assert!(said.out.starts_with("server.listen: text\n"), "{}", said.out);
    assert!(said.out.contains("127.0.0.1:7400"), "{}", said.out);
}

#[test]
fn settings_are_validated_and_shown_with_their_origin() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mainstay.toml");
    let file = path.display().to_string();
    std::fs::write(&path, "[server]\nlisten = \"127.0.0.1:1\"\n").expect("written");
    let said = run_line(&["settings", "show", "--origin", "--config", &file]);
    assert_eq!(said.out, format!("server.listen = \"127.0.0.1:1\"  # {file}:2\n"));
    let said = run_line(&["settings", "validate", "--config", &file]);
    assert_eq!((said.code, said.out), (0, format!("valid: {file}\n")));
    let said = run_line(&["settings", "validate", "--config", &file, "-o", "json"]);
    assert!(said.out.starts_with("{\"files\":["), "{}", said.out);

    std::fs::write(&path, "[server]\nlistn = 1\n").expect("written");
    let said = run_line(&["settings", "validate", "--config", &file]);
    assert_eq!(said.code, 7);
    let want = format!(
        "error[config-unknown-key]: unknown key `server.listn`\n --> {file}:2:1\n  |\n\
         2 | listn = 1\n  | ^^^^^\n  = did you mean `listen`?\n  \
         = next: mainstay explain config-unknown-key\n"
    );
    assert_eq!(said.err, want);
    let said = run_line(&["settings", "show", "--config", "/nonexistent.toml"]);
    assert_eq!(said.code, 7);
    assert!(said.err.starts_with("error[config-file-missing]"), "{}", said.err);
    let schema = run_line(&["settings", "schema"]).out;
    assert!(serde_json::from_str::<serde_json::Value>(&schema).is_ok());
}

#[test]
fn check_before_a_start_fails_on_a_broken_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mainstay.toml");
    std::fs::write(&path, "limt = 1\n").expect("written");
    let file = path.display().to_string();
    let data = folder.path().display().to_string();
    let line = ["check", "--pre", "--category", "settings", "--config", &file, "--data-dir", &data];
    let said = run_line(&line);
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(said.out.starts_with("fail     settings/settings-valid"), "{}", said.out);
    assert!(said.out.contains("unknown key `limt`"), "{}", said.out);
}

#[test]
fn help_is_short_and_has_two_examples() {
    fn visit(command: &clap::Command) {
        let visible = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let flags = visible.filter(|arg| arg.get_long().is_some()).count();
        let name = command.get_name();
        assert!(flags <= 12, "{name} has {flags} flags");
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(!about.is_empty() && !about.ends_with('.'), "{name}: {about:?}");
        if !command.is_hide_set() {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert_eq!(after.matches("\n  mainstay ").count(), 2, "{name}: {after:?}");
        }
        command.get_subcommands().for_each(visit);
    }
    visit(&command());
    command().debug_assert();
    let said = run_line(&["help", "flags"]);
    assert!(said.out.contains("--control <URL>"), "{}", said.out);
    let said = run_line(&["circuit", "list", "--help"]);
    assert!(said.code == 0 && !said.out.contains("--control"), "{}", said.out);
    assert!(run_line(&["help", "circuit", "list"]).out.contains("--state"));
}

#[test]
fn short_flags_are_those_of_the_list() {
    fn visit(command: &clap::Command) {
        for arg in command.get_arguments() {
            let short = arg.get_short().unwrap_or('o');
            assert!("ofwnqvyhH".contains(short), "-{short} of {}", command.get_name());
        }
        command.get_subcommands().for_each(visit);
    }
    visit(&command());
}

#[test]
fn completions_and_version_are_printed() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let said = run_line(&["completions", shell]);
        assert!(said.code == 0 && said.out.contains("force-open"), "{shell}");
    }
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(run_line(&["version"]).out, format!("mainstay {version}\n"));
    assert_eq!(
        run_line(&["version", "-o", "json"]).out,
        format!("{{\"version\":\"{version}\"}}\n")
    );
}

#[test]
fn the_reference_pages_are_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    for (name, what) in
        [("cli.md", reference::Reference::Cli), ("config.md", reference::Reference::Config)]
    {
        let there = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(there == reference::render(what), "{name} is stale: run `cargo xtask docs`");
    }
    // Log events follow, which the program does not print.
    let there = std::fs::read_to_string(folder.join("telemetry.md")).unwrap_or_default();
    let printed = reference::render(reference::Reference::Telemetry);
    assert!(there.starts_with(&printed), "telemetry.md is stale: run `cargo xtask docs`");
}
