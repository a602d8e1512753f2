//! What the client makes of a control plane that answers, refuses, hangs, goes away and takes
//! things back. The server here is one of the tests' own, made of the same wire types, that can be
//! told to fail in each of these ways.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests run by the clock of this machine, and fail by panicking"
)]

mod config;
mod holding;
mod registry;
mod server;
mod switches;
