//! The client library of Mainstay.
//!
//! | what | module |
//! |---|---|
//! | the control plane, as a program sees it | [`client`] |
//! | locks, semaphores, leadership | [`lock`] |
//! | being found by others, and finding them | [`registry`] |
//! | configuration, as it is published | [`config`] |
//! | switches, as a program reads them | [`switches`] |
//! | rules of the data plane, for whoever serves by them | [`rules`] |
//! | transactions over several services | [`transaction`] |
//! | requests refused that come from a holder who has lost its lock | [`fencing`] |
//! | writes to a database refused that come from such a holder | [`fence`] |
//! | updates that are done only if nobody else was there first | [`optimistic`] |
//! | branches of two-phase commits in an application's own database | [`branch`] |
//! | operations of a participant that take effect once | [`barrier`] |
//! | why the control plane did not do as asked | [`error`] |
//!
//! What speaks to a database takes the caller's open connection and is compiled in by the features
//! `postgres`, `mysql` and `sqlite`; handlers of axum by `axum`.

#[cfg_attr(
    not(any(feature = "mysql", feature = "postgres", feature = "sqlite")),
    expect(dead_code, reason = "what a barrier asks takes a database")
)]
pub mod barrier;
pub mod branch;
pub mod client;
mod clock;
pub mod config;
mod control;
pub mod error;
mod events;
pub mod fence;
pub mod fencing;
pub mod lock;
pub mod optimistic;
mod pause;
mod problem;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod quote;
pub mod registry;
pub mod rules;
mod session;
mod sheet;
mod sse;
mod stream;
pub mod switches;
mod tasks;
pub mod transaction;

pub use barrier::{Barrier, Branch};
pub use client::Client;
pub use error::ClientError;
pub use lock::Held;
pub use transaction::TxError;
