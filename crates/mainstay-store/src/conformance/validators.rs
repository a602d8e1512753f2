//! The nine promises of a watch, each a function over what a watch yielded and what happened.
//!
//! They serve the exam, the tests that kill processes and cut connections, and the simulator, so
//! that all of them mean the same by a right stream.

use std::fmt;

use crate::entry::Revision;
use crate::watch::{Event, WatchItem, WatchRequest};

/// What a watch yielded, and what it should have yielded it from.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What was asked for; `from` is set.
    pub request: &'a WatchRequest,
    /// Everything it yielded, in order; the end may be cut off anywhere.
    pub items: &'a [WatchItem],
    /// Every change there was, by revision, in order; events with their previous entries.
    pub history: &'a [(Revision, Vec<Event>)],
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which promise.
    pub promise: &'static str,
    /// How.
    pub how: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not {}: {}", self.promise, self.how)
    }
}

/// One promise.
pub type Validator = fn(Record<'_>) -> Result<(), Broken>;

/// All nine.
pub const ALL: [Validator; 9] =
    [ordered, unique, atomic, reliable, resumable, bookmarkable, previous, create, filter];

/// Checks all nine.
///
/// # Errors
///
/// The first that is broken.
pub fn all(record: Record<'_>) -> Result<(), Broken> {
    ALL.iter().try_for_each(|validator| validator(record))
}

/// Revisions strictly increase.
///
/// # Errors
///
/// Where they do not.
pub fn ordered(record: Record<'_>) -> Result<(), Broken> {
    let mut last = Revision::NEVER;
    for (revision, _) in record.changes() {
        check("ordered", last < revision, || format!("{revision} after {last}"))?;
        last = revision;
    }
    Ok(())
}

/// No event comes twice.
///
/// # Errors
///
/// The one that does.
pub fn unique(record: Record<'_>) -> Result<(), Broken> {
    let mut seen = std::collections::BTreeSet::new();
    for (revision, events) in record.changes() {
        for event in events {
            let is_new = seen.insert((revision, event.key().clone()));
            check("unique", is_new, || format!("{:?} at {revision} twice", event.key()))?;
        }
    }
    Ok(())
}

/// One item holds all matching events of its revision, in the order of operations.
///
/// # Errors
///
/// The revision that was torn or shuffled.
pub fn atomic(record: Record<'_>) -> Result<(), Broken> {
    for (revision, events) in record.changes() {
        let got: Vec<_> = events.iter().map(|event| &event.change).collect();
        let happened = record.at(revision).unwrap_or_default();
        let matching = happened.iter().filter(|event| record.request.wants(event));
        let want: Vec<_> = matching.map(|event| &event.change).collect();
        check("atomic", got == want, || format!("{revision}: got {got:?}, happened {want:?}"))?;
    }
    Ok(())
}

/// What lies between two revisions that were delivered was delivered.
///
/// # Errors
///
/// The revision that was left out.
pub fn reliable(record: Record<'_>) -> Result<(), Broken> {
    let delivered: Vec<Revision> = record.changes().map(|(revision, _)| revision).collect();
    let last = delivered.last().copied().unwrap_or(Revision::NEVER);
    for revision in record.matching().take_while(|revision| *revision <= last) {
        let is_there = delivered.binary_search(&revision).is_ok();
        check("reliable", is_there, || format!("{revision} is missing before {last}"))?;
    }
    Ok(())
}

/// The first thing delivered is the first that matches, from the revision asked for on.
///
/// # Errors
///
/// Where it began instead.
pub fn resumable(record: Record<'_>) -> Result<(), Broken> {
    let Some((first, _)) = record.changes().next() else { return Ok(()) };
    let want = record.matching().next();
    check("resumable", want == Some(first), || format!("began at {first}, not {want:?}"))
}

/// After a bookmark, nothing at or before it follows; and nothing before it was left out.
///
/// # Errors
///
/// The bookmark that lied.
pub fn bookmarkable(record: Record<'_>) -> Result<(), Broken> {
    let mut delivered = Revision::NEVER;
    let mut marked = Revision::NEVER;
    for item in record.items {
        match item {
            WatchItem::Bookmark { revision } => {
                marked = marked.max(*revision);
                let owed = record.matching().find(|owed| delivered < *owed && *owed <= marked);
                let is_kept = owed.is_none();
                check("bookmarkable", is_kept, || format!("{owed:?} is owed at {marked}"))?;
            }
            WatchItem::Changes { revision, .. } => {
                let is_kept = marked < *revision;
                check("bookmarkable", is_kept, || format!("{revision} after {marked}"))?;
                delivered = *revision;
            }
            _ => (),
        }
    }
    Ok(())
}

/// The previous entry is the one just before; absent if there was none, or was not asked for.
///
/// # Errors
///
/// The event whose previous entry is another.
pub fn previous(record: Record<'_>) -> Result<(), Broken> {
    for (revision, events) in record.changes() {
        for event in events {
            let happened = record.happened(revision, event);
            let want = happened.and_then(|event| event.previous.as_ref());
            let want = want.filter(|_| record.request.previous);
            let is_right = event.previous.as_ref() == want;
            check("previous", is_right, || format!("{revision}: {event:?}, was {want:?}"))?;
        }
    }
    Ok(())
}

/// An event is a creation exactly when nothing was there before.
///
/// # Errors
///
/// The event that says otherwise.
pub fn create(record: Record<'_>) -> Result<(), Broken> {
    for (revision, events) in record.changes() {
        for event in events.iter().filter(|event| event.entry().is_some()) {
            let happened = record.happened(revision, event);
            let is_new = happened.is_some_and(|event| event.previous.is_none());
            let is_right = event.is_create() == is_new;
            check("create", is_right, || format!("{revision}: {event:?}"))?;
        }
    }
    Ok(())
}

/// Only events of the range and kinds asked for, and nothing below `from`.
///
/// # Errors
///
/// The event nobody asked for.
pub fn filter(record: Record<'_>) -> Result<(), Broken> {
    let from = record.request.from.unwrap_or(Revision::NEVER);
    for (revision, events) in record.changes() {
        check("filter", from <= revision, || format!("{revision} is below {from}"))?;
        check("filter", !events.is_empty(), || format!("{revision} is empty"))?;
        for event in events {
            check("filter", record.request.wants(event), || format!("{revision}: {event:?}"))?;
        }
    }
    Ok(())
}

impl<'a> Record<'a> {
    fn changes(self) -> impl Iterator<Item = (Revision, &'a [Event])> {
        self.items.iter().filter_map(|item| match item {
            WatchItem::Changes { revision, events } => Some((*revision, events.as_slice())),
            _ => None,
        })
    }

    /// Revisions that should be delivered.
    fn matching(self) -> impl Iterator<Item = Revision> {
        let from = self.request.from.unwrap_or(Revision::NEVER);
        let late = self.history.iter().filter(move |(revision, _)| from <= *revision);
        late.filter(move |(_, events)| events.iter().any(|event| self.request.wants(event)))
            .map(|(revision, _)| *revision)
    }

    fn happened(self, revision: Revision, event: &Event) -> Option<&'a Event> {
        self.at(revision)?.iter().find(|happened| happened.key() == event.key())
    }

    /// Everything that happened at `revision`.
    fn at(self, revision: Revision) -> Option<&'a [Event]> {
        let at = self.history.binary_search_by_key(&revision, |(then, _)| *then).ok()?;
        self.history.get(at).map(|(_, events)| events.as_slice())
    }
}

fn check(promise: &'static str, holds: bool, how: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { promise, how: how() }) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::entry::Entry;
    use crate::key::Range;
    use crate::watch::Change;

    fn entry(name: &str, create: u64, modified: u64) -> Entry {
        Entry {
            key: name.try_into().unwrap(),
            value: Bytes::from_static(b"v"),
            create_revision: Revision::new(create),
            mod_revision: Revision::new(modified),
            version: 1,
            lease: None,
        }
    }

    fn put(name: &str, create: u64, modified: u64, previous: Option<Entry>) -> Event {
        Event { change: Change::Put(entry(name, create, modified)), previous }
    }

    fn delete(name: &str, previous: Entry) -> Event {
        Event { change: Change::Delete(name.try_into().unwrap()), previous: Some(previous) }
    }

    /// 2: a and b are created; 3: c outside the range; 4: a changes; 5: b goes.
    fn history() -> Vec<(Revision, Vec<Event>)> {
        let all = [
            (2, vec![put("x/a", 2, 2, None), put("x/b", 2, 2, None)]),
            (3, vec![put("y/c", 3, 3, None)]),
            (4, vec![put("x/a", 2, 4, Some(entry("x/a", 2, 2)))]),
            (5, vec![delete("x/b", entry("x/b", 2, 2))]),
        ];
        all.map(|(revision, events)| (Revision::new(revision), events)).into()
    }

    fn request() -> WatchRequest {
        WatchRequest::new(Range::prefix("x/")).previous().from(Revision::new(2))
    }

    /// What a right watch yields.
    fn stream() -> Vec<WatchItem> {
        let matching = history().into_iter().filter(|(revision, _)| *revision != Revision::new(3));
        let mut items = vec![WatchItem::Created { revision: Revision::new(1) }];
        items.extend(matching.map(|(revision, events)| WatchItem::Changes { revision, events }));
        items.push(WatchItem::Bookmark { revision: Revision::new(5) });
        items
    }

    fn broken(change: impl FnOnce(&mut Vec<WatchItem>)) -> &'static str {
        let (history, request, mut items) = (history(), request(), stream());
        change(&mut items);
        let record = Record { request: &request, items: &items, history: &history };
        all(record).map_or_else(|broken| broken.promise, |()| "")
    }

    fn events(item: &mut WatchItem) -> &mut Vec<Event> {
        match item {
            WatchItem::Changes { events, .. } => events,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_right_stream_passes_and_each_wrong_one_is_told_by_its_promise() {
        assert_eq!(broken(|_| ()), "");
        assert_eq!(broken(|items| items.swap(1, 2)), "ordered");
        assert_eq!(broken(|items| items[2] = items[1].clone()), "ordered");
        let twice = |items: &mut Vec<WatchItem>| {
            let first = events(&mut items[1])[0].clone();
            events(&mut items[1]).push(first);
        };
        assert_eq!(broken(twice), "unique");
        assert_eq!(broken(|items| drop(events(&mut items[1]).pop())), "atomic");
        assert_eq!(broken(|items| events(&mut items[1]).reverse()), "atomic");
        assert_eq!(broken(|items| drop(items.remove(2))), "reliable");
        assert_eq!(broken(|items| drop(items.drain(1..3))), "reliable");
        let early = |items: &mut Vec<WatchItem>| {
            let revision = Revision::new(4);
            items.insert(2, WatchItem::Bookmark { revision });
        };
        assert_eq!(broken(early), "bookmarkable");
        assert_eq!(broken(|items| events(&mut items[2])[0].previous = None), "previous");
    }

    #[test]
    fn what_nobody_asked_for_is_told() {
        let (history, items) = (history(), stream());
        let late = request().from(Revision::new(4));
        let record = Record { request: &late, items: &items, history: &history };
        assert_eq!(filter(record).unwrap_err().promise, "filter");
        assert_eq!(resumable(record).unwrap_err().promise, "resumable");
        let deletes = request().deletes_only();
        let record = Record { request: &deletes, items: &items, history: &history };
        assert_eq!(filter(record).unwrap_err().promise, "filter");
        let mut wrong = history.clone();
        wrong[0].1[0].previous = Some(entry("x/a", 1, 1));
        let (request, items) = (request(), stream());
        let record = Record { request: &request, items: &items, history: &wrong };
        assert_eq!(create(record).unwrap_err().promise, "create");
    }
}
