//! Every change of a service, one by one.
//!
//! A view is right about the present; whoever must see each step in between (an audit, a mirror)
//! takes this. It is the store's own watch, so it resumes exactly after any revision that is not
//! compacted; where history is gone it says `resync` and gives the whole list.

use std::sync::Arc;

use mainstay_store::{Entry, Error, Revision, Store, Watch, WatchItem, WatchRequest};

use super::RegistryError;
use super::copy::effective;
use super::instance::Instance;
use super::listing::list_all;
use super::view::Listed;
use crate::keys::{RegistryKey, ServiceRef, parse_registry};
use crate::name::InstanceId;

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// An instance came, or is now like this.
    Put(Listed),
    /// An instance went.
    Removed(InstanceId),
    /// History was lost: these are all there are, whatever was told before.
    Resync(Vec<Listed>),
}

/// The changes of one service.
#[derive(Debug)]
pub struct Changes {
    store: Held,
    service: ServiceRef,
    /// Up to here everything was told.
    seen: Revision,
    watch: Option<Watch>,
    /// What is to be told next: history was lost.
    is_lost: bool,
}

struct Held(Arc<dyn Store>);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Changes {
    pub(super) fn start(
        store: Arc<dyn Store>,
        service: ServiceRef,
        after: Revision,
    ) -> Result<Self, RegistryError> {
        let store = Held(store);
        let mut changes = Self { store, service, seen: after, watch: None, is_lost: false };
        changes.open()?;
        Ok(changes)
    }

    /// Waits for the next revision that changed the service; returns it and its changes.
    ///
    /// # Errors
    ///
    /// What the store said. Calling again goes on where it stopped.
    ///
    /// # Cancel safety
    ///
    /// Safe: a change counts as told only when it is returned.
    pub async fn next(&mut self) -> Result<(Revision, Vec<Change>), RegistryError> {
        loop {
            if self.is_lost {
                let range = self.service.instances();
                let (revision, entries) = list_all(&*self.store.0, range).await?;
                let listed = entries.iter().filter_map(listed).collect();
                (self.seen, self.is_lost) = (revision, false);
                return Ok((revision, vec![Change::Resync(listed)]));
            }
            let watch = match &mut self.watch {
                Some(watch) => watch,
                None => self.open()?,
            };
            match watch.next().await {
                Some(WatchItem::Created { .. } | WatchItem::Bookmark { .. }) => {}
                Some(WatchItem::Changes { revision, events }) => {
                    self.seen = revision;
                    let changes: Vec<Change> = events
                        .iter()
                        .filter_map(|event| match event.entry() {
                            Some(entry) => listed(entry).map(Change::Put),
                            None => id(event.key()).map(Change::Removed),
                        })
                        .collect();
                    if !changes.is_empty() {
                        return Ok((revision, changes));
                    }
                }
                Some(WatchItem::Compacted { .. }) => (self.watch, self.is_lost) = (None, true),
                Some(WatchItem::Denied | WatchItem::Closed) | None => {
                    self.watch = None;
                    return Err(Error::Closed.into());
                }
            }
        }
    }

    fn open(&mut self) -> Result<&mut Watch, RegistryError> {
        let range = self.service.instances();
        let request = WatchRequest::new(range).from(self.seen.next());
        Ok(self.watch.insert(self.store.0.watch(request)?))
    }
}

fn id(key: &[u8]) -> Option<InstanceId> {
    match parse_registry(key)? {
        RegistryKey::Instance(at) => Some(at.id),
        _ => None,
    }
}

fn listed(entry: &Entry) -> Option<Listed> {
    let instance = Instance::read(&entry.value)?;
    let health = effective(&instance, false);
    let (id, revision) = (id(&entry.key)?, entry.mod_revision);
    Some(Listed { id, health, instance: Arc::new(instance), revision })
}
