//! Keys of whatever has a queue: locks, semaphores, elections.

use std::fmt;

use mainstay_store::{Key, LeaseId, Range};

use super::{made, segment, unescape};
use crate::name::{LockName, Namespace, RequestId};

/// What kind of thing has the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// Locks, exclusive and shared.
    Lock,
    /// Semaphores.
    Semaphore,
    /// Elections.
    Election,
    /// Elections of who does what only one node is to do.
    Duty,
}

impl Area {
    /// Every area.
    pub const ALL: [Self; 4] = [Self::Lock, Self::Semaphore, Self::Election, Self::Duty];

    /// The area `key` belongs to.
    pub fn of(key: &Key) -> Option<Self> {
        let first = key.split(|byte| *byte == b'/').next()?;
        Self::ALL.into_iter().find(|area| area.as_str().as_bytes() == first)
    }

    /// First segment of its keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Semaphore => "sem",
            Self::Election => "elect",
            Self::Duty => "duty",
        }
    }
}

/// One lock, semaphore or election.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// What it is.
    pub area: Area,
    /// Whose it is.
    pub namespace: Namespace,
    /// Which it is.
    pub name: LockName,
}

impl Place {
    /// Everything there is about it: queue, last holder, delay.
    pub fn all(&self) -> Range {
        Range::prefix(self.prefix())
    }

    /// Its queue.
    pub fn queue(&self) -> Range {
        Range::prefix(format!("{}q/", self.prefix()))
    }

    /// A place in its queue.
    pub fn slot(&self, slot: &Slot) -> Key {
        made(format!("{}q/{slot}", self.prefix()))
    }

    /// What `session` has in its queue: one place, or in a semaphore one for each request.
    pub fn slots(&self, session: LeaseId) -> Range {
        Range::prefix(format!("{}q/{session}", self.prefix()))
    }

    /// How it was last held.
    pub fn last(&self) -> Key {
        made(format!("{}last", self.prefix()))
    }

    /// While this is there, nobody is granted it.
    pub fn delay(&self) -> Key {
        made(format!("{}delay", self.prefix()))
    }

    fn prefix(&self) -> String {
        let Self { area, namespace, name } = self;
        format!("{}/{}/{}/", area.as_str(), segment(namespace.as_str()), segment(name.as_str()))
    }
}

impl fmt::Display for Place {
    /// As people write it: `namespace/name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whose place in a queue it is. A session has one in a lock or election, however often it asks,
/// and one for each request in a semaphore.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// The session.
    pub session: LeaseId,
    /// The request, in a semaphore.
    pub request: Option<RequestId>,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.request {
            None => self.session.fmt(f),
            Some(request) => write!(f, "{}~{}", self.session, segment(request.as_str())),
        }
    }
}

/// Everything of one area and namespace.
pub fn area(area: Area, namespace: Option<&Namespace>) -> Range {
    let namespace = namespace.map_or_else(String::new, |ns| format!("{}/", segment(ns.as_str())));
    Range::prefix(format!("{}/{namespace}", area.as_str()))
}

/// The place and slot a key of a queue stands for; `None` for every other key.
pub fn parse_slot(key: &Key) -> Option<(Place, Slot)> {
    let (place, rest) = parse_place(key)?;
    let slot = rest.strip_prefix("q/")?;
    let (session, request) = match slot.split_once('~') {
        None => (slot, None),
        Some((session, request)) => (session, Some(RequestId::new(unescape(request)?).ok()?)),
    };
    Some((place, Slot { session: parse_session(session)?, request }))
}

/// The place of which `key` says how it was last held; `None` for every other key.
pub fn parse_last(key: &Key) -> Option<Place> {
    // Most keys of an area are places in queues: those are not looked at any further.
    let (place, rest) = key.ends_with(b"/last").then(|| parse_place(key))??;
    (rest == "last").then_some(place)
}

/// The place `key` belongs to, and what follows it in the key.
fn parse_place(key: &Key) -> Option<(Place, &str)> {
    let area = Area::of(key)?;
    let mut segments = std::str::from_utf8(key).ok()?.splitn(4, '/').skip(1);
    let namespace = Namespace::new(unescape(segments.next()?)?).ok()?;
    let name = LockName::new(unescape(segments.next()?)?).ok()?;
    Some((Place { area, namespace, name }, segments.next()?))
}

/// A session as it is written: sixteen hexadecimal digits.
pub fn parse_session(text: &str) -> Option<LeaseId> {
    let id = LeaseId::new(u64::from_str_radix(text, 16).ok()?)?;
    (id.to_string() == text).then_some(id)
}
