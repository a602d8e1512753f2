//! The stages around a client, each in its place and all together.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "helpers of tests fail as tests do, and read the time of their own runtime"
)]

mod balance;
mod circuit;
mod layers;
mod peers;
mod retry;
mod sockets;
mod timeout;
mod whole;
