//! `TransBase`: what clients of DTM send with every verb, read as forgivingly as DTM reads it.
//!
//! Clients in dozens of languages write it, so a member may be missing, `null` or one nobody
//! knows; numbers may be written as floats. What is there and says something else than it may is
//! refused: a client that believes its option holds must not be wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use mainstay_txn::{Gid, Mode, Target};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::answer::Said;
use crate::transaction::request::{is_reserved, trans_type};
use crate::transaction::settings::DtmConfig;

/// Most bytes of `custom_data`: it is kept with the transaction as it came.
const CUSTOM_BYTES_MAX: usize = 32_768;

/// Most names of headers that are passed through.
const PASSED_MAX: usize = 16;

/// Longest option that is a span, in seconds: what a deadline may be at most, and more than any
/// branch should make others wait.
const SPAN_SECONDS_MAX: u64 = 2_592_000;

/// Longest time one call of a branch may take, in seconds.
const CALL_SECONDS_MAX: u64 = 3_600;

/// The mode that clients of DTM call `word`.
pub(super) fn mode(word: &str) -> Option<Mode> {
    Mode::ALL.iter().copied().find(|mode| trans_type(*mode) == word)
}

/// One step of a saga or a message. An empty URL is nobody: done at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) action: Option<Target>,
    pub(super) compensate: Option<Target>,
    pub(super) payload: String,
}

/// The options a client set, as it set them; kept with the transaction to be shown again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Options {
    #[serde(skip_serializing_if = "is_false")]
    pub(super) wait_result: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) timeout_to_fail: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) request_timeout: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) retry_interval: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) retry_limit: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) branch_headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) passthrough_headers: Vec<String>,
    pub(super) concurrent: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Options {
    /// After how long a transaction that nobody submitted is rolled back, or its sender asked; of
    /// a saga, after how long it is compensated.
    pub(super) fn deadline(&self, mode: Mode, config: &DtmConfig) -> Option<Duration> {
        match (self.timeout_to_fail, mode) {
            (0, Mode::Saga) => None,
            (0, _) => Some(config.timeout_to_fail),
            (seconds, _) => Some(Duration::from_secs(seconds)),
        }
    }

    /// The interval that a failure doubles.
    pub(super) fn interval(&self, config: &DtmConfig) -> Duration {
        match (self.retry_interval, self.timeout_to_fail) {
            (0, 0) => config.retry_interval,
            (0, timeout) => config.retry_interval.min(Duration::from_secs(timeout)),
            (seconds, _) => Duration::from_secs(seconds),
        }
    }

    /// How long a call of a branch may take.
    pub(super) fn call_timeout(&self, config: &DtmConfig) -> Duration {
        match self.request_timeout {
            0 => config.request_timeout,
            seconds => Duration::from_secs(seconds),
        }
    }
}

/// What `custom_data` says about order and delay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Custom {
    /// Steps of a saga that have to be done before a step, by places from 0.
    pub(super) orders: BTreeMap<usize, Vec<u16>>,
    /// Steps of a saga do not wait for those before them.
    pub(super) concurrent: bool,
    /// How long after its creation a message is delivered.
    pub(super) delay: Duration,
}

/// What a client sends with `prepare` and `submit`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TransBase {
    pub(super) gid: Gid,
    pub(super) mode: Mode,
    pub(super) steps: Vec<Step>,
    pub(super) query_prepared: Option<Target>,
    pub(super) custom: Custom,
    pub(super) custom_data: Option<String>,
    pub(super) options: Options,
    /// Headers of every call of a branch.
    pub(super) headers: Vec<(String, String)>,
}

impl TransBase {
    /// Reads `body`; headers to be passed through are those of the request, `sent`.
    pub(super) fn read(body: &[u8], sent: &HeaderMap, config: &DtmConfig) -> Result<Self, Said> {
        let fields = Fields::read(body)?;
        let named = fields.text("trans_type")?.unwrap_or_default();
        let Some(mode) = mode(&named) else {
            return Err(Said::Wrong(match named.as_str() {
                "workflow" => {
                    "trans_type workflow is not supported by this server; see docs/dtm.md".into()
                }
                other => format!("trans_type must be one of msg, saga, tcc, xa; found {other:?}"),
            }));
        };
        match fields.text("protocol")?.as_deref() {
            None | Some("" | "http") => {}
            Some(other) => {
                let text = format!(
                    "protocol {other:?} is not supported by this server, only http; see docs/dtm.md"
                );
                return Err(Said::Wrong(text));
            }
        }
        let custom_data = fields.text("custom_data")?.filter(|text| !text.is_empty());
        let options = options(&fields)?;
        Ok(Self {
            gid: fields.gid()?,
            mode,
            steps: steps(&fields)?,
            query_prepared: target("query_prepared", fields.text("query_prepared")?)?,
            custom: custom_data.as_deref().map_or_else(|| Ok(Custom::default()), custom)?,
            headers: headers(&options, sent, config)?,
            options,
            custom_data,
        })
    }
}

/// The members of a request's document.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// The object `body` holds.
    pub(super) fn read(body: &[u8]) -> Result<Self, Said> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(Said::wrong("the request must be a JSON object")),
            Err(error) => Err(Said::Wrong(format!("the request is no JSON: {error}"))),
        }
    }

    fn look(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A text; `None` where there is none.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Said> {
        match self.look(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(wrong(name, "a string", other)),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, Said> {
        match self.look(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(wrong(name, "true or false", other)),
        }
    }

    /// A whole number of at most `max`; 0 where there is none, as in Go.
    fn number(&self, name: &str, max: u64) -> Result<u64, Said> {
        let Some(value) = self.look(name) else { return Ok(0) };
        let number = value.as_u64().or_else(|| whole(value.as_f64()?));
        match number {
            Some(number) if number <= max => Ok(number),
            // Go clients have signed numbers, and a negative one is none there.
            None if value.as_i64().is_some_and(i64::is_negative) => Ok(0),
            _ => Err(wrong(name, &format!("a whole number of at most {max}"), value)),
        }
    }

    fn list(&self, name: &str) -> Result<&[Value], Said> {
        match self.look(name) {
            None => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(other) => Err(wrong(name, "a list", other)),
        }
    }

    fn texts(&self, name: &str) -> Result<Vec<String>, Said> {
        let text = |value: &Value| match value {
            Value::Null => Ok(String::new()),
            Value::String(text) => Ok(text.clone()),
            other => Err(wrong(name, "a list of strings", other)),
        };
        self.list(name)?.iter().map(text).collect()
    }

    fn pairs(&self, name: &str) -> Result<BTreeMap<String, String>, Said> {
        let fields = match self.look(name) {
            None => return Ok(BTreeMap::new()),
            Some(Value::Object(fields)) => fields,
            Some(other) => return Err(wrong(name, "an object of strings", other)),
        };
        let pair = |(key, value): (&String, &Value)| match value {
            Value::Null => None,
            Value::String(text) => Some(Ok((key.clone(), text.clone()))),
            other => Some(Err(wrong(name, "an object of strings", other))),
        };
        fields.iter().filter_map(pair).collect()
    }

    /// The gid. What would break a header or a query out of its place leaves it.
    pub(super) fn gid(&self) -> Result<Gid, Said> {
        gid(&self.text("gid")?.unwrap_or_default())
    }
}

/// The gid that `text` is.
pub(super) fn gid(text: &str) -> Result<Gid, Said> {
    let text = text.replace(['\r', '\n', ';'], "");
    if text.is_empty() {
        return Err(Said::wrong("no gid specified"));
    }
    Gid::new(&text).map_err(|invalid| Said::Wrong(invalid.to_string()))
}

fn whole(number: f64) -> Option<u64> {
    let is_whole = number.fract() == 0.0 && (0.0..=9.0e15).contains(&number);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "just checked")]
    is_whole.then_some(number as u64)
}

fn wrong(name: &str, want: &str, found: &Value) -> Said {
    Said::Wrong(format!("{name} must be {want}, found {found}"))
}

fn options(fields: &Fields) -> Result<Options, Said> {
    Ok(Options {
        wait_result: fields.flag("wait_result")?,
        timeout_to_fail: fields.number("timeout_to_fail", SPAN_SECONDS_MAX)?,
        request_timeout: fields.number("request_timeout", CALL_SECONDS_MAX)?,
        retry_interval: fields.number("retry_interval", SPAN_SECONDS_MAX)?,
        retry_limit: fields.number("retry_limit", u64::from(u32::MAX))?,
        branch_headers: fields.pairs("branch_headers")?,
        passthrough_headers: fields.texts("passthrough_headers")?,
        concurrent: fields.flag("concurrent")?,
    })
}

/// Steps with their payloads. Clients of old put the payload of a step into the step.
fn steps(fields: &Fields) -> Result<Vec<Step>, Said> {
    let mut payloads = fields.texts("payloads")?;
    let mut steps = Vec::new();
    for step in fields.list("steps")? {
        let Value::Object(step) = step else { return Err(wrong("steps", "objects", step)) };
        let step = Fields(step.clone());
        payloads.extend(step.text("data")?.filter(|data| !data.is_empty()));
        steps.push(Step {
            action: target("action", step.text("action")?)?,
            compensate: target("compensate", step.text("compensate")?)?,
            payload: String::new(),
        });
    }
    if steps.len() != payloads.len() {
        let text = format!("there are {} steps and {} payloads", steps.len(), payloads.len());
        return Err(Said::Wrong(text));
    }
    for (step, payload) in steps.iter_mut().zip(payloads) {
        step.payload = payload;
    }
    Ok(steps)
}

/// Where a URL goes; nowhere if it is empty.
pub(super) fn target(field: &str, url: Option<String>) -> Result<Option<Target>, Said> {
    let Some(url) = url.filter(|url| !url.is_empty()) else { return Ok(None) };
    if url.starts_with("topic://") {
        return Err(Said::wrong("topic not found: topics are not supported; see docs/dtm.md"));
    }
    let target = Target::Url(url);
    match target.check() {
        Ok(()) => Ok(Some(target)),
        Err(invalid) => Err(Said::Wrong(format!("{field}: {invalid}; see docs/dtm.md"))),
    }
}

fn custom(text: &str) -> Result<Custom, Said> {
    if CUSTOM_BYTES_MAX < text.len() {
        return Err(Said::Wrong(format!(
            "custom_data has {} bytes, more than {CUSTOM_BYTES_MAX}",
            text.len()
        )));
    }
    // It may be the client's own, about which nothing is known here.
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else {
        return Ok(Custom::default());
    };
    let fields = Fields(fields);
    let mut orders = BTreeMap::new();
    if let Some(written) = fields.look("orders") {
        let want = "an object of lists of places, such as {\"2\":[0,1]}";
        let Value::Object(written) = written else {
            return Err(wrong("custom_data.orders", want, written));
        };
        for (step, before) in written {
            let places = || -> Option<Vec<u16>> {
                let place = |place: &Value| u16::try_from(place.as_u64()?).ok();
                before.as_array()?.iter().map(place).collect()
            };
            let places = if before.is_null() { Some(Vec::new()) } else { places() };
            let (Ok(step), Some(places)) = (step.parse(), places) else {
                return Err(wrong("custom_data.orders", want, before));
            };
            orders.insert(step, places);
        }
    }
    Ok(Custom {
        orders,
        concurrent: fields.flag("concurrent")?,
        delay: Duration::from_secs(fields.number("delay", SPAN_SECONDS_MAX)?),
    })
}

/// Headers of every call of a branch: those that are passed through, and over them those the
/// client names.
fn headers(
    options: &Options,
    sent: &HeaderMap,
    config: &DtmConfig,
) -> Result<Vec<(String, String)>, Said> {
    let names = &options.passthrough_headers;
    if PASSED_MAX < names.len() {
        let text = format!("passthrough_headers must be at most {PASSED_MAX} names");
        return Err(Said::Wrong(text));
    }
    let mut headers = BTreeMap::new();
    for name in names {
        let Ok(name) = HeaderName::try_from(name.as_str()) else { continue };
        let is_sensitive = SENSITIVE.contains(&name) && !config.passthrough_sensitive;
        let value = sent.get(&name).and_then(|value| value.to_str().ok());
        if let Some(value) = value.filter(|_| !is_sensitive && !is_reserved(&name)) {
            headers.insert(name.as_str().to_owned(), value.to_owned());
        }
    }
    for (name, value) in &options.branch_headers {
        let legal = HeaderName::try_from(name.as_str()).ok();
        let legal = legal.filter(|name| !is_reserved(name) && HeaderValue::from_str(value).is_ok());
        let Some(legal) = legal else {
            let text = format!(
                "branch_headers: {name:?} is no header that can be set, or its value cannot be sent"
            );
            return Err(Said::Wrong(text));
        };
        headers.insert(legal.as_str().to_owned(), value.clone());
    }
    Ok(headers.into_iter().collect())
}

/// Headers that say who asks. They are for this server.
const SENSITIVE: [HeaderName; 3] =
    [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: &Value) -> Result<TransBase, Said> {
        let mut sent = HeaderMap::new();
        sent.insert("authorization", HeaderValue::from_static("Bearer x"));
        sent.insert("expect", HeaderValue::from_static("100-continue"));
        sent.insert("x-tenant", HeaderValue::from_static("blue"));
        TransBase::read(body.to_string().as_bytes(), &sent, &DtmConfig::default())
    }

    /// What is wrong with `body`.
    #[track_caller]
    fn check_wrong(body: &Value, part: &str) {
        match read(body) {
            Err(Said::Wrong(text)) => assert!(text.contains(part), "{text}"),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn what_the_python_client_sends_is_read() {
        let base = read(&json!({
            "gid": "a;b\r\n", "trans_type": "saga", "custom_data": null,
            "steps": [{"action": "http://a/x", "compensate": ""}], "payloads": ["{\"n\": 1}"],
            "query_prepared": null, "protocol": null, "wait_result": false, "timeout_to_fail": 0,
            "request_timeout": 8, "retry_interval": 0, "passthrough_headers": [],
            "branch_headers": {}, "concurrent": false,
        }));
        let base = base.unwrap();
        assert_eq!((base.gid.as_str(), base.mode), ("ab", Mode::Saga));
        let step = Step {
            action: Some(Target::Url("http://a/x".to_owned())),
            compensate: None,
            payload: "{\"n\": 1}".to_owned(),
        };
        assert_eq!(base.steps, [step]);
        let config = DtmConfig::default();
        assert_eq!(base.options.call_timeout(&config), Duration::from_secs(8));
        assert_eq!(base.options.deadline(base.mode, &config), None);
        assert_eq!((base.headers, base.query_prepared), (Vec::new(), None));
    }

    #[test]
    fn payloads_of_old_stand_in_the_steps() {
        let step = json!({"action": "http://a", "data": "1"});
        let base = read(&json!({"gid": "a", "trans_type": "msg", "steps": [step]})).unwrap();
        assert_eq!(base.steps.first().map(|step| step.payload.as_str()), Some("1"));
        let steps = json!([{"action": "http://a"}, {"action": "http://a"}]);
        let unequal = json!({"gid": "a", "trans_type": "msg", "steps": steps, "payloads": [null]});
        check_wrong(&unequal, "2 steps and 1 payloads");
    }

    #[test]
    fn options_have_the_defaults_of_dtm() {
        let config = DtmConfig::default();
        let seconds = Duration::from_secs;
        let of = |timeout_to_fail, retry_interval| Options {
            timeout_to_fail,
            retry_interval,
            ..Options::default()
        };
        assert_eq!(of(0, 0).deadline(Mode::Tcc, &config), Some(seconds(35)));
        assert_eq!(of(7, 0).deadline(Mode::Saga, &config), Some(seconds(7)));
        assert_eq!(of(0, 0).interval(&config), seconds(10));
        assert_eq!(of(7, 0).interval(&config), seconds(7), "smaller than the default");
        assert_eq!(of(70, 0).interval(&config), seconds(10));
        assert_eq!(of(7, 20).interval(&config), seconds(20), "as asked");
        assert_eq!(of(0, 0).call_timeout(&config), seconds(3));
    }

    #[test]
    fn custom_data_is_a_text_that_may_be_the_clients_own() {
        let of = |text: &str| custom(text).unwrap();
        let saga = of(r#"{"orders":{"2":[0,1],"1":null},"concurrent":true}"#);
        assert_eq!(saga.orders, BTreeMap::from([(1, vec![]), (2, vec![0, 1])]));
        assert!(saga.concurrent);
        assert_eq!(of(r#"{"delay":5}"#).delay, Duration::from_secs(5));
        assert_eq!(of("anything else"), Custom::default());
        for bad in [r#"{"orders":[1]}"#, r#"{"orders":{"x":[0]}}"#, r#"{"orders":{"1":[-1]}}"#] {
            assert!(custom(bad).is_err(), "{bad}");
        }
        check_wrong(&json!({"gid": "a", "trans_type": "saga", "custom_data": {}}), "custom_data");
    }

    #[test]
    fn headers_are_passed_through_but_for_those_that_say_who_asks() {
        let base = read(&json!({
            "gid": "a", "trans_type": "tcc",
            "passthrough_headers": ["X-Tenant", "Authorization", "x-absent", "Expect", "no name"],
            "branch_headers": {"X-Region": "eu"},
        }));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(base.unwrap().headers, [pair("x-region", "eu"), pair("x-tenant", "blue")]);
        for bad in ["Host", "a b", "Transfer-Encoding", "Expect", "Mainstay-Gid"] {
            let body = json!({"gid": "a", "trans_type": "tcc", "branch_headers": {bad: "x"}});
            check_wrong(&body, "branch_headers");
        }
    }

    #[test]
    fn what_is_not_there_is_said_plainly() {
        let of = |kind: &str| json!({"gid": "a", "trans_type": kind});
        check_wrong(&of("workflow"), "workflow is not supported");
        check_wrong(&of("two"), "must be one of msg, saga, tcc, xa");
        check_wrong(&json!({"trans_type": "tcc"}), "no gid specified");
        check_wrong(&json!({"gid": "a", "trans_type": "tcc", "protocol": "grpc"}), "only http");
        let to = |action: &str| {
            let steps = json!([{"action": action}]);
            json!({"gid": "a", "trans_type": "msg", "steps": steps, "payloads": [""]})
        };
        check_wrong(&to("topic://news"), "topic not found");
        check_wrong(&to("localhost:58081/busi.Busi/TransIn"), "is no URL");
        let many = json!({"gid": "a", "trans_type": "tcc", "timeout_to_fail": 1.5});
        check_wrong(&many, "whole number");
        assert!(read(&json!({"gid": "a", "trans_type": "tcc", "retry_interval": 2.0})).is_ok());
        assert!(read(&json!({"gid": "a", "trans_type": "tcc", "retry_limit": -1})).is_ok());
    }
}
