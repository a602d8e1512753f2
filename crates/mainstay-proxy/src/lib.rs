//! Gateway and sidecar data plane: listeners, head guard, routes, pools, headers, drain.

pub mod access_log;
pub mod framing;
pub mod metrics;
mod time;
