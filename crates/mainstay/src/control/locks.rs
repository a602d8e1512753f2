//! Sessions, and what hangs on them, over HTTP: `mainstay_api::lock` has the documents.
//!
//! | calls | module |
//! |---|---|
//! | sessions: opened, renewed, ended, followed | [`session`] |
//! | what a session asks for and gives back | this one |
//! | how things stand | [`status`] |

pub(super) mod session;
pub(super) mod status;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post, put};
use axum::{Extension, Json, Router};
use mainstay_api::lock::{
    AcquireLock, AcquirePermits, Bind, Bound, Downgrade, ForceRelease, Granted, Mode, Proclaim,
    Release, Released, SECRET_HEADER, StandForElection,
};
use mainstay_call::clock::MonotonicClock;
use mainstay_coord::keys::parse_session;
use mainstay_coord::lock::{LockError, Request, Token, Wait};
use mainstay_coord::name::{Gid, LockName, Namespace, RequestId};
use mainstay_coord::session::Secret;
use mainstay_coord::{Area, Credential, Place, SessionError};
use mainstay_core::Clock as _;
use mainstay_core::belief::Terms;
use mainstay_core::problem::Code;
use serde_json::{Value, json};

use super::answer::{Document, Refused};
use super::author::{By, needed};
use super::events::Changed;
use super::kept::Kept;
use super::registry::named;
use crate::cluster::Cluster;
use crate::report::causes;

/// The calls.
pub(super) fn calls() -> Router<Arc<Cluster>> {
    let mut router = Router::new()
        .route("/sessions", post(session::open))
        .route("/sessions/{id}/renew", put(session::renew))
        .route("/sessions/{id}/stream", get(session::stream))
        .route("/sessions/{id}", axum::routing::delete(session::end))
        .route("/locks/{namespace}/{name}/acquire", post(lock))
        .route("/locks/{namespace}/{name}/downgrade", post(downgrade))
        .route("/semaphores/{namespace}/{name}/acquire", post(permits))
        .route("/elections/{namespace}/{name}/acquire", post(stand))
        .route("/elections/{namespace}/{name}/proclaim", post(proclaim))
        .route("/elections/{namespace}/{name}/observe", get(status::observe));
    for area in ["locks", "semaphores", "elections"] {
        let one = |verb: &str| format!("/{area}/{{namespace}}/{{name}}{verb}");
        router = router
            .route(&format!("/{area}/{{namespace}}"), get(status::list))
            .route(&one(""), get(status::show))
            .route(&one("/release"), post(release))
            .route(&one("/bind"), post(bind))
            .route(&one("/force-release"), post(force_release));
    }
    router
}

/// What a path names: a lock, semaphore or election.
#[derive(Clone, Debug)]
struct At(Place);

impl<S: Send + Sync> FromRequestParts<S> for At {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((namespace, name)) =
            path.map_err(|rejection| Refused::invalid(rejection.body_text()))?;
        let (namespace, name) = (named(Namespace::new(namespace))?, named(LockName::new(name))?);
        Ok(Self(Place { area: area(parts.uri.path()), namespace, name }))
    }
}

/// The area a path is of. The prefix of the API may be there or not.
fn area(path: &str) -> Area {
    let path = path.strip_prefix("/api/v1").unwrap_or(path);
    match path.split('/').nth(1) {
        Some("semaphores") => Area::Semaphore,
        Some("elections") => Area::Election,
        _ => Area::Lock,
    }
}

/// `POST /locks/…/acquire`
async fn lock(
    State(cluster): State<Arc<Cluster>>,
    Extension(kept): Extension<Kept>,
    At(place): At,
    headers: HeaderMap,
    Document(ask): Document<AcquireLock>,
) -> Result<Json<Granted>, Refused> {
    let request = match ask.mode {
        Mode::Exclusive => Request::exclusive(place.namespace, place.name),
        Mode::Shared => Request::shared(place.namespace, place.name),
    };
    let request = if ask.reentrant { request } else { request.not_reentrant() };
    let asked = seconds("lock_delay_seconds", ask.lock_delay_seconds)?;
    let delay = if asked.is_zero() { cluster.recipes_config.lock_delay } else { asked };
    let request = request.lock_delay(delay)?;
    let credential = credential(&ask.session, &headers)?;
    let (wait, id) = (ask.wait_seconds, ask.request_id);
    acquire(&cluster, &kept, &credential, request, wait, id).await.map(Json)
}

/// `POST /semaphores/…/acquire`
async fn permits(
    State(cluster): State<Arc<Cluster>>,
    Extension(kept): Extension<Kept>,
    At(place): At,
    headers: HeaderMap,
    Document(ask): Document<AcquirePermits>,
) -> Result<Json<Granted>, Refused> {
    let request = Request::permits(place.namespace, place.name, ask.permits, ask.limit)?;
    let credential = credential(&ask.session, &headers)?;
    let (wait, id) = (ask.wait_seconds, ask.request_id);
    acquire(&cluster, &kept, &credential, request, wait, id).await.map(Json)
}

/// `POST /elections/…/acquire`
async fn stand(
    State(cluster): State<Arc<Cluster>>,
    Extension(kept): Extension<Kept>,
    At(place): At,
    headers: HeaderMap,
    Document(ask): Document<StandForElection>,
) -> Result<Json<Granted>, Refused> {
    let request = Request::candidate(place.namespace, place.name, ask.value)?.not_reentrant();
    let credential = credential(&ask.session, &headers)?;
    let (wait, id) = (ask.wait_seconds, ask.request_id);
    acquire(&cluster, &kept, &credential, request, wait, id).await.map(Json)
}

/// Waits for a grant. The session is renewed once it is there, since the wait may have used up
/// most of its ttl; what the holder is told counts from when it sent the request.
pub(super) async fn acquire(
    cluster: &Cluster,
    kept: &Kept,
    credential: &Credential,
    request: Request,
    wait_seconds: f64,
    request_id: String,
) -> Result<Granted, Refused> {
    let came = MonotonicClock.now();
    let wait = seconds("wait_seconds", wait_seconds)?;
    let max = cluster.recipes_config.lock_wait_max;
    if max < wait {
        let detail = format!("`wait_seconds` must be 0 to {}", max.as_secs());
        return Err(Refused::invalid(detail));
    }
    let (wait, place) = match wait {
        Duration::ZERO => (Wait::Try, None),
        wait => (Wait::AtMost(wait), Some(kept.enter()?)),
    };
    let request = request.id(named(RequestId::new(request_id))?).wait(wait);
    let grant = cluster.coordination.locks().acquire(credential, request).await?;
    drop(place);
    let waited = MonotonicClock.now().since(came);
    let ttl = cluster.coordination.sessions().renew(credential).await?;
    Ok(Granted {
        token: grant.token.get(),
        revision: grant.revision.get(),
        valid_seconds: (waited + Terms::new(ttl).valid_for()).as_secs_f64(),
        count: grant.count,
    })
}

/// `POST /AREA/…/release`
async fn release(
    State(cluster): State<Arc<Cluster>>,
    At(place): At,
    headers: HeaderMap,
    Document(ask): Document<Release>,
) -> Result<Json<Released>, Refused> {
    let credential = credential(&ask.session, &headers)?;
    let (token, op) = (Token::new(ask.token), named(RequestId::new(ask.request_id))?);
    let left = cluster.coordination.locks().release(&credential, &place, token, &op).await?;
    Ok(Json(Released { count: left.count }))
}

/// `POST /AREA/…/bind`
async fn bind(
    State(cluster): State<Arc<Cluster>>,
    At(place): At,
    headers: HeaderMap,
    Document(ask): Document<Bind>,
) -> Result<Json<Bound>, Refused> {
    let credential = credential(&ask.session, &headers)?;
    let gid = named(Gid::new(ask.gid))?;
    let token = Token::new(ask.token);
    let bound = cluster.coordination.locks().bind(&credential, &place, token, &gid).await?;
    Ok(Json(Bound { token: bound.token.get(), gid: bound.gid.to_string() }))
}

/// `POST /locks/…/downgrade`
async fn downgrade(
    State(cluster): State<Arc<Cluster>>,
    At(place): At,
    headers: HeaderMap,
    Document(ask): Document<Downgrade>,
) -> Result<StatusCode, Refused> {
    let credential = credential(&ask.session, &headers)?;
    let token = Token::new(ask.token);
    cluster.coordination.locks().downgrade(&credential, &place, token).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /elections/…/proclaim`
async fn proclaim(
    State(cluster): State<Arc<Cluster>>,
    At(place): At,
    headers: HeaderMap,
    Document(ask): Document<Proclaim>,
) -> Result<StatusCode, Refused> {
    let credential = credential(&ask.session, &headers)?;
    let token = Token::new(ask.token);
    cluster.coordination.locks().proclaim(&credential, &place, token, ask.value).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /AREA/…/force-release`
async fn force_release(
    State(cluster): State<Arc<Cluster>>,
    At(place): At,
    by: By,
    Document(ask): Document<ForceRelease>,
) -> Result<StatusCode, Refused> {
    let author = needed(by.because(ask.reason)?)?;
    let (locks, token) = (cluster.coordination.locks(), Token::new(ask.token));
    locks.force_release(&place, token, &cluster.outbox, &author).await?;
    let (subject, before) = (&*place.to_string(), &json!({ "token": ask.token }));
    let reason = author.reason.as_deref();
    Changed { what: "lock.force-release", subject, before, after: &Value::Null, reason }.emit();
    Ok(StatusCode::NO_CONTENT)
}

/// A session and the secret sent along.
fn credential(session: &str, headers: &HeaderMap) -> Result<Credential, Refused> {
    let Some(id) = parse_session(session) else {
        return Err(Refused::invalid("a session is sixteen hexadecimal digits"));
    };
    let secret = headers.get(SECRET_HEADER).and_then(|secret| secret.to_str().ok());
    let secret = secret.ok_or_else(|| {
        let detail = format!("send the session's secret in `{SECRET_HEADER}`");
        Refused::new(Code::PermissionMissing, detail)
    })?;
    Ok(Credential { session: id, secret: Secret::new(secret) })
}

pub(super) fn seconds(field: &str, value: f64) -> Result<Duration, Refused> {
    Duration::try_from_secs_f64(value)
        .map_err(|error| Refused::invalid(format!("`{field}`: {error}")))
}

impl From<LockError> for Refused {
    fn from(error: LockError) -> Self {
        let mut refused = Self::new(error.code(), causes(&error)).with_effect(error.effect());
        if let Some(after) = error.retry_after() {
            refused = refused.retry_after(after);
        }
        match error {
            LockError::Busy { holder, queued, .. } | LockError::WaitTimeout { holder, queued } => {
                let holder = holder.map(|holder| status::holder_of(&holder));
                refused.with("holder", json!(holder)).with("queued", queued.into())
            }
            _ => refused,
        }
    }
}

impl From<SessionError> for Refused {
    fn from(error: SessionError) -> Self {
        LockError::Session(error).into()
    }
}
