//! The table of configuration errors, row by row, and what belongs to it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use mainstay_core::problem::Code;
use mainstay_resilience::Invalid;
use serde::Deserialize;
use tempfile::TempDir;

use super::*;
use crate::report::Severity;

/// A root small enough to read: one table, one map of tables, one list of alternatives.
#[derive(Debug, Default, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Root {
    /// A table.
    limit: Option<Limit>,
    /// Tables by name.
    circuit: BTreeMap<String, Circuit>,
    /// Restart only.
    server: Option<Server>,
}

#[derive(Debug, Default, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Limit {
    max: Option<u32>,
    window_seconds: Option<f64>,
    burst: Option<u32>,
    kind: Option<Kind>,
    steps: Option<Vec<Step>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Bucket,
    Sliding,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    Silent { status: u16 },
    Delay { seconds: f64 },
}

#[derive(Debug, Default, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Circuit {
    cooldown_seconds: Option<f64>,
}

#[derive(Debug, Default, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Server {
    listen: Option<String>,
    admin_token: Option<String>,
}

fn resolve(root: Root) -> Result<Root, Vec<Invalid>> {
    let mut wrong = Vec::new();
    if let Some(seconds) = root.limit.as_ref().and_then(|limit| limit.window_seconds)
        && !(0.01..=3600.0).contains(&seconds)
    {
        let problem = format!("must be 0.01 to 3600, found {seconds}");
        wrong.push(Invalid::range("limit.window_seconds", problem));
    }
    for (name, circuit) in &root.circuit {
        if circuit.cooldown_seconds.is_some_and(|seconds| seconds <= 0.0) {
            let problem = "must be above 0".to_owned();
            wrong.push(Invalid::range("cooldown_seconds", problem).within(name).within("circuit"));
        }
    }
    if wrong.is_empty() { Ok(root) } else { Err(wrong) }
}

struct Case {
    folder: TempDir,
    sources: Sources,
}

impl Case {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("a folder");
            fs::write(path, content).expect("a file");
        }
        let main = files.iter().map(|(name, _)| *name).find(|name| name.starts_with("mainstay."));
        let file = Some(folder.path().join(main.unwrap_or("mainstay.toml")));
        Self { folder, sources: Sources { file, ..Sources::default() } }
    }

    fn environment(mut self, variables: &[(&str, &str)]) -> Self {
        self.sources.environment =
            variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        self
    }

    fn load(&self) -> Result<Resolved<Root>, Errors> {
        self.sources.load::<Root>()?.resolve(resolve)
    }

    /// Every report as `code place: message | help`, with the folder cut off.
    fn said(&self) -> Vec<String> {
        let reports = match self.load() {
            Ok(resolved) => resolved.warnings,
            Err(errors) => errors.reports,
        };
        let cut = format!("{}/", self.folder.path().display());
        let said = reports.iter().map(|report| {
            let place = report.place.as_ref().map(ToString::to_string).unwrap_or_default();
            let word = if report.severity == Severity::Warning { "warning " } else { "" };
            let help = report.help.iter().flat_map(|help| [" | ", help]).collect::<String>();
            format!("{word}{} {place}: {}{help}", report.code, report.message).replace(&cut, "")
        });
        said.collect()
    }
}

/// One file, and the reports it leads to.
#[track_caller]
fn check(content: &str, want: &[&str]) {
    check_files(&[("mainstay.toml", content)], want);
}

#[track_caller]
fn check_files(files: &[(&str, &str)], want: &[&str]) {
    assert_eq!(Case::new(files).said(), want);
}

#[test]
fn an_unknown_table_is_named_with_the_one_meant() {
    check(
        "[limt]\n",
        &["config-unknown-key mainstay.toml:1:2: unknown key `limt` | did you mean `[limit]`?"],
    );
}

#[test]
fn an_unknown_key_is_named_with_the_one_meant() {
    check(
        "[limit]\nwindow = 5\n",
        &[
            "config-unknown-key mainstay.toml:2:1: unknown key `limit.window` | did you mean `window_seconds`?",
        ],
    );
    check(
        "[limit]\nburst_max = 200\n",
        &[
            "config-unknown-key mainstay.toml:2:1: unknown key `limit.burst_max` | did you mean `burst`?",
        ],
    );
    check(
        "[limit]\nadmin_token = 5\n",
        &[
            "config-unknown-key mainstay.toml:2:1: unknown key `limit.admin_token` | `admin_token` is a key of `[server]`",
        ],
    );
    check(
        "[circuit.x]\nzzz = 5\n",
        &[
            "config-unknown-key mainstay.toml:2:1: unknown key `circuit.x.zzz` | keys of `[circuit.x]`: `cooldown_seconds`",
        ],
    );
}

#[test]
fn a_wrong_type_says_what_was_expected_and_found() {
    check(
        "[limit]\nwindow_seconds = \"5s\"\n",
        &[
            "config-wrong-type mainstay.toml:2:18: `limit.window_seconds`: expected a number of seconds, found text `\"5s\"`",
        ],
    );
    check(
        "limit = 3\n",
        &["config-wrong-type mainstay.toml:1:9: `limit`: expected a table, found number `3`"],
    );
    check(
        "[limit]\nmax = 1.5\n",
        &[
            "config-wrong-type mainstay.toml:2:7: `limit.max`: expected a whole number, found number `1.5`",
        ],
    );
    check(
        "[server]\nadmin_token = 5\n",
        &[
            "config-wrong-type mainstay.toml:2:15: `server.admin_token`: expected text, found another",
        ],
    );
}

#[test]
fn a_value_out_of_range_says_the_range() {
    check(
        "[limit]\nwindow_seconds = 0\n",
        &[
            "config-out-of-range mainstay.toml:2:18: `limit.window_seconds`: must be 0.01 to 3600, found 0",
        ],
    );
    check(
        "[limit]\nmax = -1\n",
        &["config-out-of-range mainstay.toml:2:7: `limit.max`: must be 0 to 4294967295, found -1"],
    );
    check(
        "[limit]\nkind = \"buckt\"\n",
        &[
            "config-out-of-range mainstay.toml:2:8: `limit.kind`: must be `\"bucket\"` or `\"sliding\"`, found `\"buckt\"` | did you mean `\"bucket\"`?",
        ],
    );
    check(
        "[circuit.\"a.b\"]\ncooldown_seconds = 0\n",
        &[
            "config-out-of-range mainstay.toml:2:20: `circuit.a.b.cooldown_seconds`: must be above 0",
        ],
    );
}

#[test]
fn steps_with_alternatives_are_checked_inside() {
    check("[limit]\nsteps = [{ silent = { status = 204 } }, { delay = { seconds = 1 } }]\n", &[]);
    check(
        "[limit]\nsteps = [{ silent = { statis = 204 } }]\n",
        &[
            "config-unknown-key mainstay.toml:2:23: unknown key `limit.steps[0].silent.statis` | did you mean `status`?",
        ],
    );
    check(
        "[limit]\nsteps = [{ silent = {} }]\n",
        &["config-wrong-type mainstay.toml:2:21: `limit.steps[0].silent`: missing field `status`"],
    );
}

#[test]
fn the_same_key_in_two_files_is_allowed_and_the_later_wins() {
    let case = Case::new(&[
        ("mainstay.toml", ""),
        ("conf.d/20-b.toml", "\n\n[limit]\nmax = 7\n"),
        ("conf.d/10-a.toml", "limit.max = 5\nlimit.burst = 1\n[server]\nadmin_token = \"x\""),
    ]);
    let resolved = case.load().expect("valid");
    assert_eq!(resolved.value.limit.and_then(|limit| limit.max), Some(7));
    let shown = origin::lines(&resolved.tree, true);
    let shown = shown.replace(&format!("{}/", case.folder.path().display()), "");
    assert_eq!(
        shown,
        "limit.burst = 1  # conf.d/10-a.toml:2\n\
         limit.max = 7  # conf.d/20-b.toml:4, over conf.d/10-a.toml:1\n\
         server.admin_token = ***  # conf.d/10-a.toml:4\n"
    );
}

#[test]
fn the_same_key_twice_in_one_file_is_an_error_in_every_language() {
    let twice = "key `max` stands twice in this file";
    check(
        "[limit]\nmax = 1\nmax = 2\n",
        &[&format!("config-duplicate-key mainstay.toml:3:1: {twice}")],
    );
    check_files(
        &[("mainstay.yaml", "limit:\n  max: 1\n  max: 2\n")],
        &[&format!("config-duplicate-key mainstay.yaml:3:3: {twice}")],
    );
    check_files(
        &[("mainstay.json", "{\"limit\": {\"max\": 1,\n \"max\": 2}}")],
        &[&format!("config-duplicate-key mainstay.json:2:2: {twice}")],
    );
}

#[test]
fn a_named_file_must_exist_and_the_default_one_need_not() {
    let mut case = Case::new(&[]);
    assert_eq!(case.said(), Vec::<String>::new());
    case.sources.required = true;
    assert_eq!(case.said(), ["config-file-missing : file `mainstay.toml`: does not exist"]);
    let errors = case.load().expect_err("missing");
    assert_eq!(errors.reports[0].exit.code(), 7);
}

#[test]
fn a_variable_sets_a_key_and_a_wrong_one_is_an_error_with_its_name() {
    let case = Case::new(&[]).environment(&[("MAINSTAY_LIMIT__MAXX", "3")]);
    assert_eq!(
        case.said(),
        [
            "config-unknown-key environment MAINSTAY_LIMIT__MAXX: unknown key `limit.maxx` | did you mean `max`?"
        ]
    );
    let case = Case::new(&[(
        "mainstay.toml",
        "[circuit.\"order-api.v1\"]\ncooldown_seconds = 1\n[limit]\nmax = 2\n",
    )])
    .environment(&[
        ("MAINSTAY_LIMIT__MAX", "3"),
        ("MAINSTAY_CIRCUIT__ORDER_API_V1__COOLDOWN_SECONDS", "0.5"),
        ("MAINSTAY_LIMIT__KIND", "sliding"),
        ("MAINSTAY_SERVER__LISTEN", "127.0.0.1:1"),
        ("MAINSTAY_SERVER__ADMIN_TOKEN", "12345"),
    ]);
    let root = case.load().expect("valid").value;
    let limit = root.limit.expect("set");
    assert_eq!((limit.max, limit.kind), (Some(3), Some(Kind::Sliding)));
    assert_eq!(root.circuit["order-api.v1"].cooldown_seconds, Some(0.5));
    assert_eq!(root.server.expect("set").admin_token.as_deref(), Some("12345"));
}

#[test]
fn flags_win_over_variables_and_are_named() {
    let flag = |value: &str| vec![("--max".to_owned(), "limit.max".to_owned(), value.to_owned())];
    let mut case = Case::new(&[]).environment(&[("MAINSTAY_LIMIT__MAX", "3")]);
    case.sources.flags = flag("9");
    let resolved = case.load().expect("valid");
    assert_eq!(
        origin::lines(&resolved.tree, true),
        "limit.max = 9  # flag --max, over environment MAINSTAY_LIMIT__MAX\n"
    );
    case.sources.flags = flag("many");
    assert_eq!(
        case.said(),
        [
            "config-wrong-type flag --max: `limit.max`: expected a whole number, found text `\"many\"`"
        ]
    );
}

#[test]
fn a_variable_with_one_underscore_is_a_warning_and_those_of_kubernetes_are_nothing() {
    let warns = |name: &str, value: &str| {
        Case::new(&[]).environment(&[(name, value)]).said().first().cloned().unwrap_or_default()
    };
    let why = "has no effect: section and key are parted by two underscores";
    assert_eq!(
        warns("MAINSTAY_LIMIT_MAX", "3"),
        format!(
            "warning config-unknown-key environment MAINSTAY_LIMIT_MAX: variable `MAINSTAY_LIMIT_MAX` {why} | did you mean `MAINSTAY_LIMIT__MAX`?"
        )
    );
    assert!(warns("MAINSTAY_NONSENSE", "3").ends_with(why));
    assert!(
        warns("MAINSTAY_LIMIT_WINDOW_SECONDS", "3").contains("`MAINSTAY_LIMIT__WINDOW_SECONDS`")
    );
    for (name, value) in [
        ("MAINSTAY_SERVICE_HOST", "10.0.0.1"),
        ("MAINSTAY_SERVICE_PORT", "7400"),
        ("MAINSTAY_SERVICE_PORT_HTTP", "7400"),
        ("MAINSTAY_PORT", "tcp://10.0.0.1:7400"),
        ("MAINSTAY_PORT_7400_TCP", "tcp://10.0.0.1:7400"),
        ("MAINSTAY_PORT_7400_TCP_PROTO", "tcp"),
        ("MAINSTAY_PORT_7400_TCP_PORT", "7400"),
        ("MAINSTAY_PORT_7400_TCP_ADDR", "10.0.0.1"),
        ("MAINSTAY_GATEWAY_SERVICE_HOST", "10.0.0.1"),
        ("MAINSTAY_GATEWAY_PORT", "tcp://10.0.0.1:7480"),
        ("MAINSTAY_CLI_OUTPUT", "json"),
        ("MAINSTAY_CONTEXT", "prod"),
    ] {
        assert_eq!(warns(name, value), "", "{name}");
    }
}

#[test]
fn a_byte_order_mark_crlf_and_chinese_are_accepted_and_columns_count_characters() {
    check("\u{feff}# 限流\r\n[limit] # 每秒\r\nmax = 5\r\n", &[]);
    check(
        "\u{feff}[circuit]\r\n\"订单\" = { cooldown = 1 }\r\n",
        &[
            "config-unknown-key mainstay.toml:2:10: unknown key `circuit.订单.cooldown` | did you mean `cooldown_seconds`?",
        ],
    );
    check_files(
        &[("mainstay.yaml", "\u{feff}# 限流\r\ncircuit:\r\n  订单: {cooldown: 1}\r\n")],
        &[
            "config-unknown-key mainstay.yaml:3:8: unknown key `circuit.订单.cooldown` | did you mean `cooldown_seconds`?",
        ],
    );
    check_files(
        &[("mainstay.json", "{\"circuit\":\r\n {\"订单\": {\"cooldown\": 1}}}")],
        &[
            "config-unknown-key mainstay.json:2:10: unknown key `circuit.订单.cooldown` | did you mean `cooldown_seconds`?",
        ],
    );
}

#[test]
fn the_three_languages_say_the_same() {
    let toml = "[limit]\nmax = 5\nwindow_seconds = 1.5\nkind = \"sliding\"\n[circuit.a]\n";
    let yaml =
        "limit:\n  max: 5\n  window_seconds: 1.5\n  kind: sliding\n  burst:\ncircuit: {a: {}}\n";
    let json = r#"{"limit":{"max":5,"window_seconds":1.5,"kind":"sliding","burst":null},"circuit":{"a":{}}}"#;
    let read = |name, content| Case::new(&[(name, content)]).load().expect("valid").value;
    let want = read("mainstay.toml", toml);
    assert_eq!(read("mainstay.yaml", yaml), want);
    assert_eq!(read("mainstay.json", json), want);
    assert_eq!(want.limit.expect("set").max, Some(5));
}

#[test]
fn all_faults_of_all_files_are_collected_in_order() {
    check_files(
        &[
            ("mainstay.toml", "[limit]\nmax = \nburst = 1\nburst = 2\nmxa = 3\n"),
            ("conf.d/10-a.yaml", "limit: [\n"),
            ("conf.d/20-b.json", "{\"limit\": {\"max\": \"a\"}}"),
            ("conf.d/30-c.tml", "x = 1"),
            ("conf.d/.hidden", "x = 1"),
            ("conf.d/40-d.toml~", "x = 1"),
        ],
        &[
            "config-syntax mainstay.toml:2:7: string values must be quoted, expected literal string",
            "config-duplicate-key mainstay.toml:4:1: key `burst` stands twice in this file",
            "config-unknown-key mainstay.toml:5:1: unknown key `limit.mxa` | did you mean `max`?",
            "config-syntax conf.d/10-a.yaml:1:8: unclosed bracket '['",
            "config-wrong-type conf.d/20-b.json:1:19: `limit.max`: expected a whole number, found text `\"a\"`",
            "warning config-syntax : file `conf.d/30-c.tml` is not read: its name ends in none of `.toml`, `.yaml`, `.yml`, `.json`",
        ],
    );
}

fn live(case: &Case) -> reload::Live<Root, Root> {
    let restart_only = &["server.listen", "circuit", "!circuit.x"];
    reload::Live::start(case.sources.clone(), resolve, restart_only).expect("valid").0
}

#[test]
fn a_broken_file_at_start_starts_nothing_and_on_reload_changes_nothing() {
    let case = Case::new(&[("mainstay.toml", "limit.max = 1"), ("conf.d/40-good.toml", "")]);
    let mut live = live(&case);
    fs::write(case.folder.path().join("conf.d/40-good.toml"), "limit.max = 2").expect("written");
    fs::write(case.folder.path().join("conf.d/50-bad.toml"), "limit.maxx = 2\n[").expect("written");

    let errors = live.reload(|_| Ok(())).expect_err("one file is bad");
    let bad = case.folder.path().join("conf.d/50-bad.toml").display().to_string();
    assert_eq!(errors.files().into_iter().collect::<Vec<_>>(), [bad.as_str()]);
    assert_eq!(errors.reports.len(), 2, "{errors:?}");
    assert_eq!(live.current().limit.as_ref().and_then(|l| l.max), Some(1), "good files mixed in");
    assert!(live.last().is_err());
    assert!(reload::Live::start(case.sources, resolve, &[]).is_err());

    fs::remove_file(bad).expect("removed");
    let reloaded = live.reload(|_| Ok(())).expect("good again");
    assert_eq!(reloaded.applied, ["limit.max"]);
    assert_eq!(live.current().limit.as_ref().and_then(|l| l.max), Some(2));
    assert!(live.last().is_ok());
}

#[test]
fn restart_only_keys_are_listed_until_the_restart() {
    let case = Case::new(&[("mainstay.toml", "server.listen = \"a\"\nlimit.max = 1")]);
    let mut live = live(&case);
    let write = |content: &str| fs::write(case.folder.path().join("mainstay.toml"), content);
    let circuits = "[circuit.x]\ncooldown_seconds = 1\n[circuit.y]\ncooldown_seconds = 1";
    write(&format!("server.listen = \"b\"\n{circuits}")).expect("written");
    let reloaded = live.reload(|_| Ok(())).expect("valid");
    assert_eq!(reloaded.applied, ["circuit.x.cooldown_seconds", "limit.max"], "x is excepted");
    assert_eq!(reloaded.needs_restart, ["circuit.y.cooldown_seconds", "server.listen"]);
    let reloaded = live.reload(|_| Ok(())).expect("valid");
    assert_eq!((reloaded.applied.len(), reloaded.needs_restart.len()), (0, 2));
    write("# moved\n\nserver.listen = \"a\"\n[circuit.x]\ncooldown_seconds = 1").expect("written");
    assert_eq!(live.reload(|_| Ok(())).expect("valid"), reload::Reloaded::default());
}

/// Lays a `ConfigMap` volume as the kubelet does: files reached through `..data`, which is swapped
/// by renaming a new symbolic link over it.
fn publish(folder: &Path, revision: &str, content: &str) {
    fs::create_dir(folder.join(revision)).expect("a folder");
    fs::write(folder.join(revision).join("mainstay.toml"), content).expect("a file");
    symlink(revision, folder.join("..data_tmp")).expect("a link");
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("a rename");
}

#[test]
fn the_swap_of_a_config_map_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    publish(folder.path(), "..2026_01_01", "limit.max = 1");
    symlink("..data/mainstay.toml", folder.path().join("mainstay.toml")).expect("a link");
    let file = Some(folder.path().join("mainstay.toml"));
    let sources = Sources { file, required: true, ..Sources::default() };
    let mut live =
        reload::Live::<Root, Root>::start(sources.clone(), resolve, &[]).expect("valid").0;
    let (send, changes) = mpsc::channel();
    let watch = watch::Watch::start(sources, Duration::from_millis(5), move || {
        send.send(()).expect("the test listens");
    })
    .expect("a watch");

    publish(folder.path(), "..2026_01_02", "limit.max = 2");
    changes.recv_timeout(Duration::from_secs(20)).expect("the swap is noticed");
    assert_eq!(live.reload(|_| Ok(())).expect("valid").applied, ["limit.max"]);
    drop(watch);
    assert!(changes.recv().is_err(), "one change, and the thread has ended");
}

#[test]
fn writing_the_same_content_again_is_no_news() {
    let case = Case::new(&[("mainstay.toml", "limit.max = 1")]);
    let before = watch::Fingerprint::of(&case.sources);
    fs::write(case.folder.path().join("mainstay.toml"), "limit.max = 1").expect("written");
    assert_eq!(watch::Fingerprint::of(&case.sources), before);
    fs::create_dir(case.folder.path().join("conf.d")).expect("a folder");
    fs::write(case.folder.path().join("conf.d/a.toml"), "").expect("written");
    assert_ne!(watch::Fingerprint::of(&case.sources), before);
}

#[test]
fn the_root_of_the_binary_knows_its_server() {
    let case = Case::new(&[("mainstay.toml", "[server]\nlisten = \"localhost\"\n")]);
    let errors = case.sources.load::<Settings>().expect_err("no address");
    assert_eq!(errors.reports[0].code, Code::ConfigWrongType.as_str());
    assert!(errors.reports[0].message.starts_with("`server.listen`: "), "{errors:?}");
}
