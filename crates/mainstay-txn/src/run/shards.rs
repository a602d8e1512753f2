//! The session of a node, and the shards it owns by it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mainstay_store::{
    Batch, Compare, Error, Get, Key, LeaseId, Put, RangeRequest, Revision, Select,
};
use tokio_util::sync::CancellationToken;

use super::{Coordinator, Kept, Slot};
use crate::commit::{Lane, LaneQueue};
use crate::events::{Closed, Opened, PlacementFailed, SessionEnded, ShardFailed};
use crate::log::{self, Node, Owner, Unreadable};
use crate::moment::Moment;
use crate::name::Shard;
use crate::owner::{self, Claim, ClaimError, Move};

/// How long before its lease may end an owner stops starting work: clocks that drift, and a batch
/// on its way.
const MARGIN: Duration = Duration::from_millis(500);

/// How often the placement of shards is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a shard that is handed over may take to write what waits.
const DRAIN: Duration = Duration::from_secs(2);

impl Coordinator {
    /// Opens a session, with lanes of its own, and claims what it can.
    pub(super) async fn join(&self) -> Result<(), ClaimError> {
        let shared = &self.shared;
        let (settings, store) = (&shared.settings, &shared.ports.store);
        let sent = shared.ports.surroundings.now();
        let lease = store.grant(settings.session_ttl, None).await?.id;
        let node = Node { address: settings.address.clone() };
        let put = Put::new(log::node(&settings.node), node.write()).lease(lease);
        let mut batch = Batch::new().then(put);
        let keys: Vec<Key> =
            (0..settings.lanes).map(|number| log::lane(&settings.node, number)).collect();
        for key in &keys {
            // A copy that arrives after the next attempt must not take the lanes from it.
            let found = store.get(Get::new(key.clone())).await?.entry;
            let found = found.map_or(Revision::NEVER, |entry| entry.mod_revision);
            batch = batch.when(Compare::unchanged_since(key, found));
            let value = log::Lane { session: lease.get(), batch: 0 }.write();
            batch = batch.then(Put::new(key.clone(), value).lease(lease));
        }
        // If its outcome is not known the caller begins anew, with another session.
        let started = store.apply(batch).await?;
        if !started.succeeded {
            return Err(Error::OutcomeUnknown.into());
        }
        let lanes = keys.into_iter().map(|key| {
            let queue = LaneQueue::new(key, lease, started.revision)
                .records_max(settings.queue_records_max);
            let surroundings = Arc::clone(&shared.ports.surroundings);
            let told = (settings.figures.clone(), surroundings);
            Lane::start(Arc::clone(store), queue, settings.lazy_flush, told, &shared.lanes_work)
        });
        *shared.lanes.write() = lanes.collect();
        *shared.session.lock() = Some((lease, self.relied_until(sent)));
        let mut free_since = BTreeMap::new();
        tokio::select! {
            biased;
            placed = self.place(&mut free_since) => placed,
            why = self.renew(lease) => {
                self.end_session(why);
                Err(Error::LeaseNotFound { lease }.into())
            }
        }
    }

    fn relied_until(&self, sent: Moment) -> Moment {
        sent.plus(self.shared.settings.session_ttl.saturating_sub(MARGIN))
    }

    /// Keeps one session after the other, until told to stop.
    pub(super) async fn keep_sessions(&self, stop: CancellationToken) {
        loop {
            let session = *self.shared.session.lock();
            tokio::select! {
                biased;
                () = self.keep(session.map(|(lease, _)| lease)) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Keeps a session alive to its end, and meanwhile shards where they belong: that may take
    /// longer than a lease. Without a session it joins, after a pause.
    async fn keep(&self, lease: Option<LeaseId>) {
        let Some(lease) = lease else {
            tokio::time::sleep(self.renew_every()).await;
            if let Err(error) = self.join().await {
                SessionEnded { why: &error.to_string() }.emit();
            }
            return;
        };
        let why = tokio::select! {
            biased;
            why = self.renew(lease) => why,
            never = self.keep_placed() => match never {},
        };
        self.end_session(why);
    }

    fn renew_every(&self) -> Duration {
        (self.shared.settings.session_ttl / 3).min(LOOK_EVERY)
    }

    /// Keeps the session alive; returns why it has ended.
    async fn renew(&self, lease: LeaseId) -> &'static str {
        loop {
            tokio::time::sleep(self.renew_every()).await;
            if self.shared.lanes.read().iter().any(Lane::is_lost) {
                return "a lane of its log was lost";
            }
            let sent = self.shared.ports.surroundings.now();
            match self.shared.ports.store.keep_alive(lease).await {
                Ok(_ttl) => {
                    let relied_until = self.relied_until(sent);
                    if let Some((_, until)) = &mut *self.shared.session.lock() {
                        *until = relied_until.max(*until);
                    }
                }
                Err(Error::LeaseNotFound { .. }) => return "its lease was not renewed in time",
                // Until the lease has ended it may work again.
                Err(_) => {}
            }
        }
    }

    /// Keeps shards where they belong, for ever.
    async fn keep_placed(&self) -> Infallible {
        let mut free_since = BTreeMap::new();
        loop {
            tokio::time::sleep(self.renew_every()).await;
            if let Err(error) = self.place(&mut free_since).await {
                PlacementFailed { error: &error }.emit();
            }
        }
    }

    /// Nothing this node does is durable any more: others may own its shards.
    fn end_session(&self, why: &str) {
        SessionEnded { why }.emit();
        *self.shared.session.lock() = None;
        for lane in &*self.shared.lanes.read() {
            lane.lose(why);
        }
        let owned: Vec<Shard> = self.shared.owned.lock().keys().copied().collect();
        for shard in owned {
            self.close(shard);
        }
    }

    /// Claims and hands over what the placement says.
    async fn place(&self, free_since: &mut BTreeMap<Shard, Moment>) -> Result<(), ClaimError> {
        let shared = &self.shared;
        let settings = &shared.settings;
        let Some((lease, _)) = *shared.session.lock() else { return Ok(()) };
        let now = shared.ports.surroundings.now();
        let nodes = self.list(log::nodes()).await?;
        let nodes: Vec<String> = nodes.iter().filter_map(|(key, _)| log::node_name(key)).collect();
        let mut owners = BTreeMap::new();
        for (key, value) in self.list(log::owners()).await? {
            if let Some(shard) = log::owned_shard(&key) {
                owners.insert(shard, Owner::read(&value)?);
            }
        }
        for shard in settings.shards.all() {
            if owners.contains_key(&shard) {
                free_since.remove(&shard);
            } else {
                free_since.entry(shard).or_insert(now);
            }
        }
        let mine: BTreeSet<Shard> = shared.owned.lock().keys().copied().collect();
        for shard in &mine {
            // A shard whose lane lost it is not ours, whatever its key said when it was read; nor
            // is one whose key names somebody else, though nothing was written since.
            let owner = owners.get(shard);
            let is_named = owner.is_some_and(|owner| owner.session == lease.get());
            if !(is_named && self.lane(*shard).is_some_and(|lane| lane.owns(*shard))) {
                self.close(*shard);
            }
        }
        let owners = owners.into_iter().map(|(shard, owner)| (shard, owner.node)).collect();
        let free_for =
            |shard: Shard| free_since.get(&shard).map_or(Duration::ZERO, |at| now.since(*at));
        let me = (settings.node.as_str(), settings.replace);
        let mut unreadable = None;
        for step in owner::moves(me, &nodes, &owners, (&mine, settings.shards), free_for) {
            match step {
                Move::Claim(shard) => {
                    if let Err(error) = self.claim(shard, lease).await {
                        ShardFailed { shard, error: &error }.emit();
                        if matches!(error, ClaimError::Unreadable(_)) {
                            unreadable = Some(error);
                        }
                    }
                }
                Move::HandOver(shard) => self.hand_over(shard).await,
            }
        }
        unreadable.map_or(Ok(()), Err)
    }

    async fn claim(&self, shard: Shard, lease: LeaseId) -> Result<(), ClaimError> {
        let settings = &self.shared.settings;
        let owner = Owner {
            node: settings.node.clone(),
            address: settings.address.clone(),
            session: lease.get(),
        };
        let store = &*self.shared.ports.store;
        if self.lane(shard).is_some_and(|lane| lane.has_of(shard)) {
            // This session had it before, and its key may still be there. What is on its way would
            // be written after the shard was read, and nobody here would know of it.
            return Ok(());
        }
        match owner::claim(store, shard, &owner, lease, settings.replace).await? {
            Claim::Ours(created) => {
                let opened = self.open(shard, created).await;
                if opened.is_err() {
                    // Another node may be able to read it; if this fails it ends with the session.
                    drop(owner::release(store, shard, created).await);
                }
                opened
            }
            Claim::Theirs(_) => Ok(()),
        }
    }

    /// Reads which transactions of a shard are live, and lets them go on.
    async fn open(&self, shard: Shard, created: Revision) -> Result<(), ClaimError> {
        let registers = self.list(log::registers(shard)).await?;
        let mut slots = Vec::new();
        for (key, value) in registers {
            match log::read_epoch(&value) {
                // Whoever goes on without it may undo what a newer version decided.
                Err(error @ Unreadable::Newer { .. }) => return Err(error.into()),
                // One damaged record stops itself, and nobody else.
                Ok(_) | Err(Unreadable::Damaged { .. }) => {}
            }
            if let Some(gid) = log::gid(&key) {
                slots.push(Slot::new(&gid, (shard, created), Kept::Unread));
            }
        }
        let live = slots.len();
        {
            let mut known = self.shared.slots.lock();
            for slot in &slots {
                known.insert(slot.gid.clone(), Arc::clone(slot));
            }
        }
        if let Some(lane) = self.lane(shard) {
            lane.own(shard, created);
        }
        self.shared.owned.lock().insert(shard, created);
        let indexing = self.clone();
        self.shared.indexing.fetch_add(1, Ordering::AcqRel);
        self.shared.work.spawn("transaction index", move |stop| async move {
            indexing.index(shard, &stop).await;
            indexing.shared.indexing.fetch_sub(1, Ordering::AcqRel);
        });
        self.shared.settings.figures.took_over();
        // Its owner before may have told nobody of its last decisions.
        self.grows();
        Opened { shard, epoch: self.epoch((shard, created)), live }.emit();
        for slot in slots {
            let (own, readers) = (self.clone(), Arc::clone(&self.shared.readers));
            let span = tracing::debug_span!("transaction.recover", gid = slot.gid.as_str());
            self.shared.work.spawn_within(span, |stop| async move {
                let permit = tokio::select! {
                    biased;
                    permit = readers.acquire_owned() => permit,
                    () = stop.cancelled() => return,
                };
                own.time_passed(&slot.gid).await;
                drop(permit);
            });
        }
        Ok(())
    }

    /// Lets go of a shard: nothing of it is answered or written by this node any more.
    fn close(&self, shard: Shard) {
        if self.shared.owned.lock().remove(&shard).is_none() {
            return;
        }
        if let Some(lane) = self.lane(shard) {
            lane.disown(shard);
        }
        let mut gone = Vec::new();
        self.shared.slots.lock().retain(|_, slot| {
            let goes = slot.owned.0 == shard;
            if goes {
                slot.close();
                gone.push(slot.gid.clone());
            }
            !goes
        });
        self.shared.history.lock().hand_over(shard, self.shared.settings.shards);
        let mut due = self.shared.due.lock();
        for gid in gone {
            due.set(&gid, None);
        }
        Closed { shard }.emit();
    }

    /// Gives a shard to the node that should have it: what waits is written first.
    async fn hand_over(&self, shard: Shard) {
        let created = self.shared.owned.lock().get(&shard).copied();
        let Some((created, lane)) = created.zip(self.lane(shard)) else { return };
        let written = async {
            while lane.has_of(shard) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        drop(tokio::time::timeout(DRAIN, written).await);
        self.close(shard);
        let store = &*self.shared.ports.store;
        if let Err(error) = owner::release(store, shard, created).await {
            ShardFailed { shard, error: &error }.emit();
        }
    }

    /// All entries of a range.
    pub(super) async fn list(
        &self,
        range: mainstay_store::Range,
    ) -> Result<Vec<(Key, bytes::Bytes)>, Error> {
        let (mut rest, mut all) = (range, Vec::new());
        loop {
            let request = RangeRequest::new(Select::new(rest.clone()));
            let page = self.shared.ports.store.range(request).await?;
            let last = page.entries.last().map(|entry| entry.key.clone());
            all.extend(page.entries.into_iter().map(|entry| (entry.key, entry.value)));
            match last.filter(|_| page.more) {
                Some(last) => rest = rest.after(&last),
                None => return Ok(all),
            }
        }
    }

    /// Ends the session: its keys go, and others may take over at once.
    pub(super) async fn leave(&self) {
        let session = self.shared.session.lock().take();
        let owned: Vec<Shard> = self.shared.owned.lock().keys().copied().collect();
        for shard in owned {
            self.close(shard);
        }
        if let Some((lease, _)) = session
            && let Err(error) = self.shared.ports.store.revoke(lease).await
        {
            SessionEnded { why: &error.to_string() }.emit();
        }
    }
}
