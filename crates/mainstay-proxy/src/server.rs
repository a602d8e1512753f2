//! Server.
pub(crate) mod tasks;
