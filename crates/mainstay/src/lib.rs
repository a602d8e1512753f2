//! The binary: configuration, command line, and what joins the crates. Wiring only.
//!
//! | what | module |
//! |---|---|
//! | the configuration, in layers, explained to the line | [`settings`] |
//! | errors for people and programs, exit codes | [`report`], [`exit`] |

pub mod exit;
pub mod report;
pub mod settings;
pub mod width;
