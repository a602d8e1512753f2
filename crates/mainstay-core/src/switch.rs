//! Switches: values that people turn while everything runs.
//!
//! What a switch is at a moment, for an instance and a caller, has to be the same for the nodes
//! that keep it and for every program that reads it, also while no node is there. So it is decided
//! here.

mod setting;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::moment::Moment;
use crate::problem::Code;

pub use setting::{BUCKETS, Percent, Setting, SwitchType, bucket};

/// Something that is wrong with a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Which member: `overrides/i1`; empty for the whole.
    pub path: String,
    /// What kind of fault it is.
    pub code: Code,
    /// What is wrong.
    pub detail: String,
}

impl Wrong {
    fn new(path: impl Into<String>, code: Code, detail: impl Into<String>) -> Self {
        Self { path: path.into(), code, detail: detail.into() }
    }
}

/// A switch as written: every field optional.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
#[schema(as = Switch)]
pub struct RawSwitch {
    /// What kind of value it has.
    #[serde(rename = "type")]
    pub kind: Option<SwitchType>,
    /// Its value.
    pub value: Option<Value>,
    /// What it is when its time is over; the value, unless told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// What it is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Until when it has its value; from then on the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
    /// Instances that have a value of their own, whatever the time.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub overrides: BTreeMap<String, Value>,
    /// What a newer version wrote.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A switch. Needs no further check.
#[derive(Clone, Debug, PartialEq)]
pub struct Switch {
    kind: SwitchType,
    value: Setting,
    default: Setting,
    until: Option<Moment>,
    overrides: BTreeMap<String, Setting>,
}

impl Switch {
    /// Reads a content; members nobody knows are left alone.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn read(content: &Value) -> Result<Self, Vec<Wrong>> {
        let raw: RawSwitch = serde_json::from_value(content.clone())
            .map_err(|error| vec![Wrong::new("", Code::ConfigWrongType, error.to_string())])?;
        let mut faults = Vec::new();
        let Some(kind) = raw.kind else {
            return Err(vec![Wrong::new("type", Code::ConfigWrongType, "type is missing")]);
        };
        let mut setting = |path: String, value: Option<&Value>| {
            let read = value.and_then(|value| Setting::read(kind, value));
            if read.is_none() {
                let detail = format!("{path} must be {}", kind.wanted());
                faults.push(Wrong::new(path, Code::SwitchType, detail));
            }
            read
        };
        let value = setting("value".to_owned(), raw.value.as_ref());
        let default = setting("default".to_owned(), raw.default.as_ref().or(raw.value.as_ref()));
        let overrides: BTreeMap<String, Setting> = raw
            .overrides
            .iter()
            .filter_map(|(instance, value)| {
                let own = setting(format!("overrides/{instance}"), Some(value))?;
                Some((instance.clone(), own))
            })
            .collect();
        if raw.until.is_some() && raw.default.is_none() {
            let detail = "default must be given with until: it is what comes then";
            faults.push(Wrong::new("default", Code::ConfigContradiction, detail));
        }
        match (value, default) {
            (Some(value), Some(default)) if faults.is_empty() => {
                Ok(Self { kind, value, default, until: raw.until, overrides })
            }
            _ => Err(faults),
        }
    }

    /// What kind of value it has.
    pub const fn kind(&self) -> SwitchType {
        self.kind
    }

    /// Until when it has its value.
    pub const fn until(&self) -> Option<Moment> {
        self.until
    }

    /// Whether its time is over at `now`.
    pub fn is_over(&self, now: Moment) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// What it is for `instance` at `now`: what the instance has of its own, else the value until
    /// its time is over, then the default.
    pub fn at(&self, now: Moment, instance: Option<&str>) -> &Setting {
        let own = instance.and_then(|instance| self.overrides.get(instance));
        own.unwrap_or_else(|| if self.is_over(now) { &self.default } else { &self.value })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        /// Whatever the moment: an instance with a value of its own has that, everybody else the
        /// value until its time is over, and then the default.
        #[test]
        fn a_switch_is_what_its_time_says(now in 0u64..2_000, until in 0u64..2_000, own: bool) {
            let at = Moment::from_unix_millis;
            let content = json!({
                "type": "number", "value": 1, "default": 2, "until": at(until).to_string(),
                "overrides": {"i": 3}
            });
            let switch = Switch::read(&content).unwrap();
            let want = if own { 3.0 } else if now < until { 1.0 } else { 2.0 };
            let instance = own.then_some("i");
            prop_assert_eq!(switch.at(at(now), instance), &Setting::Number(want));
        }
    }
}
