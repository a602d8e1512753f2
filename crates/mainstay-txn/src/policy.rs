//! What the coordinator goes by, resolved from the configuration.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::limits::{DEADLINE, LIFETIME_MAX, PAYLOAD_BYTES};
use crate::transaction::Begin;
use crate::word::{Dialect, Op};

/// What the coordinator goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The deadline of an active phase that names none.
    pub deadline: Duration,
    /// The longest deadline of an active phase.
    pub lifetime_max: Duration,
    /// Largest payload of a branch, in bytes.
    pub payload_bytes_max: usize,
    /// How long to wait before a branch is called again.
    pub backoff: Backoff,
    /// The longest wait of the DTM dialect before a branch is called again.
    pub dtm_interval_max: Duration,
    /// Failed attempts at one operation after which a transaction is stuck.
    pub stuck_attempts: u32,
    /// Time after its decision after which a transaction is stuck.
    pub stuck_after: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            deadline: DEADLINE,
            lifetime_max: LIFETIME_MAX,
            payload_bytes_max: PAYLOAD_BYTES,
            backoff: Backoff::default(),
            dtm_interval_max: Duration::from_mins(5),
            stuck_attempts: 10,
            stuck_after: Duration::from_mins(10),
        }
    }
}

/// The interval between retries of the DTM dialect, unless told.
const DTM_INTERVAL: Duration = Duration::from_secs(10);

impl Policy {
    /// The back-off of `op` of a transaction that was begun so.
    pub(crate) fn backoff_of(&self, begin: &Begin, op: Op) -> Backoff {
        let limit = begin.retry_limit.filter(|_| op == Op::Action);
        match (limit, begin.dialect) {
            // Few retries, close together: 0.1 s, 0.2 s, 0.4 s, at most 1 s.
            (Some(_), Dialect::Dtm) => {
                Backoff::native(Duration::from_millis(100), Duration::from_secs(1)).exact()
            }
            (None, Dialect::Dtm) => {
                let interval = begin.retry_interval.unwrap_or(DTM_INTERVAL);
                Backoff::dtm(interval, self.dtm_interval_max)
            }
            (_, Dialect::Native) => self.backoff,
        }
    }
}
