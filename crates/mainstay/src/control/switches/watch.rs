//! Following the switches of a namespace.
//!
//! The first event is the whole, unless the reader has it already; then comes what changed. Of
//! changes faster than the reader the last is told, as of the registry's views.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::stream::{self, Stream, StreamExt as _};
use mainstay_api::stream as names;
use mainstay_coord::name::Namespace;
use mainstay_coord::revisions::{Kept, Snapshot};
use mainstay_coord::switch::Switch;
use mainstay_store::Revision;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::control::answer::Refused;
use crate::control::registry::named;
use crate::control::sse;

/// `GET /switches/{namespace}/watch`
pub(super) async fn watch(
    State(cluster): State<Arc<Cluster>>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let namespace = named(Namespace::new(namespace))?;
    let followed = cluster.switches.followed();
    followed.ready().await;
    let last = sse::last_event_id(&headers);
    // It may have been told by a node that is ahead of this one. If this one does not get there,
    // the store went back.
    let lost = match last {
        Some(last) => !followed.reached(last).await,
        None => false,
    };
    let reader = Reader { namespace, switches: followed.subscribe(), seen: None, lost };
    Ok(sse::answer(events(reader, last)))
}

/// Who follows, and what they know.
struct Reader {
    namespace: Namespace,
    switches: watch::Receiver<Arc<Snapshot<Switch>>>,
    /// What they were told last; `None` before the first event.
    seen: Option<Seen>,
    /// They know of revisions that are no more.
    lost: bool,
}

/// The switches of the namespace, and as of which revision.
type Seen = (Revision, BTreeMap<String, Arc<Kept<Switch>>>);

fn events(reader: Reader, last: Option<Revision>) -> impl Stream<Item = Event> + Send {
    stream::unfold(reader, move |mut reader| async move {
        let told = match reader.seen.take() {
            None => {
                let now = reader.look();
                let known = last.filter(|_| !reader.lost).is_some_and(|last| now.0 <= last);
                let told = match (known, reader.lost) {
                    (true, _) => vec![],
                    (false, false) => vec![whole(&now)],
                    (false, true) => vec![regressed(), whole(&now)],
                };
                reader.seen = Some(now);
                told
            }
            Some(before) => {
                reader.switches.changed().await.ok()?;
                let now = reader.look();
                let told = changes(&before, &now);
                reader.seen = Some(now);
                told
            }
        };
        Some((stream::iter(told), reader))
    })
    .flatten()
}

impl Reader {
    fn look(&mut self) -> Seen {
        let snapshot = Arc::clone(&self.switches.borrow_and_update());
        let own = snapshot.iter().filter(|(switch, _)| switch.namespace == self.namespace);
        let own = own.map(|(switch, kept)| (switch.name.to_string(), Arc::clone(kept)));
        (snapshot.revision, own.collect())
    }
}

fn whole((revision, switches): &Seen) -> Event {
    let switches: serde_json::Map<String, Value> =
        switches.iter().map(|(name, kept)| (name.clone(), shown(kept))).collect();
    let document = json!({ "revision": revision.get(), "switches": switches });
    sse::event(names::SNAPSHOT, Some(*revision), &document)
}

fn regressed() -> Event {
    let reason = "store-regressed".to_owned();
    sse::event(names::RESYNC, None, &json!(names::Resync { reason }))
}

/// One event a switch that changed. They bear the revision before, but for the last one: who comes
/// back in the middle of them gets all of them.
fn changes((before, old): &Seen, (revision, new): &Seen) -> Vec<Event> {
    let mut told = Vec::new();
    for (name, kept) in new {
        let is_known =
            old.get(name).is_some_and(|old| old.edition.revision == kept.edition.revision);
        if !is_known {
            told.push(json!({ "revision": revision.get(), "name": name, "put": shown(kept) }));
        }
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        told.push(json!({ "revision": revision.get(), "name": name, "removed": true }));
    }
    if told.is_empty() {
        let how_far = json!({ "revision": revision.get() });
        return vec![sse::event(names::BOOKMARK, Some(*revision), &how_far)];
    }
    let last = told.len() - 1;
    let each = told.iter().enumerate();
    each.map(|(at, document)| {
        let id = if at == last { *revision } else { *before };
        sse::event(names::CHANGE, Some(id), document)
    })
    .collect()
}

/// A switch as it is told. Whoever follows judges `until` by its own clock.
fn shown(kept: &Kept<Switch>) -> Value {
    let edition = &kept.edition;
    json!({
        "revision": edition.revision,
        "content": edition.content,
        "at": edition.at,
        "who": edition.who,
        "why": edition.why,
    })
}
