//! Global transactions: a coordinator that decides once, durably, and never guesses.
//!
//! | what | module |
//! |---|---|
//! | names of transactions, branches, resources; shards | [`name`] |
//! | modes, states, operations, votes | [`word`] |
//! | a transaction as it stands | [`transaction`], [`target`], [`moment`] |
//! | the machine: events and time in, writes and effects out | [`machine`] |
//! | the log: keys, records, what a step writes | [`log`] |
//! | what a log is, for all nodes | [`meta`] |
//! | group commit | [`commit`] |
//! | where tests end the process | `crash` |
//! | what drives it all, and what it asks of others | [`run`], [`port`] |
//! | who owns which shard | [`owner`] |
//! | how long is remembered how they ended | [`retention`] |
//! | what is called next, what is due next | [`schedule`], [`due`] |
//! | what databases call a branch; how an unknown outcome is resolved | [`database`], [`receipt`] |
//! | the databases themselves: sessions, what is asked on them | [`resource`] |
//! | what an answer over HTTP means | [`classify`](mod@classify) |
//! | what always holds | [`invariants`] |
//! | why a verb was refused | [`error`] |
//! | what is counted | [`figures`] |
//! | what it goes by: sizes, waits, settings | [`limits`], [`backoff`], [`policy`] |

pub mod backoff;
pub mod classify;
pub mod commit;
mod crash;
pub mod database;
pub mod due;
pub mod error;
mod events;
pub mod figures;
pub mod invariants;
pub mod limits;
pub mod log;
pub mod machine;
pub mod meta;
pub mod moment;
pub mod name;
pub mod owner;
pub mod policy;
pub mod port;
pub mod receipt;
pub mod resource;
pub mod retention;
pub mod run;
pub mod schedule;
mod sync;
pub mod target;
mod tasks;
pub mod transaction;
pub mod word;

pub use error::Refused;
pub use machine::{
    Amendment, By, Effect, Event, Finding, Outcome, Resolution, Step, Submit, VoteOf, Write,
};
pub use moment::Moment;
pub use name::{BranchId, Gid, ResourceName, Shard, Shards};
pub use policy::Policy;
pub use run::Coordinator;
pub use target::Target;
pub use transaction::{Begin, Branch, NewBranch, Part, Payload, Transaction};
pub use word::{Decision, Dialect, Mode, Op, OpState, Prepare, State, Vote};
