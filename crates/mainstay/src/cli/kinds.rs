//! The verbs that mean the same for every object with a history.

use serde_json::{Value as Json, json};

use super::arguments::switch::{Diff, How, One, Remove, Rollback, Which};
use super::calls::{confirm, encoded};
use super::settings::reason;
use super::{Ended, Session, usage};
use crate::exit::Exit;
use crate::output::{Column, Table};
use crate::settings::Errors;

const HISTORY: Table<'static> = Table(&[
    Column::new("REVISION", "/revision"),
    Column::new("AT", "/at"),
    Column::new("WHO", "/who"),
    Column::new("WHY", "/why").optional(),
    Column::new("REMOVED", "/removed").optional(),
    Column::new("ROLLBACK OF", "/rollback_of").optional(),
    Column::new("FROM", "/from").wide(),
    Column::new("BYTES", "/bytes").wide(),
]);

/// A kind, as the command line knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noun {
    /// `switch`.
    pub(super) word: &'static str,
    /// `/switches`.
    pub(super) path: &'static str,
    pub(super) table: Table<'static>,
    /// What becomes of one that is removed.
    pub(super) removed: &'static str,
}

impl Noun {
    /// The path of an object, written `name` or `namespace/name`.
    pub(super) fn at(self, name: &str) -> Result<String, Errors> {
        let (namespace, own) = name.split_once('/').unwrap_or(("default", name));
        if own.is_empty() || namespace.is_empty() || own.contains('/') {
            let wrong = usage(format!("`{name}` is no {}", self.word));
            return Err(wrong.help("write `name` or `namespace/name`").into());
        }
        Ok(format!("/api/v1{}/{}/{}", self.path, encoded(namespace), encoded(own)))
    }

    pub(super) fn list(self, which: &Which, session: &mut Session<'_>) -> Ended {
        let after = which.after.as_deref().map(|name| format!("?after={}", encoded(name)));
        let of = which.namespace.as_deref().map(|name| format!("/{}", encoded(name)));
        let (of, after) = (of.unwrap_or_default(), after.unwrap_or_default());
        let path = format!("/api/v1{}{of}{after}", self.path);
        let page = session.control()?.get(&path)?;
        session.show(&page, &self.table)?;
        if let Some(next) = page.get("next").and_then(Json::as_str) {
            session.note(&format!("more: add --after {next}"));
        }
        Ok(Exit::Done.code())
    }

    pub(super) fn show(self, one: &One, session: &mut Session<'_>) -> Ended {
        let document = session.control()?.get(&self.at(&one.name)?)?;
        self.document(&document, session)
    }

    /// A document as lines, or in the form asked for.
    pub(super) fn document(self, document: &Json, session: &mut Session<'_>) -> Ended {
        session.show_one(document, &self.table)
    }

    pub(super) fn history(self, one: &One, session: &mut Session<'_>) -> Ended {
        let path = format!("{}/history?limit=1000", self.at(&one.name)?);
        let page = session.control()?.get(&path)?;
        session.show(&page, &HISTORY)
    }

    pub(super) fn diff(self, diff: &Diff, session: &mut Session<'_>) -> Ended {
        let path = format!("{}/diff?from={}&to={}", self.at(&diff.one.name)?, diff.from, diff.to);
        let document = session.control()?.get(&path)?;
        self.difference(&document, session)
    }

    fn difference(self, diff: &Json, session: &mut Session<'_>) -> Ended {
        if session.is_for_people() {
            let text = diff.get("unified").and_then(Json::as_str).unwrap_or_default();
            return session.print(text);
        }
        session.show(diff, &HISTORY)
    }

    pub(super) fn rollback(self, back: &Rollback, session: &mut Session<'_>) -> Ended {
        let why = reason(back.how.reason.as_deref(), true)?;
        let path = format!("{}/rollback", self.at(&back.one.name)?);
        let how = How { reason: why, ..back.how.clone() };
        self.change("POST", &path, Some(&json!({ "to": back.to })), (&back.one, &how), session)
    }

    pub(super) fn remove(self, remove: &Remove, session: &mut Session<'_>) -> Ended {
        let why = reason(remove.how.reason.as_deref(), true)?;
        let path = self.at(&remove.one.name)?;
        if !remove.how.dry_run {
            confirm(&remove.one.name, self.removed, session)?;
        }
        let how = How { reason: why, ..remove.how.clone() };
        self.change("DELETE", &path, None, (&remove.one, &how), session)
    }

    /// Makes a change, or tries it; says what differs and how to undo it.
    pub(super) fn change(
        self,
        method: &str,
        path: &str,
        body: Option<&Json>,
        asked: (&One, &How),
        session: &mut Session<'_>,
    ) -> Ended {
        self.change_from(None, (method, path, body), asked, session)
    }

    /// The same, if the object is still at revision `base`.
    pub(super) fn change_from(
        self,
        base: Option<u64>,
        (method, path, body): (&str, &str, Option<&Json>),
        (one, how): (&One, &How),
        session: &mut Session<'_>,
    ) -> Ended {
        let why = reason(how.reason.as_deref(), false)?;
        let path = if how.dry_run { format!("{path}?dry_run=true") } else { path.to_owned() };
        let done = session.control()?.change_from(method, &path, body, why.as_deref(), base)?;
        let diff = done.get("diff").cloned().unwrap_or_default();
        if session.is_for_people() {
            self.difference(&diff, session)?;
        } else {
            session.show(&done, &HISTORY)?;
        }
        let number = |name: &str| diff.get(name).and_then(Json::as_u64).unwrap_or_default();
        let (word, name) = (self.word, &one.name);
        if done.get("changed").and_then(Json::as_bool) == Some(false) {
            session.note(&format!("{word} {name} is so already"));
        } else if how.dry_run {
            session.note("nothing was changed");
        } else {
            session.note(&format!("{word} {name} is at revision {}", number("to")));
            match number("from") {
                0 => session.note(&format!("undo: mainstay {word} remove {name} --reason …")),
                from => {
                    let undo = format!("mainstay {word} rollback {name} --to {from} --reason …");
                    session.note(&format!("undo: {undo}"));
                }
            }
        }
        Ok(Exit::Done.code())
    }
}
