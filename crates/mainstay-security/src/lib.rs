//! Decisions about trust.
//!
//! Everything here is a plain value: bytes, time and randomness come in as arguments, and what is
//! decided comes out. There is no socket, file, clock or log.

pub mod audit;
