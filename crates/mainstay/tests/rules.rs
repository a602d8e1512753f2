//! Rules kept in the store of a real process, and the calls it serves by them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/origin.rs"]
#[allow(dead_code, reason = "what it counted is not asked here")]
mod origin;
#[path = "support/support.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use origin::Origin;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::gateway::Gateway;
use support::wait::{now, until};

const PATIENCE: Duration = Duration::from_secs(10);

/// How soon a change is in force on the node that took it.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(1);

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[system]
cpu_percent_max = 0
memory_percent_max = 0
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
[route.of-file]
path = "/file"
respond = { body = "of the file" }
limits = ["of-file"]
[limit.of-file]
max = 1000
"#;

const WHY: &str = "mainstay-reason: %E5%A4%A7%E4%BF%83%20sale\r\n";

/// A call of the API; its status and document.
fn call(node: &Gateway, method: &str, path: &str, headers: &str, body: &Value) -> (u16, Value) {
    let headers = format!("content-type: application/json\r\n{headers}");
    let path = format!("/api/v1{path}");
    let (status, body) = node.call_with(method, &path, &headers, &body.to_string());
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

fn get(node: &Gateway, path: &str) -> Value {
    let (status, document) = call(node, "GET", path, "", &Value::Null);
    assert_eq!(status, 200, "{path}: {document}");
    document
}

#[track_caller]
fn put(node: &Gateway, path: &str, content: &str) -> Value {
    let (status, document) = call(node, "PUT", path, WHY, &json!({ "content": content }));
    assert_eq!(status, 200, "{path}: {document}");
    document
}

/// Calls the gateway; the status and body it answers with.
fn ask(node: &Gateway, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(node.address(0)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn a_rule_is_in_force_when_it_is_answered_and_after_a_kill() {
    let mut node = Gateway::start_dev("rules", CONFIG);
    assert_eq!(ask(&node, "/sale").0, 404);

    let began = now();
    let limit = put(
        &node,
        "/limits/shop/sale",
        "# 大促\nkind = \"counter\"\nmax = 2\nwindow_seconds = 3600\n",
    );
    assert_eq!((&limit["revision"], &limit["state"]), (&json!(1), &json!("in_force")));
    let upstream = format!("instances = [\"{}\"]", Origin::start().address);
    put(&node, "/upstreams/shop/order", &upstream);
    put(&node, "/routes/shop/sale", "path = \"/sale\"\nto = \"order\"\nlimits = [\"sale\"]");
    until("the route is in force", IN_FORCE_WITHIN, || ask(&node, "/sale").0 == 200);
    assert!(began.elapsed() < IN_FORCE_WITHIN * 3, "three changes in {:?}", began.elapsed());
    assert_eq!((ask(&node, "/sale").0, ask(&node, "/sale").0), (200, 429));
    assert_eq!(ask(&node, "/file"), (200, "of the file".to_owned()));
    assert_eq!(get(&node, "/limits/shop/sale/usage")["granted"], 2);

    // What was counted stays, as in a reload: a higher limit adds nothing at once.
    put(&node, "/limits/shop/sale", "kind = \"counter\"\nmax = 3\nwindow_seconds = 3600\n");
    assert_eq!(ask(&node, "/sale").0, 429);
    let began = now();
    put(&node, "/routes/shop/sale", "path = \"/sale\"\nto = \"order\"");
    until("the route has no limit", IN_FORCE_WITHIN, || ask(&node, "/sale").0 == 200);
    assert!(began.elapsed() < IN_FORCE_WITHIN, "{:?}", began.elapsed());

    node.signal(Signal::KILL);
    node.ended();
    let node = node.again("rules-killed", &[]);
    assert_eq!(ask(&node, "/sale"), (200, "sale".to_owned()), "no moment without the rule");
    assert_eq!(ask(&node, "/other").0, 404);
    let shown = get(&node, "/limits/shop/sale");
    assert_eq!((&shown["managed_by"], &shown["table"]["max"]), (&json!("api"), &json!(3)));
    let history = get(&node, "/limits/shop/sale/history");
    let newest = &history["items"][0];
    assert_eq!((&newest["revision"], &newest["why"]), (&json!(2), &json!("大促 sale")));
    assert!(newest["who"].as_str().is_some() && newest["at"].as_str().is_some(), "{newest}");

    // Going back appends.
    let diff = get(&node, "/limits/shop/sale/diff?from=1&to=2");
    assert!(diff["unified"].as_str().unwrap().contains("-# 大促\n"), "{diff}");
    assert_eq!(diff["fields"], json!([{ "path": "max", "before": 2, "after": 3 }]));
    let back = json!({ "to": 1, "reason": "too much" });
    let (status, back) = call(&node, "POST", "/limits/shop/sale/rollback", "", &back);
    assert_eq!((status, &back["revision"]), (200, &json!(3)), "{back}");
    let shown = get(&node, "/limits/shop/sale");
    assert!(shown["content"].as_str().unwrap().starts_with("# 大促\n"), "{shown}");
}

#[test]
fn what_is_wrong_is_refused_with_its_line_and_changes_nothing() {
    let node = Gateway::start_dev("rules-refused", CONFIG);
    let refused = |path: &str, content: Value| {
        let (status, document) = call(&node, "PUT", path, "", &json!({ "content": content }));
        assert_eq!((status, &document["code"]), (422, &json!("invalid-rule")), "{document}");
        document["errors"].clone()
    };
    let errors = refused("/limits/default/x", json!("max = 10\nburst_max = 3\n"));
    let first = &errors[0];
    assert_eq!(
        (&first["line"], &first["column"], &first["path"]),
        (&json!(2), &json!(1), &json!("burst_max"))
    );
    assert_eq!(
        (&first["code"], &first["suggestion"]),
        (&json!("config-unknown-key"), &json!("did you mean `burst`?"))
    );
    // A name that leads nowhere, a range, a broken text, a table given as a document.
    for (path, content, code, line) in [
        ("/routes/default/x", json!("path = '/x'\nto = 'nobody'"), "config-unknown-reference", 2),
        ("/circuits/default/x", json!("\n\nprobes = 0"), "config-out-of-range", 3),
        ("/upstreams/default/x", json!("instances = ["), "config-syntax", 1),
        (
            "/fallbacks/default/x",
            json!({ "steps": [{ "when": ["any"], "fail": { "status": 7 } }] }),
            "config-out-of-range",
            5,
        ),
        ("/limits/default/x", json!("[limit.x]\nmax = 1"), "config-unknown-key", 1),
        (
            "/routes/shop/x",
            json!("namespace = 'other'\nprefix = '/'\nrespond = {}"),
            "config-contradiction",
            1,
        ),
    ] {
        let errors = refused(path, content);
        assert_eq!(
            (&errors[0]["code"], &errors[0]["line"]),
            (&json!(code), &json!(line)),
            "{errors}"
        );
        let (status, _) = call(&node, "GET", path, "", &Value::Null);
        assert_eq!(status, 404, "{path}");
    }
    let (status, validated) =
        call(&node, "POST", "/limits/validate", "", &json!({ "content": "max = 0" }));
    assert_eq!((status, &validated["errors"][0]["path"]), (200, &json!("max")), "{validated}");

    // What a file has is changed there, and a name is used once.
    let (status, elsewhere) =
        call(&node, "PUT", "/limits/default/of-file", "", &json!({ "content": "max = 1" }));
    assert_eq!((status, &elsewhere["code"]), (409, &json!("managed-elsewhere")));
    assert!(elsewhere["managed_by"].as_str().unwrap().contains("mainstay.toml:"), "{elsewhere}");
    let (status, _) = call(&node, "DELETE", "/limits/default/of-file", WHY, &Value::Null);
    assert_eq!(status, 409);
    put(&node, "/limits/shop/api", "max = 5");
    let errors = refused("/limits/other/api", json!("max = 5"));
    assert_eq!(errors[0]["code"], "config-duplicate-key");
}

#[test]
fn changes_are_conditional_tried_and_removed_when_nobody_needs_them() {
    let node = Gateway::start_dev("rules-conditions", CONFIG);
    put(&node, "/upstreams/default/order", "instances = [\"127.0.0.1:9\"]");
    let route = json!({ "content": { "prefix": "/orders", "to": "order", "switch": null } });
    let (status, tried) = call(&node, "PUT", "/routes/default/orders?dry_run=true", "", &route);
    assert_eq!((status, &tried["dry_run"], &tried["revision"]), (200, &json!(true), &json!(1)));
    assert!(
        tried["diff"]["unified"].as_str().unwrap().contains("+prefix = \"/orders\""),
        "{tried}"
    );
    assert_eq!(call(&node, "GET", "/routes/default/orders", "", &Value::Null).0, 404);
    let (status, _) = call(&node, "PUT", "/routes/default/orders", "if-match: \"0\"\r\n", &route);
    assert_eq!(status, 200);
    let (status, moved) =
        call(&node, "PUT", "/routes/default/orders", "if-match: \"7\"\r\n", &route);
    assert_eq!(
        (status, &moved["code"], &moved["current"]["revision"]),
        (412, &json!("revision-moved"), &json!(1))
    );

    let (status, used) = call(&node, "DELETE", "/upstreams/default/order", WHY, &Value::Null);
    assert_eq!((status, &used["code"]), (409, &json!("rule-in-use")), "{used}");
    assert_eq!(used["referenced_by"], json!(["route default/orders"]));
    assert_eq!(
        call(&node, "DELETE", "/routes/default/orders", "", &Value::Null).0,
        422,
        "no reason"
    );
    assert_eq!(call(&node, "DELETE", "/routes/default/orders", WHY, &Value::Null).0, 200);
    assert_eq!(call(&node, "DELETE", "/upstreams/default/order", WHY, &Value::Null).0, 200);
    assert_eq!(ask(&node, "/orders").0, 404);
    let back = json!({ "to": 1, "reason": "it was needed" });
    assert_eq!(call(&node, "POST", "/upstreams/default/order/rollback", "", &back).0, 200);

    let names = |path: &str| -> Vec<String> {
        let list = get(&node, path);
        let name = |item: &Value| {
            format!("{} {}", item["name"].as_str().unwrap(), item["managed_by"].as_str().unwrap())
        };
        list["items"].as_array().unwrap().iter().map(name).collect()
    };
    put(&node, "/limits/shop/api", "max = 5");
    assert_eq!(names("/limits/default"), ["of-file file"]);
    assert_eq!(names("/limits"), ["of-file file", "api api"]);
    assert_eq!(names("/limits?limit=1"), ["of-file file"]);
    assert_eq!(names("/limits?after=default/of-file"), ["api api"]);
    assert_eq!(names("/routes/test"), Vec::<String>::new(), "a namespace like any other");
    let kinds = get(&node, "/kinds");
    let paths: Vec<&str> = kinds["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kind| kind["path"].as_str().unwrap())
        .collect();
    assert_eq!(
        paths,
        ["/routes", "/upstreams", "/circuits", "/limits", "/fallbacks", "/switches", "/plans"]
    );
}

#[test]
fn a_rule_that_no_longer_fits_takes_nothing_down() {
    let mut node = Gateway::start_dev("rules-unfit", CONFIG);
    put(
        &node,
        "/routes/default/api",
        "path = \"/api\"\nrespond = { body = \"api\" }\nlimits = [\"of-file\"]",
    );
    put(&node, "/routes/default/free", "path = \"/free\"\nrespond = { body = \"free\" }");
    // The limit that one of them names goes away: the reload is refused, and says which.
    let without =
        CONFIG.replace("limits = [\"of-file\"]", "").replace("[limit.of-file]\nmax = 1000\n", "");
    node.configure(&without);
    node.signal(Signal::HUP);
    until("the reload is refused", PATIENCE, || {
        node.log().contains("route default/api, revision 1:3")
    });
    assert_eq!(ask(&node, "/api"), (200, "api".to_owned()));
    assert_eq!(ask(&node, "/file").0, 200);

    // A start cannot keep what was before: what does not fit is left out, and the rest serves.
    node.signal(Signal::KILL);
    node.ended();
    let node = node.again("rules-unfit-again", &[]);
    assert_eq!(
        (ask(&node, "/api").0, ask(&node, "/free").0, ask(&node, "/file").0),
        (404, 200, 200)
    );
    let shown = get(&node, "/routes/default/api");
    assert_eq!(shown["state"], "unfit", "{shown}");
    assert!(shown["problem"].as_str().unwrap().contains("of-file"), "{shown}");
    assert_eq!(node.counted("mainstay_rules{kind=\"route\",state=\"unfit\"}", ""), 1);
    assert!(node.log().contains("rule does not fit"));

    // Another rule is not held up by it, and it is in force as soon as it fits.
    put(&node, "/routes/default/other", "path = \"/other\"\nrespond = {}");
    put(&node, "/limits/default/of-file", "max = 1000");
    assert_eq!((ask(&node, "/other").0, ask(&node, "/api").0), (204, 200));
    // A file that uses the name of a rule wins.
    let taken = format!(
        "{without}[route.free]\npath = \"/free\"\nrespond = {{ body = \"of the file\" }}\n"
    );
    node.configure(&taken);
    node.signal(Signal::HUP);
    until("the file wins", PATIENCE, || ask(&node, "/free").1 == "of the file");
    assert_eq!(get(&node, "/routes/default/free")["managed_by"], "file");
    assert_eq!(call(&node, "DELETE", "/routes/default/free", WHY, &Value::Null).0, 200);
}

#[test]
fn a_gateway_without_state_shows_its_files() {
    let node = Gateway::start("rules-gateway", CONFIG);
    let shown = get(&node, "/limits/default/of-file");
    assert_eq!((&shown["managed_by"], &shown["content"]), (&json!("file"), &json!("max = 1000\n")));
    let (status, refused) =
        call(&node, "PUT", "/limits/default/x", "", &json!({ "content": "max = 1" }));
    assert_eq!((status, &refused["code"]), (409, &json!("managed-elsewhere")), "{refused}");
}

#[test]
fn the_command_line_edits_rules_and_says_how_to_undo_it() {
    let node = Gateway::start_dev("rules-cli", CONFIG);
    let file = |name: &str, text: &str| file_in(&node, name, text);
    file("sale.toml", "path = \"/sale\" # 大促\nrespond = { body = \"sale\" }\n");
    let pending = ["route", "set", "shop/sale", "-f", "sale.toml", "--dry-run", "--exit-code"];
    let (code, out, said) = node.cli(&pending);
    assert_eq!(code, 10, "{out}{said}");
    assert!(out.contains("+path = \"/sale\" # 大促"), "{out}");
    let set = ["route", "set", "shop/sale", "-f", "sale.toml", "--reason", "为了大促"];
    let (code, out, said) = node.cli(&set);
    assert_eq!((code, &*out), (0, "route shop/sale is now revision 1, in force\n"), "{said}");
    assert!(said.contains("undo: mainstay route remove shop/sale --reason …"), "{said}");
    assert_eq!(ask(&node, "/sale").1, "sale");
    let (code, out, _) = node.cli(&pending);
    assert_eq!((code, &*out), (0, ""), "nothing is pending");
    wrong_contents_are_shown_at_their_lines(&node);
    what_moved_is_shown_and_history_goes_back(&node);
    lists_and_removals_say_what_they_did(&node);
}

fn file_in(node: &Gateway, name: &str, text: &str) {
    std::fs::write(node.home().join(name), text).unwrap();
}

fn wrong_contents_are_shown_at_their_lines(node: &Gateway) {
    let file = |name: &str, text: &str| file_in(node, name, text);
    file("bad.toml", "path = \"/x\"\nrespond = { status = 99 }\n");
    for verb in ["set", "validate"] {
        let (code, _, said) = node.cli(&["route", verb, "shop/sale", "-f", "bad.toml"]);
        assert_eq!(code, 7, "{said}");
        assert!(said.contains("--> bad.toml:2:"), "{said}");
    }
    let (code, _, said) = node.cli(&["limit", "set", "of-file", "-f", "limit.toml"]);
    assert_eq!(code, 7, "{said}");
    file("limit.json", "{\"max\": 5}");
    let (code, _, said) = node.cli(&["limit", "set", "of-file", "-f", "limit.json"]);
    assert!(code == 4 && said.contains("managed-elsewhere"), "{code} {said}");
}

fn what_moved_is_shown_and_history_goes_back(node: &Gateway) {
    let file = |name: &str, text: &str| file_in(node, name, text);
    file("sale.toml", "path = \"/sale\"\nrespond = { body = \"over\" }\n");
    let (code, _, said) =
        node.cli(&["route", "set", "shop/sale", "-f", "sale.toml", "--base", "7"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("revision-moved") && said.contains("+respond"), "{said}");
    let (code, _, said) = node.cli(&["route", "set", "shop/sale", "-f", "sale.toml"]);
    assert!(code == 0 && said.contains("rollback shop/sale --to 1 --reason"), "{said}");
    let history = node.cli_json(&["route", "history", "shop/sale"]);
    assert_eq!(
        (&history["items"][1]["why"], &history["items"][1]["from"]),
        (&json!("为了大促"), &json!("cli"))
    );
    let (code, out, _) =
        node.cli(&["route", "diff", "shop/sale", "--from", "1", "--to", "2", "--exit-code"]);
    assert!(code == 10 && out.contains("-respond = { body = \"sale\" }"), "{out}");
    let back = ["route", "rollback", "shop/sale", "--to", "1"];
    assert_eq!(node.cli(&back).0, 2, "a reason is needed");
    let (code, out, said) = node.cli(&[&back[..], &["--reason", "not over yet"]].concat());
    assert!(code == 0 && out.contains("revision 3"), "{out}{said}");
    assert_eq!(ask(node, "/sale").1, "sale");
    let (code, out, said) = node.cli(&["route", "show", "shop/sale"]);
    assert!(code == 0 && out.starts_with("path = \"/sale\" # 大促\n"), "{out}");
    assert!(said.contains("not over yet"), "{said}");
}

fn lists_and_removals_say_what_they_did(node: &Gateway) {
    let file = |name: &str, text: &str| file_in(node, name, text);
    let (code, out, _) = node.cli(&["route", "list"]);
    assert!(code == 0 && out.contains("of-file") && out.contains("sale"), "{out}");
    assert_eq!(node.cli(&["route", "list", "-n", "shop", "-o", "name"]).1, "shop/sale\n");
    file("circuit.toml", "consecutive_failures = 3\n");
    assert_eq!(node.cli(&["circuit", "set", "strict", "-f", "circuit.toml"]).0, 0);
    assert!(node.cli(&["circuit", "list", "--policy"]).1.contains("strict"));
    assert_eq!(
        node.cli(&["circuit", "show", "strict", "--policy"]).1,
        "consecutive_failures = 3\n"
    );
    let gone = ["route", "remove", "shop/sale", "--reason", "it is over"];
    assert_eq!(node.cli(&gone).0, 2, "nobody confirms it");
    let (code, out, said) = node.cli(&[&gone[..], &["--yes"]].concat());
    assert_eq!((code, &*out), (0, "removed route shop/sale\n"), "{said}");
    assert!(said.contains("undo: mainstay route rollback shop/sale --to 3"), "{said}");
    assert_eq!(ask(node, "/sale").0, 404);
}
