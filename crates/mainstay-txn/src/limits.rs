//! Sizes and spans, each with its unit and its reason.

use std::time::Duration;

/// Longest gid, in bytes. It is part of keys, headers and, for resources, of a name the database
/// keeps.
pub const GID_BYTES_MAX: usize = 128;

/// Longest gid of a two-phase commit, in bytes: `MariaDB` takes 64 for cluster, separator and gid.
pub const XA_GID_BYTES_MAX: usize = 48;

/// Longest branch id, in bytes: the longest branch qualifier of XA.
pub const BRANCH_ID_BYTES_MAX: usize = 64;

/// Most branches of a transaction: their states and two errors each still fit one value of the
/// store.
pub const BRANCHES_MAX: usize = 1_000;

/// Largest payload of a branch unless configured, in bytes.
pub const PAYLOAD_BYTES: usize = 65_536;

/// Largest payload of a branch that can be configured, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 524_288;

/// Most bytes of payload of a whole transaction: with [`HEADS_BYTES_MAX`] and all else it stays below
/// the mebibyte of a value.
pub const TRANSACTION_BYTES_MAX: usize = 524_288;

/// Most bytes of headers, content types, targets and order of a whole transaction: 256 for each of
/// a thousand branches.
pub const HEADS_BYTES_MAX: usize = 262_144;

/// Most headers of a branch.
pub const HEADERS_MAX: usize = 32;

/// Most bytes of names and values of a branch's headers, its content type among them.
pub const HEADERS_BYTES_MAX: usize = 8_192;

/// Longest session id of a vote, in bytes; databases have numbers there.
pub const SESSION_ID_BYTES_MAX: usize = 64;

/// Most bytes that are kept of what an initiator said in the words of its dialect.
pub const WORDS_BYTES_MAX: usize = 65_536;

/// Most labels of a transaction, and most bytes of one with its value.
pub const LABELS_MAX: usize = 16;

/// Most bytes of a label and its value.
pub const LABEL_BYTES_MAX: usize = 256;

/// Longest name of a transaction, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// Longest target, in bytes: what proxies commonly take as a request line, and half of it spare.
pub const TARGET_BYTES_MAX: usize = 2_048;

/// What happened to a transaction: evidence for people, so the oldest goes when there is more.
pub const TIMELINE_MAX: usize = 64;

/// Most bytes of an error or a detail that is kept: a line for people.
pub const DETAIL_BYTES_MAX: usize = 200;

/// Shortest and longest reason of an operator, in characters.
pub const REASON_CHARS: std::ops::RangeInclusive<usize> = 3..=500;

/// Deadline of the active phase unless a transaction names its own.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// Longest deadline of the active phase: prepared branches hold locks that long.
pub const LIFETIME_MAX: Duration = Duration::from_hours(1);

/// Longest deadline of the forward phase of a saga, longest delay of a message, and longest time
/// until a message is given up: history outlives none of them for longer.
pub const PATIENCE_MAX: Duration = Duration::from_hours(30 * 24);

/// At most this much of `text`, in bytes, cut between characters.
pub(crate) fn cut(text: &str) -> String {
    let end = (0..=DETAIL_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}
