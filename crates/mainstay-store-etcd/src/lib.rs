//! The store's port on etcd: several nodes, one history.
//!
//! etcd's streams end when a connection does, its watches lose and repeat events in ways that
//! depend on its version, and its client for Rust leaves all of that to whoever uses it. What stands
//! between the port and etcd's API here is a session layer of our own:
//!
//! | matter | module |
//! |---|---|
//! | the port | [`etcd`] |
//! | where etcd is, and how it is used | [`options`] |
//! | one call: its time, when it is made again, what is known of it | `session`, `refusal` |
//! | one connection, and when it is made again | `connection`, `link`, `backoff` |
//! | whether it is still the same cluster | `identity` |
//! | one upstream watch: whole revisions, each once | `upstream`, `reader` |
//! | one watch for many local ones, and its last revisions | `area`, `hub`, `ring` |
//! | one local watch | `watching` |
//! | whether a watched area is what etcd holds | `audit` |
//! | reads, leases, compaction | `reads`, `leases`, `duty` |
//! | the port's words in etcd's; etcd's calls; its messages, generated | `wire`, `rpc`, `stub` |
//!
//! What decides is a machine without clock or socket: `backoff`, `identity`, `refusal`, `reader`,
//! `ring`, `audit`, `version`, and a holder's belief in `leases`.
//!
//! The generated messages are committed, so that a build needs no `protoc`; `proto/etcd.proto` says
//! how they are made.

mod area;
mod audit;
mod backoff;
mod connection;
mod draw;
mod duty;
pub mod etcd;
mod events;
mod figures;
mod hub;
mod identity;
mod leases;
mod link;
pub mod options;
mod reader;
mod reads;
mod refusal;
mod ring;
mod rpc;
mod session;
#[allow(clippy::all, clippy::pedantic, unreachable_pub, unnameable_types, reason = "generated")]
mod stub;
mod upstream;
mod version;
mod watching;
mod wire;

pub use etcd::Etcd;
pub use figures::Counted;
pub use options::{FanOut, Options, OptionsInvalid};
