//! `mainstay deferred`: requests that were taken on and are made later.

use serde_json::{Value as Json, json};

use super::arguments::deferred::{Deferred, One};
use super::calls::{confirm, encoded};
use super::settings::reason;
use super::{Ended, Session};
use crate::exit::Exit;
use crate::output::{Column, Table};
use crate::settings::Errors;

const QUEUES: Table<'static> = Table(&[
    Column::new("QUEUE", "/queue"),
    Column::new("QUEUED", "/queued"),
    Column::new("DELIVERING", "/delivering"),
    Column::new("MOST", "/items_max").optional(),
    Column::new("BYTES", "/bytes").optional(),
    Column::new("CONCURRENCY", "/concurrency").wide(),
    Column::new("BYTES MOST", "/bytes_max").wide(),
]);

const REQUESTS: Table<'static> = Table(&[
    Column::new("RECEIPT", "/receipt"),
    Column::new("STATE", "/state"),
    Column::new("TRIES", "/tries"),
    Column::new("SERVICE", "/service").optional(),
    Column::new("METHOD", "/method").optional(),
    Column::new("PATH", "/path").optional(),
    Column::new("QUEUED", "/queued_at").optional(),
    Column::new("LAST ERROR", "/last_error").optional(),
    Column::new("NEXT TRY", "/next_try_at").wide(),
    Column::new("ENDED", "/ended_at").wide(),
    Column::new("BYTES", "/bytes").wide(),
]);

pub(super) fn run(verb: Deferred, session: &mut Session<'_>) -> Ended {
    match verb {
        Deferred::List { queue: None, .. } => {
            let queues = session.control()?.get("/api/v1/deferred")?;
            session.show(&queues, &QUEUES)
        }
        Deferred::List { queue: Some(queue), state, limit, cursor } => {
            let page = page(&queue, state.as_deref(), limit, cursor.as_deref(), session)?;
            session.show(&page, &REQUESTS)?;
            if let Some(next) = page.get("next").and_then(Json::as_str) {
                session.note(&format!("more: add --cursor '{next}'"));
            }
            if page.get("partial").and_then(Json::as_bool) == Some(true) {
                session.note("some may be missing: the node has not read all it owns yet");
            }
            Ok(Exit::Done.code())
        }
        Deferred::Show(one) => {
            let document = session.control()?.get(&path(&one.queue, &one.receipt, ""))?;
            shown(&document, session)
        }
        Deferred::Replay { queue, receipt: Some(receipt), reason: why, .. } => {
            let why = reason(why.as_deref(), true)?;
            let document = replay(&queue, &receipt, why.as_deref(), session)?;
            shown(&document, session)
        }
        Deferred::Replay { queue, receipt: None, reason: why, .. } => {
            let why = reason(why.as_deref(), true)?;
            replay_all(&queue, why.as_deref(), session)
        }
        Deferred::Discard { one: One { queue, receipt }, reason: why } => {
            let why = reason(why.as_deref(), true)?;
            confirm(&receipt, "the request is not made any more", session)?;
            let at = path(&queue, &receipt, "/discard");
            session.control()?.change("POST", &at, Some(&json!({})), why.as_deref())?;
            session.note(&format!("{receipt} is discarded"));
            Ok(Exit::Done.code())
        }
    }
}

fn path(queue: &str, receipt: &str, rest: &str) -> String {
    format!("/api/v1/deferred/{}/{}{rest}", encoded(queue), encoded(receipt))
}

fn page(
    queue: &str,
    state: Option<&str>,
    limit: usize,
    cursor: Option<&str>,
    session: &mut Session<'_>,
) -> Result<Json, Errors> {
    let state = state.map(|state| format!("&state={state}")).unwrap_or_default();
    let cursor = cursor.map(|cursor| format!("&cursor={}", encoded(cursor))).unwrap_or_default();
    let path = format!("/api/v1/deferred/{}?limit={limit}{state}{cursor}", encoded(queue));
    session.control()?.get(&path)
}

fn replay(
    queue: &str,
    receipt: &str,
    why: Option<&str>,
    session: &mut Session<'_>,
) -> Result<Json, Errors> {
    let at = path(queue, receipt, "/replay");
    session.control()?.change("POST", &at, Some(&json!({})), why)
}

/// One after the other, from page to page; ends at the first that is refused, and says how many
/// there were before it.
fn replay_all(queue: &str, why: Option<&str>, session: &mut Session<'_>) -> Ended {
    let (mut cursor, mut replayed) = (None::<String>, 0_u64);
    loop {
        let page = page(queue, Some("dead"), 500, cursor.as_deref(), session)?;
        for item in page.get("items").and_then(Json::as_array).into_iter().flatten() {
            let Some(receipt) = item.get("receipt").and_then(Json::as_str) else { continue };
            if let Err(error) = replay(queue, receipt, why, session) {
                session.note(&format!("{replayed} were replayed before {receipt}"));
                return Err(error);
            }
            replayed += 1;
        }
        match page.get("next").and_then(Json::as_str) {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    session.note(&format!("{replayed} dead requests of {queue} are queued again"));
    Ok(Exit::Done.code())
}

fn shown(document: &Json, session: &mut Session<'_>) -> Ended {
    session.show_one(document, &REQUESTS)
}
