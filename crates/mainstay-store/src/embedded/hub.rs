//! Tells watches what was committed.
//!
//! The committer hands over each revision once it is published, and never waits. A watch that reads
//! too slowly fills its queue; then the queue is emptied and the watch reads history from the log
//! until it has caught up. Changing over loses nothing: the watch stops reading history only while
//! the newest published revision is one it has already delivered, and what is handed over after
//! that finds it listening.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use mainstay_core::Instant;
use parking_lot::Mutex;

use crate::entry::Revision;
use crate::error::Error;
use crate::key::Key;
use crate::limits::{BOOKMARK_EVERY, QUEUE_BYTES_MAX, QUEUE_REVISIONS_MAX, WATCHERS_MAX};
use crate::watch::{Event, WatchRequest};

/// All changes of one revision, shared by everybody who queues them.
pub(super) type Logged = (Revision, Arc<[Event]>);

/// Every watch there is.
#[derive(Debug, Default)]
pub(super) struct Hub {
    listeners: Mutex<Listeners>,
    /// Everything up to here was handed to every watch.
    told: AtomicU64,
    /// How often a watch fell too far behind.
    resyncs: AtomicU64,
}

#[derive(Debug, Default)]
struct Listeners {
    /// Watches of a single key: most there are, and found without asking the others.
    of_key: BTreeMap<Key, Vec<Arc<Listener>>>,
    of_range: Vec<Arc<Listener>>,
    count: usize,
}

/// The side of a watch that the committer knows.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) request: WatchRequest,
    pub(super) inbox: Mutex<Inbox>,
}

/// What waits for a watch.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) queue: VecDeque<Logged>,
    bytes: usize,
    /// The watch reads history; nothing is queued for it.
    pub(super) behind: bool,
    pub(super) closed: bool,
    pub(super) waker: Option<Waker>,
    /// When it last yielded something.
    pub(super) spoke: Instant,
}

impl Hub {
    /// Takes up a watch; it may be behind.
    pub(super) fn join(
        &self,
        request: WatchRequest,
        behind: bool,
        now: Instant,
    ) -> Result<Arc<Listener>, Error> {
        let mut listeners = self.listeners.lock();
        if WATCHERS_MAX <= listeners.count {
            return Err(Error::Busy { retry_after: BOOKMARK_EVERY });
        }
        let inbox = Inbox {
            queue: VecDeque::new(),
            bytes: 0,
            behind,
            closed: false,
            waker: None,
            spoke: now,
        };
        let listener = Arc::new(Listener { request, inbox: Mutex::new(inbox) });
        listeners.count += 1;
        match listener.request.range.as_key() {
            Some(key) => listeners.of_key.entry(key).or_default().push(Arc::clone(&listener)),
            None => listeners.of_range.push(Arc::clone(&listener)),
        }
        Ok(listener)
    }

    /// Forgets a watch.
    pub(super) fn leave(&self, listener: &Arc<Listener>) {
        let mut listeners = self.listeners.lock();
        let is_other = |known: &Arc<Listener>| !Arc::ptr_eq(known, listener);
        match listener.request.range.as_key() {
            Some(key) => {
                if let Some(of_key) = listeners.of_key.get_mut(&key) {
                    of_key.retain(is_other);
                    if of_key.is_empty() {
                        listeners.of_key.remove(&key);
                    }
                }
            }
            None => listeners.of_range.retain(is_other),
        }
        listeners.count -= 1;
    }

    /// Tells everybody of the next revisions, in order.
    pub(super) fn tell(&self, history: Vec<(Revision, Vec<Event>)>) {
        let listeners = self.listeners.lock();
        let mut newest = None;
        for (revision, events) in history {
            let logged: Logged = (revision, events.into());
            for listener in &listeners.of_range {
                if logged.1.iter().any(|event| listener.request.wants(event)) {
                    self.hand(listener, &logged);
                }
            }
            for event in logged.1.iter() {
                // A key changes at most once a revision, so nobody is told twice.
                for listener in listeners.of_key.get(event.key()).into_iter().flatten() {
                    if listener.request.wants(event) {
                        self.hand(listener, &logged);
                    }
                }
            }
            newest = Some(revision);
        }
        if let Some(revision) = newest {
            self.told.store(revision.get(), Ordering::SeqCst);
        }
    }

    /// Wakes watches that have been idle for so long that they are owed a bookmark.
    pub(super) fn remind(&self, now: Instant) {
        let listeners = self.listeners.lock();
        for listener in listeners.all().filter(|listener| listener.request.bookmarks) {
            let mut inbox = listener.inbox.lock();
            if BOOKMARK_EVERY <= now.since(inbox.spoke) {
                inbox.wake();
            }
        }
    }

    /// Ends every watch.
    pub(super) fn close(&self) {
        for listener in self.listeners.lock().all() {
            let mut inbox = listener.inbox.lock();
            inbox.closed = true;
            inbox.wake();
        }
    }

    /// The revision up to which everything was handed over.
    pub(super) fn told(&self) -> Revision {
        Revision::new(self.told.load(Ordering::SeqCst))
    }

    pub(super) fn start_at(&self, revision: Revision) {
        self.told.store(revision.get(), Ordering::SeqCst);
    }

    /// How many watches there are.
    pub(super) fn count(&self) -> usize {
        self.listeners.lock().count
    }

    /// How often a watch fell too far behind.
    pub(super) fn resyncs(&self) -> u64 {
        self.resyncs.load(Ordering::Relaxed)
    }

    fn hand(&self, listener: &Listener, logged: &Logged) {
        let mut inbox = listener.inbox.lock();
        if inbox.behind {
            return;
        }
        let bytes = logged.1.iter().map(Event::bytes).sum::<usize>();
        // A single revision may be larger than the queue; it is taken into an empty one.
        let is_full = QUEUE_REVISIONS_MAX <= inbox.queue.len()
            || (QUEUE_BYTES_MAX < inbox.bytes + bytes && !inbox.queue.is_empty());
        if is_full {
            inbox.queue = VecDeque::new();
            inbox.bytes = 0;
            inbox.behind = true;
            self.resyncs.fetch_add(1, Ordering::Relaxed);
        } else {
            inbox.bytes += bytes;
            inbox.queue.push_back(logged.clone());
        }
        inbox.wake();
    }
}

impl Listeners {
    fn all(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.of_range.iter().chain(self.of_key.values().flatten())
    }
}

impl Inbox {
    /// Takes the oldest revision that waits.
    pub(super) fn pop(&mut self) -> Option<Logged> {
        let logged = self.queue.pop_front()?;
        let bytes = logged.1.iter().map(Event::bytes).sum::<usize>();
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(logged)
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
