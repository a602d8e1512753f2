//! One event: step, write, effects.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mainstay_store::{Get, Put};
use tokio::sync::OwnedMutexGuard;

use super::calls::Job;
use super::{Coordinator, Kept, Locked, Owned, Seen, Slot, VerbError, live};
use crate::commit::{Lane, LogError, Place};
use crate::crash;
use crate::error::Refused;
use crate::events::{HookFailed, Unread};
use crate::log::{self, Change, Keys};
use crate::machine::{Effect, Event, Step, Submit};
use crate::moment::Moment;
use crate::name::{BranchId, Gid, Shard};
use crate::schedule::Peer;
use crate::transaction::{Begin, Transaction};
use crate::word::{Decision, Op};

/// How long a hook that failed waits, and how long at most.
const HOOK_WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// A slot for a transaction that is not there, its lock held.
pub(super) struct Absent {
    slot: Arc<Slot>,
    kept: OwnedMutexGuard<Kept>,
}

/// What there is of a transaction that is to be made.
pub(super) enum Found {
    Known(Box<Seen>),
    Absent(Absent),
}

impl Coordinator {
    pub(super) async fn do_begin(
        &self,
        begin: Begin,
        record: Option<Put>,
    ) -> Result<Seen, VerbError> {
        let policy = self.shared.settings.policy;
        match self.find(&begin.gid).await? {
            Found::Known(seen) => {
                seen.transaction.repeats(begin, &policy)?;
                self.note(seen.transaction.gid(), record).await?;
                Ok(*seen)
            }
            Found::Absent(absent) => {
                if let Err(error) = self.is_up_to_date() {
                    self.forget(&absent.slot);
                    return Err(error);
                }
                crash::point("begin-taken", &begin.gid);
                let now = self.shared.ports.surroundings.now();
                let begun = Transaction::begin(begin, now, &policy);
                let kept = self.create(absent, begun, record).await?;
                crash::point("begin-kept", kept.transaction.gid());
                Ok(kept)
            }
        }
    }

    pub(super) async fn do_submit_lost(
        &self,
        begin: Begin,
        span: (Moment, Moment),
        submit: Submit,
    ) -> Result<Seen, VerbError> {
        let policy = self.shared.settings.policy;
        match self.find(&begin.gid).await? {
            // Somebody was faster: a sweep, or the same submit.
            Found::Known(seen) => {
                self.deliver(seen.transaction.gid(), Event::Submit(submit), None).await
            }
            Found::Absent(absent) => {
                let now = self.shared.ports.surroundings.now();
                let made = Transaction::submit_lost(begin, span, submit, now, &policy);
                self.create(absent, made, None).await
            }
        }
    }

    /// Looks for `gid` where it is live and where it has ended, and holds its slot if it is
    /// neither, so that it is made once.
    pub(super) async fn find(&self, gid: &Gid) -> Result<Found, VerbError> {
        loop {
            let owned = self.owned(gid)?;
            let slot = self.slot_for(gid, owned)?;
            let Some(mut kept) = slot.lock().await else { continue };
            self.read(&slot, &mut kept).await?;
            if let Kept::Live(transaction) = &*kept {
                return Ok(Found::Known(Box::new(self.seen(&slot, transaction))));
            }
            return match self.history(gid, owned).await {
                Err(VerbError::Unknown { .. }) => Ok(Found::Absent(Absent { slot, kept })),
                known => {
                    self.forget(&slot);
                    known.map(|seen| Found::Known(Box::new(seen)))
                }
            };
        }
    }

    /// Writes what begins, and keeps it.
    pub(super) async fn create(
        &self,
        absent: Absent,
        made: Result<(Transaction, Step), Refused>,
        record: Option<Put>,
    ) -> Result<Seen, VerbError> {
        let Absent { slot, mut kept } = absent;
        let made = made.map_err(VerbError::from).map(|(made, step)| (Box::new(made), step));
        let created = match made {
            Ok((mut made, step)) => {
                self.carry_out(&slot, &mut made, None, (step, record)).await.map(|()| made)
            }
            Err(refused) => Err(refused),
        };
        // Whoever waits for the lock finds it, or a slot that is closed.
        match created {
            Ok(made) => {
                let seen = Seen { begun: true, ..self.seen(&slot, &made) };
                *kept = Kept::Live(made);
                Ok(seen)
            }
            Err(error) => {
                self.forget(&slot);
                Err(error)
            }
        }
    }

    /// The slot of `gid`, or a new one.
    fn slot_for(&self, gid: &Gid, owned: Owned) -> Result<Arc<Slot>, VerbError> {
        let mut slots = self.shared.slots.lock();
        if let Some(slot) = slots.get(gid) {
            return Ok(Arc::clone(slot));
        }
        if self.shared.stopping.load(Ordering::Acquire) {
            return Err(VerbError::Stopping);
        }
        let live = slots.len();
        if self.shared.settings.live_max <= live {
            return Err(VerbError::Overloaded { live });
        }
        let slot = Slot::new(gid, owned, Kept::Empty);
        slots.insert(gid.clone(), Arc::clone(&slot));
        Ok(slot)
    }

    /// Forgets a slot, if it is still the one there is.
    fn forget(&self, slot: &Arc<Slot>) {
        let mut slots = self.shared.slots.lock();
        slot.close();
        if slots.get(&slot.gid).is_some_and(|known| Arc::ptr_eq(known, slot)) {
            slots.remove(&slot.gid);
            self.shared.due.lock().set(&slot.gid, None);
        }
    }

    /// The slot of `gid`, and its transaction, read if that has not been done; `None` if it is not
    /// live.
    pub(super) async fn locked(&self, gid: &Gid) -> Result<Option<(Arc<Slot>, Locked)>, VerbError> {
        loop {
            self.owned(gid)?;
            let Some(slot) = self.slot(gid) else { return Ok(None) };
            let Some(mut kept) = slot.lock().await else { continue };
            self.read(&slot, &mut kept).await?;
            return Ok(live(kept).map(|transaction| (slot, transaction)));
        }
    }

    /// An event of a transaction that should be live.
    pub(super) async fn happens(&self, gid: &Gid, event: Event) -> Result<Seen, VerbError> {
        let (own, of) = (self.clone(), gid.clone());
        self.run(gid, async move { own.deliver(&of, event, None).await }).await
    }

    pub(super) async fn deliver(
        &self,
        gid: &Gid,
        event: Event,
        record: Option<Put>,
    ) -> Result<Seen, VerbError> {
        let owned = self.owned(gid)?;
        let joins = matches!(event, Event::Register(_));
        if let Some((slot, mut transaction)) = self.locked(gid).await? {
            self.take_in_with(&slot, &mut transaction, event, record).await?;
            if joins {
                crash::point("branch-kept", gid);
            }
            return Ok(self.seen(&slot, &transaction));
        }
        // What has ended says so, and changes no more.
        let mut seen = self.ended(gid, owned).await?;
        let now = self.shared.ports.surroundings.now();
        seen.transaction.step(event, now, &self.shared.settings.policy)?;
        self.note(gid, record).await?;
        Ok(seen)
    }

    /// Writes the record of a verb that was right and changes nothing.
    async fn note(&self, gid: &Gid, record: Option<Put>) -> Result<(), VerbError> {
        let mut change = Change::new();
        change.accompany(record);
        if !change.is_empty() {
            let (shard, created) = self.owned(gid)?;
            self.write(Place { gid, shard, created }, change, true).await?;
        }
        Ok(())
    }

    pub(super) async fn time_passed(&self, gid: &Gid) {
        let passed = match self.locked(gid).await {
            Ok(Some((slot, mut transaction))) => {
                self.take_in(&slot, &mut transaction, Event::Time).await
            }
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let waits = matches!(passed, Err(VerbError::Store(_) | VerbError::Log(_)));
        if waits && self.slot(gid).is_some() {
            let again = self.shared.ports.surroundings.now().plus(LOG_WAIT);
            self.shared.due.lock().set(gid, Some(again));
        }
    }

    pub(super) async fn take_in(
        &self,
        slot: &Arc<Slot>,
        transaction: &mut Transaction,
        event: Event,
    ) -> Result<(), VerbError> {
        self.take_in_with(slot, transaction, event, None).await
    }

    /// The same, with a record beside what it writes.
    async fn take_in_with(
        &self,
        slot: &Arc<Slot>,
        transaction: &mut Transaction,
        event: Event,
        record: Option<Put>,
    ) -> Result<(), VerbError> {
        let before = Box::new(transaction.clone());
        let answered = match &event {
            Event::Answered { branch, op, .. } => Some((branch.clone(), *op)),
            _ => None,
        };
        let now = self.shared.ports.surroundings.now();
        match transaction.step(event, now, &self.shared.settings.policy) {
            Ok(step) => {
                let undo = Some(Undo { before, answered });
                self.carry_out(slot, transaction, undo, (step, record)).await
            }
            Err(refused) => {
                *transaction = *before;
                Err(refused.into())
            }
        }
    }

    /// Does what a step says: writes, waits for the acknowledgement if it must, and only then has
    /// the effects.
    async fn carry_out(
        &self,
        slot: &Arc<Slot>,
        transaction: &mut Transaction,
        undo: Option<Undo>,
        (step, record): (Step, Option<Put>),
    ) -> Result<(), VerbError> {
        let (settings, now) = (&self.shared.settings, self.shared.ports.surroundings.now());
        let epoch = self.epoch(slot.owned);
        let mut change = Change::of(transaction, &step.write, settings.shards, epoch);
        let durable = step.write.durable || record.is_some();
        change.accompany(record);
        let (before, answered) = undo.map(|Undo { before, answered }| (before, answered)).unzip();
        let was_decided = before.as_ref().and_then(|before| before.register.decision);
        let decided = transaction.register.decision.filter(|now| Some(*now) != was_decided);
        match decided {
            Some(Decision::Commit) => crash::point("commit-taken", &slot.gid),
            Some(Decision::Abort) => crash::point("abort-taken", &slot.gid),
            None => {}
        }
        if !change.is_empty() {
            let written = self.write(slot.place(), change, durable).await;
            if let Err(error) = written {
                // Nothing has happened. What the log says, if it is not known, its next owner reads.
                if let Some(before) = before {
                    *transaction = *before;
                    if let Some((branch, op)) = answered.flatten() {
                        transaction.ask_again(&branch, op, now, &settings.policy);
                    }
                    self.set_due(slot, transaction, LOG_WAIT);
                }
                return Err(error.into());
            }
        }
        match decided {
            Some(Decision::Commit) => {
                self.grows();
                crash::point("commit-kept", &slot.gid);
            }
            Some(Decision::Abort) => crash::point("abort-kept", &slot.gid),
            None => {}
        }
        self.shared.settings.figures.went_on(before.as_deref(), transaction);
        let mut has_ended = false;
        for effect in step.effects {
            match effect {
                Effect::Call { branch, op, attempt } => {
                    self.schedule(slot, transaction, (branch, op, attempt));
                }
                Effect::Found(finding) => self.shared.ports.hooks.found(&slot.gid, &finding),
                Effect::End => has_ended = true,
            }
        }
        slot.shows(transaction);
        self.set_due(slot, transaction, Duration::ZERO);
        if has_ended {
            self.finish(slot);
        }
        Ok(())
    }

    async fn write(&self, place: Place<'_>, change: Change, durable: bool) -> Result<(), LogError> {
        let lane = self.lane(place.shard).ok_or(LogError::NotOwner)?;
        if durable {
            return lane.write(place, change)?.written().await;
        }
        drop(lane.write_lazily(place, change)?);
        Ok(())
    }

    pub(super) fn lane(&self, shard: Shard) -> Option<Lane> {
        let lanes = self.shared.lanes.read();
        let count = lanes.len().max(1);
        lanes.get(usize::from(shard.get()) % count).cloned()
    }

    fn set_due(&self, slot: &Slot, transaction: &Transaction, wait: Duration) {
        let next = transaction.next_at(&self.shared.settings.policy);
        let not_before = self.shared.ports.surroundings.now().plus(wait);
        let next = next.map(|next| if wait.is_zero() { next } else { next.max(not_before) });
        self.shared.due.lock().set(&slot.gid, next);
        self.shared.due_changed.notify_one();
    }

    fn schedule(
        &self,
        slot: &Arc<Slot>,
        transaction: &Transaction,
        (branch, op, attempt): (BranchId, Op, u32),
    ) {
        let peer = match transaction.branch(&branch) {
            Some(known) => known.goes_to(op).map(Peer::from),
            None => transaction.begin.check.as_ref().map(|to| Peer::Endpoint(to.peer())),
        };
        let peer = peer.unwrap_or_else(|| Peer::Endpoint(String::new()));
        let job = Job { slot: Arc::clone(slot), branch, op, attempt };
        self.shared.schedule.lock().push(peer, job);
        self.make_calls();
    }

    /// Runs the hooks until they succeed, then writes the end and forgets.
    fn finish(&self, slot: &Arc<Slot>) {
        let (own, slot) = (self.clone(), Arc::clone(slot));
        let span = tracing::debug_span!("transaction.end", gid = slot.gid.as_str());
        self.shared.work.spawn_within(span, |stop| async move {
            let mut wait = HOOK_WAIT.0;
            crash::point("all-told", &slot.gid);
            loop {
                if slot.is_closed() {
                    return; // Its next owner runs them.
                }
                let state = slot.standing.borrow().state;
                match own.shared.ports.hooks.ended(&slot.gid, state).await {
                    Ok(()) => break,
                    Err(why) => HookFailed { gid: slot.gid.as_str(), why: &why }.emit(),
                }
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(wait) => wait = (wait * 2).min(HOOK_WAIT.1),
                    () = stop.cancelled() => return,
                }
            }
            let Some(transaction) = slot.live().await else { return };
            let (shards, epoch) = (own.shared.settings.shards, own.epoch(slot.owned));
            let end = Change::end(&transaction, shards, epoch);
            drop(transaction);
            let Some(lane) = own.lane(slot.owned.0) else { return };
            crash::point("end-sent", &slot.gid);
            let written = match lane.write_lazily(slot.place(), end) {
                Ok(pending) => pending.written().await,
                Err(error) => Err(error),
            };
            // What could not be written is found live by its next owner, and ends again.
            if written.is_ok() {
                own.remember(&slot).await;
                own.forget(&slot);
            }
        });
    }

    /// Reads what the log holds, if that has not been done.
    async fn read(&self, slot: &Arc<Slot>, kept: &mut Kept) -> Result<(), VerbError> {
        if !matches!(kept, Kept::Unread) {
            return Ok(());
        }
        let keys = Keys::new(&slot.gid, self.shared.settings.shards);
        let store = &self.shared.ports.store;
        let register = store.get(Get::new(keys.register())).await?.entry;
        let body = store.get(Get::new(keys.body())).await?.entry;
        let unknown = || VerbError::Unknown { gid: slot.gid.clone() };
        let (register, body) = (register.ok_or_else(unknown)?, body.ok_or_else(unknown)?);
        let branches = self.list(keys.branches()).await?;
        let branches = branches.iter().map(|(_, value)| &**value);
        let transaction = log::read(&body.value, &register.value, branches);
        let mut transaction = transaction.inspect_err(|error| {
            Unread { gid: slot.gid.as_str(), error }.emit();
        })?;
        let now = self.shared.ports.surroundings.now();
        transaction.taken_up(now, &self.shared.settings.policy);
        slot.shows(&transaction);
        let is_final = transaction.state().is_final();
        *kept = Kept::Live(Box::new(transaction));
        if is_final {
            self.finish(slot);
        }
        Ok(())
    }
}

/// How long what could not be written waits before it is tried again.
const LOG_WAIT: Duration = Duration::from_millis(500);

/// What puts a transaction back.
struct Undo {
    before: Box<Transaction>,
    answered: Option<(BranchId, Op)>,
}
