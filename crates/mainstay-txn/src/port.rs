//! What the coordinator asks of others.

use std::pin::Pin;
use std::time::Duration;

use crate::machine::{Finding, Outcome};
use crate::moment::Moment;
use crate::name::{BranchId, Gid, ResourceName};
use crate::target::Target;
use crate::transaction::Payload;
use crate::word::{Decision, Dialect, Mode, Op, State};

/// An answer on its way.
pub type Answering<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Calls branches. The product implements it with the pipeline of calls and with the databases it
/// holds credentials of.
pub trait Participants: Send + Sync {
    /// Makes one call. It must come back: whoever implements it keeps to `timeout`.
    ///
    /// # Cancel safety
    ///
    /// Dropped when the node stops: whether the branch was reached is open, as after every crash.
    fn call(&self, call: Outgoing) -> Answering<'_, Outcome>;
}

/// A call of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Of which transaction.
    pub gid: Gid,
    /// How its branches hold together.
    pub mode: Mode,
    /// Whose rules hold.
    pub dialect: Dialect,
    /// Which branch.
    pub branch: BranchId,
    /// What it is asked.
    pub op: Op,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Epoch of the shard's owner.
    pub epoch: u64,
    /// What was decided; none while it prepares.
    pub decision: Option<Decision>,
    /// Where it goes.
    pub to: To,
    /// What is sent.
    pub payload: Payload,
    /// How long it may take.
    pub timeout: Duration,
}

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// To a service.
    Endpoint(Target),
    /// To a database.
    Resource {
        /// Which.
        resource: ResourceName,
        /// The session that prepared the branch, if its vote said so.
        session_id: Option<String>,
    },
}

/// Hears that a transaction has ended, before its end is written: locks bound to it are released.
pub trait Hooks: Send + Sync {
    /// `gid` has ended as `state`. Called again until it succeeds, and again after a crash.
    ///
    /// # Errors
    ///
    /// What was in the way, for the operator.
    fn ended(&self, gid: &Gid, state: State) -> Answering<'_, Result<(), String>>;

    /// Something an operator should know.
    fn found(&self, gid: &Gid, finding: &Finding);
}

/// The clock on the wall, and chance.
pub trait Surroundings: Send + Sync {
    /// The wall clock as it was when the process began, and monotonic progress since.
    fn now(&self) -> Moment;

    /// A random number.
    fn draw(&self) -> u32;
}
