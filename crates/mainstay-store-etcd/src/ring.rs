//! The last revisions of an area, for all its readers: a machine.
//!
//! Readers hold no queues. Each has a place, the next revision it wants, and reads on from there;
//! who is slower than the ring turns reads history from etcd instead. The ring holds 10,000
//! revisions or 16 MiB, whichever is less.

use std::collections::VecDeque;
use std::sync::Arc;

use mainstay_store::{Event, Revision};

use crate::audit::{Held, Told};

/// All changes of one revision, shared by everybody who reads them.
pub(crate) type Logged = (Revision, Arc<[Event]>);

/// The last revisions of an area.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    kept: VecDeque<Kept>,
    bytes: usize,
    /// What is known, once there is anything.
    known: Option<Known>,
    /// Whoever wants this or an earlier one has to list again.
    gone: Option<Revision>,
}

#[derive(Debug)]
struct Kept {
    logged: Logged,
    bytes: usize,
    /// Keys there are after it.
    count: u64,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// The first revision that can be read here, if anything happened at it.
    start: Revision,
    /// The last revision everything up to is known of.
    sure: Revision,
    /// The revision of the last event.
    newest: Revision,
    /// Keys there were before the first one kept.
    count_before: u64,
    /// The last revision no longer kept.
    dropped: Revision,
}

/// What a reader finds.
#[derive(Clone, Debug)]
pub(crate) enum Ahead {
    /// The next revision at which anything happened.
    Changes(Logged),
    /// Nothing has happened yet; everything up to this revision is known of.
    Nothing(Revision),
    /// It is too far back for this ring.
    Behind,
    /// History may be lost, up to this revision: list again.
    Gone(Revision),
    /// Nothing is known yet.
    Unknown,
}

impl Ring {
    /// Begins after `held`.
    pub(crate) fn begin(&mut self, held: &Held) {
        self.kept.clear();
        self.bytes = 0;
        self.known = Some(Known {
            start: held.at.next(),
            sure: held.at,
            newest: held.at,
            count_before: held.count,
            dropped: held.at,
        });
    }

    /// Takes up the next revision.
    pub(crate) fn push(&mut self, at: Revision, events: Arc<[Event]>) {
        let Some(known) = &mut self.known else { return };
        let before = self.kept.back().map_or(known.count_before, |last| last.count);
        let count = events.iter().fold(before, |count, event| match event.entry() {
            None => count.saturating_sub(1),
            Some(_) if event.is_create() => count + 1,
            Some(_) => count,
        });
        let bytes = events.iter().map(Event::bytes).sum::<usize>();
        (known.sure, known.newest) = (known.sure.max(at), at);
        self.bytes += bytes;
        self.kept.push_back(Kept { logged: (at, events), bytes, count });
        // The newest stays, however large it is.
        while (RING_REVISIONS_MAX < self.kept.len() || RING_BYTES_MAX < self.bytes)
            && 1 < self.kept.len()
            && let Some(oldest) = self.kept.pop_front()
        {
            self.bytes -= oldest.bytes;
            known.start = oldest.logged.0.next();
            known.dropped = oldest.logged.0;
            known.count_before = oldest.count;
        }
    }

    /// Nothing at or before `at` is missing.
    pub(crate) fn progress(&mut self, at: Revision) {
        if let Some(known) = &mut self.known {
            known.sure = known.sure.max(at);
        }
    }

    /// History up to `gone` may be lost: begins anew, and sends everybody who has not read past it
    /// to list again.
    pub(crate) fn lose(&mut self, gone: Revision) {
        *self = Self { gone: Some(gone), ..Self::default() };
    }

    /// What comes at or after `next`.
    pub(crate) fn ahead(&self, next: Revision) -> Ahead {
        if let Some(gone) = self.gone.filter(|gone| next <= *gone) {
            return Ahead::Gone(gone);
        }
        let Some(known) = &self.known else { return Ahead::Unknown };
        if next < known.start {
            return Ahead::Behind;
        }
        let index = self.kept.partition_point(|kept| kept.logged.0 < next);
        match self.kept.get(index) {
            Some(kept) => Ahead::Changes(kept.logged.clone()),
            None => Ahead::Nothing(known.sure),
        }
    }

    /// Whether a reader who wants `next` can read on here.
    pub(crate) fn covers(&self, next: Revision) -> bool {
        self.known.is_some_and(|known| known.start <= next)
    }

    /// Where the upstream watch goes on; `None` before it has begun.
    pub(crate) fn resume_at(&self) -> Option<Revision> {
        self.known.map(|known| known.sure.next())
    }

    /// What the events say of the keys at `at`; `None` before the watch has begun.
    pub(crate) fn told(&self, at: Revision) -> Option<Told> {
        let known = self.known?;
        let index = self.kept.partition_point(|kept| kept.logged.0 <= at);
        let count = match index.checked_sub(1).and_then(|last| self.kept.get(last)) {
            Some(last) => Some(last.count),
            None => (known.dropped <= at).then_some(known.count_before),
        };
        Some(Told { count, newest: known.newest })
    }
}

const RING_REVISIONS_MAX: usize = 10_000;

/// 16 MiB an area; 24 areas and one over all make 400 MiB at the very most.
const RING_BYTES_MAX: usize = 16_777_216;

#[cfg(test)]
mod tests {
    use mainstay_store::{Change, Entry, Key};
    use proptest::prelude::*;

    use super::*;

    fn rev(number: u64) -> Revision {
        Revision::new(number)
    }

    fn held(at: u64, count: u64) -> Held {
        Held { at: rev(at), count, newest: rev(at) }
    }

    /// `+` creates a key of so many bytes, `=` writes it, `-` deletes it.
    fn event(kind: char, at: u64, bytes: usize) -> Event {
        let key: Key = "k".try_into().unwrap();
        let change = match kind {
            '-' => Change::Delete(key),
            _ => Change::Put(Entry {
                key,
                value: vec![b'x'; bytes].into(),
                create_revision: rev(if kind == '+' { at } else { 1 }),
                mod_revision: rev(at),
                version: 1,
                lease: None,
            }),
        };
        Event { change, previous: None }
    }

    /// What a reader at `next` finds, in a word.
    fn ahead(ring: &Ring, next: u64) -> String {
        match ring.ahead(rev(next)) {
            Ahead::Changes((at, _)) => at.to_string(),
            Ahead::Nothing(sure) => format!("-{sure}"),
            Ahead::Behind => "behind".to_owned(),
            Ahead::Gone(gone) => format!("gone {gone}"),
            Ahead::Unknown => "unknown".to_owned(),
        }
    }

    #[test]
    fn every_reader_finds_its_place() {
        let mut ring = Ring::default();
        assert_eq!(ahead(&ring, 5), "unknown");
        ring.begin(&held(10, 0));
        for at in [12, 13, 20] {
            ring.push(rev(at), [event('+', at, 1)].into());
        }
        ring.progress(rev(25));
        let cases = [(10, "behind"), (11, "12"), (13, "13"), (14, "20"), (21, "-25"), (99, "-25")];
        for (next, want) in cases {
            assert_eq!(ahead(&ring, next), want, "from {next}");
        }
        assert_eq!(ring.resume_at(), Some(rev(26)));
        ring.lose(rev(30));
        assert_eq!((ahead(&ring, 30), ahead(&ring, 31)), ("gone 30".into(), "unknown".into()));
        ring.begin(&held(40, 0));
        assert_eq!((ahead(&ring, 30), ahead(&ring, 31)), ("gone 30".into(), "behind".into()));
    }

    #[test]
    fn what_is_pushed_out_is_behind_and_counted_still() {
        let mut ring = Ring::default();
        ring.begin(&held(1, 5));
        let large = RING_BYTES_MAX / 2;
        for (at, kind) in [(2, '+'), (3, '+'), (4, '-')] {
            ring.push(rev(at), [event(kind, at, large)].into());
        }
        assert_eq!((ahead(&ring, 2), ahead(&ring, 3)), ("behind".into(), "3".into()));
        let count = |at| ring.told(rev(at)).unwrap().count;
        assert_eq!((count(1), count(2), count(3), count(4)), (None, Some(6), Some(7), Some(6)));
        ring.push(rev(5), [event('=', 5, 3 * RING_BYTES_MAX)].into());
        assert_eq!(ahead(&ring, 5), "5", "one revision stays, however large it is");
    }

    proptest! {
        /// A reader that keeps up gets what was pushed, however its reading and the pushing mix.
        #[test]
        fn a_reader_misses_nothing(steps in prop::collection::vec((1u64..4, any::<bool>()), 1..200)) {
            let mut ring = Ring::default();
            ring.begin(&held(1, 0));
            let (mut at, mut next) = (1, 2);
            let (mut pushed, mut got) = (Vec::new(), Vec::new());
            for (gap, read) in steps {
                at += gap;
                ring.push(rev(at), [event('=', at, 1)].into());
                pushed.push(at);
                while read && let Ahead::Changes((found, _)) = ring.ahead(rev(next)) {
                    got.push(found.get());
                    next = found.get() + 1;
                }
            }
            prop_assert_eq!(&got[..], &pushed[..got.len()]);
        }
    }
}
