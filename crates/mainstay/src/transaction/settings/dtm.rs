//! `[transaction.dtm]`: the door for clients of DTM.

use std::net::SocketAddr;
use std::time::Duration;

use mainstay_resilience::Invalid;
use schemars::JsonSchema;
use serde::Deserialize;

/// The `[transaction.dtm]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawDtm {
    /// Whether `/api/dtmsvr/…` answers clients of DTM. Restart only. Default true.
    pub enabled: Option<bool>,
    /// Where the door alone is listened on, beside the control port: `host:port`; DTM has it at
    /// 36789. Tokens are sent in the clear. Restart only. Default none.
    #[schemars(with = "Option<String>")]
    pub http_listen: Option<SocketAddr>,
    /// After how long a transaction that nobody submitted is rolled back, and the sender of a
    /// message asked, unless it says so itself; in seconds, 1 to `lifetime_max_seconds`. Restart
    /// only. Default 35.
    pub timeout_to_fail_seconds: Option<u64>,
    /// How long a call of a branch may take, unless its transaction says so; in seconds, 1 to
    /// 3,600. Restart only. Default 3.
    pub request_timeout_seconds: Option<u64>,
    /// The wait between attempts at a branch, which every failure doubles first, unless its
    /// transaction says so; in seconds, 1 to 86,400. Restart only. Default 10.
    pub retry_interval_seconds: Option<u64>,
    /// The longest wait between attempts, in seconds, 1 to 86,400. Restart only. Default 300.
    pub retry_interval_max_seconds: Option<u64>,
    /// Where words of the protocol count in what a branch answers: `text` (anywhere), `field` (in
    /// the member `dtm_result` of a JSON object), `off` (nowhere; the status decides). Restart
    /// only. Default `text`.
    pub body_markers: Option<BodyMarkers>,
    /// Whether `passthrough_headers` may name `authorization`, `cookie` and `proxy-authorization`.
    /// Restart only. Default false.
    pub passthrough_sensitive: Option<bool>,
}

/// Where words of the protocol count in what a branch answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BodyMarkers {
    /// Anywhere in its text.
    #[default]
    Text,
    /// In the member `dtm_result` of a JSON object.
    Field,
    /// Nowhere: its status decides.
    Off,
}

/// The door, resolved.
#[derive(Clone, Debug)]
pub struct DtmConfig {
    /// Whether there is one.
    pub enabled: bool,
    /// Where the door alone is listened on.
    pub http_listen: Option<SocketAddr>,
    /// Deadline of what names none.
    pub timeout_to_fail: Duration,
    /// How long a call of a branch may take.
    pub request_timeout: Duration,
    /// The wait that every failure doubles first.
    pub retry_interval: Duration,
    /// The longest wait between attempts.
    pub retry_interval_max: Duration,
    /// Where words of the protocol count.
    pub body_markers: BodyMarkers,
    /// Whether headers that say who asks may be passed through.
    pub passthrough_sensitive: bool,
}

impl DtmConfig {
    /// Resolves what was written, where an active phase lasts at most `lifetime_max`; adds what is
    /// wrong to `faults`.
    pub fn resolve(raw: &RawDtm, lifetime_max: Duration, faults: &mut Vec<Invalid>) -> Self {
        let mut span = |key: &str, written: Option<u64>, default: u64, max: u64| {
            let seconds = written.unwrap_or(default);
            if !(1..=max).contains(&seconds) {
                let problem = format!("must be 1 to {max}, found {seconds}");
                faults.push(Invalid::range(format!("transaction.dtm.{key}"), problem));
            }
            Duration::from_secs(seconds)
        };
        let timeout = raw.timeout_to_fail_seconds;
        let most = lifetime_max.as_secs().max(1);
        let timeout_to_fail = span("timeout_to_fail_seconds", timeout, most.min(35), most);
        let request = raw.request_timeout_seconds;
        let request_timeout = span("request_timeout_seconds", request, 3, 3_600);
        let interval = raw.retry_interval_seconds;
        let retry_interval = span("retry_interval_seconds", interval, 10, 86_400);
        let longest = raw.retry_interval_max_seconds;
        let retry_interval_max = span("retry_interval_max_seconds", longest, 300, 86_400);
        if retry_interval_max < retry_interval {
            let problem = "must be at least `retry_interval_seconds`";
            faults.push(Invalid::range("transaction.dtm.retry_interval_max_seconds", problem));
        }
        let enabled = raw.enabled.unwrap_or(true);
        Self {
            enabled,
            http_listen: raw.http_listen.filter(|_| enabled),
            timeout_to_fail,
            request_timeout,
            retry_interval,
            retry_interval_max,
            body_markers: raw.body_markers.unwrap_or_default(),
            passthrough_sensitive: raw.passthrough_sensitive.unwrap_or(false),
        }
    }
}

impl Default for DtmConfig {
    fn default() -> Self {
        Self::resolve(&RawDtm::default(), Duration::from_hours(1), &mut Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn spans_are_checked_and_have_the_defaults_of_dtm() {
        let check = |text: &str, want: usize| {
            let mut faults = Vec::new();
            let config = DtmConfig::resolve(&toml::from_str(text).unwrap(), HOUR, &mut faults);
            assert_eq!(faults.len(), want, "{text}: {faults:?}");
            config
        };
        let config = check("", 0);
        assert_eq!(config.retry_interval_max, Duration::from_mins(5));
        assert_eq!(config.body_markers, BodyMarkers::Text);
        let config = check("enabled = false\nhttp_listen = '127.0.0.1:36789'", 0);
        assert_eq!(config.http_listen, None);
        let short = DtmConfig::resolve(&RawDtm::default(), Duration::from_secs(9), &mut Vec::new());
        assert_eq!(short.timeout_to_fail, Duration::from_secs(9), "no longer than a lifetime");
        check("timeout_to_fail_seconds = 0\nrequest_timeout_seconds = 3601", 2);
        check("retry_interval_seconds = 20\nretry_interval_max_seconds = 10", 1);
        check("body_markers = 'field'", 0);
    }
}
