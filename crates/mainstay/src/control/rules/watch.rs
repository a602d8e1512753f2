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
use futures_util::future::{join_all, select_all};
use futures_util::stream::{self, Stream, StreamExt as _};
use mainstay_api::rules::{Named, Object, Update};
use mainstay_coord::keys::{RuleKind, RuleRef};
use mainstay_coord::name::Namespace;
use mainstay_coord::revisions::{Edition, Snapshot};
use mainstay_coord::switch::Switch;
use mainstay_core::problem::Code;
use mainstay_store::Revision;
use serde::Deserialize;
use tokio::sync::watch::Receiver;

use super::cluster;
use crate::cluster::Cluster;
use crate::control::answer::{Asked, Refused};
use crate::control::registry::named;
use crate::control::{items, sse};
use crate::role::Shared;
use crate::rules::KINDS;

/// What a stream of rules tells.
pub(in crate::control) type Item = items::Item<Update>;

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
    pub(in crate::control) kinds: Option<String>,
    /// Those of all namespaces unless told.
    pub(in crate::control) namespace: Option<String>,
}

/// `GET /rules/watch`
pub(super) async fn watch(
    State(shared): State<Arc<Shared>>,
    Asked(which): Asked<Which>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    Ok(sse::items(follow(&shared, which, sse::last_event_id(&headers)).await?))
}

/// What becomes of rules, for a reader who has them up to `last`.
pub(in crate::control) async fn follow(
    shared: &Shared,
    Which { kinds, namespace }: Which,
    last: Option<Revision>,
) -> Result<impl Stream<Item = Item> + Send + use<>, Refused> {
    let namespace = namespace.map(|name| named(Namespace::new(name))).transpose()?;
    let sources = sources(cluster(shared)?, kinds.as_deref())?;
    let reader = Reader::new(sources, namespace, last).await?;
    Ok(told_to(reader, last))
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

    /// Whether what the store has now may be something else: it was not read yet, or is away.
    fn is_behind(&self) -> bool {
        match self {
            Self::Rules(copy) => is_behind(&copy.borrow()),
            Self::Switches(copy) => is_behind(&copy.borrow()),
        }
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

fn is_behind<T>(snapshot: &Snapshot<T>) -> bool {
    !snapshot.is_loaded() || snapshot.stale_since.is_some()
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

/// What there is, by its own revisions. Each kind has a copy of its own, and they arrive one after
/// the other.
struct Seen {
    /// Up to which revision of the store nothing is missing.
    revision: Revision,
    /// Beyond which nothing is there.
    newest: Revision,
    objects: BTreeMap<RuleRef, u64>,
}

fn told_to(reader: Reader, last: Option<Revision>) -> impl Stream<Item = Item> + Send {
    stream::unfold(reader, move |mut reader| async move {
        let told = match reader.seen.take() {
            None => {
                let (now, update) = reader.look(None);
                let is_known = last.is_some_and(|last| now.newest <= last) && !reader.lost;
                let mut told = Vec::new();
                if reader.lost {
                    told.push(Item::Resync("store-regressed"));
                }
                if is_known {
                    told.push(Item::bookmark(now.revision));
                } else {
                    told.extend(parts(Item::Snapshot, update));
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
                    true => vec![Item::bookmark(now.revision)],
                    false => parts(Item::Change, update),
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
    /// Begins once the copies are where the reader was, who knows `last`.
    async fn new(
        mut sources: Vec<Source>,
        namespace: Option<Namespace>,
        last: Option<Revision>,
    ) -> Result<Self, Refused> {
        // Nothing is told before everything was read once.
        let wanted = last.unwrap_or(Revision::FIRST);
        let reached = join_all(sources.iter_mut().map(|source| source.reached(wanted))).await;
        let lost = !reached.into_iter().all(|reached| reached);
        // Only a copy that is up to date can say that the store went back.
        if lost && sources.iter().any(Source::is_behind) {
            let why = "this node does not know yet what the store has; another one may";
            let refused = Refused::new(Code::StoreUnavailable, why);
            return Err(refused.retry_after(Duration::from_secs(1)));
        }
        Ok(Self { sources, namespace, seen: None, lost })
    }

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
        let looked = self.sources.iter_mut().map(|source| source.look(&mut each));
        let revisions: Vec<Revision> = looked.collect();
        let revision = revisions.iter().min().copied().unwrap_or(Revision::NEVER);
        let newest = revisions.into_iter().max().unwrap_or(Revision::NEVER);
        let known = before.into_iter().flat_map(|before| before.objects.keys());
        let removed = known.filter(|rule| !objects.contains_key(*rule)).map(by_name).collect();
        let update = Update { revision: revision.get(), put, removed, more: false };
        (Seen { revision, newest, objects }, update)
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

/// A kind of item.
type Kind = fn(Option<Revision>, Update) -> Item;

/// The items that tell `update`, the first of which is of `kind`.
fn parts(kind: Kind, update: Update) -> Vec<Item> {
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
    let item = |(at, piece): (usize, Update)| {
        let kind = if at == 0 { kind } else { Item::Change };
        let id = (at == last).then_some(Revision::new(revision));
        kind(id, Update { more: at < last, ..piece })
    };
    pieces.into_iter().enumerate().map(item).collect()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use mainstay_coord::Moment;
    use mainstay_coord::name::RuleName;
    use mainstay_coord::revisions::Kept;
    use serde_json::json;
    use tokio::sync::watch::Sender;

    use super::*;

    /// A copy of routes with one that was written at `at`.
    fn routes(revision: u64, at: u64) -> Snapshot<Arc<str>> {
        let namespace = Namespace::new("shop").expect("a name");
        let name = RuleName::new("sale").expect("a name");
        let rule = RuleRef { kind: RuleKind::ROUTE, namespace, name };
        let (who, content) = ("anna".to_owned(), json!("path = '/'"));
        let edition = Edition::told(at, Moment::default(), who, None, content);
        let kept = Kept { edition, content: Arc::from("path = '/'") };
        Snapshot::of(Revision::new(revision), [(rule, Arc::new(kept))].into())
    }

    fn switches(revision: u64) -> Snapshot<Switch> {
        Snapshot::of(Revision::new(revision), BTreeMap::new())
    }

    /// The first event for who knows `last`; `None` when they are sent away.
    async fn first(
        routes: Snapshot<Arc<str>>,
        switches: Snapshot<Switch>,
        last: Option<u64>,
    ) -> Option<String> {
        let (routes, switches) = (Sender::new(Arc::new(routes)), Sender::new(Arc::new(switches)));
        let sources =
            vec![Source::Rules(routes.subscribe()), Source::Switches(switches.subscribe())];
        let last = last.map(Revision::new);
        let reader = Reader::new(sources, None, last).await.ok()?;
        let body: Body = sse::items(told_to(reader, last)).into_body();
        let chunk = body.into_data_stream().next().await.expect("an event").expect("no error");
        let text = String::from_utf8_lossy(&chunk).into_owned();
        text.lines().next()?.strip_prefix("event: ").map(str::to_owned)
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_is_told_what_any_copy_has_heard_meanwhile() {
        let told = async |at: (u64, u64), last| first(routes(at.0, 5), switches(at.1), last).await;
        assert_eq!(told((7, 7), None).await.as_deref(), Some("snapshot"));
        assert_eq!(told((7, 7), Some(7)).await.as_deref(), Some("bookmark"));
        // One copy is ahead of the other, which has heard of nothing since.
        assert_eq!(told((9, 7), Some(7)).await.as_deref(), Some("snapshot"));
        assert_eq!(told((7, 9), Some(7)).await.as_deref(), Some("snapshot"));
        assert_eq!(told((7, 7), Some(9)).await.as_deref(), Some("resync"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_does_not_know_what_the_store_has_says_nothing_of_it() {
        assert_eq!(first(routes(7, 5), Snapshot::default(), None).await, None);
        assert_eq!(first(routes(7, 5), Snapshot::default(), Some(7)).await, None);
        let mut stale = switches(7);
        stale.stale_since = Some(Moment::default());
        assert_eq!(first(routes(7, 5), stale.clone(), Some(9)).await, None);
        // What it knows is as good as what the reader has.
        assert_eq!(first(routes(7, 5), stale, Some(7)).await.as_deref(), Some("bookmark"));
    }
}
