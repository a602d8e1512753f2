//! The port on a real etcd, which the tests start and stop themselves.
//!
//! Needs `etcd` and `etcdctl` on the path: Debian's packages `etcd-server` and `etcd-client`, which
//! `scripts/test` installs. A test that cannot start them fails.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests run by the clock of this machine, and say loudly what went wrong"
)]

mod beside_memory;
mod cluster;
mod conformance;
mod history;
mod identity;
mod members;
mod relay;
mod restart;
mod sharing;
mod signing_in;
