//! `mainstay switch`: what people turn while everything runs.

use serde_json::{Value as Json, json};

use super::arguments::switch::{Set, Switch, Turn};
use super::audit::later;
use super::calls::encoded;
use super::kinds::Noun;
use super::{Ended, Session};
use crate::output::{Column, Table};

const SWITCH: Noun = Noun {
    word: "switch",
    path: "/switches",
    table: Table(&[
        Column::new("NAMESPACE", "/namespace"),
        Column::new("SWITCH", "/name"),
        Column::new("TYPE", "/content/type"),
        Column::new("VALUE", "/content/value"),
        Column::new("DEFAULT", "/content/default").optional(),
        Column::new("UNTIL", "/content/until").optional(),
        Column::new("WHO", "/who").optional(),
        Column::new("AT", "/at").optional(),
        Column::new("WHY", "/why").optional(),
        Column::new("REVISION", "/revision").wide(),
        Column::new("MANAGED BY", "/managed_by").wide(),
        Column::new("DESCRIPTION", "/content/description").wide(),
    ]),
    removed: "whoever reads it gets its default",
};

pub(super) fn run(verb: Switch, session: &mut Session<'_>) -> Ended {
    match verb {
        Switch::List(which) => SWITCH.list(&which, session),
        Switch::Show(one) => SWITCH.show(&one, session),
        Switch::Set(set) => apply(set, session),
        Switch::On(turn) => turned(turn, true, session),
        Switch::Off(turn) => turned(turn, false, session),
        Switch::Watch { namespace } => {
            let path = format!("/api/v1/switches/{}/watch", encoded(&namespace));
            session.follow("GET", &path, None)
        }
        Switch::History(one) => SWITCH.history(&one, session),
        Switch::Diff(diff) => SWITCH.diff(&diff, session),
        Switch::Rollback(back) => SWITCH.rollback(&back, session),
        Switch::Remove(remove) => SWITCH.remove(&remove, session),
    }
}

/// Sets a value alone, or with a type, default or description the content.
fn apply(set: Set, session: &mut Session<'_>) -> Ended {
    let at = SWITCH.at(&set.one.name)?;
    let until = set.until.as_deref().map(later).transpose()?;
    let value = value_of(&set.value, set.kind.as_deref());
    if set.kind.is_none() && set.default.is_none() && set.description.is_none() {
        let body = json!({ "value": value, "until": until });
        let path = format!("{at}/value");
        return SWITCH.change("PUT", &path, Some(&body), (&set.one, &set.how), session);
    }
    let (mut content, base) = match set.kind {
        Some(_) => (json!({}), None),
        None => {
            let there = session.control()?.get(&at)?;
            let base = there.get("revision").and_then(Json::as_u64);
            (there.get("content").cloned().unwrap_or_default(), base)
        }
    };
    let kind = set.kind.clone().map(Json::from).or_else(|| content.get("type").cloned());
    let default = set.default.as_deref();
    let default = default.map(|text| value_of(text, kind.as_ref().and_then(Json::as_str)));
    if let Some(fields) = content.as_object_mut() {
        // A value that is set has the time that is given with it, or none.
        fields.remove("until");
        let mut put = |name: &str, value: Option<Json>| {
            fields.extend(value.map(|value| (name.to_owned(), value)));
        };
        put("type", kind);
        put("value", Some(value));
        put("default", default);
        put("description", set.description.map(Json::from));
        put("until", until.map(Json::from));
    }
    let body = json!({ "content": content });
    SWITCH.change_from(base, ("PUT", &at, Some(&body)), (&set.one, &set.how), session)
}

fn turned(turn: Turn, on: bool, session: &mut Session<'_>) -> Ended {
    let at = SWITCH.at(&turn.one.name)?;
    let until = turn.until.as_deref().map(later).transpose()?;
    let there = session.control()?.get(&at)?;
    let is_percent = there.pointer("/content/type").and_then(Json::as_str) == Some("percent");
    let value = if is_percent { json!(if on { 100 } else { 0 }) } else { json!(on) };
    let body = json!({ "value": value, "until": until });
    SWITCH.change("PUT", &format!("{at}/value"), Some(&body), (&turn.one, &turn.how), session)
}

/// What was typed, as a value: of a text, the text; else what it looks like.
pub(super) fn value_of(text: &str, kind: Option<&str>) -> Json {
    if kind == Some("string") {
        return text.into();
    }
    match serde_json::from_str(text) {
        Ok(value @ (Json::Bool(_) | Json::Number(_))) => value,
        _ => text.into(),
    }
}
