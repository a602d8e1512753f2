//! `mainstay settings`: show, validate, schema, reload.

use std::path::PathBuf;

use mainstay_core::problem::Code;
use serde_json::json;

use super::arguments::{ConfigFile, Settings as Verb};
use super::{Ended, Session};
use crate::output::{Column, Format, Table};
use crate::report::Report;
use crate::settings::root::Meant;
use crate::settings::schema::Schema;
use crate::settings::{Errors, Settings, Sources, origin};

/// Where the configuration is looked for, first that exists, when nobody names a file.
const DEFAULT_FILES: [&str; 2] = ["mainstay.toml", "/etc/mainstay/mainstay.toml"];

pub(super) fn run(verb: Verb, session: &mut Session<'_>) -> Ended {
    match verb {
        Verb::Show { file, origin } => show(&file, origin, session),
        Verb::Validate { file } => validate(&file, session),
        Verb::Schema => session.print(&format!("{:#}", Schema::of::<Settings>().document())),
        Verb::Reload => reload(session),
    }
}

/// The sources of this process, with `--config` if given.
pub(super) fn sources(file: &ConfigFile) -> Sources {
    let default = || DEFAULT_FILES.iter().map(PathBuf::from).find(|path| path.exists());
    Sources {
        file: file.config.clone().or_else(default),
        required: file.config.is_some(),
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        flags: Vec::new(),
    }
}

fn show(file: &ConfigFile, with_origin: bool, session: &mut Session<'_>) -> Ended {
    let loaded = sources(file).load::<Settings>()?;
    session.warn(&loaded.warnings);
    match session.global.output {
        None | Some(Format::Table | Format::Wide) => {
            session.print(&origin::lines(&loaded.tree, with_origin))
        }
        Some(_) => {
            let items = json!({ "items": origin::values(&loaded.tree) });
            session.show(&items, &Table(&[Column::new("path", "/path")]))
        }
    }
}

fn validate(file: &ConfigFile, session: &mut Session<'_>) -> Ended {
    let sources = sources(file);
    let loaded = sources.load::<Settings>()?.resolve(Meant::resolve)?;
    session.warn(&loaded.warnings);
    let files = sources.files().unwrap_or_default();
    let files: Vec<String> =
        files.iter().filter(|file| file.exists()).map(|file| file.display().to_string()).collect();
    if matches!(session.global.output, Some(Format::Json | Format::Jsonl)) {
        let warnings: Vec<_> = loaded.warnings.iter().map(Report::to_json).collect();
        return session
            .print(&json!({ "valid": true, "files": files, "warnings": warnings }).to_string());
    }
    let what = if files.is_empty() { "no file, defaults".to_owned() } else { files.join(", ") };
    session.print(&format!("valid: {what}"))
}

fn reload(session: &mut Session<'_>) -> Ended {
    let answer = session.control()?.change("POST", "/api/v1/settings/reload", None, None)?;
    if session.is_for_people() {
        let list = |name: &str| {
            let paths = answer.get(name).and_then(serde_json::Value::as_array);
            let paths = paths.map(Vec::as_slice).unwrap_or_default();
            let lines = paths.iter().filter_map(serde_json::Value::as_str);
            lines.map(|path| format!("\n  {path}")).collect::<Vec<_>>().concat()
        };
        let (applied, waiting) = (list("applied"), list("needs_restart"));
        let mut text = if applied.is_empty() {
            "applied: nothing".to_owned()
        } else {
            format!("applied:{applied}")
        };
        if !waiting.is_empty() {
            text.extend(["\nneeds restart:", &waiting]);
        }
        return session.print(&text);
    }
    session.show(&answer, &Table(&[Column::new("applied", "/applied")]))
}

/// The configuration as one check sees it: a sentence when it is good.
pub(super) fn is_valid(file: &ConfigFile) -> Result<String, Errors> {
    let loaded = sources(file).load::<Settings>()?.resolve(Meant::resolve)?;
    Ok(match loaded.warnings.as_slice() {
        [] => "the configuration is valid".to_owned(),
        warnings => format!("the configuration is valid, with {} warnings", warnings.len()),
    })
}

/// A reason of 3 to 500 characters, or why not.
pub(super) fn reason(given: Option<&str>, needed: bool) -> Result<Option<String>, Errors> {
    let given = given.map(str::trim).filter(|text| !text.is_empty());
    match given {
        Some(text) if (3..=500).contains(&text.chars().count()) => Ok(Some(text.to_owned())),
        Some(text) => {
            let length = text.chars().count();
            let message = format!("a reason has 3 to 500 characters, this one {length}");
            Err(Report::error(Code::ReasonRequired, message).into())
        }
        None if needed => {
            let message = "this change needs a reason: it goes into the audit record";
            let report = Report::error(Code::ReasonRequired, message);
            Err(report.help("add --reason 'why', 3 to 500 characters").into())
        }
        None => Ok(None),
    }
}
