//! A plan, as written and as meant.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::name::RuleName;
use crate::revisions::Fault;

/// Most switches of a plan: two operations each, and two for the plan itself, fit into a batch of
/// 128.
pub const SWITCHES_MAX: usize = 60;

/// Longest time a plan can be active by itself: 30 days.
pub const ACTIVE_SECONDS_MAX: u64 = 30 * 86_400;

/// A plan as written: every field optional.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
#[schema(as = Plan)]
pub struct RawPlan {
    /// What it is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What each switch is to be, by name; in the plan's own namespace.
    pub switches: BTreeMap<String, Value>,
    /// After how many seconds it is deactivated by itself, 1 to 2,592,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_active_seconds: Option<u64>,
    /// What a newer version wrote.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// A plan. Needs no further check, but that its switches are there.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What each switch is to be; 1 to 60.
    pub switches: BTreeMap<RuleName, Value>,
    /// After what time it is deactivated by itself.
    pub max_active: Option<Duration>,
}

impl Plan {
    /// Reads a content; members nobody knows are left alone.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn read(content: &Value) -> Result<Self, Vec<Fault>> {
        let raw: RawPlan = serde_json::from_value(content.clone())
            .map_err(|error| vec![Fault::new("", "config-wrong-type", error.to_string())])?;
        let mut faults = Vec::new();
        let mut switches = BTreeMap::new();
        for (name, value) in raw.switches {
            match RuleName::new(name.clone()) {
                Ok(name) => drop(switches.insert(name, value)),
                Err(error) => {
                    let path = format!("switches/{name}");
                    faults.push(Fault::new(path, "config-out-of-range", error.to_string()));
                }
            }
        }
        if !(1..=SWITCHES_MAX).contains(&switches.len()) {
            let detail = format!("switches must be 1 to {SWITCHES_MAX}, not {}", switches.len());
            faults.push(Fault::new("switches", "config-out-of-range", detail));
        }
        if raw.max_active_seconds.is_some_and(|s| !(1..=ACTIVE_SECONDS_MAX).contains(&s)) {
            let detail = format!("max_active_seconds must be 1 to {ACTIVE_SECONDS_MAX}");
            faults.push(Fault::new("max_active_seconds", "config-out-of-range", detail));
        }
        let max_active = raw.max_active_seconds.map(Duration::from_secs);
        if faults.is_empty() { Ok(Self { switches, max_active }) } else { Err(faults) }
    }
}

/// Finds what is wrong with a content that somebody writes.
pub(super) fn check(content: &Value) -> Vec<Fault> {
    let mut faults = Plan::read(content).err().unwrap_or_default();
    if let Ok(raw) = serde_json::from_value::<RawPlan>(content.clone()) {
        faults.extend(raw.rest.keys().map(|name| {
            Fault::new(name, "config-unknown-key", format!("{name} is no member of a plan"))
        }));
    }
    faults
}
