//! The log as the store holds it: what checks go by, and nothing that decides.

use std::collections::BTreeMap;

use mainstay_store::{Change, Entry, Key, Revision};
use mainstay_txn::log::{self, Keys};
use mainstay_txn::{BranchId, Decision, Gid, Mode, Shards, State, Transaction, invariants};

use crate::server::Server;

/// What is durable of all transactions. Clones look at the same store.
#[derive(Clone, Debug)]
pub(super) struct Log {
    server: Server,
    shards: Shards,
}

impl Log {
    pub(super) const fn new(server: Server, shards: Shards) -> Self {
        Self { server, shards }
    }

    pub(super) fn wrong(&self, what: String) {
        self.server.wrong(what);
    }

    pub(super) fn note(&self, what: impl FnOnce() -> String) {
        self.server.note(what);
    }

    /// `gid` as it stands in the log, live or ended.
    pub(super) fn get(&self, gid: &Gid) -> Option<Transaction> {
        let keys = Keys::new(gid, self.shards);
        self.server.recorded(|recorder| {
            let state = recorder.state();
            let body = state.get(&keys.body())?;
            if let Some(history) = state.get(&keys.history()) {
                return log::read_history(&body.value, &history.value).ok();
            }
            let branches = keys.branches();
            let branches = state.iter().filter(|(key, _)| branches.contains(key));
            let branches = branches.map(|(_, entry)| &*entry.value);
            log::read(&body.value, &state.get(&keys.register())?.value, branches).ok()
        })
    }

    pub(super) fn decision(&self, gid: &Gid) -> Option<Decision> {
        self.get(gid)?.register.decision
    }

    pub(super) fn has_branch(&self, gid: &Gid, branch: &BranchId) -> bool {
        self.get(gid).is_some_and(|transaction| transaction.branch(branch).is_some())
    }

    /// Transactions that have not ended.
    pub(super) fn live(&self) -> Vec<String> {
        self.server.recorded(|recorder| {
            let live = recorder.state().keys().filter(|key| key.starts_with(b"txn/s/"));
            live.map(ToString::to_string).collect()
        })
    }

    /// Everything that was ever written was written by the owner of its shard, and no decision
    /// was taken back.
    pub(super) fn check(&self) -> Result<(), String> {
        self.server.recorded(|recorder| {
            let mut state: BTreeMap<Key, Entry> = BTreeMap::new();
            let mut decided: BTreeMap<Gid, (Mode, Vec<Decision>)> = BTreeMap::new();
            for (revision, events) in recorder.history() {
                self.is_by_owner(&state, *revision, events)?;
                for event in events {
                    match &event.change {
                        Change::Put(entry) => drop(state.insert(entry.key.clone(), entry.clone())),
                        Change::Delete(key) => drop(state.remove(key)),
                    }
                }
                for event in events {
                    let Some(gid) = event.entry().and_then(|entry| register_of(&entry.key)) else {
                        continue;
                    };
                    self.takes_none_back(&state, &gid, &mut decided, *revision)?;
                }
            }
            Ok(())
        })
    }

    /// I6: the lane a batch was written by and the shards it touches are of one session.
    fn is_by_owner(
        &self,
        state: &BTreeMap<Key, Entry>,
        revision: Revision,
        events: &[mainstay_store::Event],
    ) -> Result<(), String> {
        let lane = events.iter().filter_map(mainstay_store::Event::entry);
        let lane =
            lane.filter(|entry| entry.key.starts_with(b"txn/lane/")).map(|entry| entry.lease);
        let session = lane.last().flatten();
        for event in events {
            let Some(gid) = register_of(event.key()) else { continue };
            let owner =
                state.get(&log::shard(gid.shard(self.shards))).and_then(|entry| entry.lease);
            if session.is_none() || owner != session {
                return Err(format!(
                    "{gid} was written at {revision} by session {session:?}, its shard is of {owner:?}"
                ));
            }
        }
        Ok(())
    }

    /// I1: it is decided once.
    fn takes_none_back(
        &self,
        state: &BTreeMap<Key, Entry>,
        gid: &Gid,
        decided: &mut BTreeMap<Gid, (Mode, Vec<Decision>)>,
        revision: Revision,
    ) -> Result<(), String> {
        let keys = Keys::new(gid, self.shards);
        let (Some(body), Some(register)) = (state.get(&keys.body()), state.get(&keys.register()))
        else {
            return Ok(());
        };
        let branches = keys.branches();
        let branches = state.iter().filter(|(key, _)| branches.contains(key));
        let branches = branches.map(|(_, entry)| &*entry.value);
        let transaction = log::read(&body.value, &register.value, branches);
        let transaction =
            transaction.map_err(|error| format!("{gid} at {revision} cannot be read: {error}"))?;
        let (mode, decisions) =
            decided.entry(gid.clone()).or_insert_with(|| (transaction.begin.mode, Vec::new()));
        match transaction.register.decision {
            Some(decision) if decisions.last() != Some(&decision) => decisions.push(decision),
            None if !decisions.is_empty() => {
                return Err(format!("{gid} was decided, and at {revision} it is not"));
            }
            _ => {}
        }
        if invariants::decided_once(*mode, decisions) {
            return Ok(());
        }
        Err(format!("{gid} was decided as {decisions:?} until {revision}"))
    }
}

/// The transaction whose register lies at `key`.
fn register_of(key: &Key) -> Option<Gid> {
    if key.starts_with(b"txn/s/") { log::gid(key) } else { None }
}

/// Which way `state` is; `None` while it is open.
pub(super) const fn way(state: State) -> Option<Decision> {
    match state {
        State::Committed => Some(Decision::Commit),
        State::Aborted => Some(Decision::Abort),
        _ => None,
    }
}
