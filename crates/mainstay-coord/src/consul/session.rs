//! Sessions of the Consul door.
//!
//! A session is a record that stays until it is ended on purpose, since its end has to do more
//! than to vanish: what it holds is freed or deleted, and delayed, in the same batch. What ends by
//! itself is its *life*, a key on a lease of the session's ttl; whoever sees it go ends the
//! session ([`reaper`](super::reaper)).

use std::time::Duration;

use bytes::Bytes;
use mainstay_store::{Batch, Compare, Entry, Error, Get, LeaseId, Put, Revision};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Consul, ConsulError};
use crate::keys::{ConsulSessionId, consul_session};

/// What becomes of what a session holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Behavior {
    /// It is freed.
    #[default]
    Release,
    /// It is deleted.
    Delete,
}

/// A session to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSession {
    /// Shown.
    pub name: String,
    /// The node it belongs to.
    pub node: String,
    /// How long nobody acquires what it held; at most 60 s.
    pub lock_delay: Duration,
    /// What becomes of what it holds.
    pub behavior: Behavior,
    /// How long it lives without being renewed, 10 s to 24 h; and as the caller wrote it.
    pub ttl: Option<(Duration, String)>,
    /// Checks of its node, shown.
    pub node_checks: Vec<String>,
    /// Checks of services, shown as they came.
    pub service_checks: Vec<Value>,
}

/// A session.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsulSession {
    /// Its id.
    pub id: ConsulSessionId,
    /// What it was made of.
    pub record: Record,
    /// The revision that made it.
    pub created: Revision,
    /// The revision that wrote it last.
    pub modified: Revision,
}

/// As it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    v: u32,
    /// Shown.
    pub name: String,
    /// The node it belongs to.
    pub node: String,
    /// How long nobody acquires what it held, in nanoseconds.
    pub lock_delay_nanoseconds: u64,
    /// What becomes of what it holds.
    pub behavior: Behavior,
    /// As the caller wrote it.
    pub ttl: String,
    /// The lease its life hangs on.
    pub(super) lease: Option<u64>,
    /// Checks of its node.
    pub node_checks: Vec<String>,
    /// Checks of services.
    pub service_checks: Vec<Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Record {
    pub(super) fn read(entry: &Entry) -> Result<Self, ConsulError> {
        let record: Option<Self> = serde_json::from_slice(&entry.value).ok();
        let record = record.filter(|record| record.v == 1);
        record.ok_or_else(|| ConsulError::Unreadable(entry.key.to_string()))
    }

    fn write(&self) -> Bytes {
        serde_json::to_vec(self).expect("text and numbers are JSON").into()
    }
}

impl ConsulSession {
    /// Reads what is stored.
    ///
    /// # Errors
    ///
    /// [`ConsulError::Unreadable`].
    pub fn read(entry: &Entry) -> Result<Self, ConsulError> {
        let id = consul_session(&entry.key)
            .ok_or_else(|| ConsulError::Unreadable(entry.key.to_string()))?;
        let (created, modified) = (entry.create_revision, entry.mod_revision);
        Ok(Self { id, record: Record::read(entry)?, created, modified })
    }
}

impl Consul {
    /// Makes a session.
    ///
    /// # Errors
    ///
    /// [`ConsulError::Dependence`] when a check it names is not there or critical, or what the store
    /// said. After [`Error::OutcomeUnknown`] a session may be there that nobody
    /// knows of.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open.
    pub async fn create_session(&self, new: NewSession) -> Result<ConsulSessionId, ConsulError> {
        let store = &*self.shared.store;
        let id = ConsulSessionId::random();
        let nanoseconds = u64::try_from(new.lock_delay.as_nanos()).unwrap_or(u64::MAX);
        let mut record = Record {
            v: 1,
            name: new.name,
            node: new.node,
            lock_delay_nanoseconds: nanoseconds,
            behavior: new.behavior,
            ttl: new.ttl.as_ref().map(|(_, text)| text.clone()).unwrap_or_default(),
            lease: None,
            node_checks: new.node_checks,
            service_checks: new.service_checks,
            rest: Map::new(),
        };
        if let Some(why) = self.dependence(&record).await? {
            return Err(why.into());
        }
        let lease = match &new.ttl {
            Some((ttl, _)) => Some(store.grant(*ttl, None).await?.id),
            None => None,
        };
        record.lease = lease.map(LeaseId::get);
        let value: Bytes = record.write();
        let mut batch =
            Batch::new().when(Compare::missing(&id.record())).then(Put::new(id.record(), value));
        if let Some(lease) = lease {
            batch = batch.then(Put::new(id.life(), "{\"v\":1}").lease(lease));
        }
        match store.apply(batch).await {
            Ok(_applied) => Ok(id),
            // The record bears an id that nobody else has.
            Err(Error::OutcomeUnknown)
                if store.get(Get::new(id.record())).await?.entry.is_some() =>
            {
                Ok(id)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Lets a session live for its whole ttl again; `None` when it lives no longer.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open; renewing again does no harm.
    pub async fn renew_session(
        &self,
        id: &ConsulSessionId,
    ) -> Result<Option<ConsulSession>, ConsulError> {
        let store = &*self.shared.store;
        let Some(entry) = store.get(Get::new(id.record())).await?.entry else { return Ok(None) };
        let session = ConsulSession::read(&entry)?;
        if let Some(lease) = session.record.lease.and_then(LeaseId::new) {
            match store.keep_alive(lease).await {
                Ok(_ttl) => {}
                Err(Error::LeaseNotFound { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(session))
    }

    /// Ends a session: what it holds is freed or deleted, and delayed. One that is not there is
    /// ended already.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Not safe for a session that holds more than one batch can free: it goes on living with
    /// what was left. Ending it again finishes the work.
    pub async fn destroy_session(&self, id: &ConsulSessionId) -> Result<(), ConsulError> {
        self.end_session(id, super::reaper::Cause::Destroyed).await
    }
}
