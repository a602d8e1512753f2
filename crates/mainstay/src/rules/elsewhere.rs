//! Rules and switches of a control plane in another process, for a gateway alone.
//!
//! The client library follows them and keeps the last state on disk; here they become the same
//! copies that a node with a store of its own has, so whatever serves by them asks nobody whose they
//! are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mainstay_api::rules::{Named, Object};
use mainstay_client::rules::{Known, Rules};
use mainstay_client::{Client, ClientError};
use mainstay_coord::Moment;
use mainstay_coord::keys::{RuleKind, RuleRef};
use mainstay_coord::name::{Namespace, NodeName, RuleName};
use mainstay_coord::revisions::{Edition, Kept, Snapshot};
use mainstay_coord::switch::Switch;
use mainstay_store::Revision;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Copies, KINDS};
use crate::role::wall_moment;
use crate::switching::Book;

/// Rules and switches of another process.
#[derive(Debug)]
pub struct Elsewhere {
    client: Client,
    rules: Rules,
    kinds: [watch::Sender<Arc<Snapshot<Arc<str>>>>; KINDS.len()],
    switches: watch::Sender<Arc<Snapshot<Switch>>>,
    node: NodeName,
}

impl Elsewhere {
    /// Follows those that the servers of `client` keep, and begins with the ones kept below
    /// `cache`; overrides of switches count for `node`. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the client is shutting down.
    pub fn start(client: Client, cache: &Path, node: NodeName) -> Result<Self, ClientError> {
        let rules = client.rules().cache(cache).start()?;
        let kinds = KINDS.map(|_kind| watch::Sender::default());
        let elsewhere = Self { client, rules, kinds, switches: watch::Sender::default(), node };
        elsewhere.take(&elsewhere.rules.watch().borrow());
        Ok(elsewhere)
    }

    /// Whoever asks those servers.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until something is known; not longer than `patience`, since whoever knows may be away.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn answered(&self, patience: Duration) {
        if tokio::time::timeout(patience, self.rules.answered()).await.is_err() {
            tracing::warn!("rules could not be read yet; that goes on");
        }
        self.take(&self.rules.watch().borrow());
    }

    /// The rules, as a node's copies.
    pub fn copies(&self) -> Copies {
        Copies::of_kinds(self.kinds.each_ref().map(watch::Sender::subscribe))
    }

    /// The switches, for the data plane.
    pub fn switch_book(&self) -> Book {
        Book::new(self.switches.subscribe(), &self.node)
    }

    /// Takes over what arrives, until told to stop.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut states = self.rules.watch();
        // One may have come since the last look, while the process started.
        states.mark_changed();
        while stop.run_until_cancelled(states.changed()).await.is_some_and(|told| told.is_ok()) {
            let known = Arc::clone(&states.borrow_and_update());
            self.take(&known);
        }
    }

    /// Follows nothing any more. Waits up to `grace`; returns how many tasks of its client are still
    /// running.
    ///
    /// # Cancel safety
    ///
    /// Safe: tasks stay told to stop, and calling again waits again.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        self.client.shutdown(grace).await
    }

    fn take(&self, known: &Known) {
        if !known.is_loaded() {
            return;
        }
        for (kind, copy) in KINDS.iter().zip(&self.kinds) {
            let read = |edition: &Edition| edition.content.as_str().map(Arc::<str>::from);
            replace(copy, known, kind.key, read);
        }
        let read = |edition: &Edition| Switch::read(&edition.content).ok();
        replace(&self.switches, known, RuleKind::SWITCH, read);
    }
}

/// Makes `copy` what is `known` of `kind`, if that is news.
fn replace<T>(
    copy: &watch::Sender<Arc<Snapshot<T>>>,
    known: &Known,
    kind: RuleKind,
    read: impl Fn(&Edition) -> Option<T>,
) {
    let before = Arc::clone(&copy.borrow());
    let own = known.iter().filter(|object| object.named.kind == kind.as_str());
    let objects: BTreeMap<RuleRef, Arc<Kept<T>>> = own
        .filter_map(|object| {
            let rule = by_name(kind, &object.named)?;
            let there = before.get(&rule);
            let kept = match there.filter(|kept| is_it(&kept.edition, object)) {
                Some(kept) => Arc::clone(kept),
                None => {
                    let edition = edition(object)?;
                    let content = read(&edition);
                    // What a newer version wrote stays as it was last understood.
                    content.map_or_else(
                        || there.cloned(),
                        |content| Some(Arc::new(Kept { edition, content })),
                    )?
                }
            };
            Some((rule, kept))
        })
        .collect();
    let is_same = before.is_loaded()
        && before.stale_since.is_some() == known.is_old()
        && before.iter().map(|(_, kept)| Arc::as_ptr(kept)).eq(objects.values().map(Arc::as_ptr));
    if is_same {
        return;
    }
    let mut next = Snapshot::of(Revision::new(known.revision()), objects);
    next.stale_since = known.is_old().then(|| before.stale_since.unwrap_or_else(wall_moment));
    copy.send_replace(Arc::new(next));
}

fn is_it(edition: &Edition, object: &Object) -> bool {
    edition.revision == object.revision && edition.content == object.content
}

fn edition(object: &Object) -> Option<Edition> {
    let Object { revision, at, who, why, content, .. } = object.clone();
    Some(Edition::told(revision, Moment::parse(&at).ok()?, who, why, content))
}

fn by_name(kind: RuleKind, named: &Named) -> Option<RuleRef> {
    let namespace = Namespace::new(&*named.namespace).ok()?;
    Some(RuleRef { kind, namespace, name: RuleName::new(&*named.name).ok()? })
}
