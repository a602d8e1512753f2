//! The side of a watch that its reader polls.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::engine::Fault;
use super::hub::{Inbox, Listener};
use super::record::Record;
use super::shared::Shared;
use crate::entry::Revision;
use crate::error::Error;
use crate::limits::BOOKMARK_EVERY;
use crate::watch::{Change, Event, WatchItem, WatchRequest};

pub(super) struct Watching {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
    /// The next revision to deliver.
    next: Revision,
    /// What to say first.
    created: Option<Revision>,
    /// Read from history and not yet delivered.
    history: VecDeque<(Revision, Vec<Event>)>,
}

impl Watching {
    pub(super) fn start(shared: &Arc<Shared>, request: WatchRequest) -> Result<Self, Error> {
        shared.open()?;
        let now = shared.clock.now();
        // Joined before the revision is read, so that nothing falls between the two; what is
        // handed over twice is delivered once.
        let listener = shared.hub.join(request, true, now)?;
        let revision = shared.view.read().revision;
        let next = listener.request.from.unwrap_or_else(|| revision.next());
        let history = VecDeque::new();
        let watching =
            Self { shared: Arc::clone(shared), listener, next, created: Some(revision), history };
        watching.listen_if_there(&mut watching.listener.inbox.lock());
        Ok(watching)
    }

    /// Stops reading history once nothing published is left to read.
    ///
    /// The inbox is locked, so a revision that is handed over after this look finds it listening,
    /// and one handed over before was published, so the look saw it.
    fn listen_if_there(&self, inbox: &mut Inbox) {
        if inbox.behind && self.shared.view.read().revision < self.next {
            inbox.behind = false;
        }
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<WatchItem> {
        let now = self.shared.clock.now();
        let mut steps = 0;
        loop {
            let step = self.step(context);
            let item = match step {
                Ok(Step::Again) => {
                    steps += 1;
                    if steps < STEPS_MAX {
                        continue;
                    }
                    // Much history and little in it for this watch: others want to run too.
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(Step::Wait) => return Poll::Pending,
                Ok(Step::Yield(item)) => item,
                // The log could not be read. The watcher starts over elsewhere, or once the store
                // is back; nothing is left out in silence.
                Err(_fault) => WatchItem::Closed,
            };
            self.listener.inbox.lock().spoke = now;
            return Poll::Ready(item);
        }
    }

    fn step(&mut self, context: &Context<'_>) -> Result<Step, Fault> {
        if self.listener.inbox.lock().closed {
            return Ok(Step::Yield(WatchItem::Closed));
        }
        if let Some(revision) = self.created {
            let compacted = self.shared.view.read().compacted;
            if self.next <= compacted || self.next == Revision::NEVER {
                return Ok(Step::Yield(WatchItem::Compacted { compacted }));
            }
            self.created = None;
            return Ok(Step::Yield(WatchItem::Created { revision }));
        }
        if let Some((revision, events)) = self.history.pop_front() {
            self.next = revision.next();
            return self.changes(revision, &events);
        }
        let logged = {
            let mut inbox = self.listener.inbox.lock();
            self.listen_if_there(&mut inbox);
            match (inbox.behind, inbox.pop()) {
                (false, None) => return Ok(self.idle(&mut inbox, context)),
                (_, logged) => logged,
            }
        };
        match logged {
            Some((revision, events)) => self.deliver(revision, &events),
            None => self.read_history(),
        }
    }

    fn deliver(&mut self, revision: Revision, events: &[Event]) -> Result<Step, Fault> {
        if revision < self.next {
            return Ok(Step::Again);
        }
        self.next = revision.next();
        self.changes(revision, events)
    }

    /// The matching ones of `events`, with their previous entries if those were asked for.
    fn changes(&self, revision: Revision, events: &[Event]) -> Result<Step, Fault> {
        let request = &self.listener.request;
        let mut matching: Vec<Event> =
            events.iter().filter_map(|event| request.select(event)).collect();
        if matching.is_empty() {
            return Ok(Step::Again);
        }
        if request.previous {
            for event in &mut matching {
                event.previous = self.shared.entry_before(event.key(), revision)?;
            }
        }
        Ok(Step::Yield(WatchItem::Changes { revision, events: matching }))
    }

    /// Reads on in the log, up to what is published now.
    fn read_history(&mut self) -> Result<Step, Fault> {
        let (reading, newest) = {
            let view = self.shared.view.read();
            if self.next <= view.compacted {
                return Ok(Step::Yield(WatchItem::Compacted { compacted: view.compacted }));
            }
            (self.shared.engine.read()?, view.revision)
        };
        let mut bytes = 0;
        let mut all_read = true;
        for item in reading.records(self.next)? {
            let (position, record) = item?;
            if newest < position.revision {
                break; // Committed, but not yet published.
            }
            let is_new = self.history.back().is_none_or(|(last, _)| *last != position.revision);
            if is_new && (HISTORY_REVISIONS <= self.history.len() || HISTORY_BYTES <= bytes) {
                all_read = false;
                break;
            }
            let change = match record {
                Record::Put(entry) => Change::Put(entry),
                Record::Delete(key) => Change::Delete(key),
            };
            let event = Event { change, previous: None };
            if is_new {
                self.history.push_back((position.revision, Vec::new()));
            }
            if self.listener.request.wants(&event)
                && let Some((_, events)) = self.history.back_mut()
            {
                bytes += event.bytes();
                events.push(event);
            }
        }
        if all_read && self.history.is_empty() {
            self.next = self.next.max(newest.next());
        }
        Ok(Step::Again)
    }

    fn idle(&self, inbox: &mut Inbox, context: &Context<'_>) -> Step {
        let idle = self.shared.clock.now().since(inbox.spoke);
        if self.listener.request.bookmarks && BOOKMARK_EVERY <= idle {
            // Nothing waits, so all that was handed over has been delivered.
            let revision = self.shared.hub.told();
            return Step::Yield(WatchItem::Bookmark { revision });
        }
        inbox.waker = Some(context.waker().clone());
        Step::Wait
    }
}

enum Step {
    Yield(WatchItem),
    Wait,
    Again,
}

impl Stream for Watching {
    type Item = WatchItem;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<WatchItem>> {
        self.poll(context).map(Some)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.shared.hub.leave(&self.listener);
    }
}

/// Revisions read from history at once: a quarter of a queue, so that a reader that catches up
/// holds less than one that waits.
const HISTORY_REVISIONS: usize = 256;

/// Revisions looked at in one poll: a few milliseconds of reading.
const STEPS_MAX: usize = 1_024;

/// Bytes read from history at once.
const HISTORY_BYTES: usize = 1_048_576;
