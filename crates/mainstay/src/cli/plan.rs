//! `mainstay plan`: many switches at once, there and back.

use mainstay_core::problem::Code;
use serde_json::{Map, Value as Json, json};

use super::arguments::switch::{How, One, Plan, SetPlan};
use super::calls::span;
use super::kinds::Noun;
use super::settings::reason;
use super::switch::value_of;
use super::{Ended, Session, usage};
use crate::output::{Column, Table};
use crate::report::Report;
use crate::settings::Errors;

const PLAN: Noun = Noun {
    word: "plan",
    path: "/plans",
    table: Table(&[
        Column::new("NAMESPACE", "/namespace"),
        Column::new("PLAN", "/name"),
        Column::new("SWITCHES", "/content/switches"),
        Column::new("ENDS AFTER", "/content/max_active_seconds").optional(),
        Column::new("WHO", "/who").optional(),
        Column::new("AT", "/at").optional(),
        Column::new("WHY", "/why").optional(),
        Column::new("REVISION", "/revision").wide(),
    ]),
    removed: "it can be activated no longer; its history stays",
};

const EFFECTS: Table<'static> = Table(&[
    Column::new("SWITCH", "/switch"),
    Column::new("FROM", "/from"),
    Column::new("TO", "/to"),
    Column::new("OVERRIDDEN", "/overridden").optional(),
]);

pub(super) fn run(verb: Plan, session: &mut Session<'_>) -> Ended {
    match verb {
        Plan::List(which) => PLAN.list(&which, session),
        Plan::Show(one) => PLAN.show(&one, session),
        Plan::Set(set) => apply(set, session),
        Plan::Rehearse(one) => {
            let path = format!("{}/rehearse", PLAN.at(&one.name)?);
            let told = session.control()?.ask("POST", &path, Some(&json!({})))?;
            effects(&told, session)
        }
        Plan::Activate(turn) => turned("activate", &turn.one, &turn.how, &json!({}), session),
        Plan::Deactivate { turn, force } => {
            turned("deactivate", &turn.one, &turn.how, &json!({ "force": force }), session)
        }
        Plan::History(one) => PLAN.history(&one, session),
        Plan::Diff(diff) => PLAN.diff(&diff, session),
        Plan::Rollback(back) => PLAN.rollback(&back, session),
        Plan::Remove(remove) => PLAN.remove(&remove, session),
    }
}

fn apply(set: SetPlan, session: &mut Session<'_>) -> Ended {
    let at = PLAN.at(&set.one.name)?;
    let content = match &set.file {
        Some(file) => {
            let unread = |why: String| -> Errors {
                Report::error(Code::ConfigFileMissing, format!("{}: {why}", file.display())).into()
            };
            let text = std::fs::read_to_string(file).map_err(|error| unread(error.to_string()))?;
            serde_json::from_str(&text).map_err(|error| unread(error.to_string()))?
        }
        None => content(&set)?,
    };
    let body = json!({ "content": content });
    PLAN.change("PUT", &at, Some(&body), (&set.one, &set.how), session)
}

fn content(set: &SetPlan) -> Result<Json, Errors> {
    let mut switches = Map::new();
    for pair in &set.switches {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(usage(format!("`{pair}` is no switch and value"))
                .help("write `name=value`")
                .into());
        };
        switches.insert(name.to_owned(), value_of(value, None));
    }
    let mut content = json!({ "switches": switches });
    let longest = set.max_active.as_deref().map(span).transpose()?;
    if let Some(fields) = content.as_object_mut() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive number of seconds; one that is too large is refused"
        )]
        let seconds = longest.map(|seconds| json!(seconds as u64));
        fields.extend(seconds.map(|seconds| ("max_active_seconds".to_owned(), seconds)));
        let description = set.description.clone().map(Json::from);
        fields.extend(description.map(|text| ("description".to_owned(), text)));
    }
    Ok(content)
}

fn turned(verb: &str, one: &One, how: &How, body: &Json, session: &mut Session<'_>) -> Ended {
    let why = reason(how.reason.as_deref(), true)?;
    let dry = if how.dry_run { "?dry_run=true" } else { "" };
    let path = format!("{}/{verb}{dry}", PLAN.at(&one.name)?);
    let told = session.control()?.change("POST", &path, Some(body), why.as_deref())?;
    let ended = effects(&told, session)?;
    match (how.dry_run, verb) {
        (true, _) => session.note("nothing was changed"),
        (false, "activate") => {
            session.note(&format!("undo: mainstay plan deactivate {} --reason …", one.name));
        }
        (false, _) => {}
    }
    Ok(ended)
}

/// What became, or would become, of each switch.
fn effects(told: &Json, session: &mut Session<'_>) -> Ended {
    if !session.is_for_people() {
        return session.show(told, &EFFECTS);
    }
    let effects = told.get("effects").cloned().unwrap_or_default();
    let ended = session.show(&json!({ "items": effects }), &EFFECTS)?;
    let kept = told.get("kept").and_then(Json::as_array).into_iter().flatten();
    let kept: Vec<&str> = kept.filter_map(Json::as_str).collect();
    if !kept.is_empty() {
        session.note(&format!("kept, since somebody has changed them: {}", kept.join(", ")));
    }
    if let Some(until) = told.get("until").and_then(Json::as_str) {
        session.note(&format!("it ends by itself at {until}"));
    }
    Ok(ended)
}
