//! Mistakes about transactions that must be found.

use clap::ValueEnum;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mutant {
    /// A call whose answer does not come is taken for done.
    UnknownIsDone,
    /// A batch whose outcome is not known is taken for written.
    SilenceIsWritten,
    /// A batch is acknowledged when its records are on their way, not when they are durable.
    EffectBeforeWritten,
    /// Batches compare neither the owner of their shard nor their lane.
    NoEpoch,
    /// Participants do whatever they are asked, as often as they are asked.
    NoBarrier,
}
