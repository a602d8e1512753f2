//! Coordination: recipes over the [`Store`](mainstay_store::Store).
//!
//! Nobody else reads or writes the keys of [`keys`], and nothing here knows which backend runs.
//!
//! | what | module |
//! |---|---|
//! | the store, a clock, tasks and counters, shared by all recipes | [`coordination`] |
//! | the key space; the names in it | [`keys`], [`name`] |
//! | the clock holders judge by | [`clock`] |
//! | leases with an owner | [`session`] |
//! | locks, read-write locks, semaphores; who holds and who waits: a machine | [`lock`], [`lock::line`] |
//! | leader election | [`election`] |
//! | who can answer for a service; whether it can do its work | [`registry`], [`health`] |
//! | configuration: releases of whole groups, pushed to whoever holds them | [`centre`] |
//! | what the Consul door keeps: pairs, sessions, indexes | [`consul`] |
//! | keys that wrap other keys | [`keyring`] |
//! | which format the records have; what of a store outlives a restore, and filling another store with it | [`format`](mod@format), [`transfer`] |
//! | audit records, put by the batch that changes something | [`audit`] |
//! | what only one node is to do | [`duty`] |
//! | objects with a history: who changed them, when, why | [`revisions`] |
//! | switches; plans of switches; what time brings about | [`switch`], [`plan`], [`timers`] |
//! | moments of the wall clock, as people write them | [`moment`] |
//! | counters | [`figures`], [`registry::figures`], [`centre::figures`], [`audit::figures`], [`switch::figures`] |

pub mod audit;
pub mod centre;
pub mod clock;
pub mod consul;
pub mod coordination;
pub mod duty;
pub mod election;
mod events;
pub mod figures;
pub mod format;
pub mod health;
pub mod keyring;
pub mod keys;
pub mod lock;
pub mod name;
mod patience;
pub mod plan;
mod presence;
mod random;
pub mod registry;
pub mod revisions;
pub mod session;
pub mod switch;
mod tasks;
pub mod terms;
pub mod timers;
pub mod transfer;

pub use audit::Outbox;
pub use centre::{Centre, CentreError};
pub use clock::{BootClock, HandClock, Timer};
pub use coordination::Coordination;
pub use election::{Leader, Leadership, Observer};
pub use keyring::{Keyring, KeyringError, KeyringFile};
pub use keys::{Area, GroupRef, InstanceRef, Place, ServiceRef};
pub use lock::{Grant, Held, LockError, Locks, Request, Token, Wait};
pub use mainstay_core::belief::{Loss, Standing};
pub use mainstay_core::moment::{self, Moment};
pub use plan::{PlanError, Plans};
#[cfg(feature = "simulation")]
pub use random::seeded;
pub use revisions::{Revisions, RuleError};
pub use session::{Credential, Owner, Session, SessionError, Sessions};
pub use switch::{SwitchError, Switches};
pub use terms::Terms;
pub use timers::Timers;
