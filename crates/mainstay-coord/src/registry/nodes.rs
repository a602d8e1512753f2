//! Being known to the other nodes, and taking over from those that are gone.
//!
//! A node is alive as long as its key is there, and the key goes 10 s after the node was last
//! heard of. Who takes over needs no vote: it is the first by name of the nodes alive. Two that
//! disagree for a moment do no harm, since a takeover compares the record it changes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use mainstay_store::{Batch, Error, LeaseId, Put};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::instance::Instance;
use super::{RegistryError, Shared};
use crate::events::registry::{Adopted, DutyFailed, Membership};
use crate::keys::{InstanceRef, node};

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
    roles: [&'a str; 1],
}

/// Keeps this node known until told to stop; then it is forgotten at once, so that others take
/// over without waiting.
pub(super) async fn be_known(shared: Arc<Shared>, stop: CancellationToken) {
    let started_unix_ms = shared.timer.unix_millis();
    let mut lease = None;
    loop {
        let renewed = match lease {
            Some(lease) => shared.store.keep_alive(lease).await.map(|_ttl| lease),
            None => announce(&shared, started_unix_ms).await,
        };
        let name = &shared.options.node;
        match renewed {
            Ok(renewed) => {
                if lease.replace(renewed).is_none() {
                    Membership { node: name, is_known: true }.emit();
                }
            }
            Err(Error::LeaseNotFound { .. }) => {
                lease = None;
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
    if let Some(lease) = lease {
        // If it fails, the key goes with its lease.
        drop(shared.store.revoke(lease).await);
    }
}

async fn announce(shared: &Shared, started_unix_ms: u64) -> Result<LeaseId, Error> {
    let lease = shared.store.grant(TTL, None).await?.id;
    let address = &*shared.options.address;
    let record = Record { v: 1, address, started_unix_ms, roles: ["registry"] };
    let value = serde_json::to_vec(&record).expect("text and numbers are JSON");
    let put = Put::new(node(&shared.options.node), value).lease(lease);
    shared.store.apply(Batch::new().then(put)).await?;
    Ok(lease)
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
            shared.figures.count(local.copy.all());
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
    let all = local.copy.all().filter(|(_, record)| !is_alive(&record.owner));
    all.map(|(at, record)| (at, record.owner.clone())).collect()
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
