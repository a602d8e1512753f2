//! What a client of DTM asks for, in the words of the coordinator.
//!
//! | DTM | here |
//! |---|---|
//! | saga | saga; serial unless `custom_data.concurrent`, then by `custom_data.orders` |
//! | msg | message; serial unless `concurrent`; `query_prepared` is its check |
//! | tcc, xa | the same; branches join by registering |
//! | an empty URL | nobody to ask: done |

use std::collections::BTreeMap;

use bytes::Bytes;
use mainstay_txn::{
    Amendment, Begin, BranchId, Dialect, Mode, NewBranch, Op, Part, Payload, Prepare, Target,
};
use serde::{Deserialize, Serialize};

use super::answer::Said;
use super::words::{Fields, Options, Step, TransBase, target};
use crate::transaction::settings::DtmConfig;

/// What is kept of a request to be shown again, and has no other place in a transaction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) custom_data: Option<String>,
    pub(super) options: Options,
}

impl Kept {
    /// What was kept of a transaction; of one that was not begun here, nothing.
    pub(super) fn of(begin: &Begin) -> Self {
        let kept = begin.words.as_ref().and_then(|words| serde_json::from_slice(words).ok());
        kept.unwrap_or_default()
    }
}

/// What begins: prepared, or submitted at once.
pub(super) fn begin(base: &TransBase, submit: bool, config: &DtmConfig) -> Result<Begin, Said> {
    let has_steps = matches!(base.mode, Mode::Message | Mode::Saga);
    let steps = base.steps.iter().enumerate().filter(|_| has_steps);
    let Amendment {
        mode,
        headers,
        words,
        retry_limit,
        retry_interval,
        call_timeout,
        delay,
        concurrent,
    } = amendment(base, config)?;
    Ok(Begin {
        dialect: Dialect::Dtm,
        deadline: base.options.deadline(base.mode, config),
        concurrent,
        check: base.query_prepared.clone().filter(|_| base.mode == Mode::Message),
        delay,
        retry_limit,
        retry_interval,
        call_timeout,
        steps: steps.map(|(at, step)| branch(base, at, step)).collect::<Result<_, Said>>()?,
        submit,
        headers,
        words,
        ..Begin::new(base.gid.clone(), mode)
    })
}

/// What a submit puts in place of what `prepare` said.
pub(super) fn amendment(base: &TransBase, config: &DtmConfig) -> Result<Amendment, Said> {
    let options = &base.options;
    let kept = Kept { custom_data: base.custom_data.clone(), options: options.clone() };
    let words = serde_json::to_vec(&kept).map_err(|error| Said::Wrong(error.to_string()))?;
    let (is_saga, is_msg) = (base.mode == Mode::Saga, base.mode == Mode::Message);
    let limit = u32::try_from(options.retry_limit).unwrap_or(u32::MAX);
    Ok(Amendment {
        mode: base.mode,
        headers: base.headers.clone(),
        words: Some(Bytes::from(words)),
        retry_limit: Some(limit).filter(|limit| is_saga && 0 < *limit),
        retry_interval: Some(options.interval(config)),
        call_timeout: Some(options.call_timeout(config)),
        delay: if is_msg { base.custom.delay } else { std::time::Duration::ZERO },
        concurrent: (is_saga && base.custom.concurrent) || (is_msg && options.concurrent),
    })
}

fn branch(base: &TransBase, at: usize, step: &Step) -> Result<NewBranch, Said> {
    let compensate = step.compensate.as_ref().filter(|_| base.mode == Mode::Saga);
    let targets = [(Op::Action, step.action.as_ref()), (Op::Compensate, compensate)];
    let orders = base.custom.orders.get(&at).filter(|_| base.custom.concurrent);
    let after = orders.cloned().unwrap_or_default();
    if after.iter().any(|before| base.steps.len() <= usize::from(*before)) {
        let text = format!("custom_data.orders: step {at} waits for a step that is not there");
        return Err(Said::Wrong(text));
    }
    Ok(NewBranch {
        branch: Some(BranchId::number(at + 1)),
        part: endpoint(targets),
        after,
        payload: payload(step.payload.clone()),
    })
}

fn endpoint<'a>(targets: impl IntoIterator<Item = (Op, Option<&'a Target>)>) -> Part {
    let named = targets.into_iter().filter_map(|(op, target)| Some((op, target?.clone())));
    Part::Endpoint { targets: named.collect::<BTreeMap<_, _>>().into(), prepare: Prepare::Own }
}

fn payload(text: String) -> Payload {
    Payload { bytes: Bytes::from(text), content_type: None, headers: Vec::new() }
}

/// A branch that joins a transaction of `mode`: of tcc where to confirm and cancel, of xa the one
/// place that is told both.
pub(super) fn joining(fields: &Fields, mode: Mode) -> Result<NewBranch, Said> {
    let id = fields.text("branch_id")?.unwrap_or_default();
    let id = BranchId::new(&id).map_err(|invalid| Said::Wrong(format!("branch_id: {invalid}")))?;
    let to = |field: &str| target(field, fields.text(field)?);
    let part = if mode == Mode::Xa {
        let url = to("url")?;
        endpoint([(Op::Commit, url.as_ref()), (Op::Rollback, url.as_ref())])
    } else {
        let (confirm, cancel) = (to("confirm")?, to("cancel")?);
        endpoint([(Op::Confirm, confirm.as_ref()), (Op::Cancel, cancel.as_ref())])
    };
    let data = fields.text("data")?.filter(|_| mode == Mode::Tcc).unwrap_or_default();
    Ok(NewBranch { branch: Some(id), part, after: Vec::new(), payload: payload(data) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::HeaderMap;
    use mainstay_txn::{Effect, Moment, Policy, Transaction};
    use serde_json::{Value, json};

    use super::*;

    fn base(body: &Value) -> TransBase {
        let config = DtmConfig::default();
        TransBase::read(body.to_string().as_bytes(), &HeaderMap::new(), &config).unwrap()
    }

    fn steps(count: usize) -> (Value, Value) {
        let step = |n| json!({"action": format!("http://a/{n}"), "compensate": "http://a/undo"});
        ((0..count).map(step).collect(), (0..count).map(|n| json!(n.to_string())).collect())
    }

    /// What the coordinator calls at first, given what was asked for.
    #[track_caller]
    fn check(body: &Value, submit: bool, want: &[&str]) -> Transaction {
        let begin = begin(&base(body), submit, &DtmConfig::default()).unwrap();
        let now = Moment::from_unix_millis(1_000);
        let (transaction, step) = Transaction::begin(begin, now, &Policy::default()).unwrap();
        let called = step.effects.iter().filter_map(|effect| match effect {
            Effect::Call { branch, op, .. } => Some(format!("{op} {branch}")),
            _ => None,
        });
        assert_eq!(called.collect::<Vec<_>>(), want, "{body}");
        transaction
    }

    #[test]
    fn a_saga_is_serial_unless_its_custom_data_frees_it() {
        let (steps, payloads) = steps(3);
        let mut body = json!({
            "gid": "a", "trans_type": "saga", "steps": steps, "payloads": payloads,
            "concurrent": true,
        });
        check(&body, true, &["action 01"]);
        body["custom_data"] = json!(r#"{"orders":{"2":[0,1]},"concurrent":true}"#);
        check(&body, true, &["action 01", "action 02"]);
        body["custom_data"] = json!(r#"{"orders":{"2":[0,1]}}"#);
        check(&body, true, &["action 01"]);
        body["custom_data"] = json!(r#"{"orders":{"2":[3]},"concurrent":true}"#);
        assert!(begin(&base(&body), true, &DtmConfig::default()).is_err());
    }

    #[test]
    fn a_message_waits_for_its_sender_and_for_its_delay() {
        let (steps, payloads) = steps(2);
        let mut body = json!({
            "gid": "a", "trans_type": "msg", "steps": steps, "payloads": payloads,
            "query_prepared": "http://a/q",
        });
        let prepared = check(&body, false, &[]);
        assert_eq!(prepared.deadline_at, Some(Moment::from_unix_millis(36_000)));
        check(&body, true, &["action 01"]);
        body["concurrent"] = json!(true);
        check(&body, true, &["action 01", "action 02"]);
        body["custom_data"] = json!(r#"{"delay":5}"#);
        let delayed = check(&body, true, &[]);
        assert_eq!(delayed.begin.delay, Duration::from_secs(5));
    }

    #[test]
    fn an_empty_url_is_nobody_to_ask() {
        let steps = json!([{"action": ""}, {"action": "http://a/2"}]);
        let body = json!({"gid": "a", "trans_type": "saga", "steps": steps, "payloads": ["", ""]});
        check(&body, true, &["action 02"]);
    }

    #[test]
    fn branches_join_with_where_they_are_told() {
        let fields = |body: Value| Fields::read(body.to_string().as_bytes()).unwrap();
        let tcc = fields(json!({
            "branch_id": "0101", "data": "{}", "confirm": "http://a/c", "cancel": "",
        }));
        let url = |text: &str| Target::Url(text.to_owned());
        let branch = joining(&tcc, Mode::Tcc).unwrap();
        assert_eq!(branch.part, endpoint([(Op::Confirm, Some(&url("http://a/c")))]));
        assert_eq!(&*branch.payload.bytes, b"{}");
        let xa = fields(json!({"branch_id": "01", "url": "http://a/x", "data": "lost"}));
        let branch = joining(&xa, Mode::Xa).unwrap();
        let at = url("http://a/x");
        assert_eq!(branch.part, endpoint([(Op::Commit, Some(&at)), (Op::Rollback, Some(&at))]));
        assert!(branch.payload.bytes.is_empty());
        for id in ["", "00", "a_b"] {
            let bad = fields(json!({"branch_id": id, "url": "http://a/x"}));
            assert!(matches!(joining(&bad, Mode::Xa), Err(Said::Wrong(_))), "{id:?}");
        }
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let body = json!({
            "gid": "a", "trans_type": "tcc", "retry_interval": 7, "custom_data": "mine",
        });
        let begin = begin(&base(&body), false, &DtmConfig::default()).unwrap();
        let kept = Kept::of(&begin);
        assert_eq!((kept.options.retry_interval, kept.custom_data), (7, Some("mine".to_owned())));
        assert_eq!(begin.retry_interval, Some(Duration::from_secs(7)));
    }
}
