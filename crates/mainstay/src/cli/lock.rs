//! `mainstay lock` and `mainstay leader`.

mod run;

use mainstay_api::lock::Area;
use serde_json::{Value as Json, json};

use super::arguments::lock::{Leader, Lock, One, Page};
use super::calls::{confirm, encoded};
use super::settings::reason;
use super::{Ended, Session};
use crate::exit::Exit;
use crate::output::{Column, Table, items};

const PLACES: Table<'static> =
    Table(&[Column::new("NAMESPACE", "/namespace"), Column::new("NAME", "/name")]);

const HELD: Table<'static> = Table(&[
    Column::new("NAMESPACE", "/namespace"),
    Column::new("NAME", "/name"),
    Column::new("HOLDER", "/holders/0/owner/host"),
    Column::new("PROGRAM", "/holders/0/owner/name").optional(),
    Column::new("PID", "/holders/0/owner/pid").wide(),
    Column::new("TOKEN", "/holders/0/token"),
    Column::new("SINCE", "/holders/0/since").optional(),
    Column::new("WAITERS", "/waiters"),
]);

pub(super) fn lock(verb: Lock, session: &mut Session<'_>) -> Ended {
    match verb {
        Lock::List { page, waiters: false } => list(Area::Lock, &page, session),
        Lock::List { page, waiters: true } => waiters(&page, session),
        Lock::Show(lock) => show(Area::Lock, &lock, session),
        Lock::Run(arguments) => run::lock(arguments, session),
        Lock::Release { lock, token, reason: why } => {
            take(Area::Lock, &lock, token, why.as_deref(), session)
        }
    }
}

pub(super) fn leader(verb: Leader, session: &mut Session<'_>) -> Ended {
    match verb {
        Leader::List(page) => list(Area::Election, &page, session),
        Leader::Show(election) => show(Area::Election, &election, session),
        Leader::Run(arguments) => run::leader(arguments, session),
        Leader::Resign { election, term, reason: why } => {
            take(Area::Election, &election, term, why.as_deref(), session)
        }
    }
}

fn list(area: Area, page: &Page, session: &mut Session<'_>) -> Ended {
    let after = page.after.as_deref().map(|name| format!("?after={}", encoded(name)));
    let namespace = encoded(&page.namespace);
    let path = format!("/api/v1/{}/{namespace}{}", area.segment(), after.unwrap_or_default());
    let places = session.control()?.get(&path)?;
    session.show(&places, &PLACES)?;
    if let Some(next) = places.get("next").and_then(Json::as_str) {
        session.note(&format!("more: add --after '{next}'"));
    }
    Ok(Exit::Done.code())
}

/// Those of a page, with who holds each and how many wait.
fn waiters(page: &Page, session: &mut Session<'_>) -> Ended {
    let after = page.after.as_deref().map(|name| format!("?after={}", encoded(name)));
    let of = format!("/api/v1/locks/{}", encoded(&page.namespace));
    let control = session.control()?;
    let places = control.get(&format!("{of}{}", after.unwrap_or_default()))?;
    let mut lines = Vec::new();
    for place in items(places.get("items").unwrap_or(&Json::Null)) {
        let name = place.get("name").and_then(Json::as_str).unwrap_or_default();
        let mut lock = control.get(&format!("{of}/{}", encoded(name)))?;
        let waiting = lock.get("queue").map_or(0, |queue| items(queue).len());
        if let Some(fields) = lock.as_object_mut() {
            fields.insert("waiters".to_owned(), waiting.into());
        }
        lines.push(lock);
    }
    session.show(&json!({ "items": lines, "next": places.get("next") }), &HELD)?;
    if let Some(next) = places.get("next").and_then(Json::as_str) {
        session.note(&format!("more: add --after '{next}'"));
    }
    Ok(Exit::Done.code())
}

fn show(area: Area, one: &One, session: &mut Session<'_>) -> Ended {
    let document = session.control()?.get(&path(area, one))?;
    session.show_one(&document, &PLACES)
}

/// Takes something from whoever holds it with `token`.
fn take(area: Area, one: &One, token: u64, why: Option<&str>, session: &mut Session<'_>) -> Ended {
    let why = reason(why, true)?;
    let consequence = "its holder may still believe in it; only its token fences it";
    confirm(&one.name, consequence, session)?;
    let body = json!({ "token": token, "reason": why });
    let at = format!("{}/force-release", path(area, one));
    session.control()?.change("POST", &at, Some(&body), why.as_deref())?;
    session.note(&format!("released {}", one.name));
    Ok(Exit::Done.code())
}

fn path(area: Area, one: &One) -> String {
    format!("/api/v1/{}/{}/{}", area.segment(), encoded(&one.namespace), encoded(&one.name))
}
