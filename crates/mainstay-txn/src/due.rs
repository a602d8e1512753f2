//! When time brings something about, of all live transactions.

use std::collections::{BTreeSet, HashMap};

use crate::moment::Moment;
use crate::name::Gid;

/// Moments of live transactions, the next first.
#[derive(Debug, Default)]
pub struct Due {
    moments: BTreeSet<(Moment, Gid)>,
    of: HashMap<Gid, Moment>,
}

impl Due {
    /// Sets when `gid` is due; `None` is never.
    pub fn set(&mut self, gid: &Gid, at: Option<Moment>) {
        let before = match at {
            Some(at) => self.of.insert(gid.clone(), at),
            None => self.of.remove(gid),
        };
        if let Some(before) = before {
            self.moments.remove(&(before, gid.clone()));
        }
        if let Some(at) = at {
            self.moments.insert((at, gid.clone()));
        }
    }

    /// The next moment.
    pub fn first(&self) -> Option<Moment> {
        self.moments.first().map(|(at, _)| *at)
    }

    /// Those that are due later than `at`, the last first, at most `max` of them; and whether there
    /// are more.
    pub fn later(&self, at: Moment, max: usize) -> (Vec<Gid>, bool) {
        let mut later = self.moments.iter().rev().take_while(|(due, _)| at < *due).peekable();
        let some = later.by_ref().take(max).map(|(_, gid)| gid.clone()).collect();
        (some, later.peek().is_some())
    }

    /// Takes all that are due at `now`.
    pub fn take(&mut self, now: Moment) -> Vec<Gid> {
        let mut due = Vec::new();
        while let Some((at, _)) = self.moments.first()
            && *at <= now
        {
            let Some((_, gid)) = self.moments.pop_first() else { break };
            self.of.remove(&gid);
            due.push(gid);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_due_once_at_the_moment_that_was_set_last() {
        let gid = |text: &str| Gid::new(text).unwrap();
        let at = |millis| Some(Moment::from_unix_millis(millis));
        let mut due = Due::default();
        due.set(&gid("a"), at(5));
        due.set(&gid("b"), at(3));
        due.set(&gid("a"), at(2));
        due.set(&gid("c"), at(1));
        due.set(&gid("c"), None);
        assert_eq!(due.first(), at(2));
        let later = |after, max| due.later(Moment::from_unix_millis(after), max);
        assert_eq!(later(1, 9), (vec![gid("b"), gid("a")], false));
        assert_eq!(later(1, 1), (vec![gid("b")], true));
        assert_eq!(later(2, 9), (vec![gid("b")], false));
        assert_eq!(later(3, 9), (Vec::new(), false));
        assert_eq!(due.take(Moment::from_unix_millis(3)), [gid("a"), gid("b")]);
        assert_eq!((due.first(), due.take(Moment::MAX)), (None, Vec::new()));
    }
}
