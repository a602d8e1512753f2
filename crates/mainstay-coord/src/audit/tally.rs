//! How full the outbox is, and what has to go.

/// Most records kept, and most bytes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records.
    pub records_max: u64,
    /// Bytes of keys and values.
    pub bytes_max: u64,
    /// Whether nothing is changed when there are more; else the newest are kept, and the oldest go
    /// unlogged.
    pub is_required: bool,
}

impl Default for Limits {
    /// 100,000 records or 64 MiB: a thousand changes a day for three months, and a thirtieth of
    /// what the store may hold.
    fn default() -> Self {
        Self { records_max: 100_000, bytes_max: 64 * 1_048_576, is_required: true }
    }
}

/// What there is in the outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

impl Tally {
    /// A record of `bytes` came.
    pub const fn add(&mut self, bytes: u64) {
        self.records = self.records.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// A record of `bytes` went.
    pub const fn remove(&mut self, bytes: u64) {
        self.records = self.records.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// What has to go where records are not required, once it is worth a commit: a hundredth above a
    /// limit. Then it goes down to the limit, so what is newest is always there in full number.
    pub const fn excess(self, limits: Limits) -> Option<Self> {
        let is_due = is_above(self.records, limits.records_max, 100)
            || is_above(self.bytes, limits.bytes_max, 100);
        if limits.is_required || !is_due {
            return None;
        }
        Some(Self {
            records: self.records.saturating_sub(limits.records_max),
            bytes: self.bytes.saturating_sub(limits.bytes_max),
        })
    }

    /// Whether nothing may be added: it is at a limit and records are required; or it is a tenth
    /// above one, so what is oldest does not go as it should.
    pub const fn is_overrun(self, limits: Limits) -> bool {
        if limits.is_required {
            return limits.records_max <= self.records || limits.bytes_max <= self.bytes;
        }
        is_above(self.records, limits.records_max, 10) || is_above(self.bytes, limits.bytes_max, 10)
    }
}

const fn is_above(found: u64, max: u64, part: u64) -> bool {
    max.saturating_add(max / part) < found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { records_max: 1_000, bytes_max: 100_000, is_required: false };

    #[test]
    fn what_is_above_a_limit_goes_when_it_is_a_hundredth() {
        for (records, bytes, want) in [
            (1_000, 100_000, None),
            (1_010, 101_000, None),
            (1_011, 10, Some((11, 0))),
            (10, 101_001, Some((0, 1_001))),
            (1_200, 101_500, Some((200, 1_500))),
        ] {
            let excess = Tally { records, bytes }.excess(LIMITS);
            let found = excess.map(|excess| (excess.records, excess.bytes));
            assert_eq!(found, want, "{records} records of {bytes} bytes");
        }
        assert!(!Tally { records: 1_100, bytes: 0 }.is_overrun(LIMITS));
        assert!(Tally { records: 1_101, bytes: 0 }.is_overrun(LIMITS));
        assert!(Tally { records: 0, bytes: 110_001 }.is_overrun(LIMITS));
    }

    #[test]
    fn what_is_required_never_goes_and_nothing_is_added_at_the_limit() {
        let limits = Limits { is_required: true, ..LIMITS };
        for (records, bytes, want) in
            [(999, 99_999, false), (1_000, 0, true), (0, 100_000, true), (9_999, 0, true)]
        {
            let tally = Tally { records, bytes };
            assert_eq!(tally.is_overrun(limits), want, "{tally:?}");
            assert_eq!(tally.excess(limits), None);
        }
    }

    proptest! {
        /// However records come and go: the tally is their number and size, and what has to go
        /// leaves the limit, not less.
        #[test]
        fn a_tally_counts(sizes in prop::collection::vec(1u64..500, 0..3_000)) {
            let mut tally = Tally::default();
            for size in &sizes {
                tally.add(*size);
            }
            prop_assert_eq!(tally.records, sizes.len() as u64);
            prop_assert_eq!(tally.bytes, sizes.iter().sum::<u64>());
            if let Some(excess) = tally.excess(LIMITS) {
                let left = (tally.records - excess.records, tally.bytes - excess.bytes);
                prop_assert!(left.0 == LIMITS.records_max || left.1 == LIMITS.bytes_max);
            }
            for size in &sizes {
                tally.remove(*size);
            }
            prop_assert_eq!(tally, Tally::default());
        }
    }
}
