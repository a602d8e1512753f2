//! Looking at rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use mainstay_coord::audit::Mask;
use mainstay_coord::keys::{RuleKind, RuleRef};
use mainstay_coord::revisions::{Diff, Fault, Kept, Kind};
use mainstay_coord::switch::SWITCHES;
use mainstay_core::problem::Code;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::answer::{Answer, Asked, Refused};
use super::super::revisions::{self, Between, Page, object, tagged};
use super::super::{balance, limits};
use super::{At, Content, cluster};
use crate::role::Shared;
use crate::rules::book::{Book, reason, shadow};
use crate::rules::fault::faults;
use crate::rules::rule::{self, DEFAULT_NAMESPACE, Rule};
use crate::rules::secrets::{self, without_secrets};
use crate::rules::warnings;
use crate::settings::Errors;
use crate::settings::graft;
use crate::settings::root::Meant;
use crate::settings::tree::Node;

/// Most rules of one page.
const PAGE_MAX: usize = 1_000;

/// Which rules.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(in crate::control) struct Which {
    /// Go on after this one: `next` of the page before.
    after: Option<String>,
    /// Rules of a page, 1 to 1,000. Default 1,000.
    limit: Option<usize>,
}

/// `GET P`: every rule of the kind.
pub(super) async fn everywhere(
    Extension(kind): Extension<Kind>,
    State(shared): State<Arc<Shared>>,
    Asked(which): Asked<Which>,
) -> Answer {
    list(&shared, &kind, None, &which)
}

/// `GET P/{namespace}`
pub(super) async fn in_namespace(
    Extension(kind): Extension<Kind>,
    State(shared): State<Arc<Shared>>,
    Path(namespace): Path<String>,
    Asked(which): Asked<Which>,
) -> Answer {
    list(&shared, &kind, Some(&namespace), &which)
}

fn list(shared: &Shared, kind: &Kind, namespace: Option<&str>, which: &Which) -> Answer {
    let limit = which.limit.unwrap_or(PAGE_MAX);
    if !(1..=PAGE_MAX).contains(&limit) {
        let detail = format!("`limit` must be 1 to {PAGE_MAX}, not {limit}");
        return Err(Refused::invalid(detail));
    }
    let files = shared.live.lock().files().clone();
    // By the name a page goes on after.
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    let mut stale = None;
    if let Some(snapshot) = shared.copies().and_then(|copies| copies.snapshot(kind.key)) {
        if !snapshot.is_loaded() {
            return Err(loading());
        }
        stale = snapshot.stale_since;
        let book = shared.rules.book().lock();
        let kept =
            snapshot.iter().map(|(rule, kept)| (rule.to_string(), of_store(rule, kept, &book)));
        all.extend(kept);
    }
    // The rule of a file takes the place of one in the store that goes by its name.
    all.extend(graft::all(&files, kind.key.as_str()).map(|(name, node)| {
        let namespace = rule::namespace_of(node);
        (format!("{namespace}/{name}"), of_file(namespace, name, node))
    }));
    let is_meant =
        |name: &str| namespace.is_none_or(|ns| name.split_once('/').is_some_and(|(n, _)| n == ns));
    let is_next = |name: &str| which.after.as_deref().is_none_or(|after| after < name);
    let meant: Vec<(String, Value)> =
        all.into_iter().filter(|(name, _)| is_meant(name) && is_next(name)).collect();
    let next = meant.get(limit).and_then(|_| meant.get(limit - 1)).map(|(name, _)| name.clone());
    let page = meant.into_iter().take(limit);
    let items = page.map(|(_, item)| with_figures(shared, kind.key, item)).collect::<Vec<_>>();
    Ok(Json(json!({ "items": items, "next": next, "stale_since": stale })))
}

fn loading() -> Refused {
    let refused = Refused::new(Code::StoreUnavailable, "rules are being read for the first time");
    refused.retry_after(std::time::Duration::from_secs(1))
}

/// A rule of the store, without its content.
fn of_store(rule: &RuleRef, kept: &Kept<Arc<str>>, book: &Book) -> Value {
    let edition = &kept.edition;
    json!({
        "namespace": rule.namespace.as_str(),
        "name": rule.name.as_str(),
        "managed_by": "api",
        "place": null,
        "revision": edition.revision,
        "at": edition.at,
        "who": edition.who,
        "why": edition.why,
        "state": book.state(rule).as_str(),
        "revision_in_force": book.revision_in_force(rule),
        "problem": book.why_not(rule).map(reason),
    })
}

/// A rule of a file, without its content.
fn of_file(namespace: &str, name: &str, node: &Node) -> Value {
    json!({
        "namespace": namespace,
        "name": name,
        "managed_by": "file",
        "place": node.key.brief(),
        "revision": null,
        "state": "in_force",
        "problem": null,
    })
}

/// What calls make of limits and services.
fn with_figures(shared: &Shared, kind: RuleKind, mut item: Value) -> Value {
    let name = item["name"].as_str().unwrap_or_default();
    let figures = match kind {
        RuleKind::LIMIT => limits::row(shared, name),
        RuleKind::UPSTREAM => balance::row(shared, name),
        _ => None,
    };
    if let (Some(Value::Object(figures)), Some(fields)) = (figures, item.as_object_mut()) {
        fields.extend(figures);
    }
    item
}

/// `GET P/{namespace}/{name}`
pub(super) async fn show(State(shared): State<Arc<Shared>>, at: At) -> Result<Response, Refused> {
    if let Some(document) = shown_of_file(&shared, &at) {
        return Ok(Json(document).into_response());
    }
    let missing = Refused::missing(at.kind.key.as_str(), &at.to_string());
    let copy = shared.copies().and_then(|copies| copies.snapshot(at.kind.key));
    let (Some(copy), Ok(rule)) = (copy, at.rule()) else {
        return Err(missing);
    };
    if !copy.is_loaded() {
        return Err(loading());
    }
    let kept = copy.get(&rule).ok_or(missing)?;
    let mut document = of_store(&rule, kept, &shared.rules.book().lock());
    let content = secrets::masked(&mask(&shared), &kept.content);
    add(&mut document, "table", rule::table(&content));
    add(&mut document, "content", json!(content));
    Ok(tagged(kept.edition.revision, document))
}

/// By what secrets are marked. A process that keeps no rules has no key that others know, and marks
/// of its own, which no server takes back.
fn mask(shared: &Shared) -> Arc<Mask> {
    let own = shared.cluster.as_ref().map(|cluster| cluster.outbox.mask());
    own.unwrap_or_else(|| Arc::new(Mask::new(shared.token.as_bytes())))
}

fn shown_of_file(shared: &Shared, At { kind, namespace, name }: &At) -> Option<Value> {
    let files = shared.live.lock().files().clone();
    let node = graft::written(&files, kind.key.as_str(), name)?;
    if rule::namespace_of(node) != *namespace {
        return None;
    }
    let mut document = of_file(namespace, name, node);
    let table = without_secrets(node.to_json());
    add(&mut document, "content", json!(rule::written(&table).unwrap_or_default()));
    add(&mut document, "table", table);
    Some(document)
}

fn add(document: &mut Value, member: &str, value: Value) {
    if let Some(fields) = document.as_object_mut() {
        fields.insert(member.to_owned(), value);
    }
}

/// `GET P/{namespace}/{name}/history`
pub(super) async fn history(
    State(shared): State<Arc<Shared>>,
    at: At,
    Asked(page): Asked<Page>,
) -> Answer {
    revisions::history(&cluster(&shared)?.rules, &at.rule()?, page).await
}

/// `GET P/{namespace}/{name}/diff`
pub(super) async fn diff(
    State(shared): State<Arc<Shared>>,
    at: At,
    Asked(Between { from, to }): Asked<Between>,
) -> Answer {
    let diff = cluster(&shared)?.rules.diff(&at.kind, &at.rule()?, from, to).await?;
    Ok(Json(json!(by_field(diff))))
}

/// The fields that differ between two texts are those of the tables they hold.
pub(super) fn by_field(mut diff: Diff) -> Diff {
    if let [whole] = diff.fields.as_slice()
        && whole.path.is_empty()
    {
        let table = |content: &Value| content.as_str().map_or(Value::Null, rule::table);
        let (before, after) = (table(&whole.before), table(&whole.after));
        diff.fields = Diff::between((diff.from, &before), (diff.to, &after)).fields;
    }
    diff
}

/// `POST P/validate`: what would be wrong with a content, in the place of all else there is.
pub(super) async fn validate(
    Extension(kind): Extension<Kind>,
    State(shared): State<Arc<Shared>>,
    content: Content,
) -> Answer {
    let Content { text, namespace, name } = content;
    let namespace = namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let name = name.unwrap_or_else(|| unused(&shared, &kind));
    let rule = object(&kind, namespace, name)?;
    let (errors, warnings) = match would_be(&shared, &rule, &text).await? {
        Ok(Fits { warnings, .. }) => (Vec::new(), warnings),
        Err(faults) => (faults, Vec::new()),
    };
    Ok(Json(json!({ "errors": errors, "warnings": warnings })))
}

/// A content that fits.
#[derive(Debug)]
pub(super) struct Fits {
    /// Its text, with secrets in the place of their marks.
    pub(super) text: String,
    /// What is probably not meant.
    pub(super) warnings: Vec<Fault>,
    /// What the process would serve by.
    pub(super) meant: Arc<Meant>,
}

/// What `text` would be as the content of `rule`, in the place of all else there is.
pub(super) async fn would_be(
    shared: &Arc<Shared>,
    rule: &RuleRef,
    text: &str,
) -> Result<Result<Fits, Vec<Fault>>, Refused> {
    let text = match &shared.cluster {
        None => text.to_owned(),
        Some(cluster) => {
            let kept = cluster.copies.get(rule);
            let before = kept.as_ref().map(|kept| &*kept.content);
            match secrets::unmasked(&cluster.outbox.mask(), text, before) {
                Ok(text) => text,
                Err(faults) => return Ok(Err(faults)),
            }
        }
    };
    let rehearsed = rehearse(shared, Rule::read(rule.clone(), 0, &text)).await?;
    Ok(rehearsed.map(|meant| {
        let mut warnings = warnings::warnings(&meant.plane, rule, |namespace, name| {
            is_switch(shared, namespace, name)
        });
        let live = shared.live.lock();
        warnings.extend(shadow(rule, live.files()).map(|place| {
            let detail = format!("a file uses the name, and is what counts: {place}");
            Fault::new("", Code::ManagedElsewhere.as_str(), detail)
        }));
        drop(live);
        Fits { text, warnings, meant }
    }))
}

/// Whether there is such a switch, as far as this process can know.
fn is_switch(shared: &Shared, namespace: &str, name: &str) -> bool {
    let Some(cluster) = &shared.cluster else { return true };
    match object(&SWITCHES, namespace.to_owned(), name.to_owned()) {
        Ok(switch) => cluster.switches.followed().snapshot().get(&switch).is_some(),
        Err(_no_name) => false,
    }
}

/// A name that nothing goes by.
pub(super) fn unused(shared: &Shared, kind: &Kind) -> String {
    let live = shared.live.lock();
    let is_used = |name: &String| graft::written(live.tree(), kind.key.as_str(), name).is_some();
    let mut names = (0_u32..).map(|number| format!("unnamed-{number}"));
    names.find(|name| !is_used(name)).unwrap_or_default()
}

/// What would be wrong with `draft` in the place of all else there is.
async fn rehearse(
    shared: &Arc<Shared>,
    draft: Rule,
) -> Result<Result<Arc<Meant>, Vec<Fault>>, Refused> {
    let (own, rule) = (draft.place.name.clone(), draft.id.clone());
    let (id, shared) = (rule.clone(), Arc::clone(shared));
    let tried = blocking(move || {
        if !draft.faults.is_empty() {
            return Err(Errors { reports: draft.faults });
        }
        let grafts = shared.rules.book().lock().grafts_with(&id, Some(&draft));
        shared.rehearse(&grafts)
    });
    Ok(tried.await?.map_err(|errors| faults(&errors, &rule, &own)))
}

/// Runs what takes a moment where nobody waits for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refused> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|_panicked| Refused::new(Code::Internal, "the check ended in the middle"))
}

/// What is told of a rule that was just changed: whether this process serves by it.
pub(super) fn standing(shared: &Shared, rule: &RuleRef, arrived: bool) -> Map<String, Value> {
    let book = shared.rules.book().lock();
    let state = if arrived { book.state(rule).as_str() } else { "pending" };
    let mut told = Map::new();
    told.insert("state".to_owned(), json!(state));
    told.insert("problem".to_owned(), json!(book.why_not(rule).map(reason)));
    told
}
