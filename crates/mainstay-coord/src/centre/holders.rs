//! Who holds which release, as one node knows it: a machine in memory.
//!
//! What changed is written for the others to read, a chunk of 200 clients at a time, so that one
//! client among a hundred thousand costs one small key and not all of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::canary::{Client, effective};
use super::copy::Group;
use crate::keys::GroupRef;
use crate::name::ClientId;

/// Clients in a chunk. One takes up to 1,200 bytes (a name of 255 and a reason of 256 bytes, both
/// escaped), so a chunk stays below 256 KiB.
pub(super) const CHUNK_CLIENTS: usize = 200;

/// Most clients a node keeps account of, as many as may watch. More are served, but not listed.
const CLIENTS_MAX: usize = 100_000;

/// Longest reason that is kept.
const REASON_BYTES_MAX: usize = 256;

/// A client without a stream counts as there for this long after it was last heard of.
const THERE_MS: u64 = 60_000;

/// A client that is gone is shown for this long.
const SHOWN_MS: u64 = 600_000;

/// How a client stands to the release it should hold.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[schema(as = ConfigHolding)]
pub enum State {
    /// It holds it.
    Holding,
    /// It holds another, or has not said.
    Behind,
    /// It could not use it.
    Rejected,
    /// It is no longer there.
    Gone,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Holding, Self::Behind, Self::Rejected, Self::Gone];

    /// As written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Holding => "holding",
            Self::Behind => "behind",
            Self::Rejected => "rejected",
            Self::Gone => "gone",
        }
    }
}

/// A client, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ConfigHolder)]
pub struct Holder {
    /// Its name.
    pub client: String,
    /// The release it holds; 0 for none.
    pub release: u64,
    /// The one it should hold.
    pub effective: u64,
    /// How it stands.
    pub state: State,
    /// Why it rejected the release it should hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was last heard of, by the wall clock.
    pub seen_unix_ms: u64,
}

/// What a client says of a release.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Verdict {
    /// It uses it.
    Applied,
    /// It cannot use it.
    Rejected {
        /// Why; the first 256 bytes are kept.
        reason: String,
    },
}

#[derive(Debug)]
struct Holding {
    labels: BTreeMap<String, String>,
    slot: usize,
    streams: u32,
    held: u64,
    rejected: Option<(u64, String)>,
    effective: u64,
    seen_unix_ms: u64,
    is_gone: bool,
}

impl Holding {
    fn state(&self) -> State {
        if self.is_gone {
            State::Gone
        } else if self.held == self.effective {
            State::Holding
        } else if self.reason().is_some() {
            State::Rejected
        } else {
            State::Behind
        }
    }

    fn reason(&self) -> Option<&str> {
        let of_now = self.rejected.as_ref().filter(|(release, _)| *release == self.effective);
        of_now.map(|(_, reason)| &**reason)
    }

    fn shown(&self, client: &ClientId) -> Holder {
        Holder {
            client: client.as_str().to_owned(),
            release: self.held,
            effective: self.effective,
            state: self.state(),
            reason: self.reason().map(str::to_owned),
            seen_unix_ms: self.seen_unix_ms,
        }
    }
}

#[derive(Debug, Default)]
struct Listed {
    clients: BTreeMap<ClientId, Holding>,
    free: BTreeSet<usize>,
    dirty: BTreeSet<usize>,
}

/// A chunk to be written; without holders, to be removed.
pub(super) type Chunk = (GroupRef, usize, Vec<Holder>);

/// Everybody this node knows.
#[derive(Debug, Default)]
pub(super) struct Holders {
    groups: BTreeMap<GroupRef, Listed>,
    count: usize,
}

impl Holders {
    /// A client opened a stream; `false` when there are too many to keep account of.
    pub(super) fn connected(
        &mut self,
        group: &GroupRef,
        client: &Client,
        held: Option<u64>,
        effective: u64,
        unix_ms: u64,
    ) -> bool {
        self.heard(group, client, effective, unix_ms, |holding| {
            holding.streams += 1;
            holding.held = held.unwrap_or(holding.held);
        })
    }

    /// A stream of a client ended.
    pub(super) fn disconnected(&mut self, group: &GroupRef, client: &ClientId, unix_ms: u64) {
        let listed = self.groups.get_mut(group);
        if let Some(holding) = listed.and_then(|listed| listed.clients.get_mut(client)) {
            holding.streams = holding.streams.saturating_sub(1);
            holding.seen_unix_ms = unix_ms;
        }
    }

    /// A client says what became of `release`; `false` when there are too many to keep account of.
    pub(super) fn report(
        &mut self,
        group: &GroupRef,
        client: &Client,
        (release, verdict): (u64, &Verdict),
        effective: u64,
        unix_ms: u64,
    ) -> bool {
        self.heard(group, client, effective, unix_ms, |holding| match verdict {
            Verdict::Applied => (holding.held, holding.rejected) = (release, None),
            Verdict::Rejected { reason } => {
                let mut reason: String = reason.chars().filter(|c| !c.is_control()).collect();
                reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
                holding.rejected = Some((release, reason));
            }
        })
    }

    fn heard(
        &mut self,
        group: &GroupRef,
        client: &Client,
        effective: u64,
        unix_ms: u64,
        change: impl FnOnce(&mut Holding),
    ) -> bool {
        let listed = self.groups.entry(group.clone()).or_default();
        if !listed.clients.contains_key(&client.id) {
            if CLIENTS_MAX <= self.count {
                return false;
            }
            self.count += 1;
            let slot = listed.free.pop_first().unwrap_or(listed.clients.len());
            let labels = client.labels.clone();
            let (streams, held, rejected, is_gone) = (0, 0, None, false);
            let seen_unix_ms = unix_ms;
            let holding =
                Holding { labels, slot, streams, held, rejected, effective, seen_unix_ms, is_gone };
            listed.clients.insert(client.id.clone(), holding);
        }
        if let Some(holding) = listed.clients.get_mut(&client.id) {
            change(holding);
            (holding.effective, holding.seen_unix_ms, holding.is_gone) =
                (effective, unix_ms, false);
            if !client.labels.is_empty() {
                holding.labels.clone_from(&client.labels);
            }
            listed.dirty.insert(holding.slot / CHUNK_CLIENTS);
        }
        true
    }

    /// Another release may be in force.
    pub(super) fn decided(&mut self, group: &GroupRef, now: &Group) {
        let Some(listed) = self.groups.get_mut(group) else { return };
        for (id, holding) in &mut listed.clients {
            let client = Client { id: id.clone(), labels: holding.labels.clone() };
            let effective = effective(group, &now.head, Some(&client));
            if effective != holding.effective {
                holding.effective = effective;
                listed.dirty.insert(holding.slot / CHUNK_CLIENTS);
            }
        }
    }

    /// Time has passed: who was not heard of is gone, then forgotten.
    pub(super) fn pass(&mut self, unix_ms: u64) {
        for listed in self.groups.values_mut() {
            let Listed { clients, free, dirty } = listed;
            clients.retain(|_, holding| {
                let silent = unix_ms.saturating_sub(holding.seen_unix_ms);
                let is_gone = holding.streams == 0 && THERE_MS <= silent;
                let is_kept = holding.streams > 0 || silent < SHOWN_MS;
                if is_gone != holding.is_gone || !is_kept {
                    dirty.insert(holding.slot / CHUNK_CLIENTS);
                }
                holding.is_gone = is_gone;
                if !is_kept {
                    free.insert(holding.slot);
                    self.count -= 1;
                }
                is_kept
            });
        }
    }

    /// The chunks that changed since they were last taken.
    pub(super) fn take(&mut self) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        for (group, listed) in &mut self.groups {
            let dirty = std::mem::take(&mut listed.dirty);
            let mut rows: BTreeMap<usize, Vec<Holder>> =
                dirty.into_iter().map(|chunk| (chunk, Vec::new())).collect();
            if rows.is_empty() {
                continue;
            }
            for (id, holding) in &listed.clients {
                if let Some(rows) = rows.get_mut(&(holding.slot / CHUNK_CLIENTS)) {
                    rows.push(holding.shown(id));
                }
            }
            chunks.extend(rows.into_iter().map(|(chunk, rows)| (group.clone(), chunk, rows)));
        }
        self.groups.retain(|_, listed| !listed.clients.is_empty());
        chunks
    }

    /// A chunk was not written.
    pub(super) fn put_back(&mut self, group: &GroupRef, chunk: usize) {
        self.groups.entry(group.clone()).or_default().dirty.insert(chunk);
    }

    /// What was written is gone: everything is to be written anew.
    pub(super) fn lost(&mut self) {
        for listed in self.groups.values_mut() {
            let chunks = listed.clients.values().map(|holding| holding.slot / CHUNK_CLIENTS);
            listed.dirty.extend(chunks);
        }
    }

    /// Everybody of a group, by name.
    pub(super) fn list(&self, group: &GroupRef) -> Vec<Holder> {
        let listed = self.groups.get(group);
        let clients = listed.into_iter().flat_map(|listed| &listed.clients);
        clients.map(|(id, holding)| holding.shown(id)).collect()
    }

    /// How many there are in each state.
    pub(super) fn counts(&self) -> [(State, u64); 4] {
        let mut counts = State::ALL.map(|state| (state, 0));
        let all = self.groups.values().flat_map(|listed| listed.clients.values());
        for holding in all {
            let state = holding.state();
            counts.iter_mut().filter(|(known, _)| *known == state).for_each(|(_, n)| *n += 1);
        }
        counts
    }
}
