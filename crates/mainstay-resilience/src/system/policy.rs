//! `[system]`, as written and resolved.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::invalid::{Invalid, within};

/// How much a call matters while there is not room for all.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Shed first.
    Low,
    /// What a call is unless its route says otherwise.
    #[default]
    Normal,
    /// Shed last.
    High,
    /// Never shed.
    Critical,
}

/// The `[system]` table as written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_field_names, reason = "these are the keys of the table")]
pub struct RawSystem {
    /// Processor use, in percent of what the process may use, from which on calls are shed; 0 to
    /// 100, 0 is off. Default 85.
    pub cpu_percent_max: Option<f64>,
    /// Memory use, in percent of what the process may use, from which on calls are shed; 0 to 100,
    /// 0 is off. Default 90.
    pub memory_percent_max: Option<f64>,
    /// Load average per processor from which on calls are shed; 0 to 1000, 0 is off. Default 0.
    pub load_per_core_max: Option<f64>,
}

/// The `[system]` table, resolved. None turns a condition off.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::struct_field_names, reason = "these are the keys of the table")]
pub struct SystemPolicy {
    /// Percent of the processor time there is.
    pub cpu_percent_max: Option<f64>,
    /// Percent of the memory there is.
    pub memory_percent_max: Option<f64>,
    /// Load average per processor.
    pub load_per_core_max: Option<f64>,
}

impl Default for SystemPolicy {
    fn default() -> Self {
        Self::try_from(RawSystem::default()).expect("every default lies in its range")
    }
}

impl TryFrom<RawSystem> for SystemPolicy {
    type Error = Invalid;

    fn try_from(raw: RawSystem) -> Result<Self, Invalid> {
        let threshold = |path, written: Option<f64>, default, max| {
            let value = within(path, written.unwrap_or(default), 0.0, max)?;
            Ok::<_, Invalid>((value > 0.0).then_some(value))
        };
        Ok(Self {
            cpu_percent_max: threshold("cpu_percent_max", raw.cpu_percent_max, 85.0, 100.0)?,
            memory_percent_max: threshold(
                "memory_percent_max",
                raw.memory_percent_max,
                90.0,
                100.0,
            )?,
            load_per_core_max: threshold("load_per_core_max", raw.load_per_core_max, 0.0, 1000.0)?,
        })
    }
}
