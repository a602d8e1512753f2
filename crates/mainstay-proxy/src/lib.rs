//! Gateway and sidecar data plane: listeners, head guard, routes, pools, headers, drain.

pub mod framing;
pub mod path;
