//! A node's copy of one kind.
//!
//! The copy is read by whoever serves calls, so reading it never waits and never fails: it is a
//! whole [`Snapshot`] that is replaced when the store has changed. It lists anew where history was
//! lost, and while the store is away it stays as it was and says since when.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mainstay_store::limits::BOOKMARK_EVERY;
use mainstay_store::{Entry, Error, Key, Revision, WatchItem, WatchRequest};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Revisions;
use super::edition::Edition;
use crate::events::rules::{Reach, Resynced, Unreadable};
use crate::keys::{RuleKind, RuleRef};
use crate::moment::Moment;
use crate::random;
use crate::registry::listing::list_all;

/// First pause after a failure; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Longest pause after failures.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Without a sign for this long, the store is taken to be away: two bookmarks missed.
const SILENCE_MAX: Duration = Duration::from_secs(BOOKMARK_EVERY.as_secs() * 5 / 2);

/// How long a write waits for the copy.
const APPLIED_WITHIN: Duration = Duration::from_secs(5);

/// An object of a copy.
#[derive(Clone, Debug)]
pub struct Kept<T> {
    /// Its newest edition.
    pub edition: Edition,
    /// What the content means, read once.
    pub content: T,
}

/// All objects of a kind, at one revision of the store.
#[derive(Clone, Debug)]
pub struct Snapshot<T> {
    /// The revision; [`Revision::NEVER`] before anything was read.
    pub revision: Revision,
    /// Since when the store is away, if it is.
    pub stale_since: Option<Moment>,
    /// Every object there is.
    objects: BTreeMap<RuleRef, Arc<Kept<T>>>,
    /// What lies beside them, as written.
    beside: BTreeMap<Key, Bytes>,
}

impl<T> Default for Snapshot<T> {
    fn default() -> Self {
        let (objects, beside) = (BTreeMap::new(), BTreeMap::new());
        Self { revision: Revision::NEVER, stale_since: None, objects, beside }
    }
}

impl<T> Snapshot<T> {
    /// The objects that a copy elsewhere has.
    pub const fn of(revision: Revision, objects: BTreeMap<RuleRef, Arc<Kept<T>>>) -> Self {
        Self { revision, stale_since: None, objects, beside: BTreeMap::new() }
    }

    /// Whether it has read everything once.
    pub fn is_loaded(&self) -> bool {
        self.revision != Revision::NEVER
    }

    /// An object.
    pub fn get(&self, rule: &RuleRef) -> Option<&Arc<Kept<T>>> {
        self.objects.get(rule)
    }

    /// Every object, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = (&RuleRef, &Arc<Kept<T>>)> {
        self.objects.iter()
    }

    pub(crate) const fn beside(&self) -> &BTreeMap<Key, Bytes> {
        &self.beside
    }

    fn set(&mut self, (kind, read): (RuleKind, Reader<T>), key: &Key, entry: Option<&Entry>) {
        let Some(rule) = kind.parse(key) else {
            match entry {
                Some(entry) => drop(self.beside.insert(key.clone(), entry.value.clone())),
                None => drop(self.beside.remove(key)),
            }
            return;
        };
        let Some(entry) = entry else {
            self.objects.remove(&rule);
            return;
        };
        let edition = Edition::read(&entry.value);
        if edition.as_ref().is_some_and(|edition| edition.removed) {
            self.objects.remove(&rule);
            return;
        }
        let kept = edition.and_then(|edition| {
            let content = read(&edition.content)?;
            Some(Kept { edition, content })
        });
        match kept {
            Some(kept) => drop(self.objects.insert(rule, Arc::new(kept))),
            // What a newer version wrote stays as it was last understood.
            None => Unreadable { key }.emit(),
        }
    }
}

/// Reads what a content means.
type Reader<T> = fn(&Value) -> Option<T>;

/// A kind that this node follows. Clones share the copy.
pub struct Followed<T> {
    revisions: Revisions,
    kind: RuleKind,
    read: Reader<T>,
    copy: Arc<watch::Sender<Arc<Snapshot<T>>>>,
}

impl<T> Clone for Followed<T> {
    fn clone(&self) -> Self {
        let (revisions, copy) = (self.revisions.clone(), Arc::clone(&self.copy));
        Self { revisions, kind: self.kind, read: self.read, copy }
    }
}

impl Revisions {
    /// Follows a kind until [`shutdown`](Revisions::shutdown); `read` says what a content means,
    /// `None` if it cannot be read. Must be called within a tokio runtime.
    pub fn follow<T>(&self, kind: RuleKind, read: fn(&Value) -> Option<T>) -> Followed<T>
    where
        T: Clone + Send + Sync + 'static,
    {
        let copy = Arc::new(watch::Sender::new(Arc::default()));
        let followed = Followed { revisions: self.clone(), kind, read, copy };
        let feed = followed.clone();
        self.tasks().spawn("rules feed", move |stop| run(feed, stop));
        followed
    }
}

impl<T> Followed<T> {
    /// What there is now.
    pub fn snapshot(&self) -> Arc<Snapshot<T>> {
        Arc::clone(&self.copy.borrow())
    }

    /// What there is now, and every later state; of those faster than the reader, the last.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot<T>>> {
        self.copy.subscribe()
    }

    /// Waits until everything has been read once.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn ready(&self) {
        let mut copy = self.copy.subscribe();
        // The sender lives as long as `self`.
        drop(copy.wait_for(|snapshot| snapshot.is_loaded()).await);
    }

    /// Waits until the copy is at `revision`; `false` when it is not within 5 s.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn reached(&self, revision: Revision) -> bool {
        let mut copy = self.copy.subscribe();
        let until = self.revisions.timer().now().plus(APPLIED_WITHIN);
        tokio::select! {
            biased;
            reached = copy.wait_for(|snapshot| revision <= snapshot.revision) => reached.is_ok(),
            () = self.revisions.timer().sleep_until(until) => false,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Snapshot<T>))
    where
        T: Clone,
    {
        self.copy.send_modify(|snapshot| change(Arc::make_mut(snapshot)));
    }
}

/// Why a feed begins anew.
enum Ended {
    Compacted(Revision),
    Away(String),
}

async fn run<T: Clone + Send + Sync>(followed: Followed<T>, stop: CancellationToken) {
    let (kind, mut pause) = (followed.kind, PAUSE_MIN);
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = feed(&followed) => ended,
        };
        match ended {
            Ended::Compacted(compacted) => {
                Resynced { kind, compacted }.emit();
                pause = PAUSE_MIN;
                continue;
            }
            Ended::Away(why) if followed.snapshot().stale_since.is_none() => {
                Reach { kind, why: Some(&why) }.emit();
                let since = followed.revisions.moment();
                followed.change(|snapshot| snapshot.stale_since = Some(since));
                pause = PAUSE_MIN;
            }
            Ended::Away(_) => {}
        }
        let timer = followed.revisions.timer();
        let until = timer.now().plus(pause.mul_f64(0.5 + random::share() / 2.0));
        tokio::select! {
            () = stop.cancelled() => return,
            () = timer.sleep_until(until) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn feed<T: Clone + Send + Sync>(followed: &Followed<T>) -> Ended {
    let (kind, timer) = (followed.kind, followed.revisions.timer());
    let store = followed.revisions.store();
    let (revision, entries) = match list_all(store, kind.heads(None)).await {
        Ok(listed) => listed,
        Err(Error::Compacted { compacted }) => return Ended::Compacted(compacted),
        Err(error) => return Ended::Away(error.to_string()),
    };
    let request = WatchRequest::new(kind.heads(None)).from(revision.next());
    let mut watch = match store.watch(request) {
        Ok(watch) => watch,
        Err(error) => return Ended::Away(error.to_string()),
    };
    let before = followed.snapshot();
    let mut fresh = Snapshot { revision, ..Snapshot::default() };
    for entry in &entries {
        // What cannot be read stays as it was last understood, also over a new list.
        if let Some(rule) = kind.parse(&entry.key)
            && let Some(known) = before.get(&rule)
        {
            fresh.objects.insert(rule, Arc::clone(known));
        }
        fresh.set((kind, followed.read), &entry.key, Some(entry));
    }
    followed.copy.send_replace(Arc::new(fresh));
    if before.stale_since.is_some() {
        Reach { kind, why: None }.emit();
    }
    drop((before, entries));
    loop {
        let silence = timer.sleep_until(timer.now().plus(SILENCE_MAX));
        let item = tokio::select! {
            biased;
            item = watch.next() => item,
            () = silence => return Ended::Away("nothing was heard of it".to_owned()),
        };
        match item {
            Some(WatchItem::Created { .. }) => {}
            Some(WatchItem::Bookmark { revision }) => {
                followed.change(|snapshot| snapshot.revision = snapshot.revision.max(revision));
            }
            Some(WatchItem::Changes { revision, events }) => followed.change(|snapshot| {
                for event in &events {
                    snapshot.set((kind, followed.read), event.key(), event.entry());
                }
                snapshot.revision = revision;
            }),
            Some(WatchItem::Compacted { compacted }) => return Ended::Compacted(compacted),
            Some(WatchItem::Denied) => return Ended::Away("it may not be read".to_owned()),
            Some(WatchItem::Closed) | None => return Ended::Away("it is closed".to_owned()),
        }
    }
}

impl<T> fmt::Debug for Followed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed").field("kind", &self.kind).finish_non_exhaustive()
    }
}
