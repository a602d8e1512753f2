//! What every part of a node's config centre shares.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Instant;
use mainstay_store::{Event, Key, Revision, Store};
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::watch;

use super::Options;
use super::contents::Kept;
use super::copy::{Copy, Group, Touched};
use super::error::CentreError;
use super::figures::Figures;
use super::holders::Holders;
use crate::audit::Outbox;
use crate::clock::Timer;
use crate::events::registry::RecordUnreadable;
use crate::keyring::Keyring;
use crate::keys::GroupRef;
use crate::tasks::Tasks;

/// The store, the clock, and what the node knows.
pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) timer: Arc<dyn Timer>,
    pub(super) outbox: Outbox,
    pub(super) options: Options,
    pub(super) tasks: Tasks,
    pub(super) figures: Figures,
    pub(super) keyring: RwLock<Arc<Keyring>>,
    pub(super) local: Mutex<Local>,
    pub(super) contents: Mutex<Kept>,
    /// Counts what the copy has taken in, for those who wait for it.
    pub(super) taken: watch::Sender<u64>,
}

/// What a node knows, under one short lock.
#[derive(Debug, Default)]
pub(super) struct Local {
    pub(super) copy: Copy,
    pub(super) holders: Holders,
    /// Who wants to be told of which group.
    subscribers: BTreeMap<GroupRef, watch::Sender<Option<Arc<Group>>>>,
    /// The store does not answer.
    away: bool,
}

/// How long a write waits for the copy.
const APPLIED_WITHIN: Duration = Duration::from_secs(5);

impl Local {
    /// What is in force in `group` now, and every later state.
    pub(super) fn subscribe(&mut self, group: &GroupRef) -> watch::Receiver<Option<Arc<Group>>> {
        let now = self.copy.group(group).cloned();
        let fresh = || watch::Sender::new(now);
        self.subscribers.entry(group.clone()).or_insert_with(fresh).subscribe()
    }

    /// Nobody may be left who wants to be told of `group`.
    pub(super) fn unsubscribed(&mut self, group: &GroupRef) {
        if self.subscribers.get(group).is_some_and(|sender| sender.receiver_count() == 0) {
            self.subscribers.remove(group);
        }
    }

    fn take(&mut self, touched: Vec<Touched>, figures: &Figures) {
        for touched in touched {
            match touched {
                Touched::Unreadable(key) => RecordUnreadable { key: &key }.emit(),
                Touched::Group(group) => {
                    let now = self.copy.group(&group).cloned();
                    figures.in_force(&group, now.as_deref().map(|now| now.head.release));
                    if let Some(now) = &now {
                        self.holders.decided(&group, now);
                    }
                    let Some(sender) = self.subscribers.get(&group) else { continue };
                    sender.send_replace(now);
                }
            }
        }
    }
}

impl Shared {
    pub(super) fn now(&self) -> Instant {
        self.timer.now()
    }

    pub(super) fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.keyring.read())
    }

    pub(super) fn loaded(&self) -> Result<MutexGuard<'_, Local>, CentreError> {
        let local = self.local.lock();
        if local.copy.is_loaded() { Ok(local) } else { Err(CentreError::Loading) }
    }

    /// Takes in the changes of one revision, or that there were none up to it.
    pub(super) fn apply(&self, revision: Revision, events: &[Event]) {
        {
            let mut local = self.local.lock();
            let touched = local.copy.apply(revision, events);
            local.take(touched, &self.figures);
        }
        self.taken.send_modify(|count| *count += 1);
    }

    /// Takes in the whole but what could not be read; `true` when the store had been away.
    pub(super) fn replace(&self, revision: Revision, fresh: Copy, unreadable: &[Key]) -> bool {
        let was_away = {
            let mut local = self.local.lock();
            let touched = local.copy.replace(revision, fresh, unreadable);
            local.take(touched, &self.figures);
            std::mem::take(&mut local.away)
        };
        self.taken.send_modify(|count| *count += 1);
        was_away
    }

    /// The store does not answer; `true` when it did before.
    pub(super) fn away(&self) -> bool {
        !std::mem::replace(&mut self.local.lock().away, true)
    }

    /// Waits until `ask` has an answer.
    pub(super) async fn when<T>(&self, mut ask: impl FnMut(&Local) -> Option<T>) -> T {
        let mut taken = self.taken.subscribe();
        loop {
            if let Some(answer) = ask(&self.local.lock()) {
                return answer;
            }
            if taken.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Waits until the copy is at `revision`, so that whoever wrote reads what it wrote; for a
    /// while only, since the write stands either way.
    pub(super) async fn reached(&self, revision: Revision) {
        let until = self.now().plus(APPLIED_WITHIN);
        let is_there = |local: &Local| (revision <= local.copy.revision()).then_some(());
        tokio::select! {
            biased;
            () = self.when(is_there) => {}
            () = self.timer.sleep_until(until) => {}
        }
    }
}
