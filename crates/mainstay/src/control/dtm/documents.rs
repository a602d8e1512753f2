//! Transactions and branches as DTM shows them. What is empty is absent, never `null`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mainstay_txn::transaction::OpRecord;
use mainstay_txn::word::Why;
use mainstay_txn::{
    Branch, Decision, Mode, Moment, NewBranch, Op, OpState, Part, State, Target, Transaction,
};
use serde_json::{Map, Value, json};

use super::begin::Kept;
use crate::control::moment::unix_time;
use crate::transaction::request::trans_type;
use crate::transaction::settings::DtmConfig;

/// Where a transaction stands, in the words of DTM.
pub(super) const fn status(transaction: &Transaction) -> &'static str {
    let register = &transaction.register;
    match (register.state, register.decision) {
        (State::Active | State::Preparing | State::Querying, _) => "prepared",
        (State::Mixed, Some(Decision::Abort)) | (State::Aborting, _) => "aborting",
        (State::Mixed | State::Committing, _) => "submitted",
        (State::Committed, _) => "succeed",
        (State::Aborted, _) => "failed",
    }
}

/// Why a transaction is rolled back; nothing if it is not.
pub(super) fn rollback_reason(transaction: &Transaction) -> Option<String> {
    let reason = transaction.register.reason.as_ref()?;
    let text = match reason.why {
        Why::Deadline => {
            let after = transaction.begin.deadline.unwrap_or_default().as_secs();
            format!("Timeout after {after} seconds")
        }
        Why::RetryLimit => {
            let limit = transaction.begin.retry_limit.unwrap_or_default();
            format!("RetryCount is greater than RetryLimit, RetryLimit: {limit}")
        }
        _ => reason.detail.clone(),
    };
    Some(text).filter(|text| !text.is_empty())
}

/// `transaction` as a document.
pub(super) fn transaction(transaction: &Transaction, config: &DtmConfig) -> Value {
    let begin = &*transaction.begin;
    let Kept { custom_data, options } = Kept::of(begin);
    let status = status(transaction);
    let mut fields = Fields::default();
    fields.put("id", json!(number(&[transaction.gid().as_str()])));
    fields.put("create_time", json!(time(transaction.created_at)));
    let updated = transaction.timeline.back().map_or(transaction.created_at, |note| note.at);
    fields.put("update_time", json!(time(updated)));
    fields.put("gid", json!(transaction.gid().as_str()));
    fields.put("trans_type", json!(trans_type(begin.mode)));
    fields.put("steps", begin.steps.iter().map(step).collect());
    fields.put("payloads", begin.steps.iter().map(payload).collect());
    fields.put("status", json!(status));
    fields.put("query_prepared", json!(begin.check.as_ref().map(ToString::to_string)));
    fields.put("protocol", json!("http"));
    let finished = transaction.register.finished_at.map(time);
    let (succeeded, failed) = match status {
        "succeed" => (finished, None),
        "failed" => (None, finished),
        _ => (None, None),
    };
    fields.put("finish_time", json!(succeeded));
    fields.put("rollback_time", json!(failed));
    fields.put("rollback_reason", json!(rollback_reason(transaction)));
    let inline = serde_json::to_value(&options).unwrap_or_default();
    fields.put("options", json!(inline.to_string()));
    fields.put("custom_data", json!(custom_data));
    if let Some(next) = next(transaction, config) {
        fields.put("next_cron_interval", json!(next.interval_seconds));
        fields.put("next_cron_time", json!(time(next.at)));
    }
    if let Value::Object(inline) = inline {
        for (name, value) in inline {
            fields.put(&name, value);
        }
    }
    Value::Object(fields.0)
}

/// When something is tried next, and the interval of then.
struct Next {
    at: Moment,
    interval_seconds: u64,
}

fn next(transaction: &Transaction, config: &DtmConfig) -> Option<Next> {
    let state = transaction.state();
    if state.is_final() {
        return None;
    }
    let ops = transaction.branches.iter().flat_map(|branch| &branch.ops);
    let open = ops.filter(|record| !record.state.is_settled());
    let record: Option<&OpRecord> = open.min_by_key(|record| record.next_at);
    let interval = transaction.begin.retry_interval.unwrap_or(config.retry_interval);
    let doublings = record.map_or(0, |record| record.attempts.min(20));
    let interval = interval.saturating_mul(1 << doublings);
    let interval = interval.min(config.retry_interval_max);
    let at = if state.is_undecided() { transaction.deadline_at } else { None };
    let at = at.or_else(|| record.map(|record| record.next_at));
    let at = at.unwrap_or(transaction.created_at).max(transaction.created_at);
    Some(Next { at, interval_seconds: interval.as_secs() })
}

/// All branches of a transaction, each with both of its operations, as DTM keeps them.
pub(super) fn branches(transaction: &Transaction) -> Value {
    let ops: &[Op] = match transaction.begin.mode {
        Mode::Saga => &[Op::Compensate, Op::Action],
        Mode::Tcc => &[Op::Cancel, Op::Confirm],
        Mode::Xa => &[Op::Rollback, Op::Commit],
        Mode::Message => &[Op::Action],
    };
    let of = |branch| ops.iter().map(move |op| self::branch(transaction, branch, *op));
    transaction.branches.iter().flat_map(of).collect()
}

fn branch(transaction: &Transaction, branch: &Branch, op: Op) -> Value {
    let status = match branch.op(op).map_or(OpState::Waiting, |record| record.state) {
        OpState::Done => "succeed",
        OpState::Failed => "failed",
        OpState::Waiting | OpState::Running | OpState::Unknown => "prepared",
    };
    let (gid, created) = (transaction.gid().as_str(), time(transaction.created_at));
    let mut fields = Fields::default();
    fields.put("id", json!(number(&[gid, branch.id.as_str(), op.as_str()])));
    fields.put("create_time", json!(created));
    fields.put("update_time", json!(created));
    fields.put("gid", json!(gid));
    fields.put("url", json!(to(&branch.part, op).map(ToString::to_string)));
    fields.put("bin_data", json!(STANDARD.encode(&branch.payload.bytes)));
    fields.put("branch_id", json!(branch.id.as_str()));
    fields.put("op", json!(op.as_str()));
    fields.put("status", json!(status));
    Value::Object(fields.0)
}

fn to(part: &Part, op: Op) -> Option<&Target> {
    match part {
        Part::Resource(_) => None,
        Part::Endpoint { targets, .. } => targets.get(&op),
    }
}

fn step(step: &NewBranch) -> Value {
    let mut fields = Fields::default();
    for op in [Op::Action, Op::Compensate] {
        fields.put(op.as_str(), json!(to(&step.part, op).map(ToString::to_string)));
    }
    Value::Object(fields.0)
}

fn payload(step: &NewBranch) -> Value {
    json!(String::from_utf8_lossy(&step.payload.bytes))
}

/// Members of a document, the empty ones left out.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, name: &str, value: Value) {
        let is_empty = match &value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        if !is_empty {
            self.0.insert(name.to_owned(), value);
        }
    }
}

fn time(at: Moment) -> String {
    unix_time(at.unix_millis())
}

/// A number from 1 to 2^31 − 1 that stands for `names`: FNV-1a with 32 bits. DTM numbers its rows,
/// and some clients have a number there; nothing is found by it.
fn number(names: &[&str]) -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    for byte in names.join("\n").bytes() {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    (hash & 0x7fff_ffff).max(1)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use mainstay_txn::{Begin, BranchId, Event, Gid, Outcome, Policy};

    use super::super::begin::begin;
    use super::super::words::TransBase;
    use super::*;

    fn saga(more: &Value) -> Begin {
        let mut body = json!({
            "gid": "a", "trans_type": "saga", "payloads": ["{\"n\":1}", ""],
            "steps": [{"action": "http://a/1", "compensate": "http://a/u"}, {"action": ""}],
        });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let config = DtmConfig::default();
        let base = TransBase::read(body.to_string().as_bytes(), &HeaderMap::new(), &config);
        begin(&base.unwrap(), true, &config).unwrap()
    }

    /// A saga whose first step has answered `outcome`, a second after it began.
    fn answered(more: &Value, outcome: Outcome) -> Transaction {
        let (at, policy) = (Moment::from_unix_millis, Policy::default());
        let (mut transaction, _) = Transaction::begin(saga(more), at(0), &policy).unwrap();
        let (branch, op) = (BranchId::number(1), Op::Action);
        let event = Event::Answered { branch, op, outcome, draw: 0 };
        transaction.step(event, at(1_000), &policy).unwrap();
        transaction
    }

    #[test]
    fn a_transaction_has_its_members_and_no_empty_ones() {
        let begun = answered(&json!({"retry_interval": 7}), Outcome::Unknown("x".to_owned()));
        let shown = transaction(&begun, &DtmConfig::default());
        let id = number(&["a"]);
        let want = json!({
            "id": id, "create_time": "1970-01-01T00:00:00.000Z",
            "update_time": "1970-01-01T00:00:00.000Z", "gid": "a", "trans_type": "saga",
            "steps": [{"action": "http://a/1", "compensate": "http://a/u"}, {}],
            "payloads": ["{\"n\":1}", ""], "status": "submitted", "protocol": "http",
            "options": "{\"concurrent\":false,\"retry_interval\":7}",
            "retry_interval": 7, "concurrent": false, "next_cron_interval": 14,
            "next_cron_time": "1970-01-01T00:00:15.000Z",
        });
        assert_eq!(shown, want);
        assert!((1..=0x7fff_ffff).contains(&id));
    }

    #[test]
    fn branches_come_with_both_operations_and_the_one_that_undoes_first() {
        let begun = answered(&json!({}), Outcome::Refused("no".to_owned()));
        let shown = branches(&begun);
        let told = |member: &str| -> Vec<&str> {
            let rows = shown.as_array().unwrap().iter();
            rows.map(|row| row.get(member).and_then(Value::as_str).unwrap_or("-")).collect()
        };
        assert_eq!(told("op"), ["compensate", "action", "compensate", "action"]);
        assert_eq!(told("branch_id"), ["01", "01", "02", "02"]);
        assert_eq!(told("url"), ["http://a/u", "http://a/1", "-", "-"]);
        assert_eq!(told("status"), ["prepared", "failed", "prepared", "prepared"]);
        assert_eq!(told("bin_data"), ["eyJuIjoxfQ==", "eyJuIjoxfQ==", "-", "-"]);
        assert_eq!(status(&begun), "aborting");
        let reason = "url:http://a/1 return failed: no";
        assert_eq!(rollback_reason(&begun).as_deref(), Some(reason));
    }

    #[test]
    fn reasons_of_time_and_of_tries_are_those_of_dtm() {
        let limited = json!({"retry_limit": 1, "timeout_to_fail": 9});
        let mut late = answered(&limited, Outcome::Unknown("x".to_owned()));
        late.step(Event::Time, Moment::from_unix_millis(9_000), &Policy::default()).unwrap();
        assert_eq!(rollback_reason(&late).as_deref(), Some("Timeout after 9 seconds"));
        let gid = Gid::new("a").unwrap();
        assert_eq!(late.gid(), &gid);
    }
}
