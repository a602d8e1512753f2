//! Being known to the other nodes, and taking over from those that are gone.
//!
//! A node is alive as long as its key is there, and the key goes 10 s after the node was last
//! heard of. Who takes over needs no vote: it is the first by name of the nodes alive. Two that
//! disagree for a moment do no harm, since a takeover compares the record it changes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use mainstay_store::{Batch, Compare, Error, Get, LeaseId, Put, Revision};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::instance::Instance;
use super::{RegistryError, Shared};
use crate::events::registry::{Adopted, DutyFailed, Membership};
use crate::keys::{InstanceRef, RegistryArea, node};
use crate::random;

/// How long a node is known after it was last heard of.
const TTL: Duration = Duration::from_secs(10);

/// Three chances within the ttl.
const RENEW_EVERY: Duration = Duration::from_secs(3);

/// How often the sweeper looks though no node came or went: a takeover may have failed.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Takeovers under way at once.
const WRITES_MAX: usize = 64;

/// What `node/<node>` holds.
#[derive(Serialize)]
struct Record<'a> {
    v: u32,
    address: &'a str,
    started_unix_ms: u64,
    /// Tells one process of this name from the next, and so whether an announcement whose outcome
    /// was unknown got through.
    process: String,
    roles: [&'a str; 1],
}

/// Where this node's key stands.
#[derive(Clone, Copy)]
struct Known {
    lease: LeaseId,
    at: Revision,
}

/// Keeps this node known until told to stop; then it is forgotten at once, so that others take
/// over without waiting.
pub(super) async fn be_known(shared: Arc<Shared>, stop: CancellationToken) {
    let value = record(&shared);
    let name = &shared.options.node;
    let mut known: Option<Known> = None;
    loop {
        // A lease that lives is not enough: it must be the one the key is on.
        if known.take_if(|known| is_gone(&shared, *known)).is_some() {
            Membership { node: name, is_known: false }.emit();
        }
        let renewed = match known {
            Some(known) => shared.store.keep_alive(known.lease).await.map(|_ttl| Some(known)),
            None => announce(&shared, &value).await,
        };
        match renewed {
            Ok(Some(renewed)) => {
                if known.replace(renewed).is_none() {
                    Membership { node: name, is_known: true }.emit();
                }
            }
            // The key changed between look and write.
            Ok(None) => continue,
            Err(Error::LeaseNotFound { .. }) => {
                known = None;
                Membership { node: name, is_known: false }.emit();
                continue;
            }
            // It is tried again; should the lease end meanwhile, the store will say so.
            Err(_away) => {}
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = shared.timer.sleep_until(shared.now().plus(RENEW_EVERY)) => {}
        }
    }
    if let Some(known) = known {
        // If it fails, the key goes with its lease.
        drop(shared.store.revoke(known.lease).await);
    }
}

fn record(shared: &Shared) -> Vec<u8> {
    let record = Record {
        v: 1,
        address: &shared.options.address,
        started_unix_ms: shared.timer.unix_millis(),
        process: random::hex::<8>(),
        roles: ["registry"],
    };
    serde_json::to_vec(&record).expect("text and numbers are JSON")
}

/// Whether the copy has seen the key come and go.
fn is_gone(shared: &Shared, known: Known) -> bool {
    let local = shared.local.lock();
    local.is_whole()
        && known.at <= local.copy.revision(RegistryArea::Nodes)
        && !local.copy.nodes().contains(&shared.options.node)
}

/// Puts this node's key, over what a process before it left; `None` when the key changed between
/// look and write. A batch that arrives late thus fails, or is found by the next look.
async fn announce(shared: &Shared, value: &[u8]) -> Result<Option<Known>, Error> {
    let key = node(&shared.options.node);
    let found = shared.store.get(Get::new(key.clone())).await?.entry;
    if let Some(entry) = &found
        && *entry.value == *value
        && let Some(lease) = entry.lease
    {
        return Ok(Some(Known { lease, at: entry.mod_revision }));
    }
    let before = found.map_or(Revision::NEVER, |entry| entry.mod_revision);
    let lease = shared.store.grant(TTL, None).await?.id;
    let batch = Batch::new()
        .when(Compare::unchanged_since(&key, before))
        .then(Put::new(key, value.to_vec()).lease(lease));
    let applied = shared.store.apply(batch).await?;
    Ok(applied.succeeded.then_some(Known { lease, at: applied.revision }))
}

/// Takes over the instances of nodes that are gone, until told to stop.
pub(super) async fn sweep(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let until = shared.now().plus(SWEEP_EVERY);
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.nodes.notified() => {}
            () = shared.timer.sleep_until(until) => {}
        }
        let orphans = {
            let local = shared.local.lock();
            let all = local.copy.all();
            shared.figures.count(all.map(|(service, _, record)| (&service.namespace, &**record)));
            orphans(&shared, &local)
        };
        if orphans.is_empty() {
            continue;
        }
        let instances = orphans.len();
        let adopting = stream::iter(orphans).for_each_concurrent(WRITES_MAX, |(at, owner)| {
            let shared = &shared;
            async move {
                match adopt(shared, &at, &owner).await {
                    Ok(()) | Err(RegistryError::InstanceNotFound { .. }) => {}
                    Err(error) => DutyFailed { instance: &at, error: &error }.emit(),
                }
            }
        });
        tokio::select! {
            () = stop.cancelled() => return,
            () = adopting => Adopted { instances }.emit(),
        }
    }
}

/// Instances whose owner is gone, with that owner, if it is this node that takes over.
fn orphans(shared: &Shared, local: &super::Local) -> Vec<(InstanceRef, String)> {
    let alive = local.copy.nodes();
    if !local.is_whole() || alive.first() != Some(&shared.options.node) {
        return Vec::new();
    }
    let is_alive = |owner: &str| alive.iter().any(|node| node.as_str() == owner);
    let all = local.copy.all().filter(|(_, _, record)| !is_alive(&record.owner));
    all.map(|(service, id, record)| (service.instance(id), record.owner.clone())).collect()
}

async fn adopt(shared: &Shared, at: &InstanceRef, owner: &str) -> Result<(), RegistryError> {
    let own = shared.options.node.as_str();
    let take = |record: &mut Instance| {
        let is_orphan = *record.owner == *owner;
        own.clone_into(&mut record.owner);
        is_orphan
    };
    shared.edit(at, None, take).await.map(drop)
}
