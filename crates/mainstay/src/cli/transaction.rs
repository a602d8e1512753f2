//! `mainstay transaction`, alias `tx`: global transactions, looked at and helped on.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_call::clock::MonotonicClock;
use mainstay_core::Clock as _;
use mainstay_core::problem::Code;
use mainstay_txn::resource::{Kind, grants, tables};
use serde_json::{Value as Json, json};

use super::arguments::transaction::{Find, Outcome, Resource, Told, Transaction};
use super::audit::moment;
use super::calls::{confirm, encoded, span};
use super::settings::reason;
use super::{Ended, Session, conformance, usage};
use crate::exit::Exit;
use crate::output::{Column, Table, blocks};
use crate::report::Report;
use crate::settings::Errors;

const TRANSACTIONS: Table<'static> = Table(&[
    Column::new("GID", "/gid"),
    Column::new("MODE", "/mode"),
    Column::new("STATE", "/state"),
    Column::new("NAME", "/name").optional(),
    Column::new("BRANCHES", "/branch_count").optional(),
    Column::new("BEGUN", "/created_at").optional(),
    Column::new("STUCK", "/stuck").optional(),
    Column::new("WHY", "/reason/why").optional(),
    Column::new("DETAIL", "/reason/detail").wide(),
    Column::new("DECIDED", "/decided_at").wide(),
    Column::new("ENDED", "/finished_at").wide(),
    Column::new("DEADLINE", "/deadline_at").wide(),
    Column::new("DIALECT", "/dialect").wide(),
]);

const RESOURCES: Table<'static> = Table(&[
    Column::new("NAME", "/name"),
    Column::new("KIND", "/kind"),
    Column::new("STATE", "/state"),
    Column::new("PLACE", "/place").optional(),
    Column::new("FAULT", "/faults/0/what").optional(),
    Column::new("SESSIONS", "/sessions_in_use").optional(),
    Column::new("USER", "/user").wide(),
    Column::new("CHECKED", "/checked_at").wide(),
    Column::new("DOWN SINCE", "/down_since").wide(),
]);

const PREPARED: Table<'static> = Table(&[
    Column::new("XID", "/xid"),
    Column::new("AGE S", "/age_seconds"),
    Column::new("VERDICT", "/verdict"),
    Column::new("OUTCOME", "/outcome").optional(),
    Column::new("OWNER", "/owner").optional(),
    Column::new("GID", "/gid").wide(),
    Column::new("BRANCH", "/branch").wide(),
]);

const PURGED: Table<'static> = Table(&[
    Column::new("RESOURCE", "/resource"),
    Column::new("ROWS", "/rows"),
    Column::new("DELETED", "/deleted"),
    Column::new("KEPT", "/kept"),
]);

/// How long one question waits: less than an answer may take.
const ASK_SECONDS: f64 = 8.0;

/// How often what is live is looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);

pub(super) fn run(verb: Transaction, session: &mut Session<'_>) -> Ended {
    match verb {
        Transaction::List(find) => list(&find, session),
        Transaction::Stuck => {
            let page = session.control()?.get("/api/v1/transactions?stuck=true&limit=500")?;
            told_of(&page, session)
        }
        Transaction::Show(one) => show(&one.gid, session),
        Transaction::Watch { gid: Some(gid) } => watch_one(&gid, session),
        Transaction::Watch { gid: None } => watch(session),
        Transaction::Wait { one, until, patience } => wait(&one.gid, until, &patience, session),
        Transaction::Retry(told) => change("retry", &told, &json!({}), session),
        Transaction::Pause(told) => change("pause", &told, &json!({}), session),
        Transaction::Resume(told) => change("resume", &told, &json!({}), session),
        Transaction::Redeliver(told) => change("redeliver", &told, &json!({}), session),
        Transaction::Abort(told) => {
            reason(told.reason.as_deref(), true)?;
            confirm(&told.gid, "what its branches did is undone", session)?;
            change("abort", &told, &json!({}), session)
        }
        Transaction::Resolve { told, outcome, branch } => {
            reason(told.reason.as_deref(), true)?;
            let consequence = "no branch is asked; what it did or did not stays as it is";
            confirm(&told.gid, consequence, session)?;
            let body = json!({ "as": outcome.as_str(), "branch": branch });
            change("resolve", &told, &body, session)
        }
        Transaction::Resources => {
            let all = session.control()?.get("/api/v1/transaction-resources")?;
            session.show(&all, &RESOURCES)
        }
        Transaction::Prepared { resource } => {
            let found = session.control()?.get(&of_resource(&resource, "/prepared"))?;
            session.show(&found, &PREPARED)
        }
        Transaction::Sweep { resource, report_only, reason: why } => {
            let why = reason(why.as_deref(), !report_only)?;
            let body = json!({ "report_only": report_only });
            let at = of_resource(&resource, "/sweep");
            let found = session.control()?.change("POST", &at, Some(&body), why.as_deref())?;
            session.show(&found, &PREPARED)
        }
        Transaction::PurgeBarrier { resource, older_than, reason: why } => {
            let why = reason(why.as_deref(), true)?;
            let age = Duration::from_secs_f64(span(&older_than)?).as_secs();
            let consequence = "what comes once more after that long is done once more";
            confirm(&resource, consequence, session)?;
            purge_barrier(&resource, age, why.as_deref(), session)
        }
        Transaction::AcceptLog { reason: why } => {
            let why = reason(why.as_deref(), true)?;
            let consequence =
                "what databases hold prepared and the log does not know is rolled back";
            confirm("transaction-log", consequence, session)?;
            let at = "/api/v1/transaction-log/accept";
            let done = session.control()?.change("POST", at, Some(&json!({})), why.as_deref())?;
            session.print(&blocks(&[&done]))
        }
        Transaction::Conformance(asked) => conformance::run(*asked, session),
        Transaction::Resource { verb } => of_one(&verb, session),
    }
}

fn path(gid: &str, rest: &str) -> String {
    format!("/api/v1/transactions/{}{rest}", encoded(gid))
}

fn of_resource(name: &str, rest: &str) -> String {
    format!("/api/v1/transaction-resources/{}{rest}", encoded(name))
}

fn of_one(verb: &Resource, session: &mut Session<'_>) -> Ended {
    let document = match verb {
        Resource::Show { resource } => session.control()?.get(&of_resource(resource, ""))?,
        Resource::Check { resource } => {
            session.control()?.change("POST", &of_resource(resource, "/check"), None, None)?
        }
        Resource::Init { resource, print: true, reason: _ } => {
            let document = session.control()?.get(&of_resource(resource, ""))?;
            let field = |name: &str| document.get(name).and_then(Json::as_str).unwrap_or_default();
            let Some(kind) = Kind::parse(field("kind")) else {
                let what = format!("this command knows no databases of kind `{}`", field("kind"));
                return Err(usage(what).into());
            };
            let tables = tables(kind).iter().map(|made| (*made).to_owned());
            let all = tables.chain(grants(kind, field("user")));
            let text = all.fold(String::new(), |text, statement| text + &statement + ";\n");
            return session.print(&text);
        }
        Resource::Init { resource, print: false, reason: why } => {
            let why = reason(why.as_deref(), true)?;
            let at = of_resource(resource, "/init");
            session.control()?.change("POST", &at, Some(&json!({})), why.as_deref())?
        }
    };
    session.show_one(&document, &RESOURCES)
}

/// Asks for round after round until all rows were looked at.
fn purge_barrier(resource: &str, age: u64, why: Option<&str>, session: &mut Session<'_>) -> Ended {
    let at = of_resource(resource, "/purge-barrier");
    let control = session.control()?;
    let (mut rows, mut deleted, mut kept) = (0, 0, 0);
    let mut after = None;
    loop {
        let body = json!({ "older_than_seconds": age, "after": after });
        let round = control.change("POST", &at, Some(&body), why)?;
        let count = |name: &str| round.get(name).and_then(Json::as_u64).unwrap_or_default();
        rows += count("rows");
        deleted += count("deleted");
        kept += count("kept");
        after = round.get("next").cloned();
        if after.is_none() {
            break;
        }
        session.note(&format!("{rows} rows looked at, {deleted} deleted"));
    }
    let all = json!({ "resource": resource, "rows": rows, "deleted": deleted, "kept": kept });
    session.show_one(&all, &PURGED)
}

fn list(find: &Find, session: &mut Session<'_>) -> Ended {
    let mut query = vec![format!("limit={}", find.limit)];
    let since = find.since.as_deref().map(moment).transpose()?;
    let asked = [
        ("state", find.state.clone()),
        ("mode", find.mode.clone()),
        ("name", find.name.clone()),
        ("target", find.target.clone()),
        ("since", since),
        ("stuck", find.stuck.then(|| "true".to_owned())),
        ("cursor", find.cursor.clone()),
    ];
    let asked = asked.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let labels = find.labels.iter().map(|pair| match pair.split_once('=') {
        Some((name, value)) => Ok((format!("label.{}", encoded(name)), value.to_owned())),
        None => {
            let wrong = usage(format!("`{pair}` is no label"));
            Err(Errors::from(wrong.help("write `name=value`")))
        }
    });
    let labels = labels.collect::<Result<Vec<_>, _>>()?;
    let all = asked.chain(labels).map(|(name, value)| format!("{name}={}", encoded(&value)));
    query.extend(all);
    let page = session.control()?.get(&format!("/api/v1/transactions?{}", query.join("&")))?;
    told_of(&page, session)
}

fn told_of(page: &Json, session: &mut Session<'_>) -> Ended {
    session.show(page, &TRANSACTIONS)?;
    if let Some(next) = page.get("next").and_then(Json::as_str) {
        session.note(&format!("more: add --cursor '{next}'"));
    }
    if page.get("partial").and_then(Json::as_bool) == Some(true) {
        session.note("some may be missing: the node has not read all it owns yet");
    }
    Ok(Exit::Done.code())
}

fn show(gid: &str, session: &mut Session<'_>) -> Ended {
    let document = session.control()?.get(&path(gid, ""))?;
    shown(&document, session)
}

fn shown(document: &Json, session: &mut Session<'_>) -> Ended {
    session.show_one(document, &TRANSACTIONS)
}

/// Waits for the end, question by question.
fn wait(gid: &str, until: Outcome, patience: &str, session: &mut Session<'_>) -> Ended {
    let patience = Duration::from_secs_f64(span(patience)?);
    let began = MonotonicClock.now();
    let control = session.control()?;
    let document = loop {
        let left = patience.saturating_sub(MonotonicClock.now().since(began)).as_secs_f64();
        let rest = format!("?wait=done&wait_seconds={:.1}", left.min(ASK_SECONDS));
        let document = control.get(&path(gid, &rest))?;
        let state = document.get("state").and_then(Json::as_str).unwrap_or_default();
        if matches!(state, "committed" | "aborted" | "mixed") {
            break document;
        }
        if left <= 0.0 {
            let what = format!("`{gid}` is still {state}");
            return Err(Report::error(Code::DeadlineExceeded, what)
                .help("wait longer with --for, or look with `mainstay transaction show`")
                .into());
        }
    };
    shown(&document, session)?;
    let is_so = document.get("state").and_then(Json::as_str) == Some(until.as_str());
    Ok(if is_so { Exit::Done } else { Exit::Failed }.code())
}

/// Prints each change of what is live.
fn watch(session: &mut Session<'_>) -> Ended {
    let control = session.control()?;
    let mut known: BTreeMap<String, Json> = BTreeMap::new();
    loop {
        let page = control.get("/api/v1/transactions?limit=500")?;
        let items = page.get("items").and_then(Json::as_array).into_iter().flatten();
        let mut seen = BTreeMap::new();
        let mut changed = Vec::new();
        for item in items {
            let gid = item.get("gid").and_then(Json::as_str).unwrap_or_default().to_owned();
            if known.get(&gid) != Some(item) {
                changed.push(item.clone());
            }
            seen.insert(gid, item.clone());
        }
        // The oldest first, as it happened.
        for item in changed.iter().rev() {
            if !line(item, session) {
                return Ok(Exit::Done.code());
            }
        }
        known = seen;
        rest();
    }
}

/// Prints each change of one transaction until it has ended.
fn watch_one(gid: &str, session: &mut Session<'_>) -> Ended {
    let control = session.control()?;
    let mut known = Json::Null;
    loop {
        let document = control.get(&path(gid, ""))?;
        if document != known && !line(&document, session) {
            return Ok(Exit::Done.code());
        }
        let state = document.get("state").and_then(Json::as_str).unwrap_or_default();
        if matches!(state, "committed" | "aborted") {
            return Ok(Exit::Done.code());
        }
        known = document;
        rest();
    }
}

#[expect(clippy::disallowed_methods, reason = "the command line has a thread to itself")]
fn rest() {
    std::thread::sleep(WATCH_EVERY);
}

/// Prints one; `false` when nobody reads any more.
fn line(item: &Json, session: &mut Session<'_>) -> bool {
    let is_text = session.is_for_people();
    let text = if is_text {
        let field = |name: &str| item.get(name).and_then(Json::as_str).unwrap_or_default();
        let is_stuck = item.get("stuck").and_then(Json::as_bool) == Some(true);
        let stuck = if is_stuck { " stuck" } else { "" };
        let why = item.pointer("/reason/why").and_then(Json::as_str);
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        format!("{} {} {}{stuck}{why}", field("gid"), field("mode"), field("state"))
    } else {
        item.to_string()
    };
    writeln!(session.out, "{text}").and_then(|()| session.out.flush()).is_ok()
}

fn change(verb: &str, told: &Told, body: &Json, session: &mut Session<'_>) -> Ended {
    let why = reason(told.reason.as_deref(), true)?;
    let at = path(&told.gid, &format!("/{verb}"));
    let document = session.control()?.change("POST", &at, Some(body), why.as_deref())?;
    let field = |name: &str| document.get(name).and_then(Json::as_str).unwrap_or_default();
    session.note(&format!("{} is {}", field("gid"), field("state")));
    if session.is_for_people() {
        return Ok(Exit::Done.code());
    }
    session.show(&document, &TRANSACTIONS)
}
