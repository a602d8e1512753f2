//! Gateway and sidecar data plane.

pub mod access_log;
pub mod metrics;
mod time;
