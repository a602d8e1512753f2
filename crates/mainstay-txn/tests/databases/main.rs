//! What is promised about branches in databases, held against real ones: `PostgreSQL` 15 and
//! `MariaDB` 10.11 as Debian packs them, started by the tests on sockets of their own.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests run by the clock of this machine, and fail by panicking"
)]

mod crashes;
#[path = "../../../mainstay/tests/support/relay.rs"]
#[allow(dead_code, reason = "tests of the product use it too")]
mod relay;
mod rows;
#[path = "../../../mainstay-client/tests/databases/servers.rs"]
#[allow(dead_code, reason = "tests of the client start them too")]
mod servers;
mod shop;
mod standing;
mod sweeps;
#[path = "../../../mainstay/tests/support/wait.rs"]
#[allow(dead_code, reason = "tests of the product use it too")]
mod wait;
