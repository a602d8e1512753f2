//! What a real process shows of rules: secrets as marks, warnings, namespaces.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/origin.rs"]
#[allow(dead_code, reason = "what it counted is not asked here")]
mod origin;
#[path = "support/support.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use origin::Origin;
use serde_json::{Value, json};
use support::gateway::Gateway;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
[limit.of-file]
namespace = "shop"
max = 1000
[upstream.shop]
instances = ["127.0.0.1:1"]
[route.of-file]
path = "/file"
to = "shop"
header_rules = { request = { set = { authorization = "Bearer of-file" } } }
"#;

const WHY: &str = "mainstay-reason: for%20the%20test\r\n";

fn call(node: &Gateway, method: &str, path: &str, headers: &str, body: &Value) -> (u16, Value) {
    let headers = format!("content-type: application/json\r\n{headers}");
    let (status, body) =
        node.call_with(method, &format!("/api/v1{path}"), &headers, &body.to_string());
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

#[track_caller]
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

#[test]
fn nobody_is_shown_a_secret_and_its_mark_can_be_put_back() {
    let node = Gateway::start_dev("rules-secrets", CONFIG);
    let rule = |secret: &str, text: &str| {
        format!(
            "path = '/x' # {text}\nto = 'shop'\n\
             header_rules = {{ request = {{ set = {{ authorization = 'Bearer {secret}' }} }} }}\n"
        )
    };
    put(&node, "/routes/default/x", &rule("s3cret-one", "first"));
    put(&node, "/routes/default/x", &rule("s3cret-two", "second"));
    let shown = get(&node, "/routes/default/x");
    let content = shown["content"].as_str().unwrap().to_owned();
    assert!(content.contains("authorization = \"***"), "{content}");

    // Changed and put back, it is the secret again: only the comment differs.
    let back = put(&node, "/routes/default/x", &content.replace("second", "third"));
    let unified = back["diff"]["unified"].as_str().unwrap();
    assert!(unified.contains("+path = '/x' # third") && !unified.contains("+header"), "{unified}");
    put(&node, "/routes/default/x", &rule("s3cret-two", "third"));
    let (status, history) = call(&node, "GET", "/routes/default/x/history", "", &Value::Null);
    assert_eq!((status, &history["items"][0]["revision"]), (200, &json!(3)), "it was the same");

    // A mark that stands for nothing is refused where it stands.
    let foreign = json!({ "content": rule("x", "y").replace("'Bearer x'", "'***00000000'") });
    let (status, refused) = call(&node, "PUT", "/routes/default/x", WHY, &foreign);
    assert_eq!((status, &refused["errors"][0]["line"]), (422, &json!(3)), "{refused}");
    let path = "header_rules.request.set.authorization";
    assert_eq!(refused["errors"][0]["path"], path);

    let (status, moved) = call(
        &node,
        "PUT",
        "/routes/default/x",
        "if-match: \"1\"\r\n",
        &json!({ "content": rule("s3cret-three", "") }),
    );
    assert_eq!((status, &moved["current"]["revision"]), (412, &json!(3)));
    let told = [
        shown,
        back,
        moved,
        history,
        get(&node, "/routes/default/x/diff?from=1&to=2"),
        get(&node, "/audit?limit=100"),
        get(&node, "/routes/default/of-file"),
        call(
            &node,
            "PUT",
            "/routes/default/x?dry_run=true",
            "",
            &json!({ "content": rule("s3cret-four", "") }),
        )
        .1,
    ];
    for document in told {
        let text = document.to_string();
        assert!(!text.contains("s3cret") && !text.contains("Bearer of-file"), "{text}");
    }
    assert!(!node.log().contains("s3cret"));
    // That secrets differ is seen.
    let fields = &get(&node, "/routes/default/x/diff?from=1&to=2")["fields"];
    assert_eq!(fields[0]["path"], "header_rules/request/set/authorization", "{fields}");
}

#[test]
fn what_is_probably_not_meant_is_said() {
    let node = Gateway::start_dev("rules-warnings", CONFIG);
    let codes = |document: &Value| -> Vec<String> {
        let list = document["warnings"].as_array().unwrap();
        list.iter().map(|warning| warning["code"].as_str().unwrap().to_owned()).collect()
    };
    let limit = put(&node, "/limits/shop/sale", "max = 5\nmode = 'observe'\nscale_switch = 'big'");
    assert_eq!(codes(&limit), ["rule-unused", "rule-observes", "switch-missing"], "{limit}");
    assert_eq!(limit["warnings"][2]["path"], "scale_switch");
    let route = "path = '/sale'\nrespond = {}\nlimits = ['sale']\nswitch = 'sale'";
    let (status, tried) = call(
        &node,
        "POST",
        "/routes/validate",
        "",
        &json!({ "content": route, "namespace": "shop" }),
    );
    assert_eq!((status, codes(&tried)), (200, vec!["switch-missing".to_owned()]), "{tried}");
    let switch = json!({ "content": { "type": "boolean", "default": true, "value": true } });
    let (status, said) = call(&node, "PUT", "/switches/shop/sale", WHY, &switch);
    assert_eq!(status, 200, "{said}");
    assert_eq!(codes(&put(&node, "/routes/shop/sale", route)), Vec::<String>::new());
    assert_eq!(codes(&put(&node, "/limits/shop/sale", "max = 6")), Vec::<String>::new());
    assert_eq!(codes(&put(&node, "/circuits/shop/own", "probes = 3")), ["rule-unused"]);
    assert_eq!(
        codes(&put(&node, "/upstreams/shop/own", "instances = ['127.0.0.1:9']")),
        ["rule-unused"]
    );

    std::fs::write(node.home().join("limit.toml"), "max = 3\nmode = \"observe\"\n").unwrap();
    for verb in ["validate", "set"] {
        let (code, _, said) = node.cli(&["limit", verb, "shop/other", "-f", "limit.toml"]);
        assert!(code == 0 && said.contains("warning: `mode` is `observe`"), "{code} {said}");
    }
    let shadowed = json!({ "content": "max = 1", "namespace": "shop", "name": "of-file" });
    let (_, said) = call(&node, "POST", "/limits/validate", "", &shadowed);
    assert!(codes(&said).contains(&"managed-elsewhere".to_owned()), "{said}");
}

#[test]
fn every_kind_says_its_namespace() {
    let node = Gateway::start_dev("rules-namespace", CONFIG);
    let shown = get(&node, "/limits/shop/of-file");
    assert_eq!((&shown["namespace"], &shown["managed_by"]), (&json!("shop"), &json!("file")));
    assert_eq!(call(&node, "GET", "/limits/default/of-file", "", &Value::Null).0, 404);
    put(&node, "/limits/a/one", "namespace = 'a'\nmax = 1");
    put(&node, "/circuits/a/one", "namespace = 'a'\nprobes = 2");
    put(&node, "/fallbacks/a/one", "namespace = 'a'\nsteps = [{ when = ['any'], silent = {} }]");
    for (path, content) in [
        ("/limits/b/two", "namespace = 'a'\nmax = 1"),
        ("/circuits/b/two", "namespace = 'a'"),
        ("/fallbacks/b/two", "namespace = 'a'\nsteps = [{ when = ['any'], silent = {} }]"),
    ] {
        let (status, refused) = call(&node, "PUT", path, WHY, &json!({ "content": content }));
        assert_eq!(status, 422, "{refused}");
        assert_eq!(refused["errors"][0]["path"], "namespace", "{refused}");
    }
}

#[test]
fn a_proposal_is_played_through_with_the_calls_there_were() {
    let node = Gateway::start_dev("rules-simulate", CONFIG);
    let simulate = |path: &str, content: &str| {
        let body = json!({ "content": content, "namespace": "shop", "name": "sale" });
        let (status, told) = call(&node, "POST", &format!("{path}/simulate"), "", &body);
        assert_eq!(status, 200, "{told}");
        told
    };
    let nothing = simulate("/limits", "max = 1");
    assert_eq!((&nothing["records"], &nothing["note"]), (&json!(0), &json!("nothing to replay")));

    put(&node, "/limits/shop/sale", "kind = 'counter'\nmax = 6\nwindow_seconds = 3600");
    let origin = Origin::start();
    put(&node, "/upstreams/shop/order", &format!("instances = ['{}']", origin.address));
    put(&node, "/routes/shop/sale", "path = '/sale'\nto = 'order'\nlimits = ['sale']");
    let answers: Vec<u16> = (0..8).map(|_| ask(&node, "/sale")).collect();
    assert_eq!(answers, [200, 200, 200, 200, 200, 200, 429, 429]);
    assert_eq!(ask(&node, "/elsewhere"), 404);

    let told = simulate("/limits", "kind = 'counter'\nmax = 5\nwindow_seconds = 3600");
    assert_eq!(told["guards"], json!(["route sale"]), "{told}");
    assert_eq!(told["actual"], json!({ "permitted": 6, "denied": 2, "rejected_open": 0 }));
    let proposed = &told["proposed"];
    assert_eq!((&proposed["permitted"], &proposed["denied"]), (&json!(5), &json!(3)), "{told}");
    assert_eq!(proposed["top_keys"].as_array().unwrap().len(), 1, "one caller: {told}");
    let slices = proposed["by_10s"].as_array().unwrap();
    let sum: u64 = slices.iter().map(|slice| slice["permitted"].as_u64().unwrap()).sum();
    assert_eq!(sum, 5, "{told}");
    let told = simulate("/limits", "kind = 'adaptive'");
    assert!(told["proposed"].is_null() && told["note"].is_string(), "{told}");
    // The two that were refused reached no instance.
    let told = simulate("/circuits", "consecutive_failures = 1");
    assert_eq!(
        (&told["records"], &told["proposed"]["permitted"]),
        (&json!(6), &json!(6)),
        "{told}"
    );

    let body = json!({ "content": "max = 0" });
    let (status, refused) = call(&node, "POST", "/limits/simulate", "", &body);
    assert_eq!((status, &refused["code"]), (422, &json!("invalid-rule")), "{refused}");
    let body = json!({ "content": "max = 1", "replay_seconds": 901 });
    assert_eq!(call(&node, "POST", "/limits/simulate", "", &body).0, 422);
    assert_eq!(call(&node, "POST", "/routes/simulate", "", &body).0, 405);
    let kinds = get(&node, "/kinds");
    let simulates = |kind: &Value| kind["simulates"] == true;
    assert_eq!(kinds["items"].as_array().unwrap().iter().filter(|kind| simulates(kind)).count(), 2);

    std::fs::write(node.home().join("limit.toml"), "max = 1\nwindow_seconds = 3600\n").unwrap();
    let (code, out, said) = node.cli(&["limit", "simulate", "shop/sale", "-f", "limit.toml"]);
    assert!(
        code == 0 && out.contains("proposed: 1 permitted, 7 denied, 0 rejected"),
        "{out}{said}"
    );
    assert_eq!(node.cli(&["route", "simulate", "shop/sale", "-f", "limit.toml"]).0, 2);
    assert!(node.control("/metrics").1.contains("mainstay_simulate_duration_seconds_count"));
}

/// The status the gateway answers with.
fn ask(node: &Gateway, path: &str) -> u16 {
    let mut stream = TcpStream::connect(node.address(0)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}
