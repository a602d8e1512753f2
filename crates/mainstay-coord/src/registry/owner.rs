//! Looks after the instances this node owns.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use mainstay_core::Instant;
use tokio_util::sync::CancellationToken;

use super::instance::{GoneReason, Instance, Kind, State};
use super::owned::Duty;
use super::write::Removal;
use super::{RegistryError, Shared};
use crate::events::registry::{DutyFailed, Expired, ExpiryHeld, StoodStill};
use crate::health::Health;
use crate::keys::{InstanceRef, ServiceRef};

/// How often it looks. Short against the shortest ttl of 5 s.
pub(super) const TICK: Duration = Duration::from_millis(500);

/// Shortest time between two looks.
const TICK_MIN: Duration = Duration::from_millis(20);

/// Time between two looks above which the process must have stood still: two looks missed.
const PAUSE_MIN: Duration = Duration::from_millis(1_500);

/// Writes under way at once. A commit takes them together, so a node that lost sight of 10,000
/// instances marks them within seconds and queues no more than this.
const WRITES_MAX: usize = 64;

/// Does what is due until told to stop.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut looked = shared.now();
    loop {
        // A report may be good for less than a tick.
        let next = shared.local.lock().owned.next().unwrap_or(Instant::MAX);
        let until = next.max(looked.plus(TICK_MIN)).min(looked.plus(TICK));
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.timer.sleep_until(until) => {}
        }
        let now = shared.now();
        let duties = {
            let mut local = shared.local.lock();
            let span = now.since(looked);
            if span > PAUSE_MIN {
                local.owned.extend(span);
                StoodStill { span }.emit();
            }
            // While the store is away nothing can be written, and nothing is forgotten either.
            if local.is_whole() { local.owned.due(now) } else { Vec::new() }
        };
        let work = perform(&shared, now, duties);
        tokio::select! {
            () = stop.cancelled() => return,
            () = work => {}
        }
        looked = shared.now();
    }
}

/// Removals of one service go one after the other, since each counts for the next; all else goes
/// together, the marks of those that are held back as well: a service that lost 10,000 instances
/// has nearly as many of them.
async fn perform(shared: &Shared, now: Instant, duties: Vec<(InstanceRef, Duty)>) {
    let mut removals: BTreeMap<ServiceRef, Vec<InstanceRef>> = BTreeMap::new();
    let mut rest = Vec::new();
    for (at, duty) in duties {
        match duty {
            Duty::Expire => removals.entry(at.service.clone()).or_default().push(at),
            duty => rest.push((at, duty)),
        }
    }
    stream::iter(rest)
        .for_each_concurrent(WRITES_MAX, |(at, duty)| async move {
            tell(&at, write(shared, &at, duty).await);
        })
        .await;
    let held: Vec<InstanceRef> = stream::iter(removals.into_values())
        .map(|instances| async move {
            let mut held = Vec::new();
            for at in instances {
                match expire(shared, now, &at).await {
                    Ok(Fate::Held) => held.push(at),
                    done => tell(&at, done.map(drop)),
                }
            }
            held
        })
        .buffer_unordered(WRITES_MAX)
        .concat()
        .await;
    stream::iter(held)
        .for_each_concurrent(WRITES_MAX, |at| async move {
            tell(&at, hold(shared, &at).await);
        })
        .await;
}

/// What became of an instance that is to be removed.
enum Fate {
    /// It went, or nothing is to be done.
    Settled,
    /// It is held back, and its record does not say so yet.
    Held,
}

/// An instance that is gone needs nothing more.
fn tell(at: &InstanceRef, done: Result<(), RegistryError>) {
    match done {
        Ok(()) | Err(RegistryError::InstanceNotFound { .. }) => {}
        Err(error) => DutyFailed { instance: at, error: &error }.emit(),
    }
}

async fn write(shared: &Shared, at: &InstanceRef, duty: Duty) -> Result<(), RegistryError> {
    let node = shared.options.node.as_str();
    let unix_ms = shared.timer.unix_millis();
    match duty {
        Duty::Expire => Ok(()),
        Duty::MarkLate => {
            let mark = |record: &mut Instance| {
                record.is_late = true;
                *record.owner == *node
            };
            shared.edit(at, None, mark).await.map(drop)
        }
        Duty::MarkCheckLate(check) => {
            let mark = |record: &mut Instance| {
                if let Some(status) = record.checks.get_mut(&check) {
                    status.health = Health::Critical;
                    status.changed_unix_ms = unix_ms;
                    "no report within its ttl".clone_into(&mut status.output);
                }
                *record.owner == *node
            };
            shared.edit(at, None, mark).await.map(drop)
        }
        Duty::Drained => drained(shared, at).await,
        Duty::BringBack => {
            let mark = |record: &mut Instance| {
                record.is_late = false;
                *record.owner == *node
            };
            shared.edit(at, None, mark).await.map(drop)
        }
        Duty::DropChecks => drop_checks(shared, at).await,
    }
}

/// The store is asked which checks there are: the copy of the settings may be behind that of the
/// instances.
async fn drop_checks(shared: &Shared, at: &InstanceRef) -> Result<(), RegistryError> {
    let Some(settings) = shared.stored_settings(&at.service).await? else { return Ok(()) };
    let node = shared.options.node.as_str();
    let drop_strays = |record: &mut Instance| {
        record.drop_strays(settings.checks());
        *record.owner == *node
    };
    shared.edit(at, None, drop_strays).await.map(drop)
}

async fn drained(shared: &Shared, at: &InstanceRef) -> Result<(), RegistryError> {
    let found = shared.loaded()?.copy.instance(at).map(|(record, at)| (Arc::clone(record), at));
    let Some((record, written)) = found.filter(|(record, _)| record.state == State::Draining)
    else {
        return Ok(());
    };
    if record.kind == Kind::Ephemeral {
        let (reason, decided) = (GoneReason::Deregistered, Some(written));
        let removal = Removal { reason, registration: None, decided, mark: None, by: None };
        return shared.remove(at, removal).await.map(drop);
    }
    let take_down = |record: &mut Instance| {
        let is_draining = record.state == State::Draining;
        (record.state, record.drain_seconds) = (State::Down, None);
        is_draining
    };
    shared.edit(at, None, take_down).await.map(drop)
}

/// Removes an instance of which nothing was heard, if there is budget.
async fn expire(shared: &Shared, now: Instant, at: &InstanceRef) -> Result<Fate, RegistryError> {
    let (written, mark) = {
        let local = shared.loaded()?;
        let Some((record, written)) = local.copy.instance(at) else { return Ok(Fate::Settled) };
        let is_ours = *record.owner == *shared.options.node.as_str();
        let may_go = record.is_late || record.kind == Kind::Persistent;
        if !is_ours || !may_go {
            return Ok(Fate::Settled);
        }
        let Some((allowed, mark)) = local.copy.expiry(now, at) else { return Ok(Fate::Settled) };
        let allowed = allowed && (record.kind == Kind::Persistent || local.may_expire(now));
        if !allowed {
            return Ok(if record.removal_held { Fate::Settled } else { Fate::Held });
        }
        (written, mark)
    };
    let (reason, decided) = (GoneReason::Expired, Some(written));
    let removal = Removal { reason, registration: None, decided, mark: Some(mark), by: None };
    if shared.remove(at, removal).await?.is_some() {
        Expired { instance: at }.emit();
    }
    Ok(Fate::Settled)
}

async fn hold(shared: &Shared, at: &InstanceRef) -> Result<(), RegistryError> {
    let hold = |record: &mut Instance| {
        record.removal_held = true;
        record.is_late
    };
    ExpiryHeld { instance: at }.emit(&shared.figures);
    shared.edit(at, None, hold).await.map(drop)
}
