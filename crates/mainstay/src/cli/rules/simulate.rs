//! `mainstay limit simulate`, `circuit simulate`: what a proposal would have done.

use mainstay_coord::keys::RuleKind;
use serde_json::{Value as Json, json};

use super::{Of, RULES, check, read, root};
use crate::cli::arguments::rules::Simulate;
use crate::cli::{Ended, Session, usage};
use crate::exit::Exit;
use crate::rules::replay::replays;

pub(super) fn run(kind: RuleKind, ask: &Simulate, session: &mut Session<'_>) -> Ended {
    if !replays(kind) {
        let none =
            usage(format!("a {kind} cannot be played through: only limits and circuits can"));
        return Err(none
            .help(format!("mainstay {kind} validate {} -f …", ask.content.name))
            .into());
    }
    let of = Of::new(kind, &ask.content.name)?;
    let read = read(&ask.content)?;
    let control = session.control()?;
    check(&of, &control, &read)?;
    let body = json!({
        "content": read.1, "namespace": of.namespace, "name": of.bare,
        "replay_seconds": ask.replay,
    });
    let answer = control.ask("POST", &format!("{}/simulate", root(kind)), Some(&body))?;
    if !session.is_for_people() {
        return session.show(&answer, &RULES);
    }
    let count = |of: &str, what: &str| {
        let pointer = format!("/{of}/{what}");
        answer.pointer(&pointer).and_then(Json::as_u64).unwrap_or(0)
    };
    let records = answer.get("records").and_then(Json::as_u64).unwrap_or(0);
    let seconds = answer.get("covers_seconds").and_then(Json::as_f64).unwrap_or(0.0);
    session.print(&format!("{records} calls of the last {seconds:.0} s"))?;
    for of in ["actual", "proposed"] {
        let [permitted, denied, open] =
            ["permitted", "denied", "rejected_open"].map(|what| count(of, what));
        if answer.get(of).is_some_and(|told| !told.is_null()) {
            let line = format!("{of}: {permitted} permitted, {denied} denied, {open} rejected");
            session.print(&line)?;
        }
    }
    if let Some(note) = answer.get("note").and_then(Json::as_str) {
        session.note(note);
    }
    Ok(Exit::Done.code())
}
