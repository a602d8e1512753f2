//! Gateway and sidecar data plane: listeners, head guard, routes, pools, headers, drain.

pub mod access_log;
pub mod body;
pub mod config;
mod events;
pub mod faults;
pub mod forwarded;
pub mod framing;
pub mod gateway;
mod gather;
pub mod header;
pub mod key;
pub mod listener;
pub mod metrics;
pub mod mirror;
pub mod path;
pub mod pipeline;
pub mod reading;
pub mod redirect;
pub mod respond;
pub mod rewrite;
pub mod route;
pub mod server;
pub mod snapshot;
pub mod split;
mod time;
pub mod tls;
pub mod upstream;
