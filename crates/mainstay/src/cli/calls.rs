//! `mainstay route`, `circuit`, `limit`: what a running data plane does, and how to overrule it.

use std::io::{BufRead as _, IsTerminal as _};

use mainstay_coord::keys::RuleKind;
use mainstay_core::problem::Code;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value as Json, json};

use super::arguments::{Circuit, Force, Limit, Route};
use super::settings::reason;
use super::{Ended, Session, rules, usage};
use crate::output::{Column, Format, Table, items};
use crate::report::Report;
use crate::settings::Errors;

/// What may stand in a path segment or query value as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

const CIRCUITS: Table<'static> = Table(&[
    Column::new("ID", "/id"),
    Column::new("CIRCUIT", "/circuit"),
    Column::new("INSTANCE", "/instance"),
    Column::new("STATE", "/state"),
    Column::new("MODE", "/mode").optional(),
    Column::new("SINCE", "/since").optional(),
    Column::new("REASON", "/reason").optional(),
    Column::new("SCOPE", "/scope").wide(),
    Column::new("NEXT CHANGE", "/next_change").wide(),
    Column::new("OPENED", "/opened_total").wide(),
]);

const STAGES: Table<'static> = Table(&[
    Column::new("STAGE", "/stage"),
    Column::new("RULE", "/rule"),
    Column::new("SERVICE", "/service").optional(),
    Column::new("ORIGIN", "/origin").optional(),
]);

const KEYS: Table<'static> = Table(&[Column::new("KEY", "/key"), Column::new("ASKED", "/asked")]);

/// `text` as one path segment or query value.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// Seconds of `90s`, `15m`, `2h` or a bare number of seconds.
pub(super) fn span(text: &str) -> Result<f64, Errors> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 's')) => (text.get(..at), 1.0),
        Some((at, 'm')) => (text.get(..at), 60.0),
        Some((at, 'h')) => (text.get(..at), 3600.0),
        _ => (Some(text), 1.0),
    };
    let seconds = number.and_then(|number| number.parse::<f64>().ok()).map(|n| n * unit);
    seconds.filter(|seconds| seconds.is_finite() && 0.0 < *seconds).ok_or_else(|| {
        usage(format!("`{text}` is no span of time")).help("write `90s`, `15m` or `2h`").into()
    })
}

/// Splits `name: value`.
pub(super) fn header(text: &str) -> Result<(String, String), Errors> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_lowercase(), value.trim().to_owned()))
        }
        _ => Err(usage(format!("`{text}` is no header")).help("write `name: value`").into()),
    }
}

pub(super) fn route(verb: Route, session: &mut Session<'_>) -> Ended {
    let (method, url, headers) = match verb {
        Route::Test { method, url, headers } => (method, url, headers),
        Route::Rule(verb) => return rules::run(RuleKind::ROUTE, verb, session),
    };
    let headers = headers.iter().map(|text| header(text)).collect::<Result<Vec<_>, _>>()?;
    let body = json!({ "method": method.to_uppercase(), "url": url, "headers": headers });
    // A question: it changes nothing, and may be asked twice.
    let answer = session.control()?.ask("POST", "/api/v1/routes/test", Some(&body))?;
    if !session.is_for_people() {
        return session.show(&answer, &STAGES);
    }
    let text = |name: &str| answer.get(name).and_then(Json::as_str);
    let Some(route) = text("route") else {
        return session.print(&format!("route none: {}", text("problem").unwrap_or("no match")));
    };
    session.print(&format!("route {route}"))?;
    let captures = answer.get("captures").and_then(Json::as_object).into_iter().flatten();
    let captures: Vec<String> = captures
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    if !captures.is_empty() {
        session.print(&format!("captures {}", captures.join(" ")))?;
    }
    let services = answer.get("services").and_then(Json::as_array).into_iter().flatten();
    let split: Vec<String> = services
        .filter_map(|service| {
            let share = service.get("share_percent")?.as_f64()?;
            Some(format!("{} {share} %", service.get("service")?.as_str()?))
        })
        .collect();
    if !split.is_empty() {
        let chosen = text("service").filter(|_| 1 < split.len());
        let chosen = chosen.map(|chosen| format!("; this caller: {chosen}")).unwrap_or_default();
        session.print(&format!("split {}{chosen}", split.join(", ")))?;
    }
    let stages = answer.get("stages").cloned().unwrap_or_default();
    session.show(&stages, &STAGES)
}

pub(super) fn circuit(verb: Circuit, session: &mut Session<'_>) -> Ended {
    match verb {
        Circuit::Edit(verb) => rules::change(RuleKind::CIRCUIT, verb, session),
        Circuit::List { policy: true, namespace, .. } => {
            rules::list(RuleKind::CIRCUIT, namespace.as_deref(), session)
        }
        Circuit::List { service, state, .. } => {
            let filters = [("service", service), ("state", state)];
            let query: Vec<String> = filters
                .into_iter()
                .filter_map(|(name, value)| Some(format!("{name}={}", encoded(&value?))))
                .collect();
            let query =
                if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
            let states = session.control()?.get(&format!("/api/v1/circuit-states{query}"))?;
            session.show(&states, &CIRCUITS)
        }
        Circuit::Show { name, policy: true } => rules::show(RuleKind::CIRCUIT, &name, session),
        Circuit::Show { name, policy: false } => show(&name, session),
        Circuit::ForceOpen(force) => {
            let why = reason(force.reason.as_deref(), true)?;
            confirm(&force.id, "every call through it is refused", session)?;
            set_mode(&force, "forced-open", why, session)
        }
        Circuit::ForceClose(force) => {
            let why = reason(force.reason.as_deref(), true)?;
            set_mode(&force, "forced-closed", why, session)
        }
        Circuit::Reset { id, reason: why } => {
            let why = reason(why.as_deref(), false)?;
            let path = format!("/api/v1/circuit-states/{}/reset", encoded(&id));
            let body = json!({ "reason": why });
            let state = session.control()?.change("POST", &path, Some(&body), why.as_deref())?;
            session.show(&json!({ "items": [state] }), &CIRCUITS)
        }
    }
}

fn show(name: &str, session: &mut Session<'_>) -> Ended {
    let states = session.control()?.get("/api/v1/circuit-states")?;
    let is = |item: &Json, field: &str| item.get(field).and_then(Json::as_str) == Some(name);
    let found: Vec<&Json> =
        items(&states).into_iter().filter(|i| is(i, "id") || is(i, "circuit")).collect();
    if found.is_empty() {
        let report = Report::error(Code::NotFound, format!("no circuit `{name}` has a state yet"));
        return Err(report.next("mainstay circuit list").into());
    }
    if matches!(session.global.output, None | Some(Format::Table)) {
        return session.print(&crate::output::blocks(&found));
    }
    session.show(&json!({ "items": found }), &CIRCUITS)
}

fn set_mode(force: &Force, mode: &str, why: Option<String>, session: &mut Session<'_>) -> Ended {
    let expires = force.expires.as_deref().map(span).transpose()?;
    let mut body = json!({ "mode": mode });
    if let Some(fields) = body.as_object_mut() {
        fields.extend(why.as_ref().map(|why| ("reason".to_owned(), json!(why))));
        fields.extend(expires.map(|seconds| ("expires_seconds".to_owned(), json!(seconds))));
    }
    let path = format!("/api/v1/circuit-states/{}/mode", encoded(&force.id));
    let state = session.control()?.change("PUT", &path, Some(&body), why.as_deref())?;
    session.show(&json!({ "items": [state] }), &CIRCUITS)?;
    session.note(&format!("undo: mainstay circuit reset {}", force.id));
    Ok(0)
}

/// Says what will happen and wants the name typed, unless `--yes`.
pub(super) fn confirm(
    name: &str,
    consequence: &str,
    session: &mut Session<'_>,
) -> Result<(), Errors> {
    if session.global.yes {
        return Ok(());
    }
    let input = std::io::stdin();
    if !session.terminal || !input.is_terminal() {
        let report = usage(format!("`{name}`: {consequence}; nobody is here to confirm it"));
        return Err(report.help("add --yes").into());
    }
    drop(write!(session.err, "`{name}`: {consequence}. Type the name to go on: "));
    drop(session.err.flush());
    let mut typed = String::new();
    drop(input.lock().read_line(&mut typed));
    if typed.trim() == name { Ok(()) } else { Err(usage("not confirmed, nothing changed").into()) }
}

pub(super) fn limit(verb: Limit, session: &mut Session<'_>) -> Ended {
    let (name, namespace, top) = match verb {
        Limit::Usage { name, namespace, top } => (name, namespace, top),
        Limit::Rule(verb) => return rules::run(RuleKind::LIMIT, verb, session),
    };
    let path = format!("/api/v1/limits/{}/{}/usage?top={top}", encoded(&namespace), encoded(&name));
    let usage = session.control()?.get(&path)?;
    if !session.is_for_people() {
        return session.show(&usage, &KEYS);
    }
    let mut head = usage.clone();
    let keys = head.as_object_mut().and_then(|fields| fields.remove("top")).unwrap_or_default();
    session.print(&crate::output::blocks(&[&head]))?;
    if items(&keys).is_empty() { Ok(0) } else { session.show(&keys, &KEYS) }
}
