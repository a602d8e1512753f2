//! Which call is made next, when more are wanted than may be under way.
//!
//! Each peer (a service, a host and port, a database) has a queue and a limit of its own, and
//! queues take turns. So one that hangs holds as many calls as its limit says and no more, however
//! much is wanted of it; everybody else goes on.

use std::collections::{BTreeMap, VecDeque};

use crate::name::ResourceName;
use crate::transaction::Goal;

/// Who is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// A service, or a host and port.
    Endpoint(String),
    /// A database.
    Resource(ResourceName),
}

impl From<Goal<'_>> for Peer {
    fn from(goal: Goal<'_>) -> Self {
        match goal {
            Goal::Endpoint(target) => Self::Endpoint(target.peer()),
            Goal::Resource { resource, .. } => Self::Resource(resource.clone()),
        }
    }
}

/// Calls that may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub all: usize,
    /// To one service, or one host and port.
    pub endpoint: usize,
    /// To one database: as many as it has connections.
    pub resource: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { all: 256, endpoint: 32, resource: 8 }
    }
}

/// What waits for its turn, by peer. There is at most one `T` for each operation of a live
/// transaction, so their number bounds it.
#[derive(Debug)]
pub struct Schedule<T> {
    limits: Limits,
    waiting: BTreeMap<Peer, VecDeque<T>>,
    /// Peers for which something waits, in the order of their turns.
    turns: VecDeque<Peer>,
    under_way: BTreeMap<Peer, usize>,
    all: usize,
}

impl<T> Schedule<T> {
    /// Nothing waits.
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            waiting: BTreeMap::new(),
            turns: VecDeque::new(),
            under_way: BTreeMap::new(),
            all: 0,
        }
    }

    /// `call` of `peer` waits for its turn.
    pub fn push(&mut self, peer: Peer, call: T) {
        let queue = self.waiting.entry(peer.clone()).or_default();
        if queue.is_empty() {
            self.turns.push_back(peer);
        }
        queue.push_back(call);
    }

    /// The next call that may be made; it is under way until [`Schedule::ended`].
    pub fn take_next(&mut self) -> Option<(Peer, T)> {
        if self.limits.all <= self.all {
            return None;
        }
        for _turn in 0..self.turns.len() {
            let peer = self.turns.pop_front()?;
            let max = match peer {
                Peer::Endpoint(_) => self.limits.endpoint,
                Peer::Resource(_) => self.limits.resource,
            };
            let under_way = self.under_way.entry(peer.clone()).or_default();
            let queue = self.waiting.get_mut(&peer).filter(|_| *under_way < max);
            let call = queue.and_then(VecDeque::pop_front);
            if call.is_some() {
                *under_way += 1;
                self.all += 1;
            }
            if self.waiting.get(&peer).is_some_and(VecDeque::is_empty) {
                self.waiting.remove(&peer);
            } else {
                self.turns.push_back(peer.clone());
            }
            if let Some(call) = call {
                return Some((peer, call));
            }
        }
        None
    }

    /// A call of `peer` has come back.
    pub fn ended(&mut self, peer: &Peer) {
        self.all = self.all.saturating_sub(1);
        if let Some(under_way) = self.under_way.get_mut(peer) {
            *under_way = under_way.saturating_sub(1);
            if *under_way == 0 {
                self.under_way.remove(peer);
            }
        }
    }

    /// Calls under way.
    pub const fn under_way(&self) -> usize {
        self.all
    }

    /// Calls that wait.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(name: char) -> Peer {
        Peer::Endpoint(name.to_string())
    }

    /// Calls made, in order, when `wanted` are and none comes back.
    #[track_caller]
    fn check(limits: Limits, wanted: &str, want: &str) {
        let mut schedule = Schedule::new(limits);
        for name in wanted.chars() {
            schedule.push(peer(name), name);
        }
        let made: String =
            std::iter::from_fn(|| schedule.take_next()).map(|(_, name)| name).collect();
        assert_eq!(made, want);
        assert_eq!(schedule.under_way() + schedule.waiting(), wanted.len());
    }

    #[test]
    fn peers_take_turns_and_a_hanging_one_holds_only_its_own() {
        let limits = Limits { all: 8, endpoint: 3, resource: 1 };
        check(limits, "aaaaaaaabc", "abcaa");
        check(limits, "aaabbbcccddd", "abcdabcd");
    }

    #[test]
    fn what_comes_back_makes_room() {
        let mut schedule = Schedule::new(Limits { all: 8, endpoint: 1, resource: 1 });
        schedule.push(peer('a'), 1);
        schedule.push(peer('a'), 2);
        assert_eq!(schedule.take_next(), Some((peer('a'), 1)));
        assert_eq!(schedule.take_next(), None);
        schedule.ended(&peer('a'));
        assert_eq!(schedule.take_next(), Some((peer('a'), 2)));
    }

    proptest! {
        /// No limit is exceeded, nothing is lost, and nothing waits while it could be made.
        #[test]
        fn limits_hold_and_nothing_is_lost(happens in prop::collection::vec((0_u8..4, any::<bool>()), 0..200)) {
            let limits = Limits { all: 5, endpoint: 2, resource: 1 };
            let mut schedule = Schedule::new(limits);
            let (mut under_way, mut pushed, mut ended): (Vec<Peer>, usize, usize) = (Vec::new(), 0, 0);
            for (who, comes_back) in happens {
                if comes_back && !under_way.is_empty() {
                    schedule.ended(&under_way.remove(0));
                    ended += 1;
                } else {
                    schedule.push(peer(char::from(b'a' + who)), ());
                    pushed += 1;
                }
                under_way.extend(std::iter::from_fn(|| schedule.take_next()).map(|(peer, ())| peer));
                prop_assert!(under_way.len() <= limits.all);
                for who in 0..4 {
                    let peer = peer(char::from(b'a' + who));
                    prop_assert!(under_way.iter().filter(|one| **one == peer).count() <= limits.endpoint);
                }
                prop_assert_eq!(under_way.len() + schedule.waiting() + ended, pushed);
            }
        }
    }
}
