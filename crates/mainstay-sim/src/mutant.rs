//! Faults of ours that must be found.
//!
//! A check that never fails proves nothing. Each of these is a mistake somebody once made, here or
//! elsewhere; with it built in, seeds must fail.

use clap::ValueEnum;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mutant {
    /// A watch is resumed at the last revision it delivered, instead of after it.
    ResumeAtLast,
    /// A watch is resumed two after the last revision it delivered.
    ResumeTooLate,
    /// A batch is answered when it is queued, not when it is durable.
    AnswerBeforeCommit,
    /// Leases are restored without any time left.
    LeasesEndAtRestart,
    /// A holder counts its validity from the answer, not from when it asked.
    ValidityFromReply,
    /// What is written under a lock is taken whatever its token.
    Unfenced,
    /// A lock that looks whether it is free and then takes it.
    LooksThenTakes,
    /// Reads come from a state of before.
    StaleReads,
}
