//! Who may come in, what is there, and what is not.

use serde_json::json;

use super::support::gateway::Gateway;
use super::support::participant::Participant;
use super::{CONFIG, ask, base, becomes, get, post, refuses, steps, succeeds, with};

#[test]
fn what_is_there_answers_and_what_is_not_says_so() {
    let node = Gateway::start_dev("dtm-door", CONFIG);
    let version = get(&node, "version");
    assert!(version["version"].as_str().unwrap().starts_with("v1.19.0+mainstay."), "{version}");
    let (one, two) = (get(&node, "newGid"), get(&node, "newGid"));
    assert_eq!(one["dtm_result"], "SUCCESS");
    assert_ne!(one["gid"], two["gid"]);
    assert!(one.as_object().unwrap().values().all(serde_json::Value::is_string), "{one}");
    for method in ["GET", "POST"] {
        let pong = ask(node.control, method, "ping", "", "");
        assert_eq!(pong, (200, r#"{"msg":"pong"}"#.to_owned()));
    }
    let (status, metrics) = ask(node.control, "GET", "metrics", "", "");
    assert_eq!(status, 200);
    assert!(metrics.contains("mainstay_transaction_live_count"), "{metrics}");
    for (method, path) in [
        ("POST", "dtmsvr/prepareWorkflow"),
        ("GET", "dtmsvr/subscribe?topic=a"),
        ("DELETE", "dtmsvr/topic/a"),
        ("GET", "dtmsvr/scanKV"),
        ("POST", "json-rpc"),
    ] {
        let (status, text) = ask(node.control, method, path, "", "");
        assert_eq!(status, 501, "{path}");
        assert!(text.contains("docs/dtm.md"), "{text}");
    }
    let (status, text) = ask(node.control, "GET", "dtmsvr/query", "", "");
    assert_eq!((status, text.as_str()), (500, r#"{"message":"no gid specified"}"#));
    assert_eq!(get(&node, "query?gid=x"), json!({ "transaction": null, "branches": [] }));
}

#[test]
fn whoever_asks_elsewhere_needs_the_token() {
    let node = Gateway::start_server("dtm-server", CONFIG);
    let prepare = base("g", "tcc").to_string();
    let asks = |headers: &str| ask(node.control, "POST", "dtmsvr/prepare", headers, &prepare).0;
    assert_eq!(asks(""), 403);
    assert_eq!(asks("authorization: Basic Og==\r\n"), 403);
    let (status, _) = node.call("POST", "/api/dtmsvr/prepare", &prepare);
    assert_eq!(status, 200, "as Bearer");
    assert_eq!(asks(&node.basic()), 200, "as the password of the URL");
    assert_eq!(ask(node.control, "GET", "ping", "", "").0, 200, "probes have no token");
    // In `dev` everybody on this machine may, but for pages of the web.
    let dev = Gateway::start_dev("dtm-dev", CONFIG);
    let asks = |headers: &str| ask(dev.control, "POST", "dtmsvr/prepare", headers, &prepare).0;
    assert_eq!(asks("origin: http://evil.example\r\n"), 403);
    assert_eq!(asks(""), 200);
    // A picture of a page has no origin, and one of the verbs of DTM is a GET.
    let looks = |site: &str| {
        let headers = format!("sec-fetch-site: {site}\r\n");
        ask(dev.control, "GET", "dtmsvr/resetCronTime", &headers, "").0
    };
    assert_eq!([looks("cross-site"), looks("same-site"), looks("none")], [403, 403, 200]);
}

#[test]
fn the_token_of_this_server_is_passed_through_to_nobody() {
    let config = format!("{CONFIG}passthrough_sensitive = true\n");
    let (node, shop) = (Gateway::start_server("dtm-token", &config), Participant::start());
    let more = json!({ "passthrough_headers": ["authorization", "cookie"], "wait_result": true });
    let saga = with(steps(&shop, "s", "saga", &["a"]), more).to_string();
    let submit = |node: &Gateway, headers: &str| {
        assert_eq!(ask(node.control, "POST", "dtmsvr/submit", headers, &saga).0, 200);
        let headers = &shop.asked().pop().unwrap().headers;
        ["authorization", "cookie"].map(|name| headers.get(name).cloned())
    };
    let cookie = Some("a=1".to_owned());
    let theirs = format!("cookie: a=1\r\n{}", node.basic());
    assert_eq!(submit(&node, &theirs), [None, cookie.clone()]);
    // Where nobody needs one, it is the branches' own.
    let dev = Gateway::start_dev("dtm-token-dev", &config);
    let theirs = "cookie: a=1\r\nauthorization: Bearer theirs\r\n";
    assert_eq!(submit(&dev, theirs), [Some("Bearer theirs".to_owned()), cookie]);
}

#[test]
fn the_door_can_stand_alone_or_be_shut() {
    let at = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let alone = format!("{CONFIG}http_listen = \"{at}\"\n");
    let node = Gateway::start_dev("dtm-alone", &alone);
    assert_eq!(ask(at, "GET", "dtmsvr/newGid", "", "").0, 200);
    assert_eq!(ask(at, "GET", "v1/settings", "", "").0, 404, "nothing else is there");
    drop(node);
    let shut = Gateway::start_dev("dtm-shut", &format!("{CONFIG}enabled = false\n"));
    let (status, text) = post(&shut, "prepare", &base("g", "tcc"));
    assert_eq!(status, 404);
    assert!(text.contains("docs/dtm.md"), "{text}");
}

#[test]
fn transactions_are_listed_page_by_page_the_newest_first() {
    let (node, shop) = (Gateway::start_dev("dtm-all", CONFIG), Participant::start());
    for n in 0..5 {
        succeeds(&node, "submit", &steps(&shop, &format!("s{n}"), "saga", &["a"]));
        becomes(&node, &format!("s{n}"), "succeed");
    }
    for n in 0..3 {
        succeeds(&node, "prepare", &base(&format!("t{n}"), "tcc"));
    }
    let gids = |query: &str| -> (Vec<String>, String) {
        let page = get(&node, &format!("all?{query}"));
        let items = page["transactions"].as_array().unwrap().iter();
        let gids = items.map(|item| item["gid"].as_str().unwrap().to_owned()).collect();
        (gids, page["next_position"].as_str().unwrap().to_owned())
    };
    // One that ends while pages are read may be missing there; a moment later all are there.
    let mut all = Vec::new();
    super::support::wait::until("all are listed", super::PATIENCE, || {
        let mut next;
        (all, next) = gids("limit=3");
        while !next.is_empty() {
            let (more, then) = gids(&format!("limit=3&position={next}"));
            all.extend(more);
            next = then;
        }
        8 <= all.len()
    });
    assert_eq!(all[..3], ["t2", "t1", "t0"], "what is live comes first");
    all.sort();
    assert_eq!(all, ["s0", "s1", "s2", "s3", "s4", "t0", "t1", "t2"], "each once");
    assert_eq!(gids("transType=tcc&status=prepared").0, ["t2", "t1", "t0"]);
    assert_eq!(gids("status=failed").0, Vec::<String>::new());
    assert_eq!(gids("transType=workflow").0, Vec::<String>::new());
    assert_eq!(gids("gid=s3").0, ["s3"]);
    assert_eq!(gids("createTimeStart=9999999999999").0, Vec::<String>::new());
    let (status, _) = ask(node.control, "GET", "dtmsvr/all?limit=x", "", "");
    assert_eq!(status, 500);
}

#[test]
fn operators_stop_and_hurry_and_it_is_recorded() {
    let (node, shop) = (Gateway::start_dev("dtm-operate", CONFIG), Participant::start());
    shop.answers("/down", 500, "");
    let slow = json!({ "retry_interval": 200 });
    for gid in ["stuck", "late", "later"] {
        succeeds(&node, "submit", &with(steps(&shop, gid, "saga", &["down"]), slow.clone()));
    }
    succeeds(&node, "prepare", &base("open", "tcc"));
    super::support::wait::until("all were tried", super::PATIENCE, || shop.count("/down") == 3);
    for gid in ["stuck", "open"] {
        succeeds(&node, "forceStop", &json!({ "gid": gid }));
        becomes(&node, gid, "failed");
        refuses(&node, "forceStop", &json!({ "gid": gid }), 409, "ended");
    }
    assert_eq!(shop.count("/undo-down"), 0, "without compensation");
    shop.answers("/down", 200, "");
    let hurried = get(&node, "resetCronTime?timeout=1&limit=1");
    assert_eq!(hurried, json!({ "has_remaining": true, "succeed_count": 1 }));
    let hurried = get(&node, "resetCronTime?timeout=1");
    assert_eq!(hurried, json!({ "has_remaining": false, "succeed_count": 1 }));
    becomes(&node, "late", "succeed");
    becomes(&node, "later", "succeed");
    let (_, records) = node.control("/api/v1/audit?action=transaction:*");
    let records: serde_json::Value = serde_json::from_str(&records).unwrap();
    let items = records["items"].as_array().unwrap();
    let made = |action: &str| items.iter().filter(|item| item["action"] == action).count();
    assert_eq!((made("transaction:resolve"), made("transaction:retry")), (2, 2), "{records}");
    assert!(items.iter().all(|item| item["actor"]["via"] == "dtm"), "{records}");
}
