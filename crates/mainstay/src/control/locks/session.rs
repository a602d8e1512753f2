//! Sessions of holders elsewhere.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use mainstay_api::lock::{
    Area as ApiArea, HeldPlace, LossReason, OpenSession, SessionChange, SessionOpened,
    SessionRenewed, SessionSnapshot,
};
use mainstay_coord::lock::{Following, News, Token};
use mainstay_coord::name::OwnerName;
use mainstay_coord::session::{Opened, Owner};
use mainstay_coord::{Area, Loss, Place, keys};
use mainstay_core::problem::Code;
use mainstay_store::{RangeRequest, Select};
use serde::Serialize;

use super::credential;
use crate::cluster::Cluster;
use crate::control::answer::{Document, Refused};
use crate::control::registry::named;
use crate::control::{items, sse};

/// What the stream of a session tells.
pub(in crate::control) type Item = items::Item<Told>;

/// A document of the stream.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(in crate::control) enum Told {
    /// What the session holds.
    Holds(SessionSnapshot),
    /// What happened to it.
    Change(SessionChange),
}

/// `POST /sessions`
pub(super) async fn open(
    State(cluster): State<Arc<Cluster>>,
    Document(ask): Document<OpenSession>,
) -> Result<Response, Refused> {
    let opened = opened(&cluster, ask).await?;
    let document = SessionOpened {
        session: opened.credential.session.to_string(),
        secret: opened.credential.secret.reveal().to_owned(),
        ttl_seconds: opened.ttl.as_secs_f64(),
    };
    Ok((StatusCode::CREATED, Json(document)).into_response())
}

/// Opens a session, if there is room for one more.
pub(in crate::control) async fn opened(
    cluster: &Cluster,
    ask: OpenSession,
) -> Result<Opened, Refused> {
    let (host, name) =
        (named(OwnerName::new(ask.owner.host))?, named(OwnerName::new(ask.owner.name))?);
    let ttl = super::seconds("ttl_seconds", ask.ttl_seconds)?;
    let owner = Owner::new(host, ask.owner.pid, name);
    has_room(cluster).await?;
    Ok(cluster.coordination.sessions().open(owner, ttl).await?)
}

/// Refuses where there are as many sessions as there may be. They are counted as they are now, and
/// several that are opened at once may go beyond by as many.
async fn has_room(cluster: &Cluster) -> Result<(), Refused> {
    let count = RangeRequest::new(Select::new(keys::sessions()).count_only());
    let found = cluster.store.range(count).await?.count;
    let most = cluster.recipes_config.sessions_max;
    if found < most {
        return Ok(());
    }
    let detail = format!(
        "there are {found} sessions, and may be {most} (`lock.sessions_max`): end some, or wait \
         until those of programs that are gone have ended"
    );
    Err(Refused::new(Code::SessionsFull, detail).retry_after(Duration::from_secs(5)))
}

/// `PUT /sessions/{id}/renew`
pub(super) async fn renew(
    State(cluster): State<Arc<Cluster>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<SessionRenewed>, Refused> {
    let credential = credential(&id, &headers)?;
    let ttl: Duration = cluster.coordination.sessions().renew(&credential).await?;
    Ok(Json(SessionRenewed { ttl_seconds: ttl.as_secs_f64() }))
}

/// `DELETE /sessions/{id}`
pub(super) async fn end(
    State(cluster): State<Arc<Cluster>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Refused> {
    cluster.coordination.sessions().end(&credential(&id, &headers)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /sessions/{id}/stream`
pub(super) async fn stream(
    State(cluster): State<Arc<Cluster>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let credential = credential(&id, &headers)?;
    let following = cluster.coordination.locks().follow(&credential).await?;
    Ok(sse::items(told(following)))
}

/// What becomes of a session.
pub(in crate::control) fn told(following: Following) -> impl Stream<Item = Item> + Send {
    stream::unfold(Some(following), |following| async move {
        let mut following = following?;
        match following.next().await {
            Ok(Some(news)) => Some((item(&news), Some(following))),
            Ok(None) => None,
            Err(error) => Some((Item::problem(error.code(), &error), None)),
        }
    })
}

fn item(news: &News) -> Item {
    match news {
        News::Holds(holdings) => {
            let held = holdings.held.iter().map(|(place, token)| held(place, *token)).collect();
            let document = SessionSnapshot { revision: holdings.revision.get(), held };
            Item::Snapshot(Some(holdings.revision), Told::Holds(document))
        }
        News::Lost { revision, place, token, loss } => {
            let (place, reason) = (held(place, *token), reason(*loss));
            let document = SessionChange::Lost { place, reason };
            Item::Change(Some(*revision), Told::Change(document))
        }
        News::Ended => {
            let document = SessionChange::Ended { reason: LossReason::SessionGone };
            Item::Change(None, Told::Change(document))
        }
    }
}

fn held(place: &Place, token: Token) -> HeldPlace {
    HeldPlace {
        area: area(place.area),
        namespace: place.namespace.to_string(),
        name: place.name.to_string(),
        token: token.get(),
    }
}

/// An area as documents name it.
pub(super) const fn area(area: Area) -> ApiArea {
    match area {
        Area::Lock => ApiArea::Lock,
        Area::Semaphore => ApiArea::Semaphore,
        // A duty is an election among the nodes themselves.
        Area::Election | Area::Duty => ApiArea::Election,
    }
}

const fn reason(loss: Loss) -> LossReason {
    match loss {
        Loss::Expired => LossReason::Expired,
        Loss::SessionGone => LossReason::SessionGone,
        Loss::Revoked => LossReason::Revoked,
        Loss::StoreRegressed => LossReason::StoreRegressed,
    }
}
