//! Documents as the coordinator takes them.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::HeaderName;
use mainstay_api::transaction as api;
use mainstay_txn::error::Refused as Refusal;
use mainstay_txn::machine::VoteOf;
use mainstay_txn::{
    Begin, BranchId, Gid, Mode, Moment, NewBranch, Op, Part, Payload, Prepare, ResourceName,
    Submit, Target, Vote,
};
use serde_json::value::RawValue;

use super::{moment, named};
use crate::control::answer::Refused;
use crate::transaction::request::is_reserved;

/// What a submit says of a begin that may have been lost: what it was, when, and its deadline.
type Lost = Option<(Begin, Moment, Moment)>;

/// A begin; `generate` makes a name if it bears none.
pub(super) fn begin(
    asked: api::BeginTransaction,
    generate: impl FnOnce() -> Gid,
) -> Result<Begin, Refused> {
    let gid = gid(asked.gid.as_deref(), generate)?;
    let Some(mode) = Mode::parse(&asked.mode) else {
        let known: Vec<_> = Mode::ALL.iter().map(|mode| mode.as_str()).collect();
        let problem = format!("must be one of {}, found `{}`", known.join(", "), asked.mode);
        return Err(Refusal::Invalid { field: "mode", problem }.into());
    };
    let submit = asked.submit.unwrap_or_else(|| match mode {
        Mode::Saga => true,
        Mode::Message => asked.check.is_none(),
        Mode::Xa | Mode::Tcc => false,
    });
    let steps = asked.steps.into_iter().map(step).collect::<Result<_, Refused>>()?;
    Ok(Begin {
        name: asked.name,
        labels: asked.labels,
        deadline: optional("deadline_seconds", asked.deadline_seconds)?,
        concurrent: asked.concurrent,
        ordered: asked.ordered,
        check: asked.check.map(target),
        delay: seconds("delay_seconds", asked.delay_seconds)?,
        give_up_after: optional("give_up_after_seconds", asked.give_up_after_seconds)?,
        retry_limit: asked.retry_limit,
        call_timeout: optional("call_timeout_seconds", asked.call_timeout_seconds)?,
        steps,
        submit,
        ..Begin::new(gid, mode)
    })
}

/// A message to one receiver.
pub(super) fn message(
    asked: api::SendMessage,
    generate: impl FnOnce() -> Gid,
) -> Result<Begin, Refused> {
    let gid = gid(asked.gid.as_deref(), generate)?;
    let payload = payload(asked.payload, asked.payload_base64, asked.content_type, asked.headers)?;
    let targets = BTreeMap::from([(Op::Action, target(asked.target))]);
    let part = Part::Endpoint { targets: targets.into(), prepare: Prepare::Own };
    Ok(Begin {
        delay: seconds("delay_seconds", asked.delay_seconds)?,
        give_up_after: optional("give_up_after_seconds", asked.give_up_after_seconds)?,
        steps: vec![NewBranch { branch: None, part, after: Vec::new(), payload }],
        submit: true,
        ..Begin::new(gid, Mode::Message)
    })
}

fn gid(given: Option<&str>, generate: impl FnOnce() -> Gid) -> Result<Gid, Refused> {
    given.map_or_else(|| Ok(generate()), |gid| named(Gid::new(gid)))
}

fn step(asked: api::Step) -> Result<NewBranch, Refused> {
    let branch = asked.branch.as_deref().map(BranchId::new).transpose();
    let payload = payload(asked.payload, asked.payload_base64, asked.content_type, asked.headers)?;
    let action = (Op::Action, target(asked.action));
    let undone = asked.compensate.map(|undo| (Op::Compensate, target(undo)));
    let targets: BTreeMap<_, _> = std::iter::once(action).chain(undone).collect();
    Ok(NewBranch {
        branch: named(branch)?,
        part: Part::Endpoint { targets: targets.into(), prepare: Prepare::Own },
        after: asked.after,
        payload,
    })
}

/// A branch that is to join.
pub(super) fn branch(asked: api::RegisterBranch) -> Result<NewBranch, Refused> {
    let branch = named(asked.branch.as_deref().map(BranchId::new).transpose())?;
    let payload = payload(asked.payload, asked.payload_base64, asked.content_type, asked.headers)?;
    let part = match (asked.kind, asked.resource) {
        (api::BranchKind::Resource, Some(resource)) => {
            Part::Resource(named(ResourceName::new(&resource))?)
        }
        (api::BranchKind::Resource, None) => {
            return Err(wrong("resource", "must name the database of a branch of kind `resource`"));
        }
        (api::BranchKind::Endpoint, None) => Part::Endpoint {
            targets: targets(asked.targets).into(),
            prepare: match asked.prepare {
                api::WhenPrepared::Own => Prepare::Own,
                api::WhenPrepared::Called => Prepare::Called,
            },
        },
        (api::BranchKind::Endpoint, Some(_)) => {
            return Err(wrong("resource", "is for branches of kind `resource`"));
        }
    };
    Ok(NewBranch { branch, part, after: Vec::new(), payload })
}

fn targets(asked: api::BranchTargets) -> BTreeMap<Op, Target> {
    let api::BranchTargets { confirm, cancel, prepare, commit, rollback } = asked;
    let all = [
        (Op::Confirm, confirm),
        (Op::Cancel, cancel),
        (Op::Prepare, prepare),
        (Op::Commit, commit),
        (Op::Rollback, rollback),
    ];
    all.into_iter().filter_map(|(op, at)| Some((op, target(at?)))).collect()
}

/// What a submit says, and what it says of a begin that may have been lost.
pub(super) fn submit(gid: &Gid, asked: api::SubmitTransaction) -> Result<(Submit, Lost), Refused> {
    let votes = asked.votes.into_iter().map(vote).collect::<Result<_, Refused>>()?;
    let lost = match (asked.begun_at, asked.deadline_at) {
        (Some(begun), Some(deadline)) => {
            let begin = Begin::new(gid.clone(), Mode::Xa);
            Some((begin, moment("begun_at", &begun)?, moment("deadline_at", &deadline)?))
        }
        (None, None) => None,
        (Some(_), None) => return Err(wrong("deadline_at", "must be sent with `begun_at`")),
        (None, Some(_)) => return Err(wrong("begun_at", "must be sent with `deadline_at`")),
    };
    Ok((Submit { votes }, lost))
}

fn vote(asked: api::BranchVote) -> Result<VoteOf, Refused> {
    let resource = asked.resource.as_deref().map(ResourceName::new).transpose();
    Ok(VoteOf {
        branch: named(BranchId::new(&asked.branch))?,
        resource: named(resource)?,
        vote: match asked.vote {
            api::VoteWord::Yes => Vote::Yes,
            api::VoteWord::No => Vote::No,
            api::VoteWord::ReadOnly => Vote::ReadOnly,
        },
        listed: asked.evidence == Some(api::Evidence::Listed),
        session_id: asked.session_id,
    })
}

fn target(asked: api::Target) -> Target {
    match asked {
        api::Target::Service { service, path, method } => Target::Service { service, path, method },
        api::Target::Url { url } => Target::Url(url),
    }
}

fn payload(
    json: Option<Box<RawValue>>,
    base64: Option<String>,
    content_type: Option<String>,
    headers: BTreeMap<String, String>,
) -> Result<Payload, Refused> {
    let (bytes, usual) = match (json, base64) {
        (Some(_), Some(_)) => {
            return Err(wrong("payload_base64", "is sent instead of `payload`, not beside it"));
        }
        (Some(json), None) => (Bytes::from(json.get().to_owned()), Some("application/json")),
        (None, Some(text)) => {
            let bytes = BASE64_STANDARD.decode(text).map_err(|error| {
                let problem = format!("must be base64: {error}");
                Refused::from(Refusal::Invalid { field: "payload_base64", problem })
            })?;
            (Bytes::from(bytes), Some("application/octet-stream"))
        }
        (None, None) => (Bytes::new(), None),
    };
    for name in headers.keys() {
        if name.parse::<HeaderName>().is_ok_and(|name| is_reserved(&name)) {
            let problem = format!("must not name `{name}`: it belongs to the connection, or to us");
            return Err(Refusal::Invalid { field: "headers", problem }.into());
        }
    }
    let content_type = content_type.or_else(|| usual.map(str::to_owned));
    Ok(Payload { bytes, content_type, headers: headers.into_iter().collect() })
}

fn wrong(field: &'static str, problem: &str) -> Refused {
    Refusal::Invalid { field, problem: problem.to_owned() }.into()
}

fn seconds(field: &'static str, value: f64) -> Result<Duration, Refused> {
    Duration::try_from_secs_f64(value)
        .map_err(|_range| wrong(field, "must be a number of seconds, 0 or more"))
}

fn optional(field: &'static str, value: Option<f64>) -> Result<Option<Duration>, Refused> {
    value.map(|value| seconds(field, value)).transpose()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(document: serde_json::Value) -> Result<Begin, Refused> {
        let text = document.to_string();
        begin(serde_json::from_str(&text).unwrap(), || Gid::new("made").unwrap())
    }

    #[test]
    fn a_payload_is_sent_as_it_was_written() {
        let text = r#"{"mode":"saga","steps":[{"action":{"service":"stock","path":"/d"},
            "payload":{"b":1.10,  "a":12345678901234567890123}}]}"#;
        let begin = begin(serde_json::from_str(text).unwrap(), || Gid::new("made").unwrap());
        let begin = begin.unwrap();
        let payload = &begin.steps[0].payload;
        assert_eq!(payload.bytes, r#"{"b":1.10,  "a":12345678901234567890123}"#);
        assert_eq!(payload.content_type.as_deref(), Some("application/json"));
        assert_eq!((begin.gid.as_str(), begin.submit), ("made", true));
    }

    #[test]
    fn what_is_submitted_at_once_depends_on_the_mode() {
        let target = json!({ "url": "http://a/b" });
        let steps = json!([{ "action": target }]);
        let cases = [
            (json!({ "mode": "message", "steps": steps }), true),
            (json!({ "mode": "message", "steps": steps, "check": target }), false),
            (json!({ "mode": "saga", "steps": steps, "submit": false }), false),
            (json!({ "mode": "tcc" }), false),
        ];
        for (document, want) in cases {
            assert_eq!(read(document.clone()).unwrap().submit, want, "{document}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let step = |more: serde_json::Value| {
            let mut step = json!({ "action": { "url": "http://a/b" } });
            step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({ "mode": "saga", "steps": [step] })
        };
        for bad in [
            json!({ "mode": "2pc" }),
            json!({ "mode": "tcc", "gid": "" }),
            json!({ "mode": "tcc", "deadline_seconds": -1 }),
            step(json!({ "payload": 1, "payload_base64": "AA==" })),
            step(json!({ "payload_base64": "?" })),
            step(json!({ "headers": { "Mainstay-Gid": "x" } })),
            step(json!({ "headers": { "content-length": "7" } })),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
