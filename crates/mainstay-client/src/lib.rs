//! The client library of Mainstay.
//!
//! | what | module |
//! |---|---|
//! | writes refused that come from a holder who has lost its lock | [`fence`] |
//! | updates that are done only if nobody else was there first | [`optimistic`] |
//!
//! What speaks to a database takes the caller's open connection and is compiled in by the features
//! `postgres` and `mysql`.

pub mod fence;
pub mod optimistic;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod quote;
