//! How an embedded store is to be kept.

use std::path::PathBuf;
use std::time::Duration;

use super::engine::Check;

/// How an embedded store is to be kept. Names, defaults and units are those of
/// `[store]` and `[store.embedded]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The folder of its files.
    pub path: PathBuf,
    /// Most bytes of all records, history included; puts beyond are refused.
    pub bytes_max: u64,
    /// Bytes of the engine's cache.
    pub cache_bytes_max: usize,
    /// Operations of one commit.
    pub commit_operations_max: usize,
    /// Bytes of one commit.
    pub commit_bytes_max: usize,
    /// How long a commit waits for as many batches as the last one had.
    pub commit_linger: Duration,
    /// Whether the whole file is checked when it is opened.
    pub check_on_open: Check,
    /// How old history is when it goes.
    pub compact_after: Duration,
    /// How many revisions are kept at most.
    pub revisions_max: u64,
    /// Who looks at the clock.
    pub ticks: Ticks,
}

impl Options {
    /// A store in the folder `path`, all else as usual.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            bytes_max: 2_147_483_648,
            cache_bytes_max: 16_777_216,
            commit_operations_max: 1_024,
            commit_bytes_max: 4_194_304,
            commit_linger: Duration::from_micros(500),
            check_on_open: Check::Auto,
            compact_after: Duration::from_mins(30),
            revisions_max: 500_000,
            ticks: Ticks::Own,
        }
    }
}

/// Who looks at the clock for leases that end and other things that come with time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ticks {
    /// The store does, in a thread of its own, every 200 ms.
    #[default]
    Own,
    /// Whoever holds it, by [`Embedded::tick`](super::Embedded::tick): for tests that turn a clock
    /// by hand.
    ByHand,
}
