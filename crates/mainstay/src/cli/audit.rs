//! `mainstay audit`: who changed what, and why; and whether the records of it are what they were.

use std::path::Path;

use mainstay_coord::{BootClock, Moment, Timer as _};
use mainstay_core::problem::Code;
use mainstay_security::audit::{Note, PublicKey};
use serde_json::{Value as Json, json};

use super::arguments::audit::{Audit, Search, Verify};
use super::calls::{encoded, span};
use super::{Ended, Session, usage};
use crate::audit::offline::{self, Failed};
use crate::control_client::Control;
use crate::exit::Exit;
use crate::output::{Column, Table};
use crate::report::Report;
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

const VERIFIED: Table<'static> = Table(&[
    Column::new("RECORDS", "/records"),
    Column::new("SIGNED", "/signed"),
    Column::new("HEADS", "/heads"),
    Column::new("REMOVED", "/removed"),
    Column::new("ROOT", "/root"),
]);

const EXPORTED: Table<'static> =
    Table(&[Column::new("FOLDER", "/folder"), Column::new("RECORDS", "/records")]);

pub(super) fn run(verb: Audit, session: &mut Session<'_>) -> Ended {
    match verb {
        Audit::Search(search) => find(search, session),
        Audit::Show { id } => {
            let document = session.control()?.get(&format!("/api/v1/audit/{}", encoded(&id)))?;
            session.show_one(&document, &RECORDS)
        }
        Audit::Verify(verify) => self::verify(&verify, session),
        Audit::Export { folder } => export(&folder, session),
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
    for other in page.get("elsewhere").and_then(Json::as_array).into_iter().flatten() {
        let (node, records) = (&other["node"], &other["records"]);
        session.note(&format!("not searched: {records} records in the log of node {node}; ask it"));
    }
    Ok(Exit::Done.code())
}

fn verify(verify: &Verify, session: &mut Session<'_>) -> Ended {
    let pinned = verify.keys.iter().map(|text| keys(text)).collect::<Result<Vec<_>, _>>()?;
    let pinned: Vec<PublicKey> = pinned.into_iter().flatten().collect();
    let pinned = (!pinned.is_empty()).then_some(pinned);
    if pinned.is_none() {
        session.note("no --key: the keys that the log itself names are taken for true");
    }
    let heads = verify.heads.iter().map(|path| heads(path)).collect::<Result<Vec<_>, _>>()?;
    let copies: Vec<Note> = heads.into_iter().flatten().collect();
    let verified = match (&verify.dir, &verify.url) {
        (Some(folder), _) => offline::verify(&mut offline::folder(folder), pinned, &copies),
        (None, Some(url)) => {
            let control = Control::find(Some(url), session.variable)?;
            offline::verify(&mut served(&control), pinned, &copies)
        }
        (None, None) => offline::verify(&mut served(&session.control()?), pinned, &copies),
    };
    let verified = verified.map_err(|failed| refused(&failed))?;
    let document = json!({
        "records": verified.size,
        "signed": verified.signed,
        "heads": verified.heads,
        "removed": verified.removed,
        "root": verified.root.to_base64(),
    });
    session.show_one(&document, &VERIFIED)
}

/// The keys that `text` is, or that the file `text` has.
fn keys(text: &str) -> Result<Vec<PublicKey>, Errors> {
    if let Ok(key) = PublicKey::parse(text) {
        return Ok(vec![key]);
    }
    let wrong = |why: String| Errors::from(usage(format!("`--key {text}`: {why}")));
    let lines = std::fs::read_to_string(text).map_err(|error| wrong(error.to_string()))?;
    let keys = lines.lines().filter(|line| !line.is_empty()).map(PublicKey::parse);
    let keys = keys.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(error.to_string()))?;
    if keys.is_empty() { Err(wrong("there is no key in it".to_owned())) } else { Ok(keys) }
}

/// The heads in the file at `path`.
fn heads(path: &Path) -> Result<Vec<Note>, Errors> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    Note::parse_all(&text).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, why: &dyn std::fmt::Display) -> Errors {
    Report::error(Code::AuditUnreadable, format!("`{}`: {why}", path.display())).into()
}

/// Reads the log of the server `control`.
fn served(control: &Control) -> impl FnMut(&str) -> Result<Option<Vec<u8>>, String> {
    |name| {
        let (path, mut bytes) = (format!("/api/v1/audit/{name}"), Vec::new());
        let done = control.download(&path, &[], &mut |chunk, _| {
            bytes.extend_from_slice(chunk);
            Ok(())
        });
        let Err(errors) = done else { return Ok(Some(bytes)) };
        match errors.reports.first() {
            Some(report) if report.exit == Exit::NotFound => Ok(None),
            Some(report) => Err(report.message.clone()),
            None => Err("the server gave no answer".to_owned()),
        }
    }
}

fn refused(failed: &Failed) -> Errors {
    match failed {
        Failed::Tampered(bad) => {
            let report = Report::error(Code::AuditTampered, bad.to_string());
            report.help("keep the log as it is, and compare it with copies of its heads").into()
        }
        Failed::Unreadable(why) => Report::error(Code::AuditUnreadable, why.clone()).into(),
    }
}

fn export(folder: &Path, session: &mut Session<'_>) -> Ended {
    let control = session.control()?;
    let copied = offline::copy(&mut served(&control), folder);
    let records = copied.map_err(|why| Errors::from(Report::error(Code::AuditUnreadable, why)))?;
    let folder = folder.display().to_string();
    session.show_one(&json!({ "folder": folder, "records": records }), &EXPORTED)?;
    session.note(&format!("next: mainstay audit verify --dir {folder}"));
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
