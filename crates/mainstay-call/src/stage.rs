//! One tower layer a stage, in the order a call passes them.
//!
//! Each stage asks the machine of the same name in `mainstay-resilience` and acts on its answer.
//! Each works alone in a `tower::ServiceBuilder`; [`Calls`](crate::Calls) and the gateway stack
//! them in this order, and the gateway's `pipeline.rs` says why it is this one.
//!
//! What `poll_ready` reserved, `call` uses; a clone starts with nothing reserved. No stage boxes a
//! future or starts a task when all goes well.

pub mod balance;
pub mod circuit;
pub mod deadline;
pub mod fallback;
pub mod limit;
pub mod retry;
pub mod timeout;
