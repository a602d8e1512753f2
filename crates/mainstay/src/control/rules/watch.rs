//! Following rules and switches, for those who serve by them elsewhere.
//!
//! The first event is the whole, unless the reader has it already; then comes what changed. Of
//! changes faster than the reader the last is told. The whole may be large, so it comes in parts;
//! only the last of them bears a revision to go on from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::future::{join_all, select_all};
use futures_util::stream::{self, Stream, StreamExt as _};
use mainstay_api::rules::{Named, Object, Update};
use mainstay_api::stream as names;
use mainstay_coord::keys::{RuleKind, RuleRef};
use mainstay_coord::name::Namespace;
use mainstay_coord::revisions::{Edition, Snapshot};
use mainstay_coord::switch::Switch;
use mainstay_store::Revision;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch::Receiver;

use super::cluster;
use crate::cluster::Cluster;
use crate::control::answer::{Asked, Refused};
use crate::control::registry::named;
use crate::control::sse;
use crate::role::Shared;
use crate::rules::KINDS;

/// Contents of one event: a reader takes no event of more than some megabytes.
const PART_BYTES_MAX: usize = 1 << 20;

/// How long a copy may lag behind what the reader has heard of from another node. Beyond it the
/// store has gone back.
const REACHED_WITHIN: Duration = Duration::from_secs(5);

/// What is to be followed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(in crate::control) struct Which {
    /// Kinds, separated by commas; all of them unless told.
    kinds: Option<String>,
    /// Those of all namespaces unless told.
    namespace: Option<String>,
}

/// `GET /rules/watch`
pub(super) async fn watch(
    State(shared): State<Arc<Shared>>,
    Asked(Which { kinds, namespace }): Asked<Which>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let namespace = namespace.map(|name| named(Namespace::new(name))).transpose()?;
    let mut sources = sources(cluster(&shared)?, kinds.as_deref())?;
    let last = sse::last_event_id(&headers);
    // Nothing is told before everything was read once.
    let wanted = last.unwrap_or(Revision::FIRST);
    let reached = join_all(sources.iter_mut().map(|source| source.reached(wanted))).await;
    let lost = last.is_some() && !reached.into_iter().all(|reached| reached);
    let reader = Reader { sources, namespace, seen: None, lost };
    Ok(sse::answer(events(reader, last)))
}

/// The copies of `kinds` that this process has.
fn sources(cluster: &Cluster, kinds: Option<&str>) -> Result<Vec<Source>, Refused> {
    let rules = KINDS
        .iter()
        .filter_map(|kind| Some((kind.key, Source::Rules(cluster.copies.of(kind.key)?.clone()))));
    let switches = Source::Switches(cluster.switches.followed().subscribe());
    let mut all: BTreeMap<RuleKind, Source> = rules.collect();
    all.insert(RuleKind::SWITCH, switches);
    let Some(kinds) = kinds else { return Ok(all.into_values().collect()) };
    let mut sources = Vec::new();
    for word in kinds.split(',') {
        let kind = all.keys().copied().find(|kind| kind.as_str() == word);
        let Some(source) = kind.and_then(|kind| all.remove(&kind)) else {
            let known: Vec<&str> = all.keys().map(|kind| kind.as_str()).collect();
            let detail = format!("`kinds`: `{word}` is none of {}", known.join(", "));
            return Err(Refused::invalid(detail));
        };
        sources.push(source);
    }
    Ok(sources)
}

/// The copy of one kind.
enum Source {
    Rules(Receiver<Arc<Snapshot<Arc<str>>>>),
    Switches(Receiver<Arc<Snapshot<Switch>>>),
}

impl Source {
    /// Waits until the copy is at `revision`; `false` when it is not within 5 s.
    async fn reached(&mut self, revision: Revision) -> bool {
        let reached = async {
            match self {
                Self::Rules(copy) => {
                    copy.wait_for(|snapshot| revision <= snapshot.revision).await.is_ok()
                }
                Self::Switches(copy) => {
                    copy.wait_for(|snapshot| revision <= snapshot.revision).await.is_ok()
                }
            }
        };
        tokio::time::timeout(REACHED_WITHIN, reached).await.unwrap_or(false)
    }

    /// Waits for the next change; `false` when there will be none.
    async fn changed(&mut self) -> bool {
        match self {
            Self::Rules(copy) => copy.changed().await.is_ok(),
            Self::Switches(copy) => copy.changed().await.is_ok(),
        }
    }

    /// Shows everything to `each`; returns the revision it is as of.
    fn look(&mut self, each: &mut impl FnMut(&RuleRef, &Edition)) -> Revision {
        match self {
            Self::Rules(copy) => {
                let snapshot = Arc::clone(&copy.borrow_and_update());
                for (rule, kept) in snapshot.iter() {
                    each(rule, &kept.edition);
                }
                snapshot.revision
            }
            Self::Switches(copy) => {
                let snapshot = Arc::clone(&copy.borrow_and_update());
                for (rule, kept) in snapshot.iter() {
                    each(rule, &kept.edition);
                }
                snapshot.revision
            }
        }
    }
}

/// Who follows, and what they know.
struct Reader {
    sources: Vec<Source>,
    namespace: Option<Namespace>,
    /// What they were told last; `None` before the first event.
    seen: Option<Seen>,
    /// They know of revisions that are no more.
    lost: bool,
}

/// What there is, by its own revisions; and up to which revision of the store nothing is missing.
struct Seen {
    revision: Revision,
    objects: BTreeMap<RuleRef, u64>,
}

fn events(reader: Reader, last: Option<Revision>) -> impl Stream<Item = Event> + Send {
    stream::unfold(reader, move |mut reader| async move {
        let told = match reader.seen.take() {
            None => {
                let (now, update) = reader.look(None);
                let is_known = last.is_some_and(|last| now.revision <= last) && !reader.lost;
                let mut told = Vec::new();
                if reader.lost {
                    let reason = "store-regressed".to_owned();
                    told.push(sse::event(names::RESYNC, None, &json!(names::Resync { reason })));
                }
                if is_known {
                    told.push(bookmark(now.revision));
                } else {
                    told.extend(parts(names::SNAPSHOT, update));
                }
                reader.seen = Some(now);
                told
            }
            Some(before) => {
                reader.changed().await?;
                let (now, update) = reader.look(Some(&before));
                let is_same = update.put.is_empty() && update.removed.is_empty();
                let told = match is_same {
                    true if now.revision <= before.revision => Vec::new(),
                    true => vec![bookmark(now.revision)],
                    false => parts(names::CHANGE, update),
                };
                reader.seen = Some(now);
                told
            }
        };
        Some((stream::iter(told), reader))
    })
    .flatten()
}

impl Reader {
    /// Waits until a copy has changed; `None` when none will.
    async fn changed(&mut self) -> Option<()> {
        let changes = self.sources.iter_mut().map(|source| Box::pin(source.changed()));
        let (is_change, ..) = select_all(changes).await;
        is_change.then_some(())
    }

    /// What there is now, and how it differs from `before`.
    fn look(&mut self, before: Option<&Seen>) -> (Seen, Update) {
        let (mut objects, mut put) = (BTreeMap::new(), Vec::new());
        let namespace = self.namespace.as_ref();
        let mut each = |rule: &RuleRef, edition: &Edition| {
            if namespace.is_some_and(|namespace| *namespace != rule.namespace) {
                return;
            }
            let known = before.and_then(|before| before.objects.get(rule));
            if known != Some(&edition.revision) {
                put.push(told(rule, edition));
            }
            objects.insert(rule.clone(), edition.revision);
        };
        let revisions = self.sources.iter_mut().map(|source| source.look(&mut each));
        let revision = revisions.min().unwrap_or(Revision::NEVER);
        let known = before.into_iter().flat_map(|before| before.objects.keys());
        let removed = known.filter(|rule| !objects.contains_key(*rule)).map(by_name).collect();
        let update = Update { revision: revision.get(), put, removed, more: false };
        (Seen { revision, objects }, update)
    }
}

fn told(rule: &RuleRef, edition: &Edition) -> Object {
    Object {
        named: by_name(rule),
        revision: edition.revision,
        at: edition.at.to_string(),
        who: edition.who.clone(),
        why: edition.why.clone(),
        content: edition.content.clone(),
    }
}

fn by_name(rule: &RuleRef) -> Named {
    Named {
        kind: rule.kind.as_str().to_owned(),
        namespace: rule.namespace.to_string(),
        name: rule.name.to_string(),
    }
}

fn bookmark(revision: Revision) -> Event {
    sse::event(names::BOOKMARK, Some(revision), &json!({ "revision": revision.get() }))
}

/// The events that tell `update`, the first of which is called `name`.
fn parts(name: &str, update: Update) -> Vec<Event> {
    let Update { revision, put, removed, .. } = update;
    let mut pieces = vec![Update { revision, removed, ..Update::default() }];
    let mut bytes = 0;
    for object in put {
        let size = object.content.to_string().len();
        if PART_BYTES_MAX < bytes + size && 0 < bytes {
            pieces.push(Update { revision, ..Update::default() });
            bytes = 0;
        }
        bytes += size;
        if let Some(piece) = pieces.last_mut() {
            piece.put.push(object);
        }
    }
    let last = pieces.len() - 1;
    let event = |(at, piece): (usize, Update)| {
        let name = if at == 0 { name } else { names::CHANGE };
        let id = (at == last).then_some(Revision::new(revision));
        sse::event(name, id, &json!(Update { more: at < last, ..piece }))
    };
    pieces.into_iter().enumerate().map(event).collect()
}
