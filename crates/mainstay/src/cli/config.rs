//! `mainstay config`: the config centre.

mod files;

use std::io::Read as _;
use std::path::Path;

use mainstay_core::problem::Code;
use serde_json::{Map, Value as Json, json};

use super::arguments::config::{Config, Get, Group, Release, Remove, Set, Watch};
use super::calls::encoded;
use super::settings::reason;
use super::{Ended, Session, usage};
use crate::exit::Exit;
use crate::output::{Column, Format, Table, blocks};
use crate::report::Report;
use crate::settings::Errors;

const GROUPS: Table<'static> = Table(&[
    Column::new("GROUP", "/group"),
    Column::new("RELEASE", "/release"),
    Column::new("ITEMS", "/items"),
    Column::new("CANARY", "/canary").optional(),
]);

const ITEMS: Table<'static> = Table(&[
    Column::new("ITEM", "/name"),
    Column::new("FORMAT", "/format"),
    Column::new("SECRET", "/secret"),
]);

const RELEASES: Table<'static> = Table(&[
    Column::new("RELEASE", "/release"),
    Column::new("UNIX MS", "/unix_ms").wide(),
    Column::new("WHO", "/who"),
    Column::new("NOTE", "/note").optional(),
    Column::new("BASE", "/base").optional(),
    Column::new("ROLLBACK OF", "/rollback_of").optional(),
]);

const HOLDERS: Table<'static> = Table(&[
    Column::new("CLIENT", "/client"),
    Column::new("RELEASE", "/release"),
    Column::new("STATE", "/state"),
    Column::new("NODE", "/node").optional(),
    Column::new("REASON", "/reason").optional(),
]);

const CHANGES: Table<'static> =
    Table(&[Column::new("ITEM", "/item"), Column::new("CHANGE", "/change")]);

pub(super) fn run(verb: Config, session: &mut Session<'_>) -> Ended {
    match verb {
        Config::List { namespace } => {
            let path = format!("/api/v1/config/{}/groups", encoded(&namespace));
            let groups = session.control()?.get(&path)?;
            session.show(&groups, &GROUPS)
        }
        Config::Get(get) => print(&get, session),
        Config::Set(set) => draft(&set, session),
        Config::Remove(remove) => removal(&remove, session),
        Config::Release(release) => publish(&release, session),
        Config::Diff { group, from, to } => {
            let at = at(&group)?;
            if let (Some(from), Some(to)) = (from, to) {
                let diff = session.control()?.get(&format!("{at}/diff?from={from}&to={to}"))?;
                return difference(&diff, session);
            }
            let drafts = json!({ "from_drafts": true });
            let path = format!("{at}/releases?dry_run=true");
            let tried = session.control()?.ask("POST", &path, Some(&drafts))?;
            difference(tried.get("diff").unwrap_or(&Json::Null), session)
        }
        Config::History { group, before } => {
            let before = before.map(|n| format!("?before={n}")).unwrap_or_default();
            let page = session.control()?.get(&format!("{}/releases{before}", at(&group)?))?;
            session.show(&page, &RELEASES)?;
            if let Some(next) = page.get("next").and_then(Json::as_u64) {
                session.note(&format!("more: add --before {next}"));
            }
            Ok(Exit::Done.code())
        }
        Config::Rollback { group, to, reason: why } => {
            let why = reason(why.as_deref(), true)?;
            let body = json!({ "to": to, "note": why });
            let path = format!("{}/rollback", at(&group)?);
            let done = session.control()?.change("POST", &path, Some(&body), why.as_deref())?;
            published(&group, &done, session)
        }
        Config::Holders(group) => {
            let holders = session.control()?.get(&format!("{}/listeners", at(&group)?))?;
            session.show(&holders, &HOLDERS)
        }
        Config::Watch(watch) => follow(&watch, session),
        Config::Import(import) => files::import(&import, session),
        Config::Export(export) => files::export(&export, session),
        Config::Rewrap { reason: why } => {
            let why = reason(why.as_deref(), false)?;
            let path = "/api/v1/config/rewrap";
            let done = session.control()?.change("POST", path, None, why.as_deref())?;
            session.print(&blocks(&[&done]))
        }
    }
}

/// The path of a group.
fn at(group: &Group) -> Result<String, Errors> {
    let (namespace, name) = parts(&group.group)?;
    Ok(format!("/api/v1/config/{}/{}", encoded(namespace), encoded(name)))
}

fn parts(group: &str) -> Result<(&str, &str), Errors> {
    let (namespace, name) = group.split_once('/').unwrap_or(("default", group));
    if name.is_empty() || namespace.is_empty() || name.contains('/') {
        let wrong = usage(format!("`{group}` is no group"));
        return Err(wrong.help("write `group` or `namespace/group`").into());
    }
    Ok((namespace, name))
}

fn print(get: &Get, session: &mut Session<'_>) -> Ended {
    let mut query = vec![format!("secrets={}", get.secrets)];
    query.extend(get.client.as_ref().map(|client| format!("client={}", encoded(client))));
    if !get.labels.is_empty() {
        query.push(format!("label={}", encoded(&get.labels.join(","))));
    }
    let document = session.control()?.get(&format!("{}?{}", at(&get.group)?, query.join("&")))?;
    let items = document.get("items").and_then(Json::as_object).cloned().unwrap_or_default();
    if let Some(name) = &get.item {
        let Some(item) = items.get(name) else {
            let what = format!("group {} has no item `{name}`", get.group.group);
            return Err(Report::error(Code::ConfigNotFound, what).into());
        };
        let Some(content) = item.get("content").and_then(Json::as_str) else {
            let what = usage(format!("`{name}` is a secret"));
            return Err(what.help("add --secrets").into());
        };
        // As it is: what is read into a file must be what was published.
        drop(write!(session.out, "{content}"));
        return Ok(Exit::Done.code());
    }
    if matches!(session.global.output, Some(Format::Json | Format::Yaml)) {
        return session.show(&document, &ITEMS);
    }
    let named = items.into_iter().map(|(name, mut item)| {
        if let Some(fields) = item.as_object_mut() {
            fields.insert("name".to_owned(), name.into());
        }
        item
    });
    let list = json!({ "items": named.collect::<Vec<Json>>() });
    session.show(&list, &ITEMS)?;
    let release = document.get("release").cloned().unwrap_or_default();
    session.note(&format!("release {release}"));
    Ok(Exit::Done.code())
}

fn draft(set: &Set, session: &mut Session<'_>) -> Ended {
    let why = reason(set.reason.as_deref(), false)?;
    let content = match (&set.content, &set.file) {
        (Some(content), _) => content.clone(),
        (None, Some(file)) => read(file)?,
        (None, None) => return Err(usage("no content").into()),
    };
    let schema = set.schema.as_deref().map(read).transpose()?;
    let wrong = |error: serde_json::Error| -> Errors {
        Report::error(Code::ConfigSyntax, format!("schema: {error}")).into()
    };
    let schema: Option<Json> =
        schema.map(|text| serde_json::from_str(&text).map_err(wrong)).transpose()?;
    let format = set.format.as_deref().unwrap_or_else(|| format_of(&set.item));
    let mut item = json!({ "format": format, "content": content, "secret": set.secret });
    if let Some(fields) = item.as_object_mut() {
        fields.extend(schema.map(|schema| ("schema".to_owned(), schema)));
    }
    let path = format!("{}/drafts/{}", at(&set.group)?, encoded(&set.item));
    session.control()?.change("PUT", &path, Some(&item), why.as_deref())?;
    session.note(&format!("draft kept; publish it: mainstay config release {}", set.group.group));
    Ok(Exit::Done.code())
}

/// What a content is written in, by its item's name.
fn format_of(item: &str) -> &'static str {
    let ending = Path::new(item).extension().and_then(|ending| ending.to_str());
    match ending {
        Some("json") => "json",
        Some("yaml" | "yml") => "yaml",
        Some("toml") => "toml",
        Some("properties") => "properties",
        Some("xml") => "xml",
        _ => "text",
    }
}

/// The text of a file, or of standard input.
fn read(file: &Path) -> Result<String, Errors> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_bytes| text)
    } else {
        std::fs::read_to_string(file)
    };
    text.map_err(|error| {
        Report::error(Code::ConfigFileMissing, format!("{}: {error}", file.display())).into()
    })
}

fn removal(remove: &Remove, session: &mut Session<'_>) -> Ended {
    let why = reason(remove.reason.as_deref(), true)?;
    let path = format!("{}/drafts/{}", at(&remove.group)?, encoded(&remove.item));
    let control = session.control()?;
    if remove.draft {
        control.change("DELETE", &path, None, why.as_deref())?;
        session.note("draft forgotten");
    } else {
        control.change("PUT", &path, Some(&Json::Null), why.as_deref())?;
        let group = &remove.group.group;
        session.note(&format!("draft kept; publish it: mainstay config release {group}"));
    }
    Ok(Exit::Done.code())
}

fn publish(release: &Release, session: &mut Session<'_>) -> Ended {
    let why = reason(release.reason.as_deref(), false)?;
    let (at, control) = (at(&release.group)?, session.control()?);
    let turn =
        |verb: &str| control.change("POST", &format!("{at}/canary/{verb}"), None, why.as_deref());
    if release.promote {
        turn("promote")?;
        session.note("the gradual release is everybody's");
        return Ok(Exit::Done.code());
    }
    if release.abort {
        turn("abort")?;
        session.note("the gradual release was taken back");
        return Ok(Exit::Done.code());
    }
    let canary = canary(release)?;
    if release.widen {
        let canary = canary.ok_or_else(|| {
            Errors::from(
                usage("nobody to widen it to").help("add --percent, --clients or --labels"),
            )
        })?;
        let head = control.change("PUT", &format!("{at}/canary"), Some(&canary), why.as_deref())?;
        return session.print(&blocks(&[&head]));
    }
    let body = json!({ "from_drafts": true, "note": release.note, "canary": canary });
    if release.dry_run {
        let path = format!("{at}/releases?dry_run=true");
        let tried = control.ask("POST", &path, Some(&body))?;
        difference(tried.get("diff").unwrap_or(&Json::Null), session)?;
        session.note("nothing was published");
        return Ok(Exit::Done.code());
    }
    let done = control.change("POST", &format!("{at}/releases"), Some(&body), why.as_deref())?;
    published(&release.group, &done, session)
}

/// Who gets a release first; `None` for everybody at once.
fn canary(release: &Release) -> Result<Option<Json>, Errors> {
    let Release { clients, labels, percent, .. } = release;
    if clients.is_empty() && labels.is_empty() && percent.is_none() {
        return Ok(None);
    }
    let mut pairs = Map::new();
    for label in labels {
        let Some((key, value)) = label.split_once('=') else {
            let wrong = usage(format!("`{label}` is no label"));
            return Err(wrong.help("write `key=value`").into());
        };
        pairs.insert(key.to_owned(), value.into());
    }
    let percent = percent.unwrap_or(0.0);
    Ok(Some(json!({ "clients": clients, "labels": pairs, "percent": percent })))
}

/// Says what a publication came to.
fn published(group: &Group, done: &Json, session: &mut Session<'_>) -> Ended {
    if !session.is_for_people() {
        return session.show(done, &CHANGES);
    }
    let is = |name: &str| done.get(name).and_then(Json::as_bool) == Some(true);
    let release = done.get("release").and_then(Json::as_u64).unwrap_or_default();
    if !is("is_new") {
        session.note(&format!("nothing differs from release {release}"));
        return Ok(Exit::Done.code());
    }
    let changed = done.get("changed").cloned().unwrap_or_default();
    session.show(&json!({ "items": changed }), &CHANGES)?;
    let name = &group.group;
    if is("canary") {
        session.note(&format!(
            "release {release} is for some; mainstay config release {name} --promote"
        ));
    } else {
        session.note(&format!("release {release} is in force"));
        if 1 < release {
            let back = release - 1;
            session.note(&format!("undo: mainstay config rollback {name} --to {back} --reason …"));
        }
    }
    Ok(Exit::Done.code())
}

/// What differs, item by item.
fn difference(diff: &Json, session: &mut Session<'_>) -> Ended {
    if !session.is_for_people() {
        return session.show(diff, &CHANGES);
    }
    let items = diff.get("items").and_then(Json::as_array).into_iter().flatten();
    let mut text = String::new();
    for item in items {
        let field = |name: &str| item.get(name).and_then(Json::as_str).unwrap_or_default();
        text.push_str(&["# ", field("item"), " ", field("change"), "\n"].concat());
        text.push_str(field("unified"));
    }
    session.print(&text)
}

fn follow(watch: &Watch, session: &mut Session<'_>) -> Ended {
    let mut groups = Vec::new();
    for group in &watch.groups {
        let (namespace, name) = parts(group)?;
        groups.push(json!({ "namespace": namespace, "group": name }));
    }
    let body = json!({ "client": watch.client, "groups": groups });
    session.follow("POST", "/api/v1/config/watch", Some(&body))
}
