//! What is promised about databases, held against real ones: `PostgreSQL` 15 and `MariaDB` 10.11
//! as Debian packs them, started by the tests on sockets of their own.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests run by the clock of this machine, and fail by panicking"
)]

mod barrier;
mod fencing;
mod holders;
mod optimistic;
mod participant;
#[allow(dead_code, reason = "tests of the coordinator crash them too")]
mod servers;
