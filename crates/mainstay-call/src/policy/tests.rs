use mainstay_resilience::balance::Kind;
use mainstay_resilience::circuit::Scope;

use super::*;

/// Reads `text`, which must be refused at `line` because of `key`, with `problem` in the words.
#[track_caller]
fn check(text: &str, line: usize, key: &str, problem: &str) {
    let error = Policy::from_toml(text).expect_err("must be refused");
    assert_eq!((error.line, error.key.as_str()), (line, key), "{error}\n{text}");
    assert!(error.problem.contains(problem), "{error}\n{text}");
}

#[test]
fn an_empty_text_means_the_defaults() {
    let policy = Policy::from_toml("").unwrap();
    assert_eq!(policy, Policy::default());
    assert_eq!(policy.patience, Patience::default());
    assert_eq!(policy.idle, Duration::from_mins(1));
    assert_eq!(policy.hop, Duration::from_millis(5));
    assert_eq!(policy.retry, RetryPolicy::default());
    assert_eq!(policy.balance.kind, Kind::LeastRequest);
    assert_eq!(policy.outlier, OutlierPolicy::default());
    assert_eq!(policy.circuits, [("default".into(), Arc::new(CircuitPolicy::default()))]);
    assert!(policy.limits.is_empty() && policy.fallback.is_none());
}

#[test]
fn circuits_and_limits_have_two_shapes_each() {
    let one = Policy::from_toml("[circuit]\nprobes = 2\n[[limit]]\nmax = 3\n[[limit]]\nmax = 4");
    let one = one.unwrap();
    assert_eq!((&*one.circuits[0].0, one.circuits[0].1.probes), ("default", 2));
    assert_eq!([&*one.limits[0].0, &*one.limits[1].0], ["limit-1", "limit-2"]);
    let named = "[circuit.each]\n[circuit.all]\nscope = \"service\"\n[limit.api]\nmax = 3";
    let named = Policy::from_toml(named).unwrap();
    let scopes: Vec<_> = named.circuits.iter().map(|(name, c)| (&**name, c.scope)).collect();
    assert_eq!(scopes, [("all", Scope::Service), ("each", Scope::Instance)]);
    assert_eq!(&*named.limits[0].0, "api");
    assert_eq!(Policy::from_toml("[circuit]").unwrap().circuits, Policy::default().circuits);
}

#[test]
fn every_part_of_a_policy_can_be_written() {
    let policy = Policy::from_toml(
        r#"
        timeout_seconds = 400
        idle_seconds = 5
        hop_seconds = 0.01
        failure = ["5xx", "404"]
        ignore = ["501"]
        retry = { attempts = 2, backoff = { shape = "constant", jitter = 25 } }
        balance = { kind = "peak_ewma", slow_start_seconds = 30 }
        outlier = { base_seconds = 10 }
        fallback = { steps = [{ when = ["any"], silent = { status = 204 } }] }
        "#,
    );
    let policy = policy.unwrap();
    assert_eq!(policy.patience.max, Duration::from_secs(400));
    assert_eq!(policy.retry.attempts.get(), 2);
    assert_eq!(policy.balance.kind, Kind::PeakEwma);
    assert!(policy.fallback.is_some());
}

#[test]
fn a_mistake_is_named_by_line_and_key() {
    check("timeout_seconds = 2\nretries = 2", 2, "retries", "unknown field");
    check("[retry]\n\nattemps = 2", 3, "retry.attemps", "unknown field");
    check("[retry]\nattempts = 9", 2, "retry.attempts", "must be 1 to 5, found 9");
    check("retry = { backoff = { base_seconds = 0 } }", 1, "retry.backoff.base_seconds", "0.001");
    check("[retry.backoff]\njitter = 101", 2, "retry.backoff.jitter", "0 to 100");
    check("[circuit]\nprobe = 3", 2, "circuit.probe", "unknown field");
    check("[circuit.a]\n[circuit.b]\nprobes = 0", 3, "circuit.b.probes", "1 to 1000");
    check("[circuit.a]\nprobes = \"x\"", 2, "circuit.a.probes", "invalid type");
    check("[[limit]]\nmax = 1\n[[limit]]\nmax = 0", 4, "limit[1].max", "at least 1");
    check("[[limit]]\nmax = 1\n[[limit]]\nmaximum = 0", 4, "limit[1].maximum", "unknown field");
    check("[limit.api]\nmax = 1\nkey = [\"nobody\"]", 3, "limit.api.key[0]", "client_address");
    check("failure = [\"5xx\", \"6xx\"]", 1, "failure[1]", "5xx");
    check("[outlier]\nmax_seconds = 1", 2, "outlier.max_seconds", "base_seconds");
    check("timeout_seconds = 0", 1, "timeout_seconds", "0.001 to 86400");
    check("timeout_seconds = 9\ndeadline_max_seconds = 5", 2, "deadline_max_seconds", "9 to");
    check("\n[fallback]\n", 2, "fallback.steps", "1 to 16");
    check("retry = {", 1, "policy", "");
    let five = "[circuit.a]\n[circuit.b]\n[circuit.c]\n[circuit.d]\n[circuit.e]";
    check(five, 1, "circuit", "at most 4");
}
