//! Sizes, each with its unit and its reason.
//!
//! They are checked where a value enters the port, by every backend alike, so that a batch which
//! one backend takes is taken by all. They fit etcd's defaults (128 operations, 1.5 MiB a request).

use std::time::Duration;

/// Longest key, in bytes. A key is a path of names, none longer than 255 bytes once encoded; what
/// is longer was meant as a value.
pub const KEY_BYTES_MAX: usize = 2_048;

/// Largest value, in bytes: 1 MiB. The largest record of our own is a config item of half of it.
pub const VALUE_BYTES_MAX: usize = 1_048_576;

/// Most compares of a batch: etcd's default limit of operations.
pub const COMPARES_MAX: usize = 128;

/// Most operations of one branch of a batch: etcd's default limit.
pub const OPERATIONS_MAX: usize = 128;

/// Most bytes of keys and values in a whole batch: etcd's 1.5 MiB a request, less what its
/// encoding adds to 384 parts.
pub const BATCH_BYTES_MAX: usize = 1_400_000;

/// Entries of a page when the caller names no number.
pub const PAGE_ENTRIES: u32 = 1_000;

/// Most entries of a page; a caller who asks for more gets this many, and is told that there are
/// more.
pub const PAGE_ENTRIES_MAX: u32 = 10_000;

/// Most bytes of a page: 16 MiB, so that 10,000 entries of a mebibyte are never in memory at once.
/// A page holds at least one entry.
pub const PAGE_BYTES_MAX: usize = 16_777_216;

/// Shortest ttl of a lease, in seconds; less is raised to it.
pub const TTL_SECONDS_MIN: u64 = 1;

/// Longest ttl of a lease, in seconds: a day. What should live longer than its owner has no lease.
pub const TTL_SECONDS_MAX: u64 = 86_400;

/// Most keys of one lease: its end deletes them all in one revision, and one commit has to carry
/// that.
pub const LEASE_KEYS_MAX: usize = 10_000;

/// Most watchers of one node. Each costs at most its queue; idle ones about 1 KiB.
pub const WATCHERS_MAX: usize = 100_000;

/// Revisions queued for one watcher; one that falls further behind reads history instead.
pub const QUEUE_REVISIONS_MAX: usize = 1_024;

/// Bytes queued for one watcher: 4 MiB.
pub const QUEUE_BYTES_MAX: usize = 4_194_304;

/// How long a watch is idle before it is told how far it is.
pub const BOOKMARK_EVERY: Duration = Duration::from_secs(10);

/// How often a backend looks for leases that have ended.
pub const TICK_EVERY: Duration = Duration::from_millis(200);

/// Time between two looks above which the process must have stood still: five looks missed.
/// Clients could not renew in that time, so it does not count against them.
pub const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Most leases ended by one commit; the rest follow in the next.
pub const EXPIRIES_MAX: usize = 1_000;
