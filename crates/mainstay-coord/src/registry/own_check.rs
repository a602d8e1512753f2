//! Checks of one instance alone, beside those of its service, and what clients of Consul say of an
//! instance that the registry has no word for.
//!
//! Both lie in the record of the instance: it is written at once, is gone at once, and there is no
//! second account of what is checked.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::instance::CheckStatus;
use crate::health::Health;
use crate::health::check::{Check, CheckKind, RawCheck};

/// A check of one instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OwnCheck {
    /// Its name, unique within the instance.
    pub id: String,
    /// What people call it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// What people should know of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notes: String,
    /// What is done; nothing, when whoever wrote it says how it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RawCheck>,
    /// Where it is sent instead of to the instance's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// ttl: how long a report is good, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_milliseconds: Option<u64>,
    /// How long it may be critical before the instance is removed; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_after_seconds: Option<u32>,
    /// What it does, as its client wrote it: shown.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub definition: Map<String, Value>,
}

impl OwnCheck {
    /// What is done; `None` when nothing is, or nobody knows what.
    pub fn check(&self) -> Option<Check> {
        let mut check = Check::try_from(self.run.as_ref()?).ok()?;
        check.name.clone_from(&self.id);
        check.host.clone_from(&self.host);
        if let (CheckKind::Ttl { ttl }, Some(millis)) = (&mut check.kind, self.ttl_milliseconds) {
            *ttl = Duration::from_millis(millis);
        }
        Some(check)
    }

    /// The word for what is done: `http`, `tcp`, `grpc`, `ttl`, or nothing.
    pub fn kind(&self) -> &str {
        self.run.as_ref().map_or("", |run| &run.kind)
    }
}

/// A check of one instance, and how it stands to begin with.
#[derive(Clone, Debug, PartialEq)]
pub struct NewCheck {
    /// The check.
    pub check: OwnCheck,
    /// How it stands until something else is known.
    pub health: Health,
    /// What it says until then.
    pub output: String,
}

impl NewCheck {
    pub(crate) fn status(&self, unix_ms: u64) -> CheckStatus {
        CheckStatus { health: self.health, output: self.output.clone(), changed_unix_ms: unix_ms }
    }
}

/// A service as clients of Consul registered it, beside what every instance has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsulService {
    /// The node it belongs to, in Consul's sense.
    pub node: String,
    /// Its id, unique on its node.
    pub id: String,
    /// Its address as it was given; empty when it is that of its node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Further addresses, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tagged_addresses: BTreeMap<String, TaggedAddress>,
    /// Its weight while a check warns. The instance's weight is that while all pass.
    pub weight_warning: u16,
    /// Whether others may change its tags: shown.
    pub enable_tag_override: bool,
    /// `connect-proxy` and the like; empty for an ordinary service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// What it is a proxy for, as it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Value>,
    /// How it takes part in a mesh, as it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<Value>,
}

/// One of several addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaggedAddress {
    /// IP address or host name.
    pub address: String,
    /// Its port.
    pub port: u16,
}
