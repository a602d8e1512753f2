//! `mainstay route`, `upstream`, `circuit`, `limit`, `fallback`: rules of the store and of files.

mod simulate;

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;
use std::sync::Arc;

use mainstay_coord::keys::RuleKind;
use mainstay_core::problem::Code;
use serde_json::{Value as Json, json};

use super::arguments::rules::{Content, Difference, Edit, Look, Remove, Rollback, Rule, Set};
use super::calls::{confirm, encoded};
use super::settings::reason;
use super::{Ended, Session, usage};
use crate::control_client::Control;
use crate::exit::Exit;
use crate::output::{Column, Format, Table, items};
use crate::report::Report;
use crate::rules::KINDS;
use crate::settings::Errors;
use crate::settings::spans::{Place, Text};

const RULES: Table<'static> = Table(&[
    Column::new("NAMESPACE", "/namespace"),
    Column::new("NAME", "/name"),
    Column::new("MANAGED BY", "/managed_by"),
    Column::new("REVISION", "/revision"),
    Column::new("STATE", "/state"),
    Column::new("PROBLEM", "/problem").optional(),
    Column::new("PLACE", "/place").optional(),
    Column::new("AT", "/at").wide(),
    Column::new("WHO", "/who").wide(),
    Column::new("WHY", "/why").wide(),
]);

const HISTORY: Table<'static> = Table(&[
    Column::new("REVISION", "/revision"),
    Column::new("AT", "/at"),
    Column::new("WHO", "/who"),
    Column::new("WHY", "/why"),
    Column::new("REMOVED", "/removed").optional(),
    Column::new("BACK TO", "/rollback_of").optional(),
    Column::new("FROM", "/from").wide(),
    Column::new("BYTES", "/bytes").wide(),
]);

/// One noun of the command line, and the rule it is about.
struct Of<'a> {
    kind: RuleKind,
    /// `namespace/name`, as typed.
    name: &'a str,
    namespace: &'a str,
    bare: &'a str,
}

impl<'a> Of<'a> {
    fn new(kind: RuleKind, name: &'a str) -> Result<Self, Errors> {
        let (namespace, bare) = name.split_once('/').unwrap_or(("default", name));
        if bare.is_empty() || namespace.is_empty() || bare.contains('/') {
            let wrong = usage(format!("`{name}` is no {kind}"));
            return Err(wrong.help("write `name` or `namespace/name`").into());
        }
        Ok(Self { kind, name, namespace, bare })
    }

    /// The path of its calls.
    fn path(&self) -> String {
        format!("{}/{}/{}", root(self.kind), encoded(self.namespace), encoded(self.bare))
    }

    /// The revision there is, 0 for none.
    fn revision(&self, control: &Control) -> Result<u64, Errors> {
        match control.get(&self.path()) {
            Ok(shown) => Ok(shown.get("revision").and_then(Json::as_u64).unwrap_or(0)),
            Err(errors) if is(&errors, Code::NotFound) => Ok(0),
            Err(errors) => Err(errors),
        }
    }

    /// The line that takes a change back, whose revision before was `before`.
    fn undo(&self, before: u64) -> String {
        let Self { kind, name, .. } = self;
        if before == 0 {
            format!("undo: mainstay {kind} remove {name} --reason …")
        } else {
            format!("undo: mainstay {kind} rollback {name} --to {before} --reason …")
        }
    }
}

fn is(errors: &Errors, code: Code) -> bool {
    errors.reports.first().is_some_and(|report| report.code == code.as_str())
}

/// The path of a kind's calls.
fn root(kind: RuleKind) -> String {
    let path = KINDS.iter().find(|known| known.key == kind).map_or("", |known| known.path);
    format!("/api/v1{path}")
}

pub(super) fn run(kind: RuleKind, verb: Rule, session: &mut Session<'_>) -> Ended {
    match verb {
        Rule::Look(Look::List { namespace }) => list(kind, namespace.as_deref(), session),
        Rule::Look(Look::Show { name }) => show(kind, &name, session),
        Rule::Edit(edit) => change(kind, edit, session),
    }
}

pub(super) fn change(kind: RuleKind, verb: Edit, session: &mut Session<'_>) -> Ended {
    match verb {
        Edit::Set(ask) => set(kind, &ask, session),
        Edit::Validate { content } => validate(kind, &content, session),
        Edit::Simulate(ask) => simulate::run(kind, &ask, session),
        Edit::Diff(ask) => diff(kind, &ask, session),
        Edit::History { name, from } => history(&Of::new(kind, &name)?, from, session),
        Edit::Rollback(ask) => roll_back(kind, &ask, session),
        Edit::Remove(ask) => remove(kind, &ask, session),
    }
}

pub(super) fn list(kind: RuleKind, namespace: Option<&str>, session: &mut Session<'_>) -> Ended {
    let of = namespace.map(|name| format!("/{}", encoded(name))).unwrap_or_default();
    let (control, path) = (session.control()?, format!("{}{of}", root(kind)));
    let mut page = control.get(&path)?;
    let mut all: Vec<Json> = items(&page).into_iter().cloned().collect();
    while let Some(next) = page.get("next").and_then(Json::as_str) {
        page = control.get(&format!("{path}?after={}", encoded(next)))?;
        all.extend(items(&page).into_iter().cloned());
    }
    session.show(&json!({ "items": all }), &RULES)
}

pub(super) fn show(kind: RuleKind, name: &str, session: &mut Session<'_>) -> Ended {
    let shown = session.control()?.get(&Of::new(kind, name)?.path())?;
    if !session.is_for_people() {
        return session.show(&shown, &RULES);
    }
    let text = |member: &str| shown.get(member).and_then(Json::as_str);
    match (shown.get("revision").and_then(Json::as_u64), text("place")) {
        (Some(revision), _) => {
            let why = text("why").map(|why| format!(": {why}")).unwrap_or_default();
            let (at, who) = (text("at").unwrap_or_default(), text("who").unwrap_or_default());
            session.note(&format!("revision {revision}, {at}, {who}{why}"));
        }
        (None, place) => session.note(&format!("from {}", place.unwrap_or("a file"))),
    }
    if let Some(problem) = text("problem") {
        session.note(&format!("not in force as written: {problem}"));
    }
    // The text alone, so that it can be sent to a file, edited, and set again.
    session.print(text("content").unwrap_or_default())
}

/// What shall be put: the text with its name, and as it is sent.
fn read(content: &Content) -> Result<(Arc<Text>, Json), Errors> {
    let file = content.file.as_deref().filter(|path| *path != Path::new("-"));
    let (name, text) = match file {
        Some(path) => (path.display().to_string(), std::fs::read_to_string(path)),
        None => {
            let mut input = std::io::stdin();
            if input.is_terminal() {
                let nothing = usage("no content: name a file, or pipe one in");
                return Err(nothing.help("add -f PATH").into());
            }
            let mut text = String::new();
            let read = input.read_to_string(&mut text);
            ("stdin".to_owned(), read.map(|_bytes| text))
        }
    };
    let text = text.map_err(|error| {
        Report::error(Code::ConfigFileMissing, format!("`{name}` cannot be read: {error}"))
    })?;
    let is_json = Path::new(&name).extension().is_some_and(|ending| ending == "json");
    let sent = if is_json {
        serde_json::from_str(&text)
            .map_err(|error| Report::error(Code::ConfigSyntax, format!("`{name}`: {error}")))?
    } else {
        json!(text)
    };
    Ok((Text::new(name, &text), sent))
}

/// Asks what would be wrong with a content.
fn check(of: &Of<'_>, control: &Control, (text, sent): &(Arc<Text>, Json)) -> Result<Json, Errors> {
    let body = json!({ "content": sent, "namespace": of.namespace, "name": of.bare });
    let path = format!("{}/validate", root(of.kind));
    let answer = control.ask("POST", &path, Some(&body))?;
    let errors = answer.get("errors").cloned().unwrap_or_default();
    // The lines of a document are those of the table it was written as.
    let text = sent.is_string().then_some(text);
    let reports: Vec<Report> = items(&errors).into_iter().map(|e| report(e, text)).collect();
    if reports.is_empty() { Ok(answer) } else { Err(Errors { reports }) }
}

fn report(error: &Json, text: Option<&Arc<Text>>) -> Report {
    let field = |name: &str| error.get(name).and_then(Json::as_str);
    let code = field("code").unwrap_or_default().to_owned();
    let mut report = Report::named(code, Exit::Invalid, field("detail").unwrap_or_default());
    report.help.extend(field("suggestion").map(str::to_owned));
    let number = |name: &str| {
        error.get(name).and_then(Json::as_u64).and_then(|number| usize::try_from(number).ok())
    };
    if let (Some(text), Some(line), Some(column)) = (text, number("line"), number("column")) {
        let start = text.offset_of(line, column);
        let rest = text.body.get(start..).unwrap_or_default();
        let ends = |c: char| c.is_whitespace() || matches!(c, '=' | ',' | ']' | '}');
        report = report.at(Place::file(text, start..start + rest.find(ends).unwrap_or(rest.len())));
    }
    report
}

fn validate(kind: RuleKind, content: &Content, session: &mut Session<'_>) -> Ended {
    let of = Of::new(kind, &content.name)?;
    let read = read(content)?;
    let answer = check(&of, &session.control()?, &read)?;
    warn(&answer, session);
    match session.global.output {
        None | Some(Format::Table | Format::Wide) => {
            session.print(&format!("valid: {}", read.0.name))
        }
        Some(_) => session.show(&answer, &RULES),
    }
}

fn set(kind: RuleKind, ask: &Set, session: &mut Session<'_>) -> Ended {
    let of = Of::new(kind, &ask.content.name)?;
    let why = reason(ask.reason.as_deref(), false)?;
    let read = read(&ask.content)?;
    let control = session.control()?;
    check(&of, &control, &read)?;
    let before = match ask.base {
        Some(base) => base,
        None => of.revision(&control)?,
    };
    let (path, body) = (dry(&of.path(), ask.rehearsal.dry_run), json!({ "content": read.1 }));
    let answer = control.change_from("PUT", &path, Some(&body), why.as_deref(), Some(before));
    let answer = match answer {
        Err(errors) if is(&errors, Code::RevisionMoved) => {
            // What somebody else wrote meanwhile, beside what was to be written.
            let now = control.change_from("PUT", &dry(&of.path(), true), Some(&body), None, None);
            if let Some(text) = now.ok().as_ref().and_then(|now| now.pointer("/diff/unified")) {
                session.note(text.as_str().unwrap_or_default());
            }
            return Err(errors);
        }
        answer => answer?,
    };
    if ask.rehearsal.dry_run {
        return rehearsed(&answer, ask.rehearsal.exit_code, session);
    }
    done(&of, &answer, before, session)
}

fn roll_back(kind: RuleKind, ask: &Rollback, session: &mut Session<'_>) -> Ended {
    let of = Of::new(kind, &ask.name)?;
    let why = reason(ask.reason.as_deref(), true)?;
    let control = session.control()?;
    let before = of.revision(&control)?;
    let path = dry(&format!("{}/rollback", of.path()), ask.rehearsal.dry_run);
    let body = json!({ "to": ask.to, "reason": why });
    let answer = control.change_from("POST", &path, Some(&body), why.as_deref(), Some(before))?;
    if ask.rehearsal.dry_run {
        return rehearsed(&answer, ask.rehearsal.exit_code, session);
    }
    done(&of, &answer, before, session)
}

fn remove(kind: RuleKind, ask: &Remove, session: &mut Session<'_>) -> Ended {
    let of = Of::new(kind, &ask.name)?;
    let why = reason(ask.reason.as_deref(), true)?;
    let control = session.control()?;
    // What a file hides has a revision too, which the file's own has not: compare nothing then.
    let before = Some(of.revision(&control)?).filter(|revision| 0 < *revision);
    if !ask.rehearsal.dry_run {
        confirm(&ask.name, "calls go on without it from now on", session)?;
    }
    let path = dry(&of.path(), ask.rehearsal.dry_run);
    let answer = control.change_from("DELETE", &path, None, why.as_deref(), before)?;
    if ask.rehearsal.dry_run {
        return rehearsed(&answer, ask.rehearsal.exit_code, session);
    }
    let from = answer.pointer("/diff/from").and_then(Json::as_u64).unwrap_or(0);
    if session.is_for_people() {
        session.print(&format!("removed {kind} {}", of.name))?;
    } else {
        session.show(&answer, &RULES)?;
    }
    session.note(&of.undo(from));
    Ok(Exit::Done.code())
}

fn dry(path: &str, is_dry: bool) -> String {
    if is_dry { format!("{path}?dry_run=true") } else { path.to_owned() }
}

/// What became of a change, and how to take it back.
fn done(of: &Of<'_>, answer: &Json, before: u64, session: &mut Session<'_>) -> Ended {
    let changed = answer.get("changed").and_then(Json::as_bool).unwrap_or(true);
    let text = |member: &str| answer.get(member).and_then(Json::as_str).unwrap_or_default();
    if session.is_for_people() {
        let revision = answer.get("revision").and_then(Json::as_u64).unwrap_or(0);
        let what = if changed { "is now" } else { "is as it was," };
        let state = text("state").replace('_', " ");
        session.print(&format!("{} {} {what} revision {revision}, {state}", of.kind, of.name))?;
    } else {
        session.show(answer, &RULES)?;
    }
    warn(answer, session);
    if !text("problem").is_empty() {
        session.note(&format!("not in force as written: {}", text("problem")));
    }
    if changed {
        session.note(&of.undo(before));
    }
    Ok(Exit::Done.code())
}

/// Says what is probably not meant.
fn warn(answer: &Json, session: &mut Session<'_>) {
    let warnings = answer.get("warnings").cloned().unwrap_or_default();
    for warning in items(&warnings) {
        let text = |member: &str| warning.get(member).and_then(Json::as_str).unwrap_or_default();
        let at =
            if text("path").is_empty() { String::new() } else { format!("`{}` ", text("path")) };
        session.note(&format!("warning: {at}{}", text("detail")));
        if !text("suggestion").is_empty() {
            session.note(&format!("  help: {}", text("suggestion")));
        }
    }
}

/// What a change would do.
fn rehearsed(answer: &Json, wants_code: bool, session: &mut Session<'_>) -> Ended {
    let changed = answer.get("changed").and_then(Json::as_bool).unwrap_or(true);
    warn(answer, session);
    differs(answer.get("diff").unwrap_or(&Json::Null), session)?;
    if !changed {
        session.note("nothing would change");
    }
    Ok(if wants_code && changed { Exit::Pending } else { Exit::Done }.code())
}

fn differs(diff: &Json, session: &mut Session<'_>) -> Ended {
    if session.is_for_people() {
        return session.print(diff.get("unified").and_then(Json::as_str).unwrap_or_default());
    }
    session.show(diff, &RULES)
}

fn diff(kind: RuleKind, ask: &Difference, session: &mut Session<'_>) -> Ended {
    let of = Of::new(kind, &ask.content.name)?;
    let control = session.control()?;
    let (Some(from), Some(to)) = (ask.from, ask.to) else {
        let read = read(&ask.content)?;
        check(&of, &control, &read)?;
        let (path, body) = (dry(&of.path(), true), json!({ "content": read.1 }));
        let answer = control.change_from("PUT", &path, Some(&body), None, None)?;
        return rehearsed(&answer, ask.exit_code, session);
    };
    let diff = control.get(&format!("{}/diff?from={from}&to={to}", of.path()))?;
    differs(&diff, session)?;
    let is_same = diff.get("unified").and_then(Json::as_str).is_none_or(str::is_empty);
    Ok(if ask.exit_code && !is_same { Exit::Pending } else { Exit::Done }.code())
}

fn history(of: &Of<'_>, from: Option<u64>, session: &mut Session<'_>) -> Ended {
    let from = from.map(|from| format!("?from={from}")).unwrap_or_default();
    let page = session.control()?.get(&format!("{}/history{from}", of.path()))?;
    session.show(&page, &HISTORY)?;
    if let Some(next) = page.get("next").and_then(Json::as_u64) {
        session.note(&format!("older: add --from {next}"));
    }
    Ok(Exit::Done.code())
}
