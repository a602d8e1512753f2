//! What routes and policies make of a request, seen from outside the real binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/echo.rs"]
mod echo;
#[path = "support/support.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};

use echo::{curl, exchange, has};
use support::gateway::{Gateway, free_port};

/// A gateway with the services `one` and `two`, and what `more` says.
#[track_caller]
fn gateway(name: &str, more: &str) -> Gateway {
    let config = format!(
        r#"
server = {{ listen = "127.0.0.1:0" }}
[system] # these tests saturate two cores, which is what this would shed for
cpu_percent_max = 0
memory_percent_max = 0
[gateway]
listen = ["127.0.0.1:0"]
access_log = {{ format = "off" }}
[upstream.one]
instances = ["{}"]
[upstream.two]
instances = ["{}"]
{more}
"#,
        echo::serve("one"),
        echo::serve("two")
    );
    Gateway::start(name, &config)
}

/// Gets `path` with more arguments for curl.
#[track_caller]
fn get(gateway: &Gateway, path: &str, more: &[&str]) -> String {
    let url = format!("http://{}{path}", gateway.address(0));
    let arguments: Vec<&str> = more.iter().copied().chain([url.as_str()]).collect();
    curl(&arguments)
}

#[test]
fn a_limit_says_when_to_come_back() {
    let gateway = gateway(
        "limit",
        r#"
[route.r]
to = "one"
limits = ["few"]
[limit.few]
max = 2
window_seconds = 60
key = ["header:x-user"]
"#,
    );
    let ann = ["-H", "x-user: ann"];
    has(&get(&gateway, "/", &ann), &[" 200 ", "ratelimit: ", "ratelimit-policy: "]);
    has(&get(&gateway, "/", &ann), &[" 200 "]);
    let refused = [" 429 ", "retry-after: ", "ratelimit: ", "problem+json", "\"limited\""];
    has(&get(&gateway, "/", &ann), &refused);
    has(&get(&gateway, "/", &["-H", "x-user: ben"]), &[" 200 "]);
}

#[test]
fn a_fallback_answers_in_place_of_a_dead_service_and_says_so() {
    let gateway = gateway(
        "fallback",
        &format!(
            r#"
[route.r]
to = "dead"
fallback = "kept"
[upstream.dead]
instances = ["127.0.0.1:{}"]
[fallback.kept]
steps = [{{ when = ["connect", "circuit"], value = {{ body = '{{"left":0}}', content_type = "application/json" }} }}]
"#,
            free_port()
        ),
    );
    for _ in 0..10 {
        let wanted = [" 200 ", "application/json", "{\"left\":0}", "mainstay-outcome: "];
        has(&get(&gateway, "/", &[]), &wanted);
    }
}

#[test]
fn an_open_circuit_refuses_with_a_problem() {
    let gateway = gateway(
        "circuit",
        "[route.r]\nto = \"one\"\n[circuit.default]\nconsecutive_failures = 3\ncooldown_seconds = 60",
    );
    for _ in 0..3 {
        has(&get(&gateway, "/status/500", &[]), &[" 500 "]);
    }
    let refused = get(&gateway, "/status/500", &[]);
    has(
        &refused,
        &[" 503 ", "problem+json", "\"circuit-open\"", "\"status\":503", "retry-after: "],
    );
    has(&refused, &["mainstay-outcome: circuit-open"]);
}

#[test]
fn a_caller_stays_on_its_side_of_a_canary() {
    let gateway = gateway(
        "canary",
        r#"
[route.r]
to = [{ service = "one", weight = 70 }, { service = "two", weight = 30 }]
split_key = "header:x-user"
"#,
    );
    let mut sides: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut second = 0;
    for user in 0..40 {
        for _ in 0..3 {
            let field = format!("x-user: u{user}");
            let answer = get(&gateway, "/", &["-H", &field]);
            has(&answer, &[" 200 "]);
            let side = if answer.contains("x-served-by: two") { "two" } else { "one" };
            second += u32::from(side == "two");
            sides.entry(field).or_default().insert(side);
        }
    }
    assert!(sides.values().all(|sides| sides.len() == 1), "{sides:?}");
    // 30 % of 40 callers, by a hash that is always the same: not all on one side.
    assert!((3 * 4..=3 * 24).contains(&second), "{second}");
}

#[test]
fn paths_and_fields_are_changed_on_the_way() {
    let gateway = gateway(
        "rewrite",
        r#"
[route.prefix]
prefix = "/orders"
to = "one"
rewrite = { prefix = "/v1/orders", host = "orders.internal" }
[route.template]
path = "/item/{id}"
to = "one"
rewrite = { path = "/articles/{id}/view" }
[route.old]
prefix = "/old"
redirect = { prefix = "/orders", status = 308 }
[route.fixed]
path = "/robots.txt"
respond = { status = 200, body = "none", content_type = "text/plain" }
[route.rules]
path = "/rules"
to = "one"
[route.rules.header_rules]
request = { set = { x-gateway = "{route}" }, remove = ["x-secret"] }
response = { remove = ["server"], add = { x-after = "yes" } }
"#,
    );
    has(&get(&gateway, "/orders/7?a=1", &[]), &["GET /v1/orders/7?a=1 ", "host: orders.internal"]);
    has(&get(&gateway, "/item/7", &[]), &["GET /articles/7/view "]);
    has(&get(&gateway, "/old/7?a=1", &[]), &[" 308 ", "location: /orders/7?a=1"]);
    has(&get(&gateway, "/robots.txt", &[]), &[" 200 ", "content-type: text/plain", "\nnone"]);
    let ruled = get(&gateway, "/rules", &["-H", "x-secret: s"]);
    has(&ruled, &[" 200 ", "x-gateway: rules", "x-after: yes"]);
    assert!(!ruled.contains("x-secret") && !ruled.contains("server: echo"), "{ruled}");
}

#[test]
fn what_cannot_be_served_is_refused_by_its_status() {
    let gateway = gateway(
        "refusals",
        r#"
[route.r]
prefix = "/here"
methods = ["GET", "POST"]
to = "one"
body_bytes_max = 10
"#,
    );
    let problem = "application/problem+json";
    has(&get(&gateway, "/nowhere", &[]), &[" 404 ", problem, "route-not-found"]);
    has(&get(&gateway, "/here", &["-X", "DELETE"]), &[" 405 ", problem, "allow: ", "GET", "POST"]);
    has(&get(&gateway, "/here", &["-d", "elevenbytes"]), &[" 413 ", problem, "body-too-large"]);
    let chunked = ["-H", "transfer-encoding: chunked", "-d", "elevenbytes"];
    has(&get(&gateway, "/here", &chunked), &[" 413 "]);
    let long = format!("/here/{}", "a".repeat(9_000));
    has(&get(&gateway, &long, &[]), &[" 414 "]);
    let big = format!("x-big: {}", "b".repeat(40_000));
    let ask = format!("GET /here HTTP/1.1\r\nhost: a\r\n{big}\r\n\r\n");
    has(&exchange(gateway.address(0), &ask), &[" 431 "]);
    let many: Vec<String> = (0..120).map(|n| format!("x-{n}: 1\r\n")).collect();
    let ask = format!("GET /here HTTP/1.1\r\nhost: a\r\n{}\r\n", many.concat());
    has(&exchange(gateway.address(0), &ask), &[" 431 "]);
    let smuggled = "POST /here HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\
        transfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    has(&exchange(gateway.address(0), smuggled), &[" 400 ", "connection: close"]);
}
