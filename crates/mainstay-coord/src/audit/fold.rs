//! Floods of equal records, told as one.
//!
//! Whoever is refused tries again, a thousand times a second if it is a program that does not know
//! better. Of equal ones (who, what, outcome, from where) the first hundred within a minute are
//! records of their own; the others become one record, which says how many there were and when.
//! Refusals are equal whatever they were of, or a thousand paths would be a thousand records; what
//! was done, such as a secret that was shown, is equal only if it was done to the same.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_core::Instant;

use super::record::{Outcome, Record};

/// How long equal ones are counted together.
pub(super) const WINDOW: Duration = Duration::from_mins(1);

/// Equal ones within a window that have a record each.
pub(super) const EACH_MAX: u64 = 100;

/// Windows at once, 200 bytes each; beyond it whoever comes from wherever is counted together.
const WINDOWS_MAX: usize = 1_024;

/// What makes two records equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Equal {
    principal: String,
    action: String,
    is_failure: bool,
    address: Option<String>,
    /// To what it was done.
    target: Option<(String, String)>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    seen: u64,
    folded: Option<Record>,
}

/// Refusals of the last minute.
#[derive(Debug, Default)]
pub(super) struct Fold {
    windows: BTreeMap<Equal, Window>,
}

impl Fold {
    /// Counts `record`; gives it back if it is one of its own.
    pub(super) fn take(&mut self, now: Instant, record: Record) -> Option<Record> {
        let mut equal = Equal {
            principal: record.actor.principal.clone(),
            action: record.action.clone(),
            is_failure: record.outcome == Outcome::Failed,
            address: record.actor.address.clone(),
            target: (record.outcome == Outcome::Done)
                .then(|| (record.target.kind.clone(), record.target.id.clone())),
        };
        let is_crowded = WINDOWS_MAX <= self.windows.len() && !self.windows.contains_key(&equal);
        if is_crowded {
            // Actions are few, so these windows are too.
            equal = Equal { principal: String::new(), address: None, target: None, ..equal };
        }
        let new = || Window { since: now, seen: 0, folded: None };
        let window = self.windows.entry(equal).or_insert_with(new);
        window.seen += 1;
        if window.seen <= EACH_MAX {
            return Some(record);
        }
        match &mut window.folded {
            Some(folded) => folded.and_again(record.time),
            none => {
                let mut folded = record.folded();
                if is_crowded {
                    // It tells of others, too.
                    (folded.actor.principal, folded.actor.address) = (String::new(), None);
                    folded.target.id = String::new();
                }
                *none = Some(folded);
            }
        }
        None
    }

    /// When the next window is over.
    pub(super) fn due(&self) -> Option<Instant> {
        self.windows.values().map(|window| window.since.plus(WINDOW)).min()
    }

    /// Ends the windows that are over at `now`; what they came to.
    pub(super) fn over(&mut self, now: Instant) -> Vec<Record> {
        let is_over = |window: &Window| window.since.plus(WINDOW) <= now;
        self.end(is_over)
    }

    /// Ends all of them.
    pub(super) fn all(&mut self) -> Vec<Record> {
        self.end(|_| true)
    }

    fn end(&mut self, is_over: impl Fn(&Window) -> bool) -> Vec<Record> {
        let mut records = Vec::new();
        self.windows.retain(|_, window| {
            let over = is_over(window);
            if over {
                records.extend(window.folded.take());
            }
            !over
        });
        records
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::{Actor, Author, Target};
    use crate::moment::Moment;

    fn refused(action: &str, address: &str, at: u64) -> Record {
        let actor = Actor { address: Some(address.to_owned()), ..Actor::default() };
        let code = mainstay_core::problem::Code::CredentialMissing;
        let at = Moment::from_unix_millis(at);
        Record::done(at, action, Target::default(), &Author::new(actor))
            .instead(Outcome::Refused, code)
    }

    fn second(n: u64) -> Instant {
        Instant::ZERO.plus(Duration::from_secs(n))
    }

    #[test]
    fn a_flood_is_a_hundred_records_and_one() {
        let mut fold = Fold::default();
        let own = (0..250).filter(|n| fold.take(second(n / 10), refused("a", "x", *n)).is_some());
        assert_eq!(own.count(), 100);
        assert!(fold.take(second(25), refused("a", "y", 7)).is_some(), "from elsewhere");
        assert!(fold.over(second(59)).is_empty());
        assert_eq!(fold.due(), Some(second(60)));
        let folded = fold.over(second(60));
        let [one] = &folded[..] else { panic!("{folded:?}") };
        let told = serde_json::to_value(one).unwrap();
        assert_eq!((&told["count"], &told["outcome"]), (&150.into(), &"refused".into()));
        assert_eq!(told["first"], "1970-01-01T00:00:00.100Z");
        assert_eq!(told["last"], "1970-01-01T00:00:00.249Z");
        assert!(fold.take(second(61), refused("a", "x", 0)).is_some(), "a new window");
    }

    #[test]
    fn what_was_done_to_another_is_not_the_same() {
        let mut fold = Fold::default();
        let shown = |group: &str| {
            let target = Target { id: group.to_owned(), ..Target::default() };
            Record::done(Moment::default(), "config:reveal", target, &Author::default())
        };
        for _ in 0..EACH_MAX + 5 {
            drop(fold.take(second(0), shown("default/pay")));
        }
        assert!(fold.take(second(1), shown("default/order")).is_some());
        let folded = fold.all();
        let told: Vec<_> = folded.iter().map(|one| (one.count(), &*one.target.id)).collect();
        assert_eq!(told, [(5, "default/pay")]);
    }

    #[test]
    fn what_tells_of_many_callers_names_none() {
        let mut fold = Fold::default();
        for address in 0..WINDOWS_MAX + 102 {
            drop(fold.take(second(0), refused("a", &address.to_string(), 1)));
        }
        let folded = fold.all();
        let [one] = &folded[..] else { panic!("{folded:?}") };
        assert_eq!((one.count(), &one.actor), (2, &Actor::default()));
    }

    proptest! {
        /// Whatever comes from wherever: each refusal is a record or counted in one, and what is
        /// remembered is bounded.
        #[test]
        fn nothing_is_lost_and_nothing_grows(from in prop::collection::vec(0u32..5_000, 0..4_000)) {
            let mut fold = Fold::default();
            let mut own = 0;
            for address in &from {
                let record = refused("a", &address.to_string(), 1);
                own += u64::from(fold.take(second(0), record).is_some());
            }
            prop_assert!(fold.windows.len() <= WINDOWS_MAX + 1);
            let folded: u64 = fold.all().iter().map(Record::count).sum();
            prop_assert_eq!(own + folded, from.len() as u64);
        }
    }
}
