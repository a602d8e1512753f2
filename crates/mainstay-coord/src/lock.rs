//! Locks, semaphores and elections: one queue, three readings of it.
//!
//! Whoever wants something puts a key into a queue, tied to its session, and waits until it is its
//! turn by the rules of [`line`](mod@line). The queue is the order of create revisions, so it is
//! strictly fair; the end of a session takes its places with it; and a waiter watches only what
//! stands in its way. This is the recipe of Hunt et al. (USENIX ATC 2010, section 2.4), with the store's revisions in place of sequential nodes.
//!
//! # The token
//!
//! Being told "you hold it" proves nothing a second later: the holder may have been stopped, and
//! its lease have ended. So every grant carries a [`Token`] that is larger than every token before
//! it of the same lock, and whoever accepts writes under the lock refuses a token smaller than one
//! it has seen. It is the create revision of the place in the queue plus `meta/fence_base`, which
//! the same batch compares: a base that is raised (after revisions began anew) raises every later
//! token, and the token of a grant never changes. For writes to the store itself the guard is a
//! compare, [`Held::guard`].
//!
//! # Unknown outcomes
//!
//! A place carries the ids of the last [`RECENT_MAX`] requests that changed it. When the outcome
//! of a batch is unknown, the session's key is written anew, which keeps the batch from being
//! applied later, and the place is read: the request is there, or it never will be.
//!
//! # Who asks
//!
//! [`Session::acquire`](crate::session::Session::acquire) is for holders in this process, and
//! returns a [`Held`]: the proof, which knows by this process' clock how long it is worth
//! something. [`Locks`] is for whoever speaks for holders elsewhere.

mod acquire;
mod bound;
mod delay;
mod desk;
mod doors;
mod enter;
mod error;
mod held;
pub mod line;
mod losses;
mod record;
mod request;
mod sweep;

pub use bound::{Bound, BoundPage, BoundPlace};
pub use doors::{LockStatus, Locks, PlacePage};
pub use error::{Holder, LockError};
pub use held::Held;
pub(crate) use held::lost_entry;
pub(crate) use losses::Losses;
pub use losses::{Following, Holdings, News};
pub(crate) use record::is_bound;
pub use record::{Past, Reason, Token};
pub(crate) use request::checked_value;
pub use request::{Grant, Released, Request, Wait, Want};
pub use sweep::Swept;

/// Requests a place remembers, and as many releases. A caller repeats a request within seconds; that
/// it changes the same place 64 times meanwhile takes a fault of its own. 64 ids of 64 bytes are
/// 4 KiB.
pub const RECENT_MAX: usize = 64;

/// How often one session may hold one lock at once.
pub const COUNT_MAX: u32 = 65_535;

/// Most places of one queue: a semaphore can have that many holders. Who comes when it is longer
/// is refused.
pub const QUEUE_MAX: usize = 10_000;

/// Longest wait after a holder has vanished.
pub const LOCK_DELAY_MAX: std::time::Duration = std::time::Duration::from_mins(1);

/// Longest proclaimed value of an election: an address and some words about it.
pub const VALUE_BYTES_MAX: usize = 4_096;
