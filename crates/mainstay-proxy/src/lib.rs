//! Gateway and sidecar data plane: listeners, head guard, routes, pools, headers, drain.

pub mod forwarded;
pub mod framing;
pub mod header;
pub mod path;
