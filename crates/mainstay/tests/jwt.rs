//! Callers known by tokens, through the real binary: keys of a real server, tokens of `openssl`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/echo.rs"]
mod echo;
#[path = "support/issuer.rs"]
mod issuer;
#[path = "support/support.rs"]
mod support;

use std::time::Duration;

use echo::{curl, exchange};
use issuer::{Answer, Issuer, Key, part};
use serde_json::{Value, json};
use support::gateway::Gateway;
use support::wait::{now, until};

const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway in front of a service that tells what reached it. `/open` needs no token, `/free` looks
/// at none, `/own` is the gateway's own answer.
struct Door {
    gateway: Gateway,
}

/// Routes, and an issuer with `more` in its table.
fn config(issuer: &Issuer, more: &str) -> String {
    let (name, upstream) = (issuer.name(), echo::serve("e"));
    format!(
        r#"
server = {{ listen = "127.0.0.1:0" }}
[gateway]
listen = ["127.0.0.1:0"]
[[gateway.jwt]]
issuer = "{name}"
audiences = ["orders"]
algorithms = ["RS256"]
claims_to_headers = {{ sub = "x-user", groups = "x-groups" }}
{more}
[route.all]
jwt = "required"
to = "all"
[route.open]
prefix = "/open"
to = "all"
[route.free]
prefix = "/free"
jwt = "off"
to = "all"
[route.own]
prefix = "/own"
jwt = "required"
respond = {{ status = 200, body = "own" }}
[upstream.all]
instances = ["{upstream}"]
retry = {{ attempts = 1 }}
[system]
cpu_percent_max = 0
memory_percent_max = 0
"#
    )
}

impl Door {
    #[track_caller]
    fn new(name: &str, issuer: &Issuer, more: &str) -> Self {
        Self { gateway: Gateway::start_dev(name, &config(issuer, more)) }
    }

    /// The whole answer over HTTP/1.1 to a request with `fields`.
    #[track_caller]
    fn ask(&self, path: &str, fields: &str) -> String {
        let head = format!("GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n");
        exchange(self.gateway.address(0), &format!("{head}{fields}\r\n"))
    }

    /// Status and code of a request with `token`.
    #[track_caller]
    fn verdict(&self, token: &str) -> String {
        let answer = self.ask("/x", &format!("authorization: Bearer {token}\r\n"));
        let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let code = serde_json::from_str::<Value>(body).ok();
        let code = code.and_then(|body| body["code"].as_str().map(str::to_owned));
        code.map_or_else(|| status.clone(), |code| format!("{status} {code}"))
    }

    /// The issuer's entry of `GET /api/v1/jwks`.
    #[track_caller]
    fn keys(&self) -> Value {
        let (status, body) = self.gateway.control("/api/v1/jwks");
        assert_eq!(status, 200, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        body["items"][0].clone()
    }

    /// What the gateway's metrics have after `line`.
    fn counted(&self, line: &str) -> Option<f64> {
        let (_, metrics) = self.gateway.control("/metrics");
        let rest = metrics.lines().find_map(|found| found.strip_prefix(line).map(str::to_owned))?;
        rest.trim().parse().ok()
    }

    #[track_caller]
    fn refresh(&self, issuer: &Issuer) -> Value {
        let name = issuer.name().replace(':', "%3A").replace('/', "%2F");
        let path = format!("/api/v1/jwks/{name}/refresh");
        let (status, body) = self.gateway.call("POST", &path, "{}");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

/// An issuer that publishes one key, and a gateway that trusts it.
fn usual(name: &str, more: &str) -> (Issuer, Key, Door) {
    let issuer = Issuer::start();
    let key = issuer.key("a");
    issuer.publishes(&[&key]);
    let door = Door::new(name, &issuer, more);
    (issuer, key, door)
}

#[test]
fn a_service_is_told_who_calls_and_by_nobody_else() {
    let (issuer, key, door) = usual("jwt-told", "");
    let mut claims = issuer.claims("ada");
    claims["groups"] = json!(["dev", "ops"]);
    let token = key.token(&claims);
    let forged = "X_User: root\r\nx-user: root\r\nX-GROUPS: admin\r\nx_mainstay_x: 1\r\n";
    for path in ["/x", "/open/x"] {
        let answer = door.ask(path, &format!("{forged}Authorization: bEaReR {token}\r\n"));
        echo::has(&answer, &[" 200 ", "x-user: ada\n", "x-groups: dev,ops\n"]);
        for gone in ["root", "admin", "x_mainstay", "authorization", &*token] {
            assert!(!answer.contains(gone), "{gone} in {answer}");
        }
    }
    // Nobody is told of where nobody is known, and no route lets a caller say it himself.
    for path in ["/open/x", "/free/x"] {
        let answer = door.ask(path, forged);
        assert!(answer.contains(" 200 ") && !answer.contains("user"), "{answer}");
    }
    // Where no token is looked at, it is the service's business.
    let opaque = door.ask("/free/x", "authorization: Bearer opaque\r\n");
    echo::has(&opaque, &[" 200 ", "authorization: bearer opaque"]);
    let own = door.ask("/own", &format!("authorization: Bearer {token}\r\n"));
    echo::has(&own, &[" 200 ", "own"]);
    until("the log has it", PATIENCE, || {
        door.gateway.printed().contains("\"mainstay.principal.kind\":\"external\"")
    });
    let said = door.gateway.printed() + &door.gateway.log();
    assert!(said.contains(&format!("\"mainstay.principal.issuer\":\"{}\"", issuer.name())));
    for part in token.split('.') {
        assert!(!said.contains(part), "the token is in a log");
    }
}

#[test]
fn whoever_brings_no_token_where_one_is_needed_is_not_let_in() {
    let (_issuer, _key, door) = usual("jwt-missing", "");
    for (path, fields) in [("/x", ""), ("/own", ""), ("/x", "authorization: Basic YTpi\r\n")] {
        let answer = door.ask(path, fields);
        echo::has(&answer, &[" 401 ", "www-authenticate: Bearer\r\n", "\"unauthenticated\""]);
    }
    let basic = door.ask("/open/x", "authorization: Basic YTpi\r\n");
    echo::has(&basic, &[" 200 ", "authorization: basic ytpi"]);
}

/// Every way to forge a token that needs no key: refused on routes that need a token and on those
/// that do not, over HTTP/1.1, HTTP/2 and gRPC.
#[test]
fn forgeries_are_refused_however_they_come() {
    let (issuer, key, door) = usual("jwt-forged", "max_life_seconds = 700");
    let (good, other) = (issuer.token(&key, "ada"), issuer.key("a"));
    let claims = |name: &str, value: Value| {
        let mut claims = issuer.claims("ada");
        claims[name] = value;
        claims
    };
    let (head, tail) = good.rsplit_once('.').unwrap();
    let (header, body) = head.split_once('.').unwrap();
    let unsigned = |alg: &str| part(&json!({ "alg": alg })) + "." + body;
    let rs = |more: Value| {
        let mut header = json!({ "alg": "RS256", "kid": "a" });
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        key.signed(&header, &issuer.claims("ada"))
    };
    let forged = [
        "opaque".to_owned(),
        head.to_owned(),
        format!("{head}."),
        format!("{head}.{tail}="),
        format!("{good}.x.y"),
        format!("{header}.{}.{tail}", part(&claims("sub", json!("root")))),
        format!("{}.", unsigned("none")),
        format!("{}.", unsigned("NONE")),
        format!("{}.{tail}", unsigned("none")),
        key.confused(&issuer.claims("root")),
        other.token(&issuer.claims("root")),
        key.token(&claims("exp", json!(1))),
        key.token(&claims("exp", json!(99_999_999_999_u64))),
        key.token(&claims("exp", json!("99999999999"))),
        key.token(&claims("nbf", json!(99_999_999_999_u64))),
        key.token(&claims("aud", json!("others"))),
        key.token(&claims("iss", json!("https://evil.example"))),
        rs(json!({ "crit": ["exp"], "exp": 1 })),
        rs(json!({ "b64": false, "crit": ["b64"] })),
        rs(json!({ "alg": "RS512" })),
        rs(json!({ "alg": "PS256" })),
        rs(json!({ "kid": "a ", "jwk": other.jwk })),
    ];
    assert_eq!(door.verdict(&good), "200");
    // Over HTTP/2 a field that ends with white space is malformed.
    assert_eq!(door.verdict(""), "401 jwt-invalid");
    for token in &forged {
        assert_eq!(door.verdict(token), "401 jwt-invalid", "{token}");
        let bearer = format!("authorization: Bearer {token}");
        let open = door.ask("/open/x", &format!("{bearer}\r\n"));
        echo::has(&open, &[" 401 ", "www-authenticate: Bearer\r\n"]);
        let url = format!("http://{}/x", door.gateway.address(0));
        let h2 = curl(&["-si", "--http2-prior-knowledge", "-H", &bearer, &url]);
        echo::has(&h2, &["HTTP/2 401", "jwt-invalid"]);
        let kind = "content-type: application/grpc";
        let http2 = ["-si", "--http2-prior-knowledge", "-X", "POST", "-H", &bearer, "-H", kind];
        let grpc = curl(&[&http2[..], &[&url]].concat());
        echo::has(&grpc, &["HTTP/2 200", "grpc-status: 16", "grpc-message: jwt-invalid"]);
        // Why is in the document, never in a field.
        assert!(!grpc.contains("signature") && !grpc.contains('`'), "{grpc}");
    }
    let twice = format!("authorization: Bearer {good}\r\nauthorization: Bearer {good}\r\n");
    echo::has(&door.ask("/x", &twice), &[" 401 ", "several"]);
    let invalid =
        format!("mainstay_jwt_checks_total{{issuer=\"{}\",result=\"invalid\"}}", issuer.name());
    assert!(door.counted(&invalid).unwrap() > 30.0);
}

#[test]
fn a_good_token_is_let_through_over_http_2_and_grpc() {
    let (issuer, key, door) = usual("jwt-h2", "forward_token = true");
    let bearer = format!("authorization: Bearer {}", issuer.token(&key, "ada"));
    let url = format!("http://{}/x", door.gateway.address(0));
    let http2 = ["-si", "--http2-prior-knowledge", "-H", &bearer, &url];
    echo::has(&curl(&http2), &["HTTP/2 200", "x-user: ada", "authorization: bearer "]);
    let kind = "content-type: application/grpc";
    let grpc = curl(&[&http2[..], &["-X", "POST", "-H", kind]].concat());
    // It was let through: the service speaks HTTP/1.1 alone, so it fails behind the stage.
    echo::has(&grpc, &["HTTP/2 200", "grpc-status: 14"]);
    let none = curl(&["-si", "--http2-prior-knowledge", "-X", "POST", "-H", kind, &url]);
    echo::has(&none, &["HTTP/2 200", "grpc-status: 16", "grpc-message: unauthenticated"]);
}

/// The case that others answered with 401 for up to an hour.
#[test]
fn keys_that_rotate_are_found_with_the_first_token_that_names_them() {
    let (issuer, a, door) = usual("jwt-rotated", "");
    assert_eq!(door.verdict(&issuer.token(&a, "ada")), "200");
    let b = issuer.key("b");
    issuer.publishes(&[&a, &b]);
    let before = issuer.fetches();
    assert_eq!(door.verdict(&issuer.token(&b, "ada")), "200");
    assert!(before < issuer.fetches());
    // What was verified with a key that is gone is not believed any longer.
    let kept = issuer.token(&a, "ada");
    assert_eq!(door.verdict(&kept), "200");
    issuer.publishes(&[&b]);
    let keys = door.refresh(&issuer);
    assert_eq!(keys["keys"][0]["kid"], "b", "{keys}");
    assert_eq!(door.verdict(&kept), "401 jwt-invalid");
}

#[test]
fn many_requests_with_an_unknown_key_are_one_question() {
    let (issuer, _a, door) = usual("jwt-unknown", "");
    let unknown = issuer.token(&issuer.key("z"), "ada");
    let before = issuer.fetches();
    std::thread::scope(|threads| {
        for _thread in 0..8 {
            threads.spawn(|| {
                for _request in 0..10 {
                    assert_eq!(door.verdict(&unknown), "401 jwt-invalid");
                }
            });
        }
    });
    // The document that says where the keys are, and the keys; two of each where a thread came
    // while the first were fetched.
    assert!(issuer.fetches() - before <= 4, "{}", issuer.fetches() - before);
}

#[test]
fn an_issuer_that_answers_rubbish_takes_no_key_away() {
    let (issuer, a, door) = usual("jwt-rubbish", "");
    let token = |sub: &str| issuer.token(&a, sub);
    let private = json!({ "kty": "RSA", "kid": "p", "n": "AQAB", "e": "AQAB", "d": "AQAB" });
    for (n, answer) in [
        Answer::Away,
        Answer::Text(500, String::new()),
        Answer::Text(302, String::new()),
        Answer::Text(200, "<html>".to_owned()),
        Answer::Text(200, "{\"keys\":[]}".to_owned()),
        Answer::Text(200, "x".repeat(300_000)),
        Answer::Keys(vec![private]),
        Answer::Keys(Vec::new()),
    ]
    .into_iter()
    .enumerate()
    {
        issuer.answers(answer.clone());
        let keys = door.refresh(&issuer);
        assert!(keys["failure"].is_string(), "{answer:?}: {keys}");
        assert_eq!(keys["keys"][0]["kid"], "a", "{answer:?}: {keys}");
        assert_eq!(door.verdict(&token(&format!("user {n}"))), "200", "{answer:?}");
    }
    issuer.publishes(&[&a]);
    let keys = door.refresh(&issuer);
    assert_eq!((&keys["failure"], &keys["state"]), (&Value::Null, &json!("fresh")), "{keys}");
    let failed =
        format!("mainstay_jwks_fetches_total{{issuer=\"{}\",result=\"failed\"}}", issuer.name());
    assert!(door.counted(&failed).unwrap() >= 6.0);
    let age = format!("mainstay_jwks_age_seconds{{issuer=\"{}\"}}", issuer.name());
    assert!(door.counted(&age).unwrap() < 60.0);
}

/// A start waits for keys, but not for ever; then requests say when to come back.
#[test]
fn without_keys_requests_are_refused_until_there_are_some() {
    let issuer = Issuer::start();
    let a = issuer.key("a");
    let began = now();
    let door = Door::new("jwt-empty", &issuer, "");
    assert!(Duration::from_secs(9) < began.elapsed(), "it waits for keys");
    let token = issuer.token(&a, "ada");
    assert_eq!(door.verdict(&token), "503 jwks-unavailable");
    let bearer = format!("authorization: Bearer {token}");
    let refused = door.ask("/x", &format!("{bearer}\r\n"));
    echo::has(&refused, &["\r\nretry-after: "]);
    let url = format!("http://{}/x", door.gateway.address(0));
    let kind = "content-type: application/grpc";
    let http2 = ["-si", "--http2-prior-knowledge", "-X", "POST", "-H", &bearer, "-H", kind, &url];
    echo::has(&curl(&http2), &["grpc-status: 14", "jwks-unavailable"]);
    assert_eq!(door.keys()["state"], "empty");
    let (_, checks) = door.gateway.control("/api/v1/checks");
    let checks: Value = serde_json::from_str(&checks).unwrap();
    let checks = checks["items"].as_array().unwrap();
    let state = checks.iter().find(|check| check["id"] == "jwks-state").unwrap();
    assert_eq!(state["state"], "fail", "{state}");
    issuer.publishes(&[&a]);
    assert_eq!(door.refresh(&issuer)["state"], "fresh");
    assert_eq!(door.verdict(&token), "200");
}

#[test]
fn where_being_open_is_better_requests_pass_as_anybodys() {
    let issuer = Issuer::start();
    let a = issuer.key("a");
    let door = Door::new("jwt-anonymous", &issuer, "fail_mode = 'permit-anonymous'");
    let bearer = format!("authorization: Bearer {}\r\nx-user: root\r\n", issuer.token(&a, "ada"));
    let answer = door.ask("/x", &bearer);
    assert!(answer.contains(" 200 ") && !answer.contains("x-user"), "{answer}");
    assert!(!answer.contains("authorization"), "{answer}");
    // What is wrong without any key is wrong in any case.
    assert_eq!(door.verdict("a.b.c"), "401 jwt-invalid");
    assert!(door.ask("/x", "").contains(" 401 "));
}

#[test]
fn keys_of_a_file_are_read_and_read_again() {
    let issuer = Issuer::start();
    let (a, b) = (issuer.key("a"), issuer.key("b"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let write = |keys: &[&Key]| {
        let keys: Vec<&Value> = keys.iter().map(|key| &key.jwk).collect();
        std::fs::write(&file, json!({ "keys": keys }).to_string()).unwrap();
    };
    write(&[&a]);
    let door = Door::new("jwt-file", &issuer, &format!("jwks_file = '{}'", file.display()));
    assert_eq!(door.verdict(&issuer.token(&a, "ada")), "200");
    write(&[&a, &b]);
    assert_eq!(door.verdict(&issuer.token(&b, "ada")), "200");
    assert_eq!(issuer.fetches(), 0);
}

/// The guard: what only this machine can reach is not fetched from, unless listed.
#[test]
fn keys_are_not_fetched_from_where_only_this_machine_can_reach() {
    let issuer = Issuer::start();
    let a = issuer.key("a");
    issuer.publishes(&[&a]);
    let gateway = Gateway::start("jwt-guard", &config(&issuer, ""));
    let door = Door { gateway };
    let keys = door.keys();
    assert!(keys["failure"].as_str().unwrap().contains("egress-refused"), "{keys}");
    assert_eq!(issuer.fetches(), 0);
    let listed = config(&issuer, "") + "[security.egress]\nallow = ['127.0.0.1']\n";
    let door = Door { gateway: Gateway::start("jwt-listed", &listed) };
    assert_eq!(door.verdict(&issuer.token(&a, "ada")), "200");
}

/// A reload keeps the keys that are known, and asks by what it says.
#[test]
fn a_reload_keeps_keys_and_changes_whom_is_believed() {
    let (issuer, a, door) = usual("jwt-reload", "");
    let token = issuer.token(&a, "ada");
    assert_eq!(door.verdict(&token), "200");
    issuer.answers(Answer::Away);
    let before = issuer.fetches();
    let text = std::fs::read_to_string(door.gateway.home().join("mainstay.toml")).unwrap();
    door.gateway.configure(&text.replace("audiences = [\"orders\"]", "audiences = [\"other\"]"));
    until("the audience is another", PATIENCE, || door.verdict(&token) == "401 jwt-invalid");
    door.gateway.configure(&text);
    until("the audience is the first", PATIENCE, || door.verdict(&token) == "200");
    assert_eq!(issuer.fetches(), before);
}
