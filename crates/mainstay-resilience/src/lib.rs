//! Machines about calls. Each decides one thing; none has a clock, a socket, a lock or a log.
//!
//! Time is an argument, and so is every random draw: the same inputs give the same outputs, and a
//! test can play a week in a millisecond. Sharing between threads, waiting and reporting are the
//! business of `mainstay-call`, which has a folder for each word used here.
//!
//! Rules that hold for every machine:
//!
//! - A `now` earlier than the last one seen counts as the last one seen; a jump forward of any
//!   length neither overflows nor lets more through than the stated capacity.
//! - Time alone moves state: `poll(now)` does, and every other method polls first.
//! - A permit is spent once, by `record` or `cancel`; one from before the last transition says
//!   nothing new.
//! - Thresholds are inclusive: a rule fires when the observed value is at or above them.
//! - A refusal is a small value that says why, since when, and when to come back.

pub mod adaptive;
pub mod balance;
pub mod budget;
pub mod circuit;
pub mod classify;
pub mod deadline;
pub mod failure;
pub mod fallback;
pub mod fault;
pub mod hash;
pub mod invalid;
pub mod key;
pub mod limit;
pub mod outcome;
pub mod outlier;
pub mod pause;
pub mod retry;
pub mod simulate;
pub mod system;
pub mod window;

pub use failure::{Congestion, Failure};
pub use invalid::Invalid;
pub use outcome::Outcome;
