//! Decisions about trust. Nothing here has a clock, a socket, a file or a log: bytes, the moment
//! and every random draw are arguments, and what follows is a value.

pub mod audit;
pub mod jwks;
pub mod jws;
