//! What the keys of a queue hold.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use mainstay_store::{Entry, Revision};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::RECENT_MAX;
use super::request::{Request, Want};
use crate::name::RequestId;
use crate::session::Owner;

/// A fencing token. Of two grants of one lock the later has the larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(u64);

impl Token {
    /// The token numbered `number`, as a holder showed it.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a place is wanted, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Exclusive,
    Shared,
    Semaphore,
}

/// A place in a queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    v: u32,
    mode: Mode,
    #[serde(skip_serializing_if = "Option::is_none")]
    permits: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<NonZeroU32>,
    /// How often the session holds it.
    pub(super) count: u32,
    /// `meta/fence_base` when the place came into being.
    fence_base: u64,
    /// The token, where it no longer follows from the create revision: a bound place is restored
    /// from a backup with the token it had.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Token>,
    /// The transaction it is held for, instead of a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bound_gid: Option<String>,
    pub(super) owner: Owner,
    /// When it was asked for, by the wall clock of the node: to be shown.
    pub(super) asked_unix_ms: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) lock_delay_seconds: u64,
    /// What a candidate proclaims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<String>,
    /// The last requests counted in it, oldest first.
    requests: Vec<String>,
    /// The last calls that gave back one of its counts, oldest first. They are named by whoever
    /// calls, perhaps as the request was, so the two lie apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    releases: Vec<String>,
    /// Which attempt of each of them has what it counted: the last one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attempts: BTreeMap<String, String>,
    /// What a newer version wrote.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Record {
    /// A first place for `request`.
    pub(super) fn new(request: &Request, owner: Owner, fence_base: u64, unix_ms: u64) -> Self {
        let (mode, permits, limit) = match request.want {
            Want::Exclusive => (Mode::Exclusive, None, None),
            Want::Shared => (Mode::Shared, None, None),
            Want::Permits { permits, limit } => (Mode::Semaphore, Some(permits), Some(limit)),
        };
        Self {
            v: 1,
            mode,
            permits,
            limit,
            count: 1,
            fence_base,
            token: None,
            bound_gid: None,
            owner,
            asked_unix_ms: unix_ms,
            lock_delay_seconds: seconds_up(request.lock_delay),
            value: request.value.clone(),
            requests: vec![request.id.as_str().to_owned()],
            releases: Vec::new(),
            attempts: BTreeMap::from([attempt_of(request)]),
            rest: Map::new(),
        }
    }

    /// The record in `entry`; `None` when it cannot be read.
    pub(super) fn read(entry: &Entry) -> Option<Self> {
        serde_json::from_slice(&entry.value).ok()
    }

    /// As bytes.
    pub(super) fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a map with text keys is JSON")
    }

    /// How it is wanted. Permits that make no sense stand for all of them.
    pub(super) fn want(&self) -> Want {
        match (self.mode, self.permits, self.limit) {
            (Mode::Shared, ..) => Want::Shared,
            (Mode::Semaphore, Some(permits), Some(limit)) => Want::Permits { permits, limit },
            (Mode::Exclusive | Mode::Semaphore, ..) => Want::Exclusive,
        }
    }

    /// The token of a place that came into being at `created`.
    pub(super) fn token(&self, created: Revision) -> Token {
        self.token.unwrap_or_else(|| Token(self.fence_base.saturating_add(created.get())))
    }

    /// Whether `request` is counted in it.
    pub(super) fn knows(&self, request: &RequestId) -> bool {
        has(&self.requests, request)
    }

    /// Counts `request`.
    pub(super) fn take(&mut self, request: &RequestId) {
        self.count += 1;
        note(&mut self.requests, request);
    }

    /// Whether `request` is counted in it, and was not asked for again since.
    pub(super) fn is_of(&self, request: &Request) -> bool {
        let (id, attempt) = attempt_of(request);
        self.knows(&request.id) && self.attempts.get(&id).is_none_or(|last| *last == attempt)
    }

    /// What `request` counted, now or when it was asked for before, is this attempt's.
    pub(super) fn claim(&mut self, request: &Request) {
        let (id, attempt) = attempt_of(request);
        self.attempts.insert(id, attempt);
        let requests = &self.requests;
        self.attempts.retain(|id, _| requests.contains(id));
    }

    /// Undoes `request`.
    pub(super) fn undo(&mut self, request: &RequestId) {
        self.count -= 1;
        self.requests.retain(|known| known != request.as_str());
        self.attempts.remove(request.as_str());
    }

    /// Whether the call `op` has given back one of its counts.
    pub(super) fn was_given_back_by(&self, op: &RequestId) -> bool {
        has(&self.releases, op)
    }

    /// Gives back one count, by the call `op`.
    pub(super) fn give_back(&mut self, op: &RequestId) {
        self.count -= 1;
        note(&mut self.releases, op);
    }

    /// Lets others read too.
    pub(super) fn share(&mut self) {
        self.mode = Mode::Shared;
    }

    /// Ties it to a transaction; its token is written down.
    pub(super) fn bind(&mut self, gid: &str, created: Revision) {
        self.token = Some(self.token(created));
        self.bound_gid = Some(gid.to_owned());
    }
}

fn has(known: &[String], id: &RequestId) -> bool {
    known.iter().any(|known| known == id.as_str())
}

/// Adds `id` to `known`, which forgets its oldest when full.
fn note(known: &mut Vec<String>, id: &RequestId) {
    if RECENT_MAX <= known.len() {
        known.remove(0);
    }
    known.push(id.as_str().to_owned());
}

/// Whether the place in `entry` is held for a transaction, with its token written down.
pub(crate) fn is_bound(entry: &Entry) -> bool {
    Record::read(entry).is_some_and(|record| record.bound_gid.is_some() && record.token.is_some())
}

/// The name of a request, and of this attempt at it.
fn attempt_of(request: &Request) -> (String, String) {
    (request.id.as_str().to_owned(), request.attempt.as_str().to_owned())
}

/// Whole seconds, rounded up.
fn seconds_up(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

/// How a lock was last held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Past {
    v: u32,
    /// The token of the holder this is about.
    pub token: Token,
    /// What became of it.
    pub reason: Reason,
    /// When that was, by the wall clock of the node: to be shown.
    pub unix_ms: u64,
    /// How long the next holder waits if this one vanishes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lock_delay_seconds: u64,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// What became of a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It was granted the lock, with a lock delay. If its place is gone and this still stands, it
    /// has vanished.
    Granted,
    /// It gave the lock back.
    Released,
    /// It let others read too.
    Downgraded,
    /// The lock was taken from it.
    Forced,
    /// It vanished.
    Lost,
    /// The transaction it was bound to is over.
    Finished,
}

impl Past {
    pub(super) fn new(token: Token, reason: Reason, unix_ms: u64) -> Self {
        Self { v: 1, token, reason, unix_ms, lock_delay_seconds: 0, rest: Map::new() }
    }

    /// A grant after whose vanishing the next holder waits.
    pub(super) fn granted(token: Token, unix_ms: u64, lock_delay_seconds: u64) -> Self {
        Self { lock_delay_seconds, ..Self::new(token, Reason::Granted, unix_ms) }
    }

    pub(super) fn read(entry: &Entry) -> Option<Self> {
        serde_json::from_slice(&entry.value).ok()
    }

    pub(super) fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a map with text keys is JSON")
    }
}
