//! Writes who holds what for the other nodes to read, under a lease that ends with this one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_store::{Batch, Entry, Error, Get, LeaseId, Op, Put};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::Centre;
use super::error::CentreError;
use super::holders::Holder;
use super::read::each;
use super::record;
use super::shared::Shared;
use crate::events::centre::DutyFailed;
use crate::keys::{self, CentreKey, GroupRef, parse_centre};
use crate::name::NodeName;

/// How often what changed is written.
const FLUSH_EVERY: Duration = Duration::from_secs(2);

/// How long what a node wrote is there after the node vanished.
const TTL: Duration = Duration::from_secs(10);

/// What a chunk holds.
#[derive(Serialize, Deserialize)]
struct Sheet {
    v: u32,
    clients: Vec<Holder>,
}

/// Writes until told to stop; then what was written goes at once.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut lease = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = shared.timer.sleep_until(shared.now().plus(FLUSH_EVERY)) => {}
        }
        let flushed = tokio::select! {
            () = stop.cancelled() => break,
            flushed = flush(&shared, &mut lease) => flushed,
        };
        match flushed {
            Ok(()) => {}
            Err(Error::LeaseNotFound { .. }) => {
                lease = None;
                shared.local.lock().holders.lost();
            }
            Err(error) => DutyFailed { duty: "holders", error: &error }.emit(),
        }
    }
    if let Some(lease) = lease {
        // If it fails, the keys go with their lease.
        drop(shared.store.revoke(lease).await);
    }
}

async fn flush(shared: &Shared, lease: &mut Option<LeaseId>) -> Result<(), Error> {
    let chunks = {
        let mut local = shared.local.lock();
        local.holders.pass(shared.timer.unix_millis());
        shared.figures.listeners(local.holders.counts());
        local.holders.take()
    };
    // Given back unless written: an error, or being told to stop, loses nothing.
    let mut rest =
        Rest { shared, chunks: chunks.iter().map(|(g, n, _)| (g.clone(), *n)).collect() };
    match *lease {
        Some(lease) => drop(shared.store.keep_alive(lease).await?),
        None if chunks.is_empty() => return Ok(()),
        None => *lease = Some(shared.store.grant(TTL, None).await?.id),
    }
    let Some(lease) = *lease else { return Ok(()) };
    for (group, chunk, clients) in chunks {
        let key = group.hold(&shared.options.node, chunk);
        let op: Op = if clients.is_empty() {
            Op::delete(&key)
        } else {
            Put::new(key, record::write(&Sheet { v: 1, clients })).lease(lease).into()
        };
        shared.store.apply(Batch::new().then(op)).await?;
        rest.chunks.remove(&(group, chunk));
    }
    Ok(())
}

/// Chunks that were taken and not written yet.
struct Rest<'a> {
    shared: &'a Shared,
    chunks: std::collections::BTreeSet<(GroupRef, usize)>,
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        let mut local = self.shared.local.lock();
        for (group, chunk) in std::mem::take(&mut self.chunks) {
            local.holders.put_back(&group, chunk);
        }
    }
}

impl Centre {
    /// Who holds which release of a group, by node and name: of this node as it is now, of others
    /// as they last wrote, which is two seconds ago at most.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn holders(
        &self,
        group: &GroupRef,
    ) -> Result<BTreeMap<NodeName, Vec<Holder>>, CentreError> {
        let shared = &*self.shared;
        let own = &shared.options.node;
        let mut found = Vec::new();
        let take = |entry: Entry| {
            if let Some(CentreKey::Hold(node, of, _)) = parse_centre(&entry.key)
                && of == *group
                && node != *own
            {
                found.push((node, entry.key));
            }
        };
        each(&*shared.store, keys::holds(), true, None, take).await?;
        let mut holders: BTreeMap<NodeName, Vec<Holder>> = BTreeMap::new();
        for (node, key) in found {
            let Some(entry) = shared.store.get(Get::new(key)).await?.entry else { continue };
            let sheet: Option<Sheet> = record::read(&entry.value);
            holders.entry(node).or_default().extend(sheet.into_iter().flat_map(|it| it.clients));
        }
        let here = shared.local.lock().holders.list(group);
        if !here.is_empty() {
            holders.insert(own.clone(), here);
        }
        for of_node in holders.values_mut() {
            of_node.sort_by(|a, b| a.client.cmp(&b.client));
        }
        Ok(holders)
    }
}
