//! A watch that reads the log under the mutex, from where it is.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use mainstay_core::Instant;

use super::Memory;
use crate::entry::Revision;
use crate::error::Error;
use crate::limits::{BOOKMARK_EVERY, WATCHERS_MAX};
use crate::watch::{Event, WatchItem, WatchRequest};

pub(super) struct Watching {
    memory: Memory,
    request: WatchRequest,
    id: u64,
    /// The next revision to look at.
    next: Revision,
    created: bool,
    /// When it last yielded something.
    spoke: Instant,
}

impl Watching {
    pub(super) fn start(memory: &Memory, request: WatchRequest) -> Result<Self, Error> {
        let mut state = memory.open()?;
        if WATCHERS_MAX <= state.watches.len() {
            return Err(Error::Busy { retry_after: BOOKMARK_EVERY });
        }
        let id = state.watches.last_key_value().map_or(0, |(last, _)| last + 1);
        state.watches.insert(id, None);
        let next = request.from.unwrap_or_else(|| state.revision.next());
        let (memory, spoke) = (memory.clone(), memory.clock.now());
        drop(state);
        Ok(Self { memory, request, id, next, created: false, spoke })
    }

    fn news(&mut self, context: &Context<'_>) -> Option<WatchItem> {
        let now = self.memory.clock.now();
        let mut state = self.memory.state.lock();
        if state.is_closed() {
            return Some(WatchItem::Closed);
        }
        if self.next <= state.compacted || self.next == Revision::NEVER {
            return Some(WatchItem::Compacted { compacted: state.compacted });
        }
        if !self.created {
            self.created = true;
            let before = self.request.from.is_none().then(|| self.next.before());
            return Some(WatchItem::Created { revision: before.unwrap_or(state.revision) });
        }
        for (&revision, logged) in state.log.range(self.next..) {
            let events: Vec<Event> =
                logged.iter().filter_map(|event| self.request.select(event)).collect();
            self.next = revision.next();
            if !events.is_empty() {
                self.spoke = now;
                return Some(WatchItem::Changes { revision, events });
            }
        }
        self.next = self.next.max(state.revision.next());
        if self.request.bookmarks && BOOKMARK_EVERY <= now.since(self.spoke) {
            self.spoke = now;
            return Some(WatchItem::Bookmark { revision: state.revision });
        }
        state.watches.insert(self.id, Some(context.waker().clone()));
        None
    }
}

impl Stream for Watching {
    type Item = WatchItem;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<WatchItem>> {
        self.news(context).map_or(Poll::Pending, |item| Poll::Ready(Some(item)))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.memory.state.lock().watches.remove(&self.id);
    }
}
