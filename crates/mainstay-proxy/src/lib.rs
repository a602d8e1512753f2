//! Gateway and sidecar data plane: listeners, head guard, routes, pools, headers, drain.

pub mod access_log;
pub mod framing;
pub mod config;
pub mod key;
pub mod metrics;
pub mod redirect;
pub mod respond;
pub mod rewrite;
pub mod route;
pub mod split;
mod time;
//! The data plane: listeners, upstream pools, and what stands between them.

pub mod body;
pub mod listener;
pub mod server;
pub mod tls;
pub mod upstream;
