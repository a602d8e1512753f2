//! One tower layer a stage, in the order a call passes them.
//!
//! Each stage asks the machine of the same name in `mainstay-resilience` and acts on its answer.
//! Each works alone in a `tower::ServiceBuilder`; [`Calls`](crate::Calls) and the gateway stack
//! them in this order, and the gateway's `pipeline.rs` says why it is this one.
//!
//! What `poll_ready` reserved, `call` uses; a clone starts with nothing reserved. No stage starts a
//! task.
//!
//! A future is moved by every stage above the one that made it, on the way in and with its answer
//! on the way out, so what is large stands in a box where it is made: an attempt, what a call
//! carries through its limits, what only few calls need. What is handed on is a few words, and the
//! few boxes cost less than the copies did (decision 0050).

pub mod balance;
pub mod circuit;
pub mod deadline;
pub mod fallback;
pub mod limit;
pub mod retry;
pub mod timeout;
