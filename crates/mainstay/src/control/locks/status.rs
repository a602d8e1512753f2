//! How locks, semaphores and elections stand.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::Response;
use futures_util::stream::{self, Stream};
use mainstay_api::lock::{
    Holder, Last, Leader, Leadership, Owner, Place as ApiPlace, Places, Status, Waiter,
};
use mainstay_coord::lock::line::{Line, Waiter as InLine};
use mainstay_coord::lock::{LockStatus, PlacePage, Want};
use mainstay_coord::name::{LockName, Namespace};
use mainstay_coord::{Observer, Place};
use serde::Deserialize;
use serde_json::json;

use super::session::area;
use super::{At, area as area_of};
use crate::cluster::Cluster;
use crate::control::answer::{Asked, Refused};
use crate::control::moment::unix_time;
use crate::control::registry::named;
use crate::control::{items, sse};

/// Where a list goes on.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(in crate::control) struct After {
    /// Go on after this name: `next` of the page before.
    after: Option<String>,
}

/// `GET /AREA/{namespace}`
pub(super) async fn list(
    State(cluster): State<Arc<Cluster>>,
    Path(namespace): Path<String>,
    Asked(After { after }): Asked<After>,
    uri: Uri,
) -> Result<Json<Places>, Refused> {
    let namespace = named(Namespace::new(namespace))?;
    let area = area_of(uri.path());
    let after = after.map(|name| {
        let name = named(LockName::new(name))?;
        Ok::<_, Refused>(Place { area, namespace: namespace.clone(), name })
    });
    let after = after.transpose()?;
    let page = cluster.coordination.locks().list(area, &namespace, after.as_ref()).await?;
    let PlacePage { places, more } = page;
    let next = places.last().filter(|_| more).map(|place| place.name.to_string());
    Ok(Json(Places { items: places.iter().map(place).collect(), next }))
}

/// `GET /AREA/{namespace}/{name}`
pub(super) async fn show(
    State(cluster): State<Arc<Cluster>>,
    At(at): At,
) -> Result<Json<Status>, Refused> {
    let LockStatus { line, past, is_delayed } = cluster.coordination.locks().status(&at).await?;
    let held = line.holders().len();
    let mut holders = Vec::new();
    for waiter in line.holders() {
        // A lease that is gone meanwhile has nothing left to tell.
        let lease = cluster.store.lease(waiter.session()).await.ok();
        holders.push(holder(waiter, lease.map(|lease| lease.remaining)));
    }
    let behind = line.waiters().iter().skip(held).zip(1..);
    Ok(Json(Status {
        place: place(&at),
        revision: line.revision().get(),
        holders,
        queue: behind.map(|(waiter, position)| queued(&line, waiter, position)).collect(),
        is_delayed,
        last: past.map(|past| Last {
            token: past.token.get(),
            reason: json!(past.reason).as_str().unwrap_or_default().to_owned(),
            at: unix_time(past.unix_ms),
        }),
    }))
}

fn place(place: &Place) -> ApiPlace {
    ApiPlace {
        area: area(place.area),
        namespace: place.namespace.to_string(),
        name: place.name.to_string(),
    }
}

fn holder(waiter: &InLine, remaining: Option<Duration>) -> Holder {
    let is_bound = waiter.bound_gid().is_some();
    Holder {
        owner: owner(waiter),
        token: waiter.token().get(),
        mode: mode(waiter),
        count: Some(waiter.count()),
        permits: permits(waiter),
        since: waiter.asked_unix_ms().map(unix_time),
        remaining_seconds: remaining.filter(|_| !is_bound).map(|left| left.as_secs_f64()),
        bound_gid: waiter.bound_gid().map(str::to_owned),
        value: waiter.value().map(str::to_owned),
    }
}

/// A holder as a refusal names it.
pub(super) fn holder_of(holder: &mainstay_coord::lock::Holder) -> Holder {
    Holder {
        owner: holder.owner.as_ref().map(of_coord),
        token: holder.token.get(),
        mode: None,
        count: None,
        permits: None,
        since: holder.asked_unix_ms.map(unix_time),
        remaining_seconds: None,
        bound_gid: holder.bound_gid.clone(),
        value: None,
    }
}

fn queued(line: &Line, waiter: &InLine, position: u32) -> Waiter {
    Waiter {
        position,
        owner: owner(waiter),
        token: waiter.token().get(),
        mode: mode(waiter),
        permits: permits(waiter),
        since: waiter.asked_unix_ms().map(unix_time),
        waits_for: line.waits_for(waiter).map(|other| other.token().get()),
    }
}

fn owner(waiter: &InLine) -> Option<Owner> {
    waiter.owner().map(of_coord)
}

fn of_coord(owner: &mainstay_coord::Owner) -> Owner {
    Owner { host: owner.host.clone(), pid: owner.pid, name: owner.name.clone() }
}

#[expect(clippy::unnecessary_wraps, reason = "the document may lack it, of a newer version")]
fn mode(waiter: &InLine) -> Option<String> {
    Some(waiter.want().as_str().to_owned())
}

fn permits(waiter: &InLine) -> Option<u32> {
    match waiter.want() {
        Want::Permits { permits, .. } => Some(permits.get()),
        Want::Exclusive | Want::Shared => None,
    }
}

/// `GET /elections/{namespace}/{name}/observe`
pub(super) async fn observe(State(cluster): State<Arc<Cluster>>, At(at): At) -> Response {
    let observer = cluster.coordination.locks().observe(at.namespace, at.name);
    sse::items(leaders(observer))
}

/// What a stream of leaders tells.
pub(in crate::control) type Item = items::Item<Leadership>;

/// Who leads, and then who leads next.
pub(in crate::control) fn leaders(observer: Observer) -> impl Stream<Item = Item> + Send {
    stream::unfold((Some(observer), true), |(observer, is_first)| async move {
        let mut observer = observer?;
        match observer.next().await {
            Ok(leader) => {
                let kind = if is_first { Item::Snapshot } else { Item::Change };
                Some((kind(None, leadership(leader)), (Some(observer), false)))
            }
            Err(error) => Some((Item::problem(error.code(), &error), (None, false))),
        }
    })
}

fn leadership(leader: Option<mainstay_coord::Leadership>) -> Leadership {
    let leader = leader.map(|leader| Leader {
        term: leader.term.get(),
        owner: leader.owner.as_ref().map(of_coord),
        value: leader.value,
    });
    Leadership { leader }
}
