//! `mainstay transaction conformance`: whether a participant stands what really happens to calls of
//! branches.
//!
//! Calls are repeated, overtake each other and meet. Each way in which they do is a case, played to
//! a running participant with gids of its own and judged by its answers and, where one is named, by
//! its database.

mod database;
mod judge;
mod play;

use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use mainstay_core::problem::Code;
use mainstay_txn::{Dialect, Payload};
use serde_json::{Value as Json, json};

use self::database::Database;
use self::judge::{Answer, Case, Figure, Known, Ops, Part, Seen, Verdict};
use self::play::{Player, Subject};
use super::arguments::conformance::{Conformance, Pattern, Spoken};
use super::calls::{header, span};
use super::{Ended, Session, usage};
use crate::control_client::block_on;
use crate::exit::Exit;
use crate::output::{Column, Table};
use crate::report::Report;
use crate::settings::Errors;

const CASES: Table<'static> = Table(&[
    Column::new("CASE", "/case"),
    Column::new("EXPECTED", "/expected"),
    Column::new("SEEN", "/seen"),
    Column::new("VERDICT", "/verdict"),
    Column::new("WHY", "/why").wide(),
]);

pub(super) fn run(asked: Conformance, session: &mut Session<'_>) -> Ended {
    let place = asked.database.as_deref().map(|url| {
        let wrong = |why| Errors::from(usage(format!("--database {why}")));
        database::address(url).map_err(wrong)
    });
    let place = place.transpose()?;
    let password = asked.password_file.as_deref().map(|file| {
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|error| unread(&file.display().to_string(), &error))?;
        Ok::<_, Errors>(text.lines().next().unwrap_or_default().to_owned())
    });
    let password = password.transpose()?;
    let subject = subject(asked)?;
    let examined = block_on(async {
        let database = match &place {
            Some(place) => Some(Database::open(place, password.as_deref()).await?),
            None => None,
        };
        examine(subject, database).await
    })?;
    let document = examined.map_err(|why| {
        let report = Report::error(Code::ResourceUnreachable, why);
        Errors::from(report.help("--database, --probe and --barrier say what is read there"))
    })?;
    show(&document, session)
}

/// What the arguments mean.
fn subject(asked: Conformance) -> Result<Subject, Errors> {
    let ops = match asked.mode {
        Pattern::Saga => Ops::Saga,
        Pattern::Tcc => Ops::Tcc,
    };
    let urls = urls(ops, &asked.url, &asked.at)?;
    let headers = asked.headers.iter().map(|text| header(text)).collect::<Result<Vec<_>, _>>()?;
    let payload = |text: &str| {
        let bytes = content(text)?;
        let content_type = (!bytes.is_empty()).then(|| "application/json".to_owned());
        Ok::<_, Errors>(Payload { bytes, content_type, headers: headers.clone() })
    };
    Ok(Subject {
        ops,
        dialect: match asked.dialect {
            Spoken::Native => Dialect::Native,
            Spoken::Dtm => Dialect::Dtm,
        },
        urls,
        payload: payload(&asked.body)?,
        refused: asked.refused_body.as_deref().map(payload).transpose()?,
        timeout: Duration::try_from_secs_f64(span(&asked.timeout)?)
            .map_err(|error| usage(format!("--timeout `{}`: {error}", asked.timeout)))?,
        probe: asked.probe.clone(),
        barrier: asked.barrier,
    })
}

/// Scheme and host of `url`.
fn base(url: &str) -> Result<String, Errors> {
    let uri: Option<Uri> = url.parse().ok();
    let is_web = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https"));
    let found = uri
        .as_ref()
        .filter(|uri| is_web(uri))
        .and_then(|uri| Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?)));
    found.ok_or_else(|| {
        let wrong = usage(format!("`{url}` is no address of a participant"));
        wrong.help("write `http://host:port/path`; only --at takes a path alone").into()
    })
}

/// Where work, undo and confirm are called: at `url`, unless `given` says otherwise of one.
fn urls(ops: Ops, url: &str, given: &[String]) -> Result<[String; 3], Errors> {
    let host = base(url)?;
    let mut urls = [Part::Work, Part::Undo, Part::Confirm].map(|part| (part, url.to_owned()));
    for text in given {
        let (name, place) = text.split_once('=').unwrap_or((text, ""));
        let place = match place.strip_prefix('/') {
            Some(path) => format!("{host}/{path}"),
            None => base(place).map(|_host| place.to_owned())?,
        };
        let of_mode = |part: Part| ops == Ops::Tcc || part != Part::Confirm;
        let named = |part: Part| of_mode(part) && ops.of(part).as_str() == name;
        let Some((_, at)) = urls.iter_mut().find(|(part, _)| named(*part)) else {
            let known = match ops {
                Ops::Saga => "a saga has `action` and `compensate`",
                Ops::Tcc => "a tcc has `try`, `confirm` and `cancel`",
            };
            let wrong = usage(format!("--at `{text}`: there is no operation `{name}`"));
            return Err(wrong.help(format!("{known}; --mode says which it is")).into());
        };
        *at = place;
    }
    Ok(urls.map(|(_, at)| at))
}

/// A body: text, or what is in `@FILE`.
fn content(text: &str) -> Result<Bytes, Errors> {
    let Some(file) = text.strip_prefix('@') else { return Ok(Bytes::from(text.to_owned())) };
    std::fs::read(file).map(Bytes::from).map_err(|error| unread(file, &error))
}

fn unread(file: &str, error: &std::io::Error) -> Errors {
    Report::error(Code::ConfigFileMissing, format!("`{file}` cannot be read: {error}")).into()
}

/// Plays and judges every case.
async fn examine(subject: Subject, database: Option<Database>) -> Result<Json, String> {
    let (ops, dialect) = (subject.ops, subject.dialect);
    let has_refused = subject.refused.is_some();
    let mut known = Known { ops, dialect, once: None, confirmed: None };
    let mut player = Player::new(subject, database);
    let mut works = true;
    let mut items = Vec::new();
    let mut verdicts = Vec::new();
    for case in Case::all(ops) {
        let (verdict, seen) = if !works {
            let why = "case `plain` was not answered 2xx, so the others say nothing";
            (Verdict::NotJudged(why.to_owned()), Seen::default())
        } else if case.is_refused() && !has_refused {
            let why = "give what its business refuses with --refused-body";
            (Verdict::NotJudged(why.to_owned()), Seen::default())
        } else {
            played(case, &known, &mut player).await?
        };
        let is_right = verdict == Verdict::Pass;
        works &= case != Case::Plain || seen.answers == [Answer::Done];
        match case {
            Case::Plain if is_right => known.once = seen.change,
            Case::Confirmed if is_right => known.confirmed = seen.change,
            _ => {}
        }
        items.push(item(case, &known, &seen, &verdict));
        verdicts.push(verdict);
    }
    let count = |word: &str| verdicts.iter().filter(|verdict| verdict.as_str() == word).count();
    Ok(json!({
        "run": player.run(),
        "passed": count("pass"),
        "failed": count("fail"),
        "not_judged": count("not judged"),
        "items": items,
    }))
}

/// Plays a case until it fails, or has passed as often as it is worth.
async fn played(case: Case, known: &Known, player: &mut Player) -> Result<(Verdict, Seen), String> {
    let mut round = 0;
    loop {
        let seen = player.play(case, round).await?;
        let verdict = judge::judge(case, known, &seen);
        round += 1;
        if matches!(verdict, Verdict::Fail(_)) || Player::rounds(case) <= round {
            return Ok((verdict, seen));
        }
    }
}

fn item(case: Case, known: &Known, seen: &Seen, verdict: &Verdict) -> Json {
    let why = match verdict {
        Verdict::Pass => Vec::new(),
        Verdict::Fail(faults) => faults.clone(),
        Verdict::NotJudged(why) => vec![why.clone()],
    };
    let rows = seen.rows.as_ref().map(|rows| {
        let row = |row: &judge::Row| json!({ "op": row.op, "reason": row.reason });
        rows.iter().map(row).collect::<Vec<_>>()
    });
    json!({
        "case": case.as_str(),
        "expected": case.expected(known),
        "seen": seen.to_string(),
        "verdict": verdict.as_str(),
        "why": why,
        "answers": seen.answers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "probe_change": seen.change.as_ref().map(Figure::to_string),
        "barrier_rows": rows,
    })
}

fn show(document: &Json, session: &mut Session<'_>) -> Ended {
    session.show(document, &CASES)?;
    if session.is_for_people() {
        let mut lines = Vec::new();
        for item in document.get("items").and_then(Json::as_array).into_iter().flatten() {
            let field = |name: &str| item.get(name).and_then(Json::as_str).unwrap_or_default();
            for why in item.get("why").and_then(Json::as_array).into_iter().flatten() {
                let why = why.as_str().unwrap_or_default();
                lines.push(format!("\n{} ({}): {why}", field("case"), field("verdict")));
            }
        }
        session.print(&lines.concat())?;
    }
    let number = |name: &str| document.get(name).and_then(Json::as_u64).unwrap_or_default();
    let (passed, failed) = (number("passed"), number("failed"));
    session.note(&format!("{passed} passed, {failed} failed, {} not judged", number("not_judged")));
    Ok(if failed == 0 { Exit::Done } else { Exit::Failed }.code())
}

#[cfg(test)]
mod tests;
