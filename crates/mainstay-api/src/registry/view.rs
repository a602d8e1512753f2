//! What a service looks like.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A service with its instances at one revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub service: String,
    /// When it last changed. The list holds all that was written up to then, and nothing older.
    pub revision: u64,
    /// Set while too many went at once.
    pub protected: Option<Protected>,
    /// The store is away; this is the last that was heard of it.
    pub stale: bool,
    /// How long it has been away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_seconds: Option<f64>,
    /// History was lost in between: this is not the next state after the last one, though it is
    /// right.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resync: bool,
    /// Why there is no instance, when there is none: `deregistered`, `expired`, `never
    /// registered`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_because: Option<String>,
    /// Those asked for, by id.
    pub instances: Vec<Instance>,
}

/// How far a service was followed, without a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceAt {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub service: String,
    /// When it last changed.
    pub revision: u64,
}

/// That too many went at once, so everybody is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Protected {
    /// Since when.
    pub since: String,
    /// Why, for people.
    pub reason: String,
    /// How many of those that count are healthy.
    pub healthy: u32,
    /// How many count.
    pub total: u32,
}

/// One instance of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// IP address or host name.
    pub address: String,
    /// Its port; 0 when it has none of its own.
    pub port: u16,
    /// Further ports, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u16>,
    /// `ephemeral` or `persistent`.
    pub kind: String,
    /// Share of the calls, relative to the others; 0 is never picked.
    pub weight: u16,
    /// Where it runs; empty when unknown.
    pub zone: String,
    /// Which build it is; empty when unknown.
    pub version: String,
    /// Labels without a value.
    pub tags: Vec<String>,
    /// Labels with one.
    pub metadata: BTreeMap<String, String>,
    /// What is meant to be with it: `up`, `starting`, `draining`, `down`. Only `up` takes calls.
    pub state: String,
    /// How it is: `passing`, `warning`, `critical`, `unknown`.
    pub health: String,
    /// Why it is not passing.
    pub reason: Option<String>,
    /// Its checks.
    pub checks: Vec<CheckState>,
    /// How long it drains, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_seconds: Option<u32>,
    /// It would have been removed, had too many not gone at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removal_held: bool,
    /// How long it lives from one heartbeat to the next.
    pub ttl_seconds: u32,
    /// How long after its last sign of life it is removed; never when absent.
    pub remove_after_seconds: Option<u32>,
    /// The node that looks after it.
    pub owner: String,
    /// When it registered.
    pub registered_at: String,
    /// When its state or health last changed.
    pub changed_at: String,
    /// When what is shown of it last changed.
    pub revision: u64,
}

/// A check of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckState {
    /// Its name.
    pub name: String,
    /// What it says: `passing`, `warning`, `critical`, `unknown`.
    pub health: String,
    /// What it was told.
    pub output: String,
    /// When it last changed.
    pub changed_at: String,
}

impl Instance {
    /// Its share of the calls, all things considered: 0 unless it is up.
    pub fn effective_weight(&self) -> u16 {
        if self.state == "up" { self.weight } else { 0 }
    }

    /// Whether a balancer may pick it: offered, and not known to be critical.
    pub fn is_usable(&self) -> bool {
        0 < self.effective_weight() && self.health != "critical"
    }
}
