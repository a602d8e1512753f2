//! `mainstay fault`: failures put in on purpose, each with an end.

use serde_json::{Value as Json, json};

use super::arguments::{Fault, FaultSet};
use super::calls::{encoded, header, span};
use super::settings::reason;
use super::{Ended, Session, usage};
use crate::exit::Exit;
use crate::output::{Column, Table, items};
use crate::settings::Errors;

/// Longest life of a fault, in seconds: whoever forgets one has it for an hour.
const TTL_MAX_SECONDS: f64 = 3600.0;

const FAULTS: Table<'static> = Table(&[
    Column::new("ID", "/id"),
    Column::new("FAULT", "/fault"),
    Column::new("MATCH", "/match"),
    Column::new("PERCENT", "/percent"),
    Column::new("SECONDS LEFT", "/seconds_left"),
    Column::new("REASON", "/reason").optional(),
]);

pub(super) fn run(verb: Fault, session: &mut Session<'_>) -> Ended {
    match verb {
        Fault::List => {
            let faults = session.control()?.get("/api/v1/faults")?;
            session.show(&faults, &FAULTS)
        }
        Fault::Set(set) => {
            let body = body(&set)?;
            let why = reason(set.reason.as_deref(), true)?;
            let fault =
                session.control()?.change("POST", "/api/v1/faults", Some(&body), why.as_deref())?;
            session.show(&json!({ "items": [fault] }), &FAULTS)?;
            if let Some(id) = fault.get("id").and_then(Json::as_str) {
                session.note(&format!("undo: mainstay fault clear {id}"));
            }
            Ok(Exit::Done.code())
        }
        Fault::Clear { id, all: _ } => {
            let control = session.control()?;
            let ids = match id {
                Some(id) => vec![id],
                None => items(&control.get("/api/v1/faults")?)
                    .iter()
                    .filter_map(|fault| Some(fault.get("id")?.as_str()?.to_owned()))
                    .collect(),
            };
            for id in &ids {
                let path = format!("/api/v1/faults/{}", encoded(id));
                control.change("DELETE", &path, None, None)?;
            }
            session.note(&format!("cleared {}", ids.len()));
            Ok(Exit::Done.code())
        }
    }
}

/// The document of a fault: what it matches, what it does, how long.
fn body(set: &FaultSet) -> Result<Json, Errors> {
    let mut matches = serde_json::Map::new();
    let names = [("service", &set.service), ("route", &set.route), ("instance", &set.instance)];
    for (name, value) in names {
        matches.extend(value.as_ref().map(|value| (name.to_owned(), json!(value))));
    }
    if let Some(text) = &set.header {
        let (name, value) = header(text)?;
        matches.insert("header".to_owned(), json!({ "name": name, "value": value }));
    }
    if !(0.0 < set.percent && set.percent <= 100.0) {
        return Err(
            usage(format!("--percent is above 0 and at most 100, not {}", set.percent)).into()
        );
    }
    let ttl = span(&set.ttl)?;
    if TTL_MAX_SECONDS < ttl {
        return Err(usage(format!("--ttl is at most 1h, not {}", set.ttl)).into());
    }
    let mut body = json!({
        "match": matches,
        "percent": set.percent,
        "fault": fault(&set.fault)?,
        "ttl_seconds": ttl,
    });
    if let (Some(why), Some(fields)) = (&set.reason, body.as_object_mut()) {
        fields.insert("reason".to_owned(), json!(why));
    }
    Ok(body)
}

/// `delay=0.2` → `{"delay": {"seconds": 0.2}}`.
fn fault(text: &str) -> Result<Json, Errors> {
    let (kind, value) = text.split_once('=').map_or((text, None), |(k, v)| (k, Some(v)));
    let number = value.and_then(|value| value.parse::<f64>().ok());
    let whole = value.and_then(|value| value.parse::<u64>().ok());
    let fault = match (kind, value, number, whole) {
        ("delay", _, Some(seconds), _) if seconds.is_finite() && 0.0 <= seconds => {
            json!({ "delay": { "seconds": seconds } })
        }
        ("abort", _, _, Some(status @ 400..=599)) => json!({ "abort": { "status": status } }),
        ("slow_body", _, _, Some(rate @ 1..)) => {
            json!({ "slow_body": { "bytes_per_second": rate } })
        }
        ("truncate", _, _, Some(bytes)) => json!({ "truncate": { "after_bytes": bytes } }),
        ("reset" | "blackhole" | "connect_timeout", None, _, _) => json!(kind),
        _ => {
            let report = usage(format!("`{text}` is no fault"));
            let all = "one of: delay=SECONDS, abort=STATUS (400 to 599), reset, blackhole, \
                       slow_body=BYTES_PER_SECOND, connect_timeout, truncate=BYTES";
            return Err(report.help(all).into());
        }
    };
    Ok(fault)
}
