//! Events: a word to whoever listens to this process, kept in memory and lost with it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::Consul;
use crate::keys::ConsulSessionId;

/// Events kept: as many as Consul keeps. With names and payloads at their longest 200 KiB.
const EVENTS_MAX: usize = 256;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// A UUID.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What it carries.
    pub payload: Bytes,
    /// Which nodes, services and tags it is for; shown, and whoever listens decides.
    pub filters: [String; 3],
    /// How many there were with it.
    pub time: u64,
}

impl Event {
    /// The index of a list whose last event it is. Clients work it out of the id as well: both
    /// halves of the UUID, one laid over the other.
    pub fn index(&self) -> u64 {
        let digits: String = self.id.chars().filter(|c| *c != '-').collect();
        let half = |digits: Option<&str>| {
            digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default()
        };
        half(digits.get(..16)) ^ half(digits.get(16..))
    }
}

/// The last events, the oldest first.
#[derive(Debug)]
pub(super) struct Events {
    kept: Mutex<VecDeque<Arc<Event>>>,
    /// How many there were.
    fired: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Self {
        Self { kept: Mutex::default(), fired: watch::Sender::new(0) }
    }
}

impl Events {
    fn fire(&self, id: String, name: String, payload: Bytes, filters: [String; 3]) -> Arc<Event> {
        let mut kept = self.kept.lock();
        let time = *self.fired.borrow() + 1;
        let event = Arc::new(Event { id, name, payload, filters, time });
        if kept.len() == EVENTS_MAX {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&event));
        drop(kept);
        self.fired.send_replace(time);
        event
    }

    fn list(&self, name: Option<&str>) -> Vec<Arc<Event>> {
        let kept = self.kept.lock();
        kept.iter().filter(|event| name.is_none_or(|name| event.name == name)).cloned().collect()
    }
}

/// The index of a list of events.
pub fn index_of(events: &[Arc<Event>]) -> u64 {
    events.last().map_or(1, |event| event.index().max(1))
}

impl Consul {
    /// Tells an event to whoever listens to this process.
    pub fn fire(&self, name: String, payload: Bytes, filters: [String; 3]) -> Arc<Event> {
        let id = ConsulSessionId::random().as_str().to_owned();
        self.shared.events.fire(id, name, payload, filters)
    }

    /// The last events of that name, or all; once their index is another than `after`, or after
    /// `wait`. An `after` of 0 waits for nothing.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn events(&self, name: Option<&str>, after: u64, wait: Duration) -> Vec<Arc<Event>> {
        let until = self.shared.timer.now().plus(wait);
        let events = &self.shared.events;
        let mut fired = events.fired.subscribe();
        loop {
            fired.borrow_and_update();
            let list = events.list(name);
            let now = self.shared.timer.now();
            if after == 0 || index_of(&list) != after || until <= now {
                return list;
            }
            tokio::select! {
                _more = fired.changed() => {}
                () = self.shared.timer.sleep_until(until) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_worked_out_of_the_id_as_clients_do() {
        for (id, want) in [
            ("00000000-0000-0003-0000-000000000005", 3 ^ 5),
            ("ffffffff-ffff-ffff-0000-000000000000", u64::MAX),
        ] {
            let (id, name, payload) = (id.to_owned(), String::new(), Bytes::new());
            let event = Event { id, name, payload, filters: Default::default(), time: 1 };
            assert_eq!(event.index(), want);
        }
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let events = Events::default();
        for at in 0..=EVENTS_MAX {
            let name = format!("e{}", at % 2);
            events.fire(at.to_string(), name, Bytes::new(), Default::default());
        }
        let list = events.list(None);
        assert_eq!((list.len(), list[0].time), (EVENTS_MAX, 2));
        assert_eq!(events.list(Some("e1")).len(), EVENTS_MAX / 2);
    }
}
