//! One event: step, write, effects.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mainstay_store::{Get, RangeRequest, Select};

use super::calls::Job;
use super::{Coordinator, Kept, Seen, Slot, VerbError};
use crate::commit::{Lane, LogError};
use crate::events::{HookFailed, Unread};
use crate::log::{self, Change, Keys};
use crate::machine::{Effect, Event, Step, Submit};
use crate::moment::Moment;
use crate::name::{BranchId, Gid, Shard};
use crate::schedule::Peer;
use crate::transaction::{Begin, Transaction};
use crate::word::Op;

/// How long a hook that failed waits, and how long at most.
const HOOK_WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

impl Coordinator {
    pub(super) async fn do_begin(&self, begin: Begin) -> Result<Seen, VerbError> {
        let (shard, policy) = (self.shard_of(&begin.gid)?, self.shared.settings.policy);
        let slot = self.slot_for(&begin.gid, shard)?;
        let mut kept = slot.kept.lock().await;
        self.read(&slot, &mut kept).await?;
        if let Kept::Live(transaction) = &*kept {
            transaction.repeats(begin, &policy)?;
            return Ok(self.seen(shard, Transaction::clone(transaction)));
        }
        let known = self.history(&begin.gid).await;
        let answer = match known {
            Ok(seen) => seen.transaction.repeats(begin, &policy).map(|()| seen).map_err(Into::into),
            Err(VerbError::Unknown { .. }) => {
                let now = self.shared.ports.surroundings.now();
                match Transaction::begin(begin, now, &policy) {
                    Ok((transaction, step)) => {
                        return self.create(&slot, &mut kept, transaction, step).await;
                    }
                    Err(refused) => Err(refused.into()),
                }
            }
            Err(error) => Err(error),
        };
        self.forget(&slot);
        answer
    }

    pub(super) async fn do_submit_lost(
        &self,
        begin: Begin,
        span: (Moment, Moment),
        submit: Submit,
    ) -> Result<Seen, VerbError> {
        let (shard, policy) = (self.shard_of(&begin.gid)?, self.shared.settings.policy);
        let slot = self.slot_for(&begin.gid, shard)?;
        let mut kept = slot.kept.lock().await;
        self.read(&slot, &mut kept).await?;
        if matches!(&*kept, Kept::Live(_)) {
            // Somebody was faster: a sweep, or the same submit.
            drop(kept);
            return self.take_in(&slot, Event::Submit(submit)).await;
        }
        let now = self.shared.ports.surroundings.now();
        let taken = Transaction::submit_lost(begin, span, submit, now, &policy);
        match taken {
            Ok((transaction, step)) => self.create(&slot, &mut kept, transaction, step).await,
            Err(refused) => {
                self.forget(&slot);
                Err(refused.into())
            }
        }
    }

    /// Writes what begins, and keeps it.
    pub(super) async fn create(
        &self,
        slot: &Arc<Slot>,
        kept: &mut Kept,
        transaction: Transaction,
        step: Step,
    ) -> Result<Seen, VerbError> {
        *kept = Kept::Live(Box::new(transaction));
        let carried = self.carry_out(slot, kept, None, step).await;
        if let Err(error) = carried {
            self.forget(slot);
            return Err(error);
        }
        match kept {
            Kept::Live(transaction) => Ok(self.seen(slot.shard, Transaction::clone(transaction))),
            Kept::Empty | Kept::Unread => Err(VerbError::Unknown { gid: slot.gid.clone() }),
        }
    }

    /// The slot of `gid`, or a new one.
    pub(super) fn slot_for(&self, gid: &Gid, shard: Shard) -> Result<Arc<Slot>, VerbError> {
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
        let slot = Slot::new(gid, shard, Kept::Empty);
        slots.insert(gid.clone(), Arc::clone(&slot));
        Ok(slot)
    }

    /// Forgets a slot, if it is still the one there is.
    fn forget(&self, slot: &Arc<Slot>) {
        slot.closed.store(true, Ordering::Release);
        let mut slots = self.shared.slots.lock();
        if slots.get(&slot.gid).is_some_and(|known| Arc::ptr_eq(known, slot)) {
            slots.remove(&slot.gid);
            self.shared.due.lock().set(&slot.gid, None);
        }
    }

    /// An event of a transaction that should be live.
    pub(super) async fn happens(&self, gid: &Gid, event: Event) -> Result<Seen, VerbError> {
        let (own, gid) = (self.clone(), gid.clone());
        let work = async move {
            own.shard_of(&gid)?;
            match own.slot(&gid) {
                Some(slot) => own.take_in(&slot, event).await,
                None => own.after_the_end(&gid, event).await,
            }
        };
        self.run(work).await
    }

    /// What has ended says so, and changes no more.
    async fn after_the_end(&self, gid: &Gid, event: Event) -> Result<Seen, VerbError> {
        let mut seen = self.history(gid).await?;
        let now = self.shared.ports.surroundings.now();
        seen.transaction.step(event, now, &self.shared.settings.policy)?;
        Ok(seen)
    }

    pub(super) async fn time_passed(&self, gid: &Gid) {
        if let Some(slot) = self.slot(gid) {
            let passed = self.take_in(&slot, Event::Time).await;
            if matches!(passed, Err(VerbError::Store(_) | VerbError::Log(_))) && !slot.is_closed() {
                let again = self.shared.ports.surroundings.now().plus(LOG_WAIT);
                self.shared.due.lock().set(gid, Some(again));
            }
        }
    }

    pub(super) async fn take_in(&self, slot: &Arc<Slot>, event: Event) -> Result<Seen, VerbError> {
        let mut kept = slot.kept.lock().await;
        if slot.is_closed() {
            drop(kept);
            return self.after_the_end(&slot.gid, event).await;
        }
        self.read(slot, &mut kept).await?;
        let Kept::Live(transaction) = &mut *kept else {
            return Err(VerbError::Unknown { gid: slot.gid.clone() });
        };
        let before = transaction.clone();
        let answered = match &event {
            Event::Answered { branch, op, .. } => Some((branch.clone(), *op)),
            _ => None,
        };
        let now = self.shared.ports.surroundings.now();
        let step = transaction.step(event, now, &self.shared.settings.policy);
        let step = match step {
            Ok(step) => step,
            Err(refused) => {
                *transaction = before;
                return Err(refused.into());
            }
        };
        let undo = Undo { before, answered };
        self.carry_out(slot, &mut kept, Some(undo), step).await?;
        match &*kept {
            Kept::Live(transaction) => Ok(self.seen(slot.shard, Transaction::clone(transaction))),
            Kept::Empty | Kept::Unread => Err(VerbError::Unknown { gid: slot.gid.clone() }),
        }
    }

    /// Does what a step says: writes, waits for the acknowledgement if it must, and only then has
    /// the effects.
    async fn carry_out(
        &self,
        slot: &Arc<Slot>,
        kept: &mut Kept,
        undo: Option<Undo>,
        step: Step,
    ) -> Result<(), VerbError> {
        let Kept::Live(transaction) = kept else { return Ok(()) };
        let (settings, now) = (&self.shared.settings, self.shared.ports.surroundings.now());
        let change = Change::of(transaction, &step.write, settings.shards, self.epoch(slot.shard));
        if !change.is_empty() {
            let written = self.write(slot, change, step.write.durable).await;
            if let Err(error) = written {
                // Nothing has happened. What the log says, if it is not known, its next owner reads.
                if let Some(Undo { before, answered }) = undo {
                    *transaction = before;
                    if let Some((branch, op)) = answered {
                        transaction.ask_again(&branch, op, now, &settings.policy);
                    }
                    self.set_due(slot, transaction, LOG_WAIT);
                }
                return Err(error.into());
            }
        }
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
        slot.state.send_replace(transaction.state());
        self.set_due(slot, transaction, Duration::ZERO);
        if has_ended {
            self.finish(slot);
        }
        Ok(())
    }

    async fn write(&self, slot: &Slot, change: Change, durable: bool) -> Result<(), LogError> {
        let lane = self.lane(slot.shard).ok_or(LogError::NotOwner)?;
        let place = (&slot.gid, slot.shard);
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
        self.shared.work.spawn("transaction end", |stop| async move {
            let mut wait = HOOK_WAIT.0;
            loop {
                if slot.is_closed() {
                    return; // Its next owner runs them.
                }
                let state = *slot.state.borrow();
                match own.shared.ports.hooks.ended(&slot.gid, state).await {
                    Ok(()) => break,
                    Err(why) => HookFailed { gid: slot.gid.as_str(), why: &why }.emit(),
                }
                tokio::select! {
                    () = tokio::time::sleep(wait) => wait = (wait * 2).min(HOOK_WAIT.1),
                    () = stop.cancelled() => return,
                }
            }
            let end = {
                let kept = slot.kept.lock().await;
                let Kept::Live(transaction) = &*kept else { return };
                Change::end(transaction, own.shared.settings.shards, own.epoch(slot.shard))
            };
            let Some(lane) = own.lane(slot.shard) else { return };
            let written = match lane.write_lazily((&slot.gid, slot.shard), end) {
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
    pub(super) async fn read(&self, slot: &Arc<Slot>, kept: &mut Kept) -> Result<(), VerbError> {
        if !matches!(kept, Kept::Unread) {
            return Ok(());
        }
        let keys = Keys::new(&slot.gid, self.shared.settings.shards);
        let store = &self.shared.ports.store;
        let register = store.get(Get::new(keys.register())).await?.entry;
        let body = store.get(Get::new(keys.body())).await?.entry;
        let unknown = || VerbError::Unknown { gid: slot.gid.clone() };
        let (register, body) = (register.ok_or_else(unknown)?, body.ok_or_else(unknown)?);
        let (mut range, mut branches) = (keys.branches(), Vec::new());
        loop {
            let page = store.range(RangeRequest::new(Select::new(range.clone()))).await?;
            let last = page.entries.last().map(|entry| entry.key.clone());
            branches.extend(page.entries.into_iter().map(|entry| entry.value));
            match last.filter(|_| page.more) {
                Some(last) => range = range.after(&last),
                None => break,
            }
        }
        let branches = branches.iter().map(|value| &**value);
        let transaction = log::read(&body.value, &register.value, branches);
        let transaction = transaction.inspect_err(|error| {
            Unread { gid: slot.gid.as_str(), error }.emit();
        })?;
        slot.state.send_replace(transaction.state());
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
