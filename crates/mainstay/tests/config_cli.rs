//! The config centre on the command line, against the real binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;
use support::gateway::Gateway;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
"#;

#[track_caller]
fn run(node: &Gateway, line: &[&str]) -> String {
    let (code, out, said) = node.cli(line);
    assert_eq!(code, 0, "{line:?}: {out}{said}");
    out + &said
}

#[test]
fn drafts_become_releases_and_secrets_stay_secret() {
    let node = Gateway::start_dev("config-cli", CONFIG);
    let kept = run(&node, &["config", "set", "shop/payment", "app.json", "{\"limit\":1}"]);
    assert!(kept.contains("mainstay config release shop/payment"), "{kept}");
    let secret = ["config", "set", "shop/payment", "password", "hunter2", "--secret"];
    run(&node, &secret);
    let diff = run(&node, &["config", "diff", "shop/payment"]);
    assert!(diff.contains("# app.json added") && !diff.contains("hunter2"), "{diff}");
    let first = run(&node, &["config", "release", "shop/payment", "--note", "the first"]);
    assert!(first.contains("release 1 is in force"), "{first}");
    assert_eq!(node.cli(&["config", "get", "shop/payment", "app.json"]).1, "{\"limit\":1}");
    let (code, out, said) = node.cli(&["config", "get", "shop/payment", "password"]);
    assert!(code == 2 && out.is_empty() && said.contains("--secrets"), "{said}");
    let open = node.cli(&["config", "get", "shop/payment", "password", "--secrets"]);
    assert_eq!(open.1, "hunter2");
    assert_eq!(node.cli(&["config", "get", "shop/none"]).0, 3);

    // What is not JSON is refused, and the draft stays.
    run(&node, &["config", "set", "shop/payment", "app.json", "{"]);
    let (code, _, said) = node.cli(&["config", "release", "shop/payment"]);
    assert!(code == 7 && said.contains("format-invalid"), "{said}");
}

#[test]
fn releases_are_tried_compared_and_rolled_back() {
    let node = Gateway::start_dev("config-cli-back", CONFIG);
    run(&node, &["config", "set", "shop/payment", "app.json", "{\"limit\":1}"]);
    run(&node, &["config", "set", "shop/payment", "password", "hunter2", "--secret"]);
    run(&node, &["config", "release", "shop/payment"]);
    run(&node, &["config", "set", "shop/payment", "app.json", "{\"limit\":2}"]);
    let tried = run(&node, &["config", "release", "shop/payment", "--dry-run"]);
    assert!(tried.contains("+{\"limit\":2}") && tried.contains("nothing was published"), "{tried}");
    run(&node, &["config", "release", "shop/payment"]);
    let diff = run(&node, &["config", "diff", "shop/payment", "--from", "1", "--to", "2"]);
    assert!(diff.contains("-{\"limit\":1}") && diff.contains("+{\"limit\":2}"), "{diff}");
    assert_eq!(node.cli(&["config", "rollback", "shop/payment", "--to", "1"]).0, 2, "no reason");
    run(&node, &["config", "rollback", "shop/payment", "--to", "1", "--reason", "INC-7"]);
    let history = node.cli_json(&["config", "history", "shop/payment"]);
    let newest = &history["items"][0];
    assert_eq!(
        (&newest["release"], &newest["rollback_of"], &newest["note"]),
        (&3.into(), &1.into(), &"INC-7".into())
    );
    run(&node, &["config", "remove", "shop/payment", "password", "--reason", "not used"]);
    run(&node, &["config", "release", "shop/payment"]);
    let items = node.cli_json(&["config", "get", "shop/payment"]);
    assert_eq!(items["items"].as_object().unwrap().len(), 1, "{items}");
    assert!(run(&node, &["config", "list", "--namespace", "shop"]).contains("payment"));
    assert!(run(&node, &["config", "rewrap"]).contains("records: 0"));
    assert!(run(&node, &["audit", "search", "--action", "config:rollback"]).contains("INC-7"));
}

#[test]
fn a_gradual_release_begins_grows_and_ends() {
    let node = Gateway::start_dev("config-cli-canary", CONFIG);
    let set = |content: &str| run(&node, &["config", "set", "payment", "limit", content]);
    // Bucket of pay-5 is 1551, of pay-6 2202.
    let of = |client: &str| node.cli(&["config", "get", "payment", "limit", "--client", client]).1;
    set("1");
    run(&node, &["config", "release", "payment"]);
    set("2");
    let begun = run(&node, &["config", "release", "payment", "--percent", "20"]);
    assert!(begun.contains("--promote"), "{begun}");
    assert_eq!((of("pay-5"), of("pay-6")), ("2".to_owned(), "1".to_owned()));
    run(&node, &["config", "release", "payment", "--widen", "--percent", "50"]);
    assert_eq!(of("pay-6"), "2");
    run(&node, &["config", "release", "payment", "--abort"]);
    assert_eq!(of("pay-5"), "1");
    set("3");
    run(&node, &["config", "release", "payment", "--clients", "pay-3"]);
    assert_eq!((of("pay-3"), of("pay-5")), ("3".to_owned(), "1".to_owned()));
    run(&node, &["config", "release", "payment", "--promote"]);
    assert_eq!(of("pay-5"), "3");
    assert_eq!(node.cli(&["config", "release", "payment", "--promote"]).0, 3, "none is under way");
}

#[test]
fn a_folder_becomes_a_group_and_back() {
    let node = Gateway::start_dev("config-cli-files", CONFIG);
    let folder = node.home().join("conf");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("app.yaml"), "limit: 1\n").unwrap();
    fs::write(folder.join("motd"), "欢迎\n").unwrap();
    let path = folder.to_str().unwrap();
    let tried = run(&node, &["config", "import", "payment", path, "--dry-run"]);
    assert!(
        tried.contains("nothing was published") && node.cli(&["config", "get", "payment"]).0 == 3
    );
    run(&node, &["config", "import", "payment", path, "--note", "from the repository"]);
    run(&node, &["config", "set", "payment", "password", "hunter2", "--secret"]);
    run(&node, &["config", "release", "payment"]);
    fs::remove_file(folder.join("motd")).unwrap();
    fs::write(folder.join("app.yaml"), "limit: 2\n").unwrap();
    run(&node, &["config", "import", "payment", path]);
    let items = node.cli_json(&["config", "get", "payment"]);
    let names: Vec<&String> = items["items"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["app.yaml", "password"], "what the folder lost is gone, secrets stay");
    assert_eq!(items["items"]["app.yaml"]["format"], "yaml");

    let out = node.home().join("out");
    let written = run(&node, &["config", "export", "payment", out.to_str().unwrap()]);
    assert!(
        written.contains("1 files written") && written.contains("1 secrets left out"),
        "{written}"
    );
    assert_eq!(fs::read_to_string(out.join("app.yaml")).unwrap(), "limit: 2\n");
    let again = node.cli(&["config", "export", "payment", out.to_str().unwrap()]);
    assert_ne!(again.0, 0, "nothing is overwritten");
}

#[test]
fn whoever_watches_is_told_a_line_a_change() {
    let node = Gateway::start_dev("config-cli-watch", CONFIG);
    run(&node, &["config", "set", "payment", "limit", "1"]);
    run(&node, &["config", "release", "payment"]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(["config", "watch", "payment"])
        .env("XDG_RUNTIME_DIR", node.home().join("run"))
        .env("XDG_DATA_HOME", node.home().join("share"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["release"], 1);
    run(&node, &["config", "set", "payment", "limit", "2"]);
    run(&node, &["config", "release", "payment"]);
    let change = next();
    assert_eq!((&change["event"], &change["release"]), (&"change".into(), &2.into()), "{change}");
    child.kill().unwrap();
    child.wait().unwrap();
}
