//! Locks, semaphores, elections and sessions, over the store in memory and the embedded one.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that cannot go on has failed, and looks after its own tasks"
)]

mod away;
mod faults;
mod histories;
mod holding;
mod late;
mod lists;
mod log;
mod permits;
mod queueing;
mod world;
