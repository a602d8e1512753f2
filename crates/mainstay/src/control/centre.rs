//! The config centre over HTTP: groups, drafts, releases, who holds what.
//!
//! | calls | module |
//! |---|---|
//! | what is asked, what is changed | this one |
//! | what is followed, what clients report | [`push`] |

pub(super) mod push;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use mainstay_coord::Terms;
use mainstay_coord::audit::{Author, Target};
use mainstay_coord::centre::{CentreError, Client, Editor, Head, Publication, RawCanary, RawItem};
use mainstay_coord::keys::GroupRef;
use mainstay_coord::name::{ClientId, GroupName, Namespace};
use mainstay_store::Revision;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Asked, Document, Refused, if_match, items};
use super::author::By;
use super::registry::named;
use crate::cluster::Cluster;

/// Releases of one page.
const PAGE: u64 = 100;

/// The calls.
pub(super) fn calls() -> Router<Arc<Cluster>> {
    let group = |rest: &str| format!("/config/{{namespace}}/{{group}}{rest}");
    Router::new()
        .route("/config/watch", post(push::watch))
        .route("/config/reports", post(push::report))
        .route("/config/rewrap", post(rewrap))
        .route("/config/{namespace}/groups", get(groups))
        .route(&group(""), get(fetch))
        .route(&group("/drafts"), get(drafts))
        .route(&group("/drafts/{item}"), put(edit_draft).delete(remove_draft))
        .route(&group("/releases"), get(history).post(publish))
        .route(&group("/releases/{release}"), get(release))
        .route(&group("/diff"), get(diff))
        .route(&group("/rollback"), post(roll_back))
        .route(&group("/canary"), put(set_canary))
        .route(&group("/canary/promote"), post(promote))
        .route(&group("/canary/abort"), post(abort))
        .route(&group("/listeners"), get(push::listeners))
}

/// The group a path names.
#[derive(Clone, Debug)]
struct Of(GroupRef);

impl<S: Send + Sync> FromRequestParts<S> for Of {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let path = Path::<BTreeMap<String, String>>::from_request_parts(parts, state).await;
        let Path(mut path) = path.map_err(|rejection| Refused::invalid(rejection.body_text()))?;
        let mut part = |name: &str| path.remove(name).unwrap_or_default();
        Ok(Self(group(part("namespace"), part("group"))?))
    }
}

pub(super) fn group(namespace: String, name: String) -> Result<GroupRef, Refused> {
    let (namespace, name) = (named(Namespace::new(namespace))?, named(GroupName::new(name))?);
    Ok(GroupRef { namespace, name })
}

/// `GET /config/{namespace}/groups`
async fn groups(State(cluster): State<Arc<Cluster>>, Path(namespace): Path<String>) -> Answer {
    let groups = cluster.centre.groups(&named(Namespace::new(namespace))?)?;
    Ok(items(groups.iter().map(|group| json!(group)).collect()))
}

/// For whom.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct For {
    /// The client it is for, so that a canary reaches it.
    client: Option<String>,
    /// Its labels: `key=value`, joined by commas.
    label: Option<String>,
    /// Contents of secrets too.
    secrets: bool,
}

impl For {
    fn client(&self) -> Result<Option<Client>, Refused> {
        let Some(id) = &self.client else { return Ok(None) };
        let labels = self.label.iter().flat_map(|labels| labels.split(','));
        let labels = labels.map(|label| match label.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(Refused::invalid("`label` must be `key=value`, joined by commas")),
        });
        let id = named(ClientId::new(id.clone()))?;
        Ok(Some(Client { id, labels: labels.collect::<Result<_, _>>()? }))
    }
}

/// `GET /config/{namespace}/{group}`
async fn fetch(
    State(cluster): State<Arc<Cluster>>,
    Of(group): Of,
    By(author): By,
    Asked(whom): Asked<For>,
) -> Result<Response, Refused> {
    let client = whom.client()?;
    let fetched = cluster.centre.fetch(&group, client.as_ref(), whom.secrets).await?;
    let (release, items) = (fetched.release, &fetched.items);
    if whom.secrets && items.values().any(|item| item.secret) {
        revealed(&cluster, &group, Some(release), &author);
    }
    let tag = HeaderValue::from_str(&format!("\"{}\"", fetched.release));
    let mut response = Json(json!(fetched)).into_response();
    if let Ok(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// Records that contents of secrets of `group` are shown, of `release` or of those to come. Programs
/// read theirs again and again: more than a hundred equal ones within a minute become one record.
pub(super) fn revealed(cluster: &Cluster, group: &GroupRef, release: Option<u64>, author: &Author) {
    let (kind, id) = ("config".to_owned(), group.to_string());
    let target = Target { kind, id, revision_before: release, revision_after: release };
    cluster.outbox.tell(cluster.outbox.record("config:reveal", target, author));
}

/// `GET …/drafts`
async fn drafts(State(cluster): State<Arc<Cluster>>, Of(group): Of) -> Answer {
    let drafts = cluster.centre.drafts(&group).await?;
    Ok(items(drafts.iter().map(|draft| json!(draft)).collect()))
}

/// `PUT …/drafts/{item}`; `null` is a draft that removes the item.
#[expect(clippy::too_many_arguments, reason = "each is read from the request")]
async fn edit_draft(
    State(cluster): State<Arc<Cluster>>,
    Of(group): Of,
    Path((_, _, item)): Path<(String, String, String)>,
    Asked(how): Asked<How>,
    By(author): By,
    headers: HeaderMap,
    Document(raw): Document<Option<RawItem>>,
) -> Answer {
    let terms = terms(&author, &headers, how)?;
    let revision = cluster.centre.edit_draft(&group, &item, raw, terms).await?;
    Ok(drafted(revision, how))
}

fn terms<'a>(author: &'a Author, headers: &HeaderMap, how: How) -> Result<Terms<'a>, Refused> {
    let expected = if_match(headers)?.map(Revision::new);
    Ok(Terms { author, expected, dry_run: how.dry_run })
}

fn drafted(revision: Revision, how: How) -> Json<Value> {
    let revision = revision.get();
    let document = json!({ "revision": revision });
    Json(if how.dry_run { json!({ "revision": revision, "dry_run": true }) } else { document })
}

/// `DELETE …/drafts/{item}`
async fn remove_draft(
    State(cluster): State<Arc<Cluster>>,
    Of(group): Of,
    Path((_, _, item)): Path<(String, String, String)>,
    Asked(how): Asked<How>,
    By(author): By,
    headers: HeaderMap,
) -> Answer {
    let terms = terms(&author, &headers, how)?;
    let revision = cluster.centre.remove_draft(&group, &item, terms).await?;
    Ok(drafted(revision, how))
}

/// What every change takes beside its document.
#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct How {
    /// Show what would be done or refused, and change nothing.
    dry_run: bool,
}

/// `POST …/releases`
async fn publish(
    State(cluster): State<Arc<Cluster>>,
    Of(group): Of,
    Asked(how): Asked<How>,
    By(author): By,
    headers: HeaderMap,
    Document(publication): Document<Publication>,
) -> Result<Response, Refused> {
    let editor = editor(author, &headers, how)?;
    if how.dry_run {
        let diff = cluster.centre.preview(&group, &publication, &editor).await?;
        return Ok(Json(json!({ "dry_run": true, "diff": diff })).into_response());
    }
    let published = cluster.centre.publish(&group, &publication, &editor).await?;
    let status = if published.is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(json!(published))).into_response())
}

/// Where a list of releases goes on.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Before {
    /// Releases older than this one: `next` of the page before.
    before: Option<u64>,
}

/// `GET …/releases`, newest first.
async fn history(
    State(cluster): State<Arc<Cluster>>,
    Of(group): Of,
    Asked(Before { before }): Asked<Before>,
) -> Answer {
    let releases = cluster.centre.history(&group, before, PAGE).await?;
    let next = releases.last().map(|last| last.release).filter(|oldest| 1 < *oldest);
    let each: Vec<Value> = releases.iter().map(|release| json!(release)).collect();
    Ok(Json(json!({ "items": each, "next": next })))
}

/// `GET …/releases/{release}`
async fn release(
    State(cluster): State<Arc<Cluster>>,
    Of(group): Of,
    Path((_, _, release)): Path<(String, String, u64)>,
    By(author): By,
    Asked(whom): Asked<For>,
) -> Answer {
    let (shown, contents) = cluster.centre.release(&group, release, whom.secrets).await?;
    if whom.secrets && contents.values().any(|item| item.secret) {
        revealed(&cluster, &group, Some(release), &author);
    }
    Ok(Json(json!({ "release": shown, "contents": contents })))
}

/// Between which releases.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Between {
    /// From this release; 0 is nothing.
    from: u64,
    /// To this one.
    to: u64,
}

/// `GET …/diff`
async fn diff(
    State(cluster): State<Arc<Cluster>>,
    Of(group): Of,
    Asked(Between { from, to }): Asked<Between>,
) -> Answer {
    Ok(Json(json!(cluster.centre.diff(&group, from, to).await?)))
}

/// Where to.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConfigRollback)]
pub(super) struct Rollback {
    /// The release whose contents come back.
    to: u64,
    /// Why, up to 1,024 bytes.
    #[serde(default)]
    note: String,
}

/// `POST …/rollback`
async fn roll_back(
    State(cluster): State<Arc<Cluster>>,
    Of(group): Of,
    Asked(how): Asked<How>,
    By(author): By,
    headers: HeaderMap,
    Document(Rollback { to, note }): Document<Rollback>,
) -> Answer {
    let editor = editor(author, &headers, how)?;
    if how.dry_run {
        let diff = cluster.centre.preview_rollback(&group, to, &editor).await?;
        return Ok(Json(json!({ "dry_run": true, "diff": diff })));
    }
    Ok(Json(json!(cluster.centre.roll_back(&group, to, &note, &editor).await?)))
}

/// `PUT …/canary`
async fn set_canary(
    State(cluster): State<Arc<Cluster>>,
    Of(group): Of,
    Asked(how): Asked<How>,
    By(author): By,
    headers: HeaderMap,
    Document(canary): Document<RawCanary>,
) -> Answer {
    let editor = editor(author, &headers, how)?;
    Ok(turned(&cluster.centre.set_canary(&group, &canary, &editor).await?, how))
}

/// The head of a group as a step of a gradual release makes it.
fn turned(head: &Head, how: How) -> Json<Value> {
    let mut document = json!(head);
    if how.dry_run
        && let Some(fields) = document.as_object_mut()
    {
        fields.insert("dry_run".to_owned(), true.into());
    }
    Json(document)
}

/// `POST …/canary/promote`
async fn promote(
    State(cluster): State<Arc<Cluster>>,
    Of(group): Of,
    Asked(how): Asked<How>,
    By(author): By,
    headers: HeaderMap,
) -> Answer {
    let editor = editor(author, &headers, how)?;
    Ok(turned(&cluster.centre.promote(&group, &editor).await?, how))
}

/// `POST …/canary/abort`
async fn abort(
    State(cluster): State<Arc<Cluster>>,
    Of(group): Of,
    Asked(how): Asked<How>,
    By(author): By,
    headers: HeaderMap,
) -> Answer {
    let editor = editor(author, &headers, how)?;
    Ok(turned(&cluster.centre.abort(&group, &editor).await?, how))
}

/// `POST /config/rewrap`: wraps the data keys of all groups by the newest key of the keyring.
async fn rewrap(State(cluster): State<Arc<Cluster>>, By(author): By) -> Answer {
    Ok(Json(json!({ "records": cluster.centre.rewrap(&author).await? })))
}

/// Who changes something, and the release they had read: `If-Match: "3"`.
fn editor(author: Author, headers: &HeaderMap, how: How) -> Result<Editor, Refused> {
    Ok(Editor { author, base: if_match(headers)?, dry_run: how.dry_run })
}

impl From<CentreError> for Refused {
    fn from(error: CentreError) -> Self {
        let refused = Self::caused(error.code(), error.effect(), &error);
        match error.failures() {
            [] => refused,
            failures => refused.with("errors", json!(failures)),
        }
    }
}
