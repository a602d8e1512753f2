//! What the coordinator tells its operator: one type a kind of event, with its log line.

use crate::log::Unreadable;
use crate::name::Shard;

/// A hook failed; it is tried again.
#[derive(Debug)]
pub(crate) struct HookFailed<'a> {
    pub(crate) gid: &'a str,
    pub(crate) why: &'a str,
}

impl HookFailed<'_> {
    pub(crate) fn emit(self) {
        let Self { gid, why } = self;
        tracing::warn!(gid, why, "transaction has ended, and its locks are not released yet");
    }
}

/// A record of a transaction cannot be read.
#[derive(Debug)]
pub(crate) struct Unread<'a> {
    pub(crate) gid: &'a str,
    pub(crate) error: &'a Unreadable,
}

impl Unread<'_> {
    pub(crate) fn emit(self) {
        let Self { gid, error } = self;
        let error: &(dyn std::error::Error + 'static) = error;
        tracing::error!(gid, error, "transaction cannot be read");
    }
}

/// This node owns a shard from now on.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) shard: Shard,
    pub(crate) epoch: u64,
    pub(crate) live: usize,
}

impl Opened {
    pub(crate) fn emit(self) {
        let Self { shard, epoch, live } = self;
        tracing::debug!(%shard, epoch, live, "shard opened");
    }
}

/// This node owns a shard no longer.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) shard: Shard,
}

impl Closed {
    pub(crate) fn emit(self) {
        let Self { shard } = self;
        tracing::info!(%shard, "shard given up");
    }
}

/// The session of this node ended; it joins again.
#[derive(Debug)]
pub(crate) struct SessionEnded<'a> {
    pub(crate) why: &'a str,
}

impl SessionEnded<'_> {
    pub(crate) fn emit(self) {
        let Self { why } = self;
        tracing::warn!(why, "session of the coordinator ended");
    }
}

/// Where shards belong could not be found out, or some cannot be read; it is tried again.
#[derive(Debug)]
pub(crate) struct PlacementFailed<'a> {
    pub(crate) error: &'a (dyn std::error::Error + 'static),
}

impl PlacementFailed<'_> {
    pub(crate) fn emit(self) {
        let Self { error } = self;
        tracing::warn!(error, "shards could not all be put where they belong");
    }
}

/// History could not be read or trimmed; it is tried again.
#[derive(Debug)]
pub(crate) struct TrimFailed<'a> {
    pub(crate) error: &'a mainstay_store::Error,
}

impl TrimFailed<'_> {
    pub(crate) fn emit(self) {
        let error: &(dyn std::error::Error + 'static) = self.error;
        tracing::warn!(error, "history of transactions could not be read or trimmed");
    }
}

/// A shard could not be claimed or opened; it is tried again.
#[derive(Debug)]
pub(crate) struct ShardFailed<'a> {
    pub(crate) shard: Shard,
    pub(crate) error: &'a (dyn std::error::Error + 'static),
}

impl ShardFailed<'_> {
    pub(crate) fn emit(self) {
        let Self { shard, error } = self;
        tracing::warn!(%shard, error, "shard could not be opened");
    }
}
