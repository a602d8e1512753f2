//! `mainstay audit`: who changed what, and why.

use mainstay_coord::{BootClock, Moment, Timer as _};
use serde_json::Value as Json;

use super::arguments::audit::{Audit, Search};
use super::calls::{encoded, span};
use super::{Ended, Session, usage};
use crate::exit::Exit;
use crate::output::{Column, Table};
use crate::settings::Errors;

const RECORDS: Table<'static> = Table(&[
    Column::new("TIME", "/time"),
    Column::new("WHO", "/actor/principal"),
    Column::new("ACTION", "/action"),
    Column::new("OBJECT", "/target/id"),
    Column::new("OUTCOME", "/outcome").optional(),
    Column::new("REASON", "/reason").optional(),
    Column::new("BEFORE", "/target/revision_before").wide(),
    Column::new("AFTER", "/target/revision_after").wide(),
    Column::new("VIA", "/actor/via").wide(),
    Column::new("ADDRESS", "/actor/address").wide(),
    Column::new("ID", "/id").wide(),
]);

pub(super) fn run(verb: Audit, session: &mut Session<'_>) -> Ended {
    match verb {
        Audit::Search(search) => find(search, session),
        Audit::Show { id } => {
            let document = session.control()?.get(&format!("/api/v1/audit/{}", encoded(&id)))?;
            session.show_one(&document, &RECORDS)
        }
    }
}

fn find(search: Search, session: &mut Session<'_>) -> Ended {
    let since = search.since.as_deref().map(moment).transpose()?;
    let until = search.until.as_deref().map(moment).transpose()?;
    let asked = [
        ("actor", search.actor),
        ("action", search.action),
        ("object", search.object),
        ("outcome", search.outcome),
        ("source", search.source),
        ("q", search.words),
        ("from", since),
        ("to", until),
        ("cursor", search.cursor),
    ];
    let asked = asked.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let mut query = vec![format!("limit={}", search.limit)];
    query.extend(asked.map(|(name, value)| format!("{name}={}", encoded(&value))));
    let query = query.join("&");
    let page = session.control()?.get(&format!("/api/v1/audit?{query}"))?;
    session.show(&page, &RECORDS)?;
    if let Some(next) = page.get("next").and_then(Json::as_str) {
        session.note(&format!("more: add --cursor {next}"));
    }
    let trimmed = page.get("trimmed").and_then(Json::as_u64).unwrap_or_default();
    if 0 < trimmed {
        session.note(&format!("{trimmed} older records are gone: only the newest are kept"));
    }
    Ok(Exit::Done.code())
}

/// A time of day: RFC 3339, or so long ago.
pub(super) fn moment(text: &str) -> Result<String, Errors> {
    time(text, u64::saturating_sub)
}

/// A time of day: RFC 3339, or so long from now.
pub(super) fn later(text: &str) -> Result<String, Errors> {
    time(text, u64::saturating_add)
}

fn time(text: &str, from_now: fn(u64, u64) -> u64) -> Result<String, Errors> {
    if let Ok(moment) = Moment::parse(text) {
        return Ok(moment.to_string());
    }
    let Ok(seconds) = span(text) else {
        let wrong = usage(format!("`{text}` is no time"));
        return Err(wrong.help("write `15m`, `2h`, or a time like 2026-01-02T03:04:05Z").into());
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive number of milliseconds; too many end where time as written does"
    )]
    let millis = (seconds * 1_000.0) as u64;
    Ok(Moment::from_unix_millis(from_now(BootClock.unix_millis(), millis)).to_string())
}
