//! The `[deferred.N]` table: what holds for a queue of requests that are made later.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::Invalid;
use crate::invalid::{span, within};

/// `[deferred.N]`: a queue that `defer` steps of fallbacks put requests into.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawDeferred {
    /// Requests that may wait, on each node. 1 to 1000000; default 10000.
    pub items_max: Option<u32>,
    /// Bytes of them, bodies and heads, on each node. 1024 to 2^40; default 67108864.
    pub bytes_max: Option<u64>,
    /// Requests of the queue under way at once, on each node. 1 to 1024; default 8.
    pub concurrency: Option<u32>,
    /// How long a request is tried before it is given up and lies among the dead letters, in
    /// seconds. 1 to 2592000; default 86400.
    pub expire_seconds: Option<f64>,
    /// How long its receipt is shown after its end, in seconds. 0 to 2592000; default 3600.
    pub result_seconds: Option<f64>,
    /// Whether `Authorization` is kept, in the store, and sent. Default false.
    pub keep_authorization: Option<bool>,
}

/// What holds for a queue of deferred requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeferredPolicy {
    /// Requests that may wait.
    pub items_max: u32,
    /// Bytes of them.
    pub bytes_max: u64,
    /// Requests under way at once.
    pub concurrency: u32,
    /// How long a request is tried.
    pub expire: Duration,
    /// How long its receipt is shown after its end.
    pub result: Duration,
    /// Whether `Authorization` is kept and sent.
    pub keep_authorization: bool,
}

impl Default for DeferredPolicy {
    fn default() -> Self {
        Self {
            items_max: 10_000,
            bytes_max: 64 << 20,
            concurrency: 8,
            expire: Duration::from_hours(24),
            result: Duration::from_hours(1),
            keep_authorization: false,
        }
    }
}

impl TryFrom<RawDeferred> for DeferredPolicy {
    type Error = Invalid;

    fn try_from(raw: RawDeferred) -> Result<Self, Invalid> {
        let usual = Self::default();
        let seconds = |key, written: Option<f64>, usual: Duration, least| {
            span(key, written.unwrap_or(usual.as_secs_f64()), least, PATIENCE_MAX_SECONDS)
        };
        let items = raw.items_max.unwrap_or(usual.items_max);
        let bytes = raw.bytes_max.unwrap_or(usual.bytes_max);
        let concurrency = raw.concurrency.unwrap_or(usual.concurrency);
        Ok(Self {
            items_max: within("items_max", items, 1, 1_000_000)?,
            bytes_max: within("bytes_max", bytes, 1_024, 1 << 40)?,
            concurrency: within("concurrency", concurrency, 1, 1_024)?,
            expire: seconds("expire_seconds", raw.expire_seconds, usual.expire, 1.0)?,
            result: seconds("result_seconds", raw.result_seconds, usual.result, 0.0)?,
            keep_authorization: raw.keep_authorization.unwrap_or(usual.keep_authorization),
        })
    }
}

/// Longest that a message is tried: 30 days.
const PATIENCE_MAX_SECONDS: f64 = 2_592_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DeferredPolicy, Invalid> {
        toml::from_str::<RawDeferred>(text).expect("TOML").try_into()
    }

    #[test]
    fn what_is_not_written_is_as_the_reference_says() {
        assert_eq!(read(""), Ok(DeferredPolicy::default()));
        let written = read("items_max = 1\nexpire_seconds = 0.5");
        assert_eq!(written.expect_err("too short").path, "expire_seconds");
        let written = read("concurrency = 2\nresult_seconds = 0\nkeep_authorization = true");
        let written = written.expect("legal");
        assert_eq!((written.concurrency, written.result), (2, Duration::ZERO));
        assert!(written.keep_authorization);
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        for (text, path) in [
            ("items_max = 0", "items_max"),
            ("bytes_max = 1023", "bytes_max"),
            ("concurrency = 1025", "concurrency"),
            ("expire_seconds = 2592001", "expire_seconds"),
            ("result_seconds = -1", "result_seconds"),
        ] {
            assert_eq!(read(text).expect_err(text).path, path);
        }
    }
}
