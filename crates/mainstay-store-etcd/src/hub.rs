//! Areas: one watch of etcd for all local readers of the same keys.
//!
//! etcd does not bear thousands of watches well (etcd#18109, #19064). So a node opens one for a
//! top-level area, `svc/` or `lock/`, and its readers share a [`Ring`]. A range over several areas
//! has the whole key space for its area, since the changes of one revision must stay together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use mainstay_store::{Event, Key, Range, Revision, WatchRequest};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::audit::{Held, Told};
use crate::ring::{Ahead, Ring};

/// The areas that are watched, by their prefix.
#[derive(Debug, Default)]
pub(crate) struct Areas(Mutex<BTreeMap<Bytes, Arc<Area>>>);

/// One area and its readers.
#[derive(Debug)]
pub(crate) struct Area {
    pub(crate) prefix: Bytes,
    pub(crate) range: Range,
    ring: Mutex<Ring>,
    readers: Mutex<Readers>,
    count: AtomicUsize,
    /// Whether etcd would tell of a change.
    stands: AtomicBool,
    /// Where the history stands that came instead.
    over: Mutex<Option<Revision>>,
    /// Tells the task that watches it.
    pub(crate) ended: Notify,
}

#[derive(Debug, Default)]
struct Readers {
    /// Readers of a single key: most there are, and found without asking the others.
    of_key: BTreeMap<Key, Vec<Arc<Reading>>>,
    of_range: Vec<Arc<Reading>>,
}

/// A reader, as its area knows it.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) request: WatchRequest,
    /// There may be something new.
    pub(crate) news: Notify,
}

impl Areas {
    /// Joins the area of `request`, and says whether it is new and has to be watched.
    pub(crate) fn join(
        &self,
        request: WatchRequest,
        whole: bool,
    ) -> (Arc<Area>, Arc<Reading>, bool) {
        let prefix = if whole { Bytes::new() } else { area_of(&request.range) };
        let mut areas = self.0.lock();
        let is_full = AREAS_MAX <= areas.len() && !areas.contains_key(&prefix);
        let prefix = if is_full { Bytes::new() } else { prefix };
        let is_new = !areas.contains_key(&prefix);
        let area = areas.entry(prefix.clone()).or_insert_with(|| {
            let range = Range::prefix(prefix.clone());
            Arc::new(Area {
                prefix,
                range,
                ring: Mutex::default(),
                readers: Mutex::default(),
                count: AtomicUsize::new(0),
                stands: AtomicBool::new(false),
                over: Mutex::default(),
                ended: Notify::new(),
            })
        });
        (Arc::clone(area), area.join(request), is_new)
    }

    /// Drops `area` if nobody reads it, and says so.
    pub(crate) fn drop_if_idle(&self, area: &Arc<Area>) -> bool {
        let mut areas = self.0.lock();
        let is_idle = area.count.load(Ordering::SeqCst) == 0;
        let is_known = areas.get(&area.prefix).is_some_and(|known| Arc::ptr_eq(known, area));
        if is_idle && is_known {
            areas.remove(&area.prefix);
        }
        is_idle
    }

    /// History was replaced by one that stands at `found`: whoever reads now lists again, and
    /// whoever comes later joins a new area.
    pub(crate) fn replaced(&self, found: Revision) {
        let over = std::mem::take(&mut *self.0.lock());
        for area in over.into_values() {
            area.end(found);
        }
    }

    /// The same for one area, which may have been joined too late to be among them.
    pub(crate) fn end(&self, area: &Arc<Area>, found: Revision) {
        self.0.lock().retain(|_, known| !Arc::ptr_eq(known, area));
        area.end(found);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().len()
    }
}

/// The watch of an area stands for as long as this lives.
#[derive(Debug)]
pub(crate) struct Standing<'a>(&'a Area);

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.0.stands.store(false, Ordering::SeqCst);
    }
}

impl Area {
    /// Says that its watch stands.
    pub(crate) fn stand(&self) -> Standing<'_> {
        self.stands.store(true, Ordering::SeqCst);
        Standing(self)
    }

    /// Whether its watch stands: if not, that nothing came says nothing.
    pub(crate) fn stands(&self) -> bool {
        self.stands.load(Ordering::SeqCst)
    }

    fn join(&self, request: WatchRequest) -> Arc<Reading> {
        let reading = Arc::new(Reading { request, news: Notify::new() });
        let mut readers = self.readers.lock();
        match reading.request.range.as_key() {
            Some(key) => readers.of_key.entry(key).or_default().push(Arc::clone(&reading)),
            None => readers.of_range.push(Arc::clone(&reading)),
        }
        self.count.fetch_add(1, Ordering::SeqCst);
        reading
    }

    /// Forgets a reader.
    pub(crate) fn leave(&self, reading: &Arc<Reading>) {
        let mut readers = self.readers.lock();
        let is_other = |known: &Arc<Reading>| !Arc::ptr_eq(known, reading);
        match reading.request.range.as_key() {
            Some(key) => {
                if let Some(of_key) = readers.of_key.get_mut(&key) {
                    of_key.retain(is_other);
                    if of_key.is_empty() {
                        readers.of_key.remove(&key);
                    }
                }
            }
            None => readers.of_range.retain(is_other),
        }
        self.count.fetch_sub(1, Ordering::SeqCst);
    }

    fn end(&self, found: Revision) {
        *self.over.lock() = Some(found);
        self.wake_all();
        self.ended.notify_one();
    }

    /// Begins to tell what happens after `held`.
    pub(crate) fn begin(&self, held: &Held) {
        self.ring.lock().begin(held);
        self.wake_all();
    }

    /// Tells those who want to know.
    pub(crate) fn push(&self, at: Revision, events: Vec<Event>) {
        let events: Arc<[Event]> = events.into();
        // In the ring before anybody is told, or they would look and go to sleep again.
        self.ring.lock().push(at, Arc::clone(&events));
        let readers = self.readers.lock();
        for reading in &readers.of_range {
            if events.iter().any(|event| reading.request.wants(event)) {
                reading.news.notify_one();
            }
        }
        for event in &*events {
            for reading in readers.of_key.get(event.key()).into_iter().flatten() {
                reading.news.notify_one();
            }
        }
    }

    pub(crate) fn progress(&self, at: Revision) {
        self.ring.lock().progress(at);
    }

    /// History up to `gone` may be lost: everybody who has not read past it lists again.
    pub(crate) fn lose(&self, gone: Revision) {
        self.ring.lock().lose(gone);
        self.wake_all();
    }

    pub(crate) fn ahead(&self, next: Revision) -> Ahead {
        if let Some(found) = *self.over.lock() {
            return Ahead::Gone(found);
        }
        self.ring.lock().ahead(next)
    }

    pub(crate) fn covers(&self, next: Revision) -> bool {
        self.ring.lock().covers(next)
    }

    pub(crate) fn resume_at(&self) -> Option<Revision> {
        self.ring.lock().resume_at()
    }

    pub(crate) fn told(&self, at: Revision) -> Option<Told> {
        self.ring.lock().told(at)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// For messages.
    pub(crate) fn name(&self) -> String {
        if self.prefix.is_empty() { "all".into() } else { self.prefix.escape_ascii().to_string() }
    }

    fn wake_all(&self) {
        let readers = self.readers.lock();
        for reading in readers.of_range.iter().chain(readers.of_key.values().flatten()) {
            reading.news.notify_one();
        }
    }
}

/// The top-level area a range lies in: its first segment with the slash, or nothing for more.
fn area_of(range: &Range) -> Bytes {
    let from = range.from();
    let slash = from.iter().position(|byte| *byte == b'/');
    let prefix = slash.map(|slash| from.slice(..=slash)).unwrap_or_default();
    if Range::prefix(prefix.clone()).covers(range) { prefix } else { Bytes::new() }
}

/// As many as the key space has; whoever watches something else watches everything.
const AREAS_MAX: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_is_the_first_segment_or_everything() {
        let key = |text: &str| -> Key { text.try_into().unwrap() };
        let cases = [
            (Range::prefix("svc/"), "svc/"),
            (Range::prefix("svc/shop/"), "svc/"),
            (Range::key(&key("lock/a/b")), "lock/"),
            (Range::key(&key("alone")), ""),
            (Range::prefix("sv"), ""),
            (Range::all(), ""),
            (Range::between("svc/a", Some("svc0".into())), "svc/"),
            (Range::between("svc/a", Some("svd".into())), ""),
            (Range::between("svc/a", None), ""),
        ];
        for (range, want) in cases {
            assert_eq!(&*area_of(&range), want.as_bytes(), "{range:?}");
        }
    }

    #[test]
    fn more_areas_than_the_key_space_has_become_one() {
        let areas = Areas::default();
        let request = |number: usize| WatchRequest::new(Range::prefix(format!("{number:02}/")));
        for number in 0..AREAS_MAX {
            let (area, _, is_new) = areas.join(request(number), false);
            assert_eq!((is_new, area.prefix.len()), (true, 3));
        }
        let (area, reading, is_new) = areas.join(request(99), false);
        assert_eq!((is_new, area.prefix.len()), (true, 0));
        assert!(!areas.drop_if_idle(&area), "somebody reads it");
        area.leave(&reading);
        assert!(areas.drop_if_idle(&area));
        assert_eq!(areas.count(), AREAS_MAX);
        assert!(areas.join(request(5), true).0.prefix.is_empty(), "one for all");
    }
}
