//! Nodes in Consul's sense: what services and checks belong to.
//!
//! Each process with this door is one, and says so when it starts; clients register others, for
//! machines on which nothing of ours runs. Checks of a node lie in its record, as those of an
//! instance lie in the instance's.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use mainstay_store::{Batch, Compare, Entry, Get, Op, Put, Revision};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Consul, ConsulError};
use crate::health::Health;
use crate::health::check::CHECKS_MAX;
use crate::keys::{ConsulSessionId, consul_node, consul_node_name};
use crate::patience::Patience;
use crate::registry::{Beside, CheckStatus, NewCheck, OwnCheck};

/// What `cat/<node>` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    v: u32,
    /// Its id, a UUID; empty when whoever registered it gave none.
    #[serde(default)]
    pub id: String,
    /// Where it is.
    pub address: String,
    /// What its process last said its address was. A client that registers the node elsewhere has
    /// the last word until the process says something new.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    advertised: String,
    /// Further addresses, by name.
    #[serde(default)]
    pub tagged_addresses: BTreeMap<String, String>,
    /// Labels.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// Whether a process of ours goes by this name. It has the check that it is there.
    #[serde(default)]
    pub is_agent: bool,
    /// Why it is in maintenance, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<String>,
    /// What is checked of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own_checks: Vec<OwnCheck>,
    /// How these checks stand, by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checks: BTreeMap<String, CheckStatus>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl NodeRecord {
    /// A node at `address` of which nothing else is known.
    pub fn at(address: String) -> Self {
        Self {
            v: 1,
            id: String::new(),
            address,
            advertised: String::new(),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
            is_agent: false,
            maintenance: None,
            own_checks: Vec::new(),
            checks: BTreeMap::new(),
            rest: Map::new(),
        }
    }

    /// The record of a node of ours, as it is when its process starts.
    fn started(before: Option<Self>, address: &str) -> Self {
        let fresh = || Self {
            id: ConsulSessionId::random().as_str().to_owned(),
            ..Self::at(address.to_owned())
        };
        let mut record = before.unwrap_or_else(fresh);
        record.is_agent = true;
        if record.advertised != address {
            address.clone_into(&mut record.address);
            address.clone_into(&mut record.advertised);
        }
        record
    }

    pub(super) fn read(entry: &Entry) -> Result<Self, ConsulError> {
        let record: Option<Self> = serde_json::from_slice(&entry.value).ok();
        let record = record.filter(|record| record.v == 1);
        record.ok_or_else(|| ConsulError::Unreadable(entry.key.to_string()))
    }

    fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a map with text keys is JSON")
    }

    /// Takes in a check: one that was there goes on standing as it stood, unless `says` so.
    /// `false` when there is no room.
    pub(super) fn put_check(&mut self, new: &NewCheck, unix_ms: u64, says: bool) -> bool {
        let id = &new.check.id;
        let is_full = CHECKS_MAX <= self.own_checks.len();
        match self.own_checks.iter_mut().find(|check| check.id == *id) {
            Some(known) => *known = new.check.clone(),
            None if is_full => return false,
            None => self.own_checks.push(new.check.clone()),
        }
        if says || !self.checks.contains_key(id) {
            let same = self.checks.get(id).filter(|status| status.health == new.health);
            let since = same.map_or(unix_ms, |status| status.changed_unix_ms);
            self.checks.insert(id.clone(), new.status(since));
        }
        true
    }

    /// `false` when there is no such check.
    pub(super) fn drop_check(&mut self, id: &str) -> bool {
        self.checks.remove(id);
        let before = self.own_checks.len();
        self.own_checks.retain(|check| check.id != id);
        self.own_checks.len() < before
    }

    /// `false` when there is no such check.
    pub(super) fn set_check(&mut self, id: &str, health: Health, output: &str, now: u64) -> bool {
        let Some(status) = self.checks.get_mut(id) else { return false };
        if status.health != health {
            (status.health, status.changed_unix_ms) = (health, now);
        }
        output.clone_into(&mut status.output);
        true
    }
}

/// What becomes of a node's record.
pub(super) enum Edit<T> {
    /// It is written.
    Write(Box<NodeRecord>, T),
    /// It goes.
    Delete(T),
    /// Nothing.
    Leave(T),
}

impl Consul {
    /// Changes the record of `node` as `change` says of what is there. It may be asked again, when
    /// somebody else was quicker.
    pub(super) async fn edit_node<T>(
        &self,
        node: &str,
        mut change: impl FnMut(Option<NodeRecord>) -> Edit<T>,
    ) -> Result<T, ConsulError> {
        let shared = &*self.shared;
        let key = consul_node(node).ok_or_else(|| ConsulError::NodeName(node.to_owned()))?;
        let mut patience = Patience::new(shared.timer.now(), Patience::FOR_CALLERS);
        loop {
            let entry = match shared.store.get(Get::new(key.clone())).await {
                Ok(got) => got.entry,
                Err(error) => {
                    patience.bear(&*shared.timer, error).await?;
                    continue;
                }
            };
            let revision = entry.as_ref().map_or(Revision::NEVER, |entry| entry.mod_revision);
            let before = entry.as_ref().map(NodeRecord::read).transpose()?;
            let (op, after, told) = match change(before.clone()) {
                Edit::Leave(told) => return Ok(told),
                Edit::Delete(_) if before.is_none() => return Err(ConsulError::Behind),
                Edit::Delete(told) => (Op::delete(&key), None, told),
                Edit::Write(record, told) if before.as_ref() == Some(&*record) => return Ok(told),
                Edit::Write(record, told) => {
                    (Put::new(key.clone(), record.write()).into(), Some(*record), told)
                }
            };
            let batch = Batch::new().when(Compare::unchanged_since(&key, revision)).then(op);
            match shared.store.apply(batch).await {
                Ok(applied) if applied.succeeded => {
                    if *node == *shared.options.node.as_str() {
                        shared.follow_node(applied.revision, after.as_ref());
                    }
                    return Ok(told);
                }
                Ok(_beaten) => {}
                Err(error) => patience.bear(&*shared.timer, error).await?,
            }
        }
    }

    /// Makes this node's record what it is when its process starts.
    pub(super) async fn be_listed(&self) -> Result<(), ConsulError> {
        let options = &self.shared.options;
        let started =
            |before| Edit::Write(Box::new(NodeRecord::started(before, &options.address)), ());
        self.edit_node(options.node.as_str(), started).await
    }

    /// Registers a node, with checks of it: what is not said stays as it was. `None` as `new`
    /// leaves all but the checks alone. A node of ours changes its address only.
    ///
    /// # Errors
    ///
    /// [`ConsulError::ChecksTooMany`], [`ConsulError::NodeUnknown`] without `new`, or what the
    /// store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open; doing it again does no harm.
    pub async fn register_node(
        &self,
        node: &str,
        new: Option<&NodeRecord>,
        checks: &[NewCheck],
    ) -> Result<(), ConsulError> {
        let unix_ms = self.shared.timer.unix_millis();
        let done =
            self.edit_node(node, |before| match registered(node, before, new, checks, unix_ms) {
                Ok(record) => Edit::Write(Box::new(record), Ok(())),
                Err(refused) => Edit::Leave(Err(refused)),
            });
        done.await?
    }

    /// What [`register_node`](Consul::register_node) writes, to be written together with services.
    ///
    /// # Errors
    ///
    /// As [`register_node`](Consul::register_node).
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn plan_node(
        &self,
        node: &str,
        new: Option<&NodeRecord>,
        checks: &[NewCheck],
    ) -> Result<Beside, ConsulError> {
        let key = consul_node(node).ok_or_else(|| ConsulError::NodeName(node.to_owned()))?;
        let entry = self.shared.store.get(Get::new(key.clone())).await?.entry;
        let written = entry.as_ref().map_or(Revision::NEVER, |entry| entry.mod_revision);
        let before = entry.as_ref().map(NodeRecord::read).transpose()?;
        let unix_ms = self.shared.timer.unix_millis();
        let after = registered(node, before.clone(), new, checks, unix_ms)?;
        if before.as_ref() == Some(&after) {
            return Ok(Beside::default());
        }
        let compare = Compare::unchanged_since(&key, written);
        Ok(Beside::one(compare, Put::new(key, after.write())))
    }

    /// Removes a node's record; `false` when it has none. That of a process that is here comes
    /// back when it starts again.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open; doing it again does no harm.
    pub async fn forget_node(&self, node: &str) -> Result<bool, ConsulError> {
        self.edit_node(node, |before| match before {
            None => Edit::Leave(false),
            Some(_) => Edit::Delete(true),
        })
        .await
    }

    /// Has a node checked once more; one of this name is replaced, and goes on standing as it
    /// stood.
    ///
    /// # Errors
    ///
    /// [`ConsulError::ChecksTooMany`], [`ConsulError::NodeUnknown`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open; doing it again does no harm.
    pub async fn put_node_check(&self, node: &str, new: &NewCheck) -> Result<(), ConsulError> {
        let unix_ms = self.shared.timer.unix_millis();
        let done = self.edit_node(node, |before| {
            let unknown = || ConsulError::NodeUnknown(node.to_owned());
            let Some(mut record) = before else { return Edit::Leave(Err(unknown())) };
            if !record.put_check(new, unix_ms, false) {
                return Edit::Leave(Err(ConsulError::ChecksTooMany));
            }
            Edit::Write(Box::new(record), Ok(()))
        });
        done.await?
    }

    /// Has a node checked once less; `false` when there is no such check.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open; doing it again does no harm.
    pub async fn drop_node_check(&self, node: &str, id: &str) -> Result<bool, ConsulError> {
        self.edit_node(node, |before| {
            let Some(mut record) = before else { return Edit::Leave(false) };
            if record.drop_check(id) {
                Edit::Write(Box::new(record), true)
            } else {
                Edit::Leave(false)
            }
        })
        .await
    }

    /// Says how a check of a node stands; `false` when there is no such check.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open; doing it again does no harm.
    pub async fn set_node_check(
        &self,
        node: &str,
        id: &str,
        health: Health,
        output: &str,
    ) -> Result<bool, ConsulError> {
        let unix_ms = self.shared.timer.unix_millis();
        self.edit_node(node, |before| {
            let Some(mut record) = before else { return Edit::Leave(false) };
            let is_there = record.set_check(id, health, output, unix_ms);
            if is_there { Edit::Write(Box::new(record), true) } else { Edit::Leave(false) }
        })
        .await
    }

    /// Takes this node into maintenance for a reason, or out of it.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open; doing it again does no harm.
    pub async fn maintain_node(&self, reason: Option<&str>) -> Result<(), ConsulError> {
        let options = &self.shared.options;
        self.edit_node(options.node.as_str(), |before| {
            let mut record = NodeRecord::started(before, &options.address);
            record.maintenance = reason.map(str::to_owned);
            Edit::Write(Box::new(record), ())
        })
        .await
    }

    /// The record of `node`, if it has one.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn node(&self, node: &str) -> Result<Option<NodeRecord>, ConsulError> {
        let Some(key) = consul_node(node) else { return Ok(None) };
        let entry = self.shared.store.get(Get::new(key)).await?.entry;
        entry.as_ref().map(NodeRecord::read).transpose()
    }
}

/// A node's record once it is registered with checks: what is not said stays as it was.
fn registered(
    node: &str,
    before: Option<NodeRecord>,
    new: Option<&NodeRecord>,
    checks: &[NewCheck],
    unix_ms: u64,
) -> Result<NodeRecord, ConsulError> {
    let mut record = match (before, new) {
        (None, None) => return Err(ConsulError::NodeUnknown(node.to_owned())),
        (None, Some(new)) => new.clone(),
        (Some(before), None) => before,
        (Some(before), Some(new)) => {
            let mut after = before.clone();
            after.address.clone_from(&new.address);
            if !before.is_agent {
                if !new.id.is_empty() {
                    after.id.clone_from(&new.id);
                }
                after.tagged_addresses.clone_from(&new.tagged_addresses);
                after.meta.clone_from(&new.meta);
            }
            after
        }
    };
    let room = |check: &NewCheck| record.put_check(check, unix_ms, true);
    if checks.iter().map(room).fold(true, |all, has| all & has) {
        Ok(record)
    } else {
        Err(ConsulError::ChecksTooMany)
    }
}

/// The node `entry` is the record of, and the record.
pub(super) fn listed(entry: &Entry) -> Result<(String, NodeRecord), ConsulError> {
    let unreadable = || ConsulError::Unreadable(entry.key.to_string());
    let name = consul_node_name(&entry.key).ok_or_else(unreadable)?;
    Ok((name, NodeRecord::read(entry)?))
}
