//! `mainstay explain SUBJECT`: a page, a key, or what a running system knows.

use serde_json::Value as Json;

use super::arguments::Explain;
use super::calls::encoded;
use super::{Ended, Session};
use crate::explain::{self, Language};
use crate::output::{Column, Table};
use crate::settings::Settings;
use crate::settings::schema::{Child, Schema};

const STEPS: Table<'static> = Table(&[
    Column::new("STAGE", "/stage"),
    Column::new("OUTCOME", "/outcome"),
    Column::new("RULE", "/rule"),
    Column::new("OBSERVED", "/observed"),
    Column::new("THRESHOLD", "/threshold"),
    Column::new("SINCE", "/since").optional(),
    Column::new("CLEARS WHEN", "/clears_when").optional(),
]);

pub(super) fn run(arguments: Explain, session: &mut Session<'_>) -> Ended {
    let Explain { subject, lang } = arguments;
    let variable = || (session.variable)("LC_ALL").or_else(|| (session.variable)("LANG"));
    let language = Language::of(lang.or_else(variable).as_deref().unwrap_or(""));
    if let Some(page) = explain::page(&subject, language) {
        if page.language != language {
            session.note("这一页还没有中文版。");
        }
        return session.print(page.text);
    }
    if let Some(text) = key(&Schema::of::<Settings>(), &subject) {
        return session.print(&text);
    }
    let path = format!("/api/v1/explain/{}", encoded(&subject));
    let answer = session.control()?.get(&path).map_err(|mut errors| {
        // Perhaps a code was meant, and nobody needed to be asked.
        if let (Some(report), Some(code)) = (errors.reports.first_mut(), explain::nearest(&subject))
        {
            report.help.push(format!("did you mean `{code}`?"));
        }
        errors
    })?;
    if !session.is_for_people() {
        return session.show(&answer, &STEPS);
    }
    let summary = answer.get("summary").and_then(Json::as_str).unwrap_or(&subject).to_owned();
    session.print(&summary)?;
    session.show(&answer.get("steps").cloned().unwrap_or_default(), &STEPS)
}

/// What the schema says of the key at `path`. The name of an object may be any.
fn key(schema: &Schema, path: &str) -> Option<String> {
    let mut shape = schema.root();
    let mut meaning = None;
    let names: Vec<&str> = path.split('.').collect();
    for name in &names {
        let description = shape
            .alternatives()
            .iter()
            .find_map(|object| object.get("properties")?.get(name)?.get("description")?.as_str());
        shape = match shape.child(name) {
            Child::Known(inner) => {
                meaning = description;
                inner
            }
            Child::Named(inner) => inner,
            Child::Unknown => return None,
        };
    }
    let last = names.last().copied().unwrap_or("");
    let keys: Vec<&str> = shape.keys().into_iter().collect();
    let mut text = format!("{path}: {}\n", shape.expected(last));
    if let Some(meaning) = meaning {
        text.extend(["\n", meaning, "\n"]);
    }
    if !keys.is_empty() {
        text.extend(["\nkeys: ", &keys.join(", "), "\n"]);
    }
    Some(text)
}
