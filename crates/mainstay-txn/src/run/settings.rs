//! What a coordinator goes by, and whom it asks.

use std::sync::Arc;
use std::time::Duration;

use mainstay_store::Store;

use crate::figures::Figures;
use crate::name::Shards;
use crate::owner::Replace;
use crate::policy::Policy;
use crate::port::{Hooks, Participants, Surroundings};
use crate::retention::Retention;
use crate::schedule::Limits;

/// What a node needs to know to coordinate.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name.
    pub node: String,
    /// Where its control port is.
    pub address: String,
    /// Parts of the log, if this node is the first; else it has those it was made with.
    pub shards: Shards,
    /// Lanes of the log.
    pub lanes: u16,
    /// Added to create revisions to make epochs: those of a store that was restored go on.
    pub fence_base: u64,
    /// How long shards outlive this node.
    pub session_ttl: Duration,
    /// From whom it may take shards.
    pub replace: Replace,
    /// Records that may wait for each lane.
    pub queue_records_max: usize,
    /// How long what nobody waits for waits to be written.
    pub lazy_flush: Duration,
    /// Live transactions.
    pub live_max: usize,
    /// How long a call may take, unless a transaction says it.
    pub call_timeout: Duration,
    /// Calls under way.
    pub limits: Limits,
    /// What machines go by.
    pub policy: Policy,
    /// How much history is kept.
    pub retention: Retention,
    /// What is counted.
    pub figures: Figures,
}

impl Settings {
    /// The defaults, for a node called `node` whose store is its own.
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            address: String::new(),
            shards: Shards::DEFAULT,
            lanes: 8,
            fence_base: 0,
            session_ttl: Duration::from_secs(4),
            replace: Replace::Everybody,
            queue_records_max: crate::commit::RECORDS_MAX,
            lazy_flush: Duration::from_millis(100),
            live_max: 200_000,
            call_timeout: Duration::from_secs(5),
            limits: Limits::default(),
            policy: Policy::default(),
            retention: Retention::default(),
            figures: Figures::default(),
        }
    }
}

/// Whom the coordinator asks.
#[derive(Clone)]
pub struct Ports {
    /// Where the log lies.
    pub store: Arc<dyn Store>,
    /// Who calls branches.
    pub participants: Arc<dyn Participants>,
    /// Who hears of ends and findings.
    pub hooks: Arc<dyn Hooks>,
    /// Time and chance.
    pub surroundings: Arc<dyn Surroundings>,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}
