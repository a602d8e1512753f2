use super::*;
use crate::Invalid;

fn read(table: &str) -> Result<RetryPolicy, Invalid> {
    toml::from_str::<RawRetry>(table).expect("known keys").try_into()
}

pub(super) fn grpc(json: &str) -> Result<RetryPolicy, Invalid> {
    serde_json::from_str::<RawGrpcRetry>(json).expect("known keys").try_into()
}

#[test]
fn an_empty_table_is_the_default() {
    assert_eq!(read(""), Ok(RetryPolicy::default()));
    assert_eq!(read("backoff = {}\nbudget = {}"), Ok(RetryPolicy::default()));
    let written = "attempts = 3
        retry_on = ['connect', 'refused-stream', 'refused', 'congestion', 'timeout', '502', '503', '504']
        backoff = { shape = 'exponential', base_seconds = 0.025, multiplier = 2, max_seconds = 0.25, jitter = 'full' }
        retry_after_max_seconds = 10
        replay_bytes_max = 65536
        budget = { kind = 'window', ratio_percent = 20, min_per_second = 10, ttl_seconds = 10 }";
    assert_eq!(read(written), Ok(RetryPolicy::default()));
    let hedge = read("retry_on = ['503']\nhedge = { after_seconds = 1 }").unwrap().hedge.unwrap();
    assert_eq!(
        (hedge.extra, hedge.non_fatal),
        (NonZeroU32::MIN, policy("retry_on = ['503']").retry_on)
    );
}

#[test]
fn a_wrong_key_is_named() {
    for (table, path) in [
        ("attempts = 0", "attempts"),
        ("attempts = 6", "attempts"),
        ("try_seconds = 0", "try_seconds"),
        ("retry_on = ['5xx', 'sometimes']", "retry_on[1]"),
        ("backoff = { base_seconds = 0 }", "backoff.base_seconds"),
        ("backoff = { base_seconds = -1 }", "backoff.base_seconds"),
        ("backoff = { multiplier = 0.9 }", "backoff.multiplier"),
        ("backoff = { max_seconds = inf }", "backoff.max_seconds"),
        ("backoff = { jitter = 101 }", "backoff.jitter"),
        ("backoff = { jitter = 'some' }", "backoff.jitter"),
        ("retry_after_max_seconds = -1", "retry_after_max_seconds"),
        ("replay_bytes_max = 16777217", "replay_bytes_max"),
        ("budget = { ttl_seconds = 0 }", "budget.ttl_seconds"),
        ("hedge = {}", "hedge.after_seconds"),
        ("hedge = { after_seconds = 1, extra = 5 }", "hedge.extra"),
        ("hedge = { after_seconds = 1, non_fatal = ['9'] }", "hedge.non_fatal[0]"),
    ] {
        assert_eq!(read(table).expect_err(table).path, path, "{table}");
    }
    assert!(toml::from_str::<RawRetry>("attempt = 3").is_err());
}

#[test]
fn a_grpc_policy_is_read_as_grpc_reads_it() {
    let policy = |attempts: &str, initial: &str, max: &str, multiplier: &str, codes: &str| {
        grpc(&format!(
            r#"{{"maxAttempts": {attempts}, "initialBackoff": {initial}, "maxBackoff": {max},
                "backoffMultiplier": {multiplier}, "retryableStatusCodes": {codes}}}"#
        ))
    };
    let codes = r#"["unavailable", 10, "RESOURCE_EXHAUSTED"]"#;
    let read = policy("4", "\"0.1s\"", "\"1.000000001s\"", "2", codes).expect("legal");
    assert_eq!(read.attempts.get(), 4);
    assert_eq!((read.backoff.base, read.backoff.max), (ms(100), Duration::new(1, 1)));
    assert!([14, 10, 8].into_iter().all(|code| read.retry_on.has_answer(Answer::Grpc(code))));
    assert!(!read.retry_on.has_answer(Answer::Grpc(13)));
    for (attempts, want) in [("2", 2), ("5", 5), ("6", 5), ("4000000000000", 5)] {
        let read = policy(attempts, "\"1s\"", "\"1s\"", "0.5", codes).expect(attempts);
        assert_eq!(read.attempts.get(), want);
    }
    for (attempts, initial, max, multiplier, codes, path) in [
        ("1", "\"1s\"", "\"1s\"", "2", codes, "maxAttempts"),
        ("2.5", "\"1s\"", "\"1s\"", "2", codes, "maxAttempts"),
        ("null", "\"1s\"", "\"1s\"", "2", codes, "maxAttempts"),
        ("2", "\"0s\"", "\"1s\"", "2", codes, "initialBackoff"),
        ("2", "\"1\"", "\"1s\"", "2", codes, "initialBackoff"),
        ("2", "\"-1s\"", "\"1s\"", "2", codes, "initialBackoff"),
        ("2", "\"1s\"", "\"0.0s\"", "2", codes, "maxBackoff"),
        ("2", "\"1s\"", "null", "2", codes, "maxBackoff"),
        ("2", "\"1s\"", "\"1s\"", "0", codes, "backoffMultiplier"),
        ("2", "\"1s\"", "\"1s\"", "-1", codes, "backoffMultiplier"),
        ("2", "\"1s\"", "\"1s\"", "2", "[]", "retryableStatusCodes"),
        ("2", "\"1s\"", "\"1s\"", "2", "[14, 17]", "retryableStatusCodes[1]"),
        ("2", "\"1s\"", "\"1s\"", "2", "[\"OK\"]", "retryableStatusCodes[0]"),
    ] {
        let error = policy(attempts, initial, max, multiplier, codes).expect_err(path);
        assert_eq!(error.path, path, "{error}");
    }
}
