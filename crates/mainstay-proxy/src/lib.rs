//! The data plane: listeners, upstream pools, and what stands between them.

pub mod body;
pub mod listener;
pub mod server;
pub mod tls;
pub mod upstream;
