//! What `obs/<ns>/<service>/<instance>/<reporter>` holds: a caller met failures there.
//!
//! One caller that cannot reach an instance may itself be cut off, so it takes several to say that
//! something is wrong. Each report is a key with a lease of 30 s: it counts on every node alike,
//! survives the node that took it, and ends by itself. A caller that repeats its report renews the
//! lease and writes nothing.

use serde::{Deserialize, Serialize};

/// Reports kept of one instance. More tell nothing new.
pub const REPORTERS_MAX: usize = 64;

/// A caller's report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    v: u32,
    /// How many callers there are, as the node knew that took the report.
    pub callers: u32,
    /// What it met.
    pub why: String,
    /// When it was taken, by the wall clock of the node: to be shown.
    pub unix_ms: u64,
}

impl Observation {
    pub(super) const fn new(callers: u32, why: String, unix_ms: u64) -> Self {
        Self { v: 1, callers, why, unix_ms }
    }

    pub(super) fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    pub(super) fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text and numbers are JSON")
    }

    /// Whether as many callers report as it takes: `quorum`, or all there are, if those are fewer.
    pub fn are_enough<'a>(
        reports: impl ExactSizeIterator<Item = &'a Self> + Clone,
        quorum: u32,
    ) -> bool {
        let callers = reports.clone().map(|report| report.callers).max().unwrap_or(0);
        let needed = quorum.min(callers).max(1);
        needed as usize <= reports.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_callers_are_enough_or_the_only_one_there_is() {
        for (callers, want) in [
            (vec![], false),
            (vec![1], true),
            (vec![2], false),
            (vec![9], false),
            (vec![9, 9], true),
            (vec![0], true),
        ] {
            let reports: Vec<_> =
                callers.iter().map(|&n| Observation::new(n, String::new(), 0)).collect();
            assert_eq!(Observation::are_enough(reports.iter(), 2), want, "{callers:?}");
        }
    }
}
