//! Following the switches of a namespace.
//!
//! The first event is the whole, unless the reader has it already; then comes what changed. Of
//! changes faster than the reader the last is told, as of the registry's views.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::stream::{self, Stream, StreamExt as _};
use mainstay_coord::name::Namespace;
use mainstay_coord::revisions::{Kept, Snapshot};
use mainstay_coord::switch::Switch;
use mainstay_store::Revision;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::control::answer::Refused;
use crate::control::registry::named;
use crate::control::{items, sse};

/// What a stream of switches tells.
pub(in crate::control) type Item = items::Item<Told>;

/// A document of the stream.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(in crate::control) enum Told {
    /// All of the namespace.
    All { revision: u64, switches: BTreeMap<String, Shown> },
    /// One is new, or other than before.
    Put { revision: u64, name: String, put: Shown },
    /// One is no more.
    Removed { revision: u64, name: String, removed: bool },
}

/// A switch as it is told. Whoever follows judges `until` by its own clock.
#[derive(Debug, Serialize)]
pub(in crate::control) struct Shown {
    pub(in crate::control) revision: u64,
    pub(in crate::control) content: Value,
    pub(in crate::control) at: String,
    pub(in crate::control) who: String,
    pub(in crate::control) why: Option<String>,
}

/// `GET /switches/{namespace}/watch`
pub(super) async fn watch(
    State(cluster): State<Arc<Cluster>>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let last = sse::last_event_id(&headers);
    Ok(sse::items(follow(&cluster, namespace, last).await?))
}

/// What becomes of the switches of a namespace, for a reader who has them up to `last`.
pub(in crate::control) async fn follow(
    cluster: &Cluster,
    namespace: String,
    last: Option<Revision>,
) -> Result<impl Stream<Item = Item> + Send + use<>, Refused> {
    let namespace = named(Namespace::new(namespace))?;
    let followed = cluster.switches.followed();
    followed.ready().await;
    // It may have been told by a node that is ahead of this one. If this one does not get there,
    // the store went back.
    let lost = match last {
        Some(last) => !followed.reached(last).await,
        None => false,
    };
    let reader = Reader { namespace, switches: followed.subscribe(), seen: None, lost };
    Ok(events(reader, last))
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

fn events(reader: Reader, last: Option<Revision>) -> impl Stream<Item = Item> + Send {
    stream::unfold(reader, move |mut reader| async move {
        let told = match reader.seen.take() {
            None => {
                let now = reader.look();
                let known = last.filter(|_| !reader.lost).is_some_and(|last| now.0 <= last);
                let told = match (known, reader.lost) {
                    (true, _) => vec![],
                    (false, false) => vec![whole(&now)],
                    (false, true) => vec![Item::Resync("store-regressed"), whole(&now)],
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

fn whole((revision, switches): &Seen) -> Item {
    let switches = switches.iter().map(|(name, kept)| (name.clone(), shown(kept))).collect();
    Item::Snapshot(Some(*revision), Told::All { revision: revision.get(), switches })
}

/// One event a switch that changed. They bear the revision before, but for the last one: who comes
/// back in the middle of them gets all of them.
fn changes((before, old): &Seen, (revision, new): &Seen) -> Vec<Item> {
    let (mut told, at) = (Vec::new(), revision.get());
    for (name, kept) in new {
        let is_known =
            old.get(name).is_some_and(|old| old.edition.revision == kept.edition.revision);
        if !is_known {
            told.push(Told::Put { revision: at, name: name.clone(), put: shown(kept) });
        }
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        told.push(Told::Removed { revision: at, name: name.clone(), removed: true });
    }
    if told.is_empty() {
        return vec![Item::bookmark(*revision)];
    }
    let last = told.len() - 1;
    let each = told.into_iter().enumerate();
    each.map(|(nth, document)| {
        let id = if nth == last { *revision } else { *before };
        Item::Change(Some(id), document)
    })
    .collect()
}

fn shown(kept: &Kept<Switch>) -> Shown {
    let edition = &kept.edition;
    Shown {
        revision: edition.revision,
        content: edition.content.clone(),
        at: edition.at.to_string(),
        who: edition.who.clone(),
        why: edition.why.clone(),
    }
}
