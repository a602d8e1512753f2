//! What has ended: indexed in the background, forgotten when there is too much, found by sweeps.

use std::sync::Arc;
use std::time::Duration;

use mainstay_store::{Batch, Compare, Error, Op as StoreOp, Put, RangeRequest, Select};
use tokio_util::sync::CancellationToken;

use super::step::Found;
use super::{Coordinator, Slot, VerbError};
use crate::commit::LogError;
use crate::error::Refused;
use crate::events::TrimFailed;
use crate::log::{self, Keys};
use crate::name::{BranchId, Gid, ResourceName, Shard};
use crate::receipt::{self, Verdict};
use crate::retention::Ended;
use crate::transaction::{Begin, Transaction};
use crate::word::Mode;

/// How often history is trimmed.
const TRIM_EVERY: Duration = Duration::from_secs(10);

/// Transactions forgotten by one batch: two deletes each, below the 128 operations of a batch.
const TRIM_MAX: usize = 60;

impl Coordinator {
    /// What a sweep that found `branch` of `gid` prepared at `resource` has to do with it, listed
    /// for `seen_for` by now. If no record speaks of it for `grace`, it is decided to abort,
    /// durably, before this returns; the coordinator then rolls it back by itself.
    ///
    /// # Errors
    ///
    /// [`VerbError`]; the branch is left alone then.
    ///
    /// # Cancel safety
    ///
    /// It goes on: ask again.
    pub async fn found_prepared(
        &self,
        gid: &Gid,
        found: (ResourceName, BranchId),
        seen_for: Duration,
        grace: Duration,
    ) -> Result<Verdict, VerbError> {
        let record = match self.get(gid).await {
            Ok(seen) => Some(seen.transaction),
            Err(VerbError::Unknown { .. }) => None,
            Err(error) => return Err(error),
        };
        let verdict = receipt::verdict(record.as_ref(), &found.1, seen_for, grace);
        if verdict == Verdict::Orphan {
            let (own, of) = (self.clone(), gid.clone());
            return self.run(gid, async move { own.take_orphan(&of, found).await }).await;
        }
        Ok(verdict)
    }

    /// Whether this node owns `gid` and has no live transaction of that name: what databases keep of
    /// it may go.
    pub fn is_over(&self, gid: &Gid) -> bool {
        self.owned(gid).is_ok() && self.slot(gid).is_none()
    }

    /// Forgets a transaction that has ended, before its time: whoever uses its gid again begins
    /// anew. `record` says who wants that, and is put by the same batch.
    ///
    /// # Errors
    ///
    /// [`VerbError`]; [`VerbError::Unknown`] of one that is not known,
    /// [`Refused::NotAllowed`] of one that has not ended.
    ///
    /// # Cancel safety
    ///
    /// Whether it is forgotten is open; asking again does no harm.
    pub async fn forget_ended(&self, gid: &Gid, record: Put) -> Result<(), VerbError> {
        let (shard, created) = self.owned(gid)?;
        let ended = self.get(gid).await?.transaction;
        if !ended.state().is_final() {
            let (mode, state) = (ended.begin.mode, ended.state());
            return Err(Refused::NotAllowed { verb: "forget", mode, state }.into());
        }
        let keys = Keys::new(gid, self.shared.settings.shards);
        let batch = Batch::new()
            .when(Compare::created_at(&log::shard(shard), created))
            .when(Compare::missing(&keys.register()))
            .then(StoreOp::delete(&keys.history()))
            .then(StoreOp::delete(&keys.body()))
            .then(record);
        match self.shared.ports.store.apply(batch).await {
            Ok(applied) if applied.succeeded => {}
            Ok(_) => {
                let why = "its end is just being written, or another node owns it now".to_owned();
                return Err(LogError::Unavailable { why }.into());
            }
            Err(error) => return Err(error.into()),
        }
        self.shared.history.lock().remove(gid);
        self.shared.settings.figures.forgot(1);
        Ok(())
    }

    async fn take_orphan(
        &self,
        gid: &Gid,
        found: (ResourceName, BranchId),
    ) -> Result<Verdict, VerbError> {
        let Found::Absent(absent) = self.find(gid).await? else {
            return Ok(Verdict::Leave); // Somebody was faster: the next sweep sees what they did.
        };
        let now = self.shared.ports.surroundings.now();
        let (mut transaction, step) =
            Transaction::orphan(Begin::new(gid.clone(), Mode::Xa), found, now);
        // A submit may come as long as a transaction may live, and must find that it was aborted.
        transaction.deadline_at = Some(now.plus(self.shared.settings.policy.lifetime_max));
        self.create(absent, Ok((transaction, step)), None).await?;
        Ok(Verdict::Orphan)
    }

    /// `slot` has ended and its end is written.
    pub(super) async fn remember(&self, slot: &Arc<Slot>) {
        // A shard that was given up meanwhile is remembered by its next owner.
        let Some(transaction) = slot.live().await else { return };
        let finished_at = transaction.register.finished_at.unwrap_or(transaction.created_at);
        let (bodies, heads) = transaction.bytes();
        let ended = Ended {
            finished_at,
            kept_until: transaction.deadline_at.unwrap_or(finished_at),
            bytes: u64::try_from(bodies + heads + BYTES_BESIDE).unwrap_or(u64::MAX),
        };
        self.shared.history.lock().add(&slot.gid, ended);
    }

    /// Reads how transactions of `shard` ended.
    pub(super) async fn index(&self, shard: Shard, stop: &CancellationToken) {
        let mut rest = log::histories(shard);
        loop {
            if stop.is_cancelled() || !self.shared.owned.lock().contains_key(&shard) {
                return;
            }
            let request = RangeRequest::new(Select::new(rest.clone()));
            let page = match self.shared.ports.store.range(request).await {
                Ok(page) => page,
                Err(error) => {
                    TrimFailed { error: &error }.emit();
                    tokio::select! {
                        biased;
                        () = tokio::time::sleep(TRIM_EVERY) => continue,
                        () = stop.cancelled() => return,
                    }
                }
            };
            for entry in &page.entries {
                // One that cannot be read is kept.
                if let (Some(gid), Ok(span)) = (log::gid(&entry.key), log::read_span(&entry.value))
                {
                    let bytes = u64::try_from(entry.bytes()).unwrap_or(u64::MAX);
                    let (finished_at, kept_until) = span;
                    let ended = Ended { finished_at, kept_until, bytes };
                    self.shared.history.lock().add(&gid, ended);
                }
            }
            match page.entries.last().filter(|_| page.more) {
                Some(last) => rest = rest.after(&last.key),
                None => return,
            }
        }
    }

    /// Forgets what is too old or too much, for ever.
    pub(super) async fn keep_history(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TRIM_EVERY) => {}
            }
            while !stop.is_cancelled() {
                match self.trim().await {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => {
                        TrimFailed { error: &error }.emit();
                        break;
                    }
                }
            }
        }
    }

    /// Forgets some; returns how many.
    async fn trim(&self) -> Result<usize, Error> {
        let shared = &self.shared;
        let now = shared.ports.surroundings.now();
        let excess = shared.history.lock().excess(now, &shared.settings.retention, TRIM_MAX);
        let mut batch = Batch::new();
        let owned = shared.owned.lock().clone();
        let mut touched = std::collections::BTreeSet::new();
        let (mut forgotten, mut strangers) = (Vec::new(), 0);
        for gid in excess {
            let shard = gid.shard(shared.settings.shards);
            let Some(created) = owned.get(&shard) else {
                // Read while its shard was given up: it would keep others from being forgotten.
                shared.history.lock().remove(&gid);
                strangers += 1;
                continue;
            };
            if touched.insert(shard) {
                batch = batch.when(Compare::created_at(&log::shard(shard), *created));
            }
            let keys = Keys::new(&gid, shared.settings.shards);
            batch = batch.then(StoreOp::delete(&keys.history()));
            batch = batch.then(StoreOp::delete(&keys.body()));
            forgotten.push(gid);
        }
        if forgotten.is_empty() {
            return Ok(strangers);
        }
        let applied = match shared.ports.store.apply(batch).await {
            Ok(applied) => applied.succeeded,
            // To delete twice does no harm.
            Err(Error::OutcomeUnknown) => false,
            Err(error) => return Err(error),
        };
        if !applied {
            return Ok(0);
        }
        let mut history = shared.history.lock();
        for gid in &forgotten {
            history.remove(gid);
        }
        shared.settings.figures.forgot(forgotten.len());
        Ok(forgotten.len())
    }
}

/// Bytes of the records of a transaction besides what its branches say, about.
const BYTES_BESIDE: usize = 1_024;
