//! Whether a watched area is what etcd holds: a machine.
//!
//! etcd has lost events of starved watches in silence (etcd#17529). So each minute the number of
//! keys of an area and its highest revision are read, and compared with what the events say. The
//! watch may lag behind the read; only a difference that stays is one.

use mainstay_store::Revision;

/// What etcd holds of an area, as of one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// The revision it was read at.
    pub(crate) at: Revision,
    /// How many keys there are.
    pub(crate) count: u64,
    /// The highest revision that wrote one of them; none was written by a later one.
    pub(crate) newest: Revision,
}

/// What the events of an area say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// Keys there must have been at the revision of the read; `None` if that is further back than
    /// events are kept.
    pub(crate) count: Option<u64>,
    /// The revision of the last event.
    pub(crate) newest: Revision,
}

/// How the two compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Equal,
    /// Events are missing; they may be on their way.
    Differs,
}

/// Compares.
pub(crate) fn compare(held: &Held, told: &Told) -> Verdict {
    let count_is_right = told.count.is_none_or(|count| count == held.count);
    if count_is_right && held.newest <= told.newest { Verdict::Equal } else { Verdict::Differs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_put_or_delete_is_seen_and_a_later_event_is_none() {
        let held =
            |count, newest| Held { at: Revision::new(50), count, newest: Revision::new(newest) };
        let told = |count, newest| Told { count, newest: Revision::new(newest) };
        let cases = [
            (held(3, 40), told(Some(3), 40), Verdict::Equal),
            // The last event was a delete.
            (held(3, 40), told(Some(3), 45), Verdict::Equal),
            // The watch is further than the read.
            (held(3, 40), told(Some(3), 60), Verdict::Equal),
            (held(3, 40), told(None, 60), Verdict::Equal),
            (held(3, 40), told(Some(3), 39), Verdict::Differs),
            (held(3, 40), told(Some(4), 45), Verdict::Differs),
            (held(3, 40), told(Some(2), 45), Verdict::Differs),
        ];
        for (held, told, want) in cases {
            assert_eq!(compare(&held, &told), want, "{held:?} {told:?}");
        }
    }
}
