//! Everything a call passes through, as tower layers: one layer a stage.

pub mod error;

pub use error::{BoxError, CallError, Refusal};
