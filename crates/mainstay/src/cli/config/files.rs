//! Groups as folders of files.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use mainstay_core::problem::Code;
use serde_json::{Map, Value as Json, json};

use super::{at, difference, format_of, published, read};
use crate::cli::arguments::config::{Export, Import};
use crate::cli::settings::reason;
use crate::cli::{Ended, Session, usage};
use crate::exit::Exit;
use crate::report::Report;
use crate::settings::Errors;

/// Publishes each file directly in a folder as an item; what the group has beside them is removed,
/// but for secrets, which stay: a folder has them in the open, and most have none.
pub(super) fn import(import: &Import, session: &mut Session<'_>) -> Ended {
    let why = reason(import.reason.as_deref(), false)?;
    let (at, control) = (at(&import.group)?, session.control()?);
    let mut items = Map::new();
    for (name, content) in texts(&import.folder)? {
        let item = json!({ "format": format_of(&name), "content": content });
        items.insert(name, item);
    }
    if items.is_empty() {
        let what = format!("{} has no files", import.folder.display());
        return Err(usage(what).into());
    }
    let there = match control.get(&at) {
        Ok(document) => {
            document.get("items").and_then(Json::as_object).cloned().unwrap_or_default()
        }
        Err(errors) if errors.reports.iter().any(|report| report.exit == Exit::NotFound) => {
            Map::new()
        }
        Err(errors) => return Err(errors),
    };
    for (name, item) in there {
        let is_secret = item.get("secret").and_then(Json::as_bool) == Some(true);
        if is_secret && items.contains_key(&name) {
            let what = usage(format!("`{name}` is a secret, and a file would lay it open"));
            return Err(what.help("remove the file; set it with `config set --secret`").into());
        }
        if !is_secret && !items.contains_key(&name) {
            items.insert(name, Json::Null);
        }
    }
    let body = json!({ "items": items, "note": import.note });
    if import.dry_run {
        let path = format!("{at}/releases?dry_run=true");
        let tried = control.ask("POST", &path, Some(&body))?;
        difference(tried.get("diff").unwrap_or(&Json::Null), session)?;
        session.note("nothing was published");
        return Ok(Exit::Done.code());
    }
    let done = control.change("POST", &format!("{at}/releases"), Some(&body), why.as_deref())?;
    published(&import.group, &done, session)
}

/// The files directly in `folder`, by name.
fn texts(folder: &Path) -> Result<Vec<(String, String)>, Errors> {
    let unread = |error: std::io::Error| -> Errors {
        Report::error(Code::ConfigFileMissing, format!("{}: {error}", folder.display())).into()
    };
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_file = entry.file_type().map_err(unread)?.is_file();
        if is_file && !name.starts_with('.') {
            texts.push((name, read(&entry.path())?));
        }
    }
    texts.sort();
    Ok(texts)
}

/// Writes each item to a file of its name.
pub(super) fn export(export: &Export, session: &mut Session<'_>) -> Ended {
    let path = format!("{}?secrets={}", at(&export.group)?, export.secrets);
    let document = session.control()?.get(&path)?;
    let failed = |what: String| -> Errors { Report::error(Code::Internal, what).into() };
    fs::create_dir_all(&export.folder)
        .map_err(|error| failed(format!("{}: {error}", export.folder.display())))?;
    let (mut written, mut left) = (0, 0);
    for (name, item) in document.get("items").and_then(Json::as_object).into_iter().flatten() {
        let Some(content) = item.get("content").and_then(Json::as_str) else {
            left += 1;
            continue;
        };
        // Names of items have no slash, so each is a file of this folder.
        let file = export.folder.join(name);
        let secret = item.get("secret").and_then(Json::as_bool) == Some(true);
        let mode = if secret { 0o600 } else { 0o644 };
        let made = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&file);
        made.and_then(|mut made| made.write_all(content.as_bytes()))
            .map_err(|error| failed(format!("{}: {error}", file.display())))?;
        written += 1;
    }
    session.note(&format!("{written} files written to {}", export.folder.display()));
    if 0 < left {
        session.note(&format!("{left} secrets left out; add --secrets"));
    }
    Ok(Exit::Done.code())
}
