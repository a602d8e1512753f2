//! Instances as the balancer sees them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The instances of a service, and who of them can be picked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Balance {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `round_robin`, `random`, `least_request`, `peak_ewma`, `ring_hash`, `maglev`.
    #[serde(rename = "balance")]
    pub kind: String,
    /// Whether instances that look unusable are used, or nobody is.
    pub panic: bool,
    /// Its priority levels.
    pub levels: Vec<BalanceLevel>,
    /// Its instances.
    pub items: Vec<BalanceInstance>,
}

/// One priority level of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BalanceLevel {
    /// Which: 0 is the first.
    pub level: u32,
    /// Instances of it.
    pub instances: u64,
    /// Those that can be picked.
    pub usable: u64,
    /// How healthy it counts.
    pub health_percent: f64,
    /// The share of the calls it gets.
    pub load_percent: f64,
    /// Set while too few can be picked.
    pub panic: Option<BalancePanic>,
}

/// Why a level is in panic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BalancePanic {
    /// `protected` or `few_usable`.
    pub reason: String,
    /// Since when.
    pub since: Option<String>,
}

/// An instance as the balancer sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BalanceInstance {
    /// Its name.
    pub instance: String,
    /// Where it is reached.
    pub address: String,
    /// Whether it can be picked.
    pub usable: bool,
    /// Why not.
    pub why_not: Option<String>,
    /// Its share, relative to the others.
    pub weight: u32,
    /// Its level.
    pub priority: u32,
    /// Where it runs; empty when unknown.
    pub zone: String,
    /// Calls under way.
    pub in_flight: u32,
    /// What a call is expected to take.
    pub estimate_seconds: Option<f64>,
    /// Until when it is ejected.
    pub ejected_until: Option<String>,
    /// Since when it is known.
    pub since: Option<String>,
    /// Its circuits.
    pub circuits: Vec<BalanceCircuit>,
}

/// A circuit of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BalanceCircuit {
    /// `policy/subject`.
    pub id: String,
    /// Where it stands.
    pub state: String,
}
