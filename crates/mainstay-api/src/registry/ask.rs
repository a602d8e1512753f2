//! What is asked of the registry.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Registers an instance, or changes what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Register {
    /// That of the path; may be left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// IP address or host name.
    pub address: Option<String>,
    /// Its port. Default 0: none of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Further ports, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u16>,
    /// Default ephemeral. The same for all instances of a service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Share of the calls, relative to the others. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Where it runs, at most 255 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Which build it is, at most 255 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Labels without a value: at most 64 of at most 255 bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Labels with one: at most 64 pairs, keys of 1 to 128 bytes, values of at most 512.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// `up` (default) or `starting`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// How it is. Default passing; unknown when it has active checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Health>,
    /// How long it lives from one heartbeat to the next, 5 to 86,400 s. Default as configured,
    /// 15 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u32>,
    /// How long after its last sign of life it is removed. Default twice the ttl; never for a
    /// persistent one, else at least 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove_after_seconds: Option<u32>,
    /// Chosen by the caller, so that sending it again changes nothing. 1 to 255 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registration: Option<String>,
}

/// Whether an instance is removed when nothing is heard of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It beats, and goes when it stops.
    #[default]
    Ephemeral,
    /// It stays until it is removed.
    Persistent,
}

/// What is meant to be with an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It takes calls.
    #[default]
    Up,
    /// Not yet.
    Starting,
    /// No new ones.
    Draining,
    /// None.
    Down,
}

/// How an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// All is well.
    Passing,
    /// It answers, but something is not as it should be; it is still called.
    Warning,
    /// It is not called.
    Critical,
    /// Nothing is known yet.
    Unknown,
}

/// An instance is registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Registered {
    /// The revision that holds it.
    pub revision: u64,
    /// Which registration it is.
    pub registration: String,
    /// How long it lives from one heartbeat to the next.
    pub ttl_seconds: u32,
    /// How often it should beat.
    pub beat_every_seconds: u32,
}

/// A change was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Written {
    /// The revision that holds it.
    pub revision: u64,
}

/// An instance by its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceName {
    /// Its namespace. Default `default`.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Its service.
    pub service: String,
    /// Its id.
    pub id: String,
}

/// Many heartbeats at once, at most 1,000.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Heartbeats {
    /// Who beats.
    pub instances: Vec<InstanceName>,
}

/// Those of many heartbeats that nobody knows: to be registered again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Missing {
    /// Which.
    pub missing: Vec<InstanceName>,
}

/// Takes an instance out of use: no new calls, then it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// How long calls under way have, 0 to 3,600.
    pub seconds: u32,
}

impl Default for Drain {
    fn default() -> Self {
        Self { seconds: 30 }
    }
}

/// Takes an instance into maintenance, or out of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    /// Into it.
    pub enable: bool,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// Sets an instance's share of the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Weight {
    /// Relative to the others; 0 is never picked.
    pub weight: u16,
}

/// A report of a ttl check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckReport {
    /// The check.
    pub name: String,
    /// What it says.
    pub status: Health,
    /// For people.
    #[serde(default)]
    pub output: String,
}

/// What a caller met at an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Observed {
    /// Which instance.
    #[serde(flatten)]
    pub instance: InstanceName,
    /// Who met it.
    pub reporter: String,
    /// How many callers the service has, as far as the reporter knows.
    #[serde(default = "one")]
    pub callers: u32,
    /// What it met.
    #[serde(default)]
    pub why: String,
}

const fn one() -> u32 {
    1
}

fn default_namespace() -> String {
    "default".to_owned()
}
