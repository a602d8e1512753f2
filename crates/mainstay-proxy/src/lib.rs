//! Gateway and sidecar data plane.

pub mod access_log;
pub mod config;
pub mod key;
pub mod metrics;
pub mod redirect;
pub mod respond;
pub mod rewrite;
pub mod route;
pub mod split;
mod time;
