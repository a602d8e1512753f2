//! Changing rules.
//!
//! A change is checked against all else this process serves by, written, and answered once this
//! process serves by it. One takes its turn after the other, so that no two are checked against the
//! same state and then do not fit each other; across nodes that can happen, and the book says so.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use mainstay_coord::keys::RuleRef;
use mainstay_coord::revisions::{Fault, RuleError, Terms, Written};
use mainstay_core::problem::Code;
use serde_json::{Map, Value, json};

use super::super::answer::{Document, Refused};
use super::super::revisions::{Back, How, changed};
use super::read::{Fits, blocking, by_field, standing, would_be};
use super::{At, Content, cluster};
use crate::role::Shared;
use crate::rules::apply::Turn;
use crate::rules::book::shadow;
use crate::rules::rule::namespace_of;
use crate::settings::Errors;
use crate::settings::graft;

/// `PUT P/{namespace}/{name}`
pub(super) async fn put(
    State(shared): State<Arc<Shared>>,
    at: At,
    how: How,
    Content { text, .. }: Content,
) -> Result<Response, Refused> {
    let rule = at.rule()?;
    let terms = how.terms(None)?;
    let cluster = cluster(&shared)?;
    let _turn = turn(&shared).await?;
    may_be(&shared, &rule)?;
    let Fits { text, warnings, .. } = fits(&shared, &rule, &text).await?;
    let content = Value::String(text);
    let written = cluster.rules.put(&at.kind, &rule, content, &terms).await?;
    answer(&shared, &rule, written, warnings, &terms).await
}

/// `DELETE P/{namespace}/{name}`
pub(super) async fn remove(
    State(shared): State<Arc<Shared>>,
    at: At,
    how: How,
) -> Result<Response, Refused> {
    is_kept(&shared, &at)?;
    let rule = at.rule()?;
    let terms = how.reasoned(None)?;
    let cluster = cluster(&shared)?;
    let _turn = turn(&shared).await?;
    is_unused(&shared, &rule).await?;
    let written = cluster.rules.remove(&at.kind, &rule, &terms).await?;
    answer(&shared, &rule, written, Vec::new(), &terms).await
}

/// `POST P/{namespace}/{name}/rollback`
pub(super) async fn roll_back(
    State(shared): State<Arc<Shared>>,
    at: At,
    how: How,
    Document(Back { to, reason }): Document<Back>,
) -> Result<Response, Refused> {
    let rule = at.rule()?;
    let terms = how.reasoned(reason)?;
    let cluster = cluster(&shared)?;
    let _turn = turn(&shared).await?;
    may_be(&shared, &rule)?;
    let content = cluster.rules.at(&rule, to).await?.content;
    // What was valid then may not be now.
    let text = content.as_str().unwrap_or_default();
    let Fits { warnings, .. } = fits(&shared, &rule, text).await?;
    let written = cluster.rules.rollback(&at.kind, &rule, to, &terms).await?;
    answer(&shared, &rule, written, warnings, &terms).await
}

async fn turn(shared: &Shared) -> Result<Turn<'_>, Refused> {
    let busy = || {
        let detail = "changes of rules before this one take their time; nothing was changed";
        Refused::new(Code::StoreBusy, detail).retry_after(Duration::from_secs(1))
    };
    shared.rules.turn().await.ok_or_else(busy)
}

/// Whether the store may keep a rule of this name.
fn may_be(shared: &Shared, rule: &RuleRef) -> Result<(), Refused> {
    let live = shared.live.lock();
    if let Some(place) = shadow(rule, live.files()) {
        return Err(of_file(rule, &place));
    }
    drop(live);
    let book = shared.rules.book().lock();
    let Some(other) = book.namesake(rule) else { return Ok(()) };
    let kind = rule.kind;
    let detail = format!("`{}` is the name of {kind} {other}", rule.name);
    let fault = Fault {
        suggestion: Some(format!("take another name: namespaces share the names of a {kind}")),
        ..Fault::new("", Code::ConfigDuplicateKey.as_str(), detail)
    };
    Err(RuleError::Invalid { kind, faults: vec![fault] }.into())
}

fn of_file(rule: &RuleRef, place: &str) -> Refused {
    let managed_by = format!("file:{place}");
    RuleError::ManagedElsewhere { rule: rule.clone(), managed_by }.into()
}

/// Whether a rule that only a file has was meant.
fn is_kept(shared: &Shared, at: &At) -> Result<(), Refused> {
    let At { kind, namespace, name } = at;
    let live = shared.live.lock();
    let there = graft::written(live.files(), kind.key.as_str(), name);
    let there = there.filter(|node| namespace_of(node) == *namespace);
    let Some(place) = there.map(|node| node.key.brief()) else { return Ok(()) };
    drop(live);
    // One that the file hides can be removed, and nothing notices.
    match at.rule() {
        Ok(rule) if shared.rules.book().lock().kept(&rule).is_some() => Ok(()),
        Ok(rule) => Err(of_file(&rule, &place)),
        Err(_unusual) => {
            let detail = format!("{} {at} stands in {place}", kind.key);
            let refused = Refused::new(Code::ManagedElsewhere, detail);
            Err(refused.with("managed_by", json!(format!("file:{place}"))))
        }
    }
}

/// Whether the configuration would be whole with `text` as the content of `rule`.
async fn fits(shared: &Arc<Shared>, rule: &RuleRef, text: &str) -> Result<Fits, Refused> {
    let found = would_be(shared, rule, text).await?;
    found.map_err(|faults| RuleError::Invalid { kind: rule.kind, faults }.into())
}

/// Whether the configuration would be whole without `rule`.
async fn is_unused(shared: &Arc<Shared>, rule: &RuleRef) -> Result<(), Refused> {
    let (id, at) = (rule.clone(), Arc::clone(shared));
    let tried = blocking(move || {
        let grafts = at.rules.book().lock().grafts_with(&id, None);
        at.rehearse(&grafts)
    });
    let Err(errors) = tried.await? else { return Ok(()) };
    let users = users(shared, &errors);
    let list = users.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let detail = format!("{} {rule} is in use by {list}", rule.kind);
    Err(Refused::new(Code::RuleInUse, detail).with("referenced_by", json!(users)))
}

/// The rules that `errors` stand at: `route shop/orders`.
fn users(shared: &Shared, errors: &Errors) -> BTreeSet<String> {
    let book = shared.rules.book().lock();
    let kinds = crate::rules::KINDS.map(|kind| kind.key);
    let user = |path: &str| {
        let (table, rest) = path.split_once('.')?;
        let kind = kinds.into_iter().find(|kind| kind.as_str() == table)?;
        let name = rest.split(['.', '[']).next()?;
        let of_store = book.in_force(kind, name).map(|rule| rule.id.to_string());
        Some(format!("{kind} {}", of_store.unwrap_or_else(|| name.to_owned())))
    };
    errors.reports.iter().filter_map(|report| user(report.path.as_deref()?)).collect()
}

/// What became of a change, once this process serves by it.
async fn answer(
    shared: &Arc<Shared>,
    rule: &RuleRef,
    mut written: Written,
    warnings: Vec<Fault>,
    terms: &Terms,
) -> Result<Response, Refused> {
    written.diff = by_field(written.diff);
    if terms.dry_run {
        let warned = Map::from_iter([("warnings".to_owned(), json!(warnings))]);
        return Ok(changed(rule, &written, true, warned));
    }
    let copies = &cluster(shared)?.copies;
    let arrived = copies.reached(rule.kind, written.store_revision).await;
    if arrived {
        let shared = Arc::clone(shared);
        // The change is made, whatever becomes of the moment after it.
        drop(blocking(move || shared.apply_rules(false)).await);
    }
    let mut more = standing(shared, rule, arrived);
    more.insert("warnings".to_owned(), json!(warnings));
    Ok(changed(rule, &written, false, more))
}
