//! A switch, as written and as meant.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::setting::{Setting, SwitchType};
use crate::moment::Moment;
use crate::revisions::Fault;

/// Largest content of a switch, in bytes: a plan sets 60 of them in one batch of 1,400,000 bytes,
/// each written twice.
pub const CONTENT_BYTES_MAX: usize = 4_096;

/// Most instances a switch is set apart for.
pub const OVERRIDES_MAX: usize = 64;

/// Longest description, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 1_024;

/// A switch as written: every field optional.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
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
    rest: Map<String, Value>,
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
    pub fn read(content: &Value) -> Result<Self, Vec<Fault>> {
        let raw: RawSwitch = serde_json::from_value(content.clone())
            .map_err(|error| vec![Fault::new("", "config-wrong-type", error.to_string())])?;
        let mut faults = Vec::new();
        let missing =
            |member| Fault::new(member, "config-wrong-type", format!("{member} is missing"));
        let Some(kind) = raw.kind else { return Err(vec![missing("type")]) };
        let mut setting = |path: String, value: Option<&Value>| {
            let read = value.and_then(|value| Setting::read(kind, value));
            if read.is_none() {
                let detail = format!("{path} must be {}", kind.wanted());
                faults.push(Fault::new(path, "switch-type", detail));
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
            faults.push(Fault::new("default", "config-contradiction", detail));
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

/// Finds what is wrong with a content that somebody writes.
pub(super) fn check(content: &Value) -> Vec<Fault> {
    let mut faults = Switch::read(content).err().unwrap_or_default();
    let Ok(raw) = serde_json::from_value::<RawSwitch>(content.clone()) else { return faults };
    for name in raw.rest.keys() {
        faults.push(Fault::new(
            name,
            "config-unknown-key",
            format!("{name} is no member of a switch"),
        ));
    }
    let mut at_most = |path: &str, found: usize, max: usize, unit: &str| {
        if max < found {
            let detail = format!("{path} has {found} {unit}, more than {max}");
            faults.push(Fault::new(path, "config-out-of-range", detail));
        }
    };
    at_most("overrides", raw.overrides.len(), OVERRIDES_MAX, "instances");
    at_most("description", raw.description.len(), DESCRIPTION_BYTES_MAX, "bytes");
    at_most("content", content.to_string().len(), CONTENT_BYTES_MAX, "bytes");
    faults
}

/// `content` with this value until then, all else as it is.
pub(crate) fn with_value(content: &Value, value: &Value, until: Option<Moment>) -> Value {
    let mut content = content.clone();
    if let Value::Object(members) = &mut content {
        let before = members.insert("value".to_owned(), value.clone());
        match until {
            Some(until) => {
                // What comes then was the value, where nothing else was said.
                members.entry("default").or_insert_with(|| before.unwrap_or_default());
                members.insert("until".to_owned(), Value::String(until.to_string()));
            }
            None => drop(members.remove("until")),
        }
    }
    content
}

/// `content` once its time is over.
pub(crate) fn over(content: &Value) -> Value {
    let default = content.get("default").cloned().unwrap_or_default();
    with_value(content, &default, None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn faults(content: &Value, want: &[(&str, &str)]) {
        let found = check(content);
        let found: Vec<_> = found.iter().map(|fault| (&*fault.path, fault.code)).collect();
        assert_eq!(found, want, "{content}");
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        faults(&json!({"type": "boolean", "value": true}), &[]);
        faults(&json!({"value": true}), &[("type", "config-wrong-type")]);
        faults(
            &json!({"type": "percent", "value": 101, "default": "x", "overrides": {"i": true}}),
            &[("value", "switch-type"), ("default", "switch-type"), ("overrides/i", "switch-type")],
        );
        faults(
            &json!({"type": "number", "value": 1, "until": "2026-01-02T03:04:05Z", "vaule": 1}),
            &[("default", "config-contradiction"), ("vaule", "config-unknown-key")],
        );
        let many: Map<String, Value> = (0..65).map(|n| (n.to_string(), json!(1))).collect();
        faults(
            &json!({"type": "number", "value": 1, "overrides": many, "description": "x".repeat(4_000)}),
            &[
                ("overrides", "config-out-of-range"),
                ("description", "config-out-of-range"),
                ("content", "config-out-of-range"),
            ],
        );
        let wrong = check(&json!({"type": "colour"}));
        assert_eq!((wrong.len(), wrong[0].code), (1, "config-wrong-type"));
    }

    proptest! {
        /// Whatever the moment: an instance with a value of its own has that, everybody else the
        /// value until its time is over, and then the default, exactly as what the server writes.
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
            let after = Switch::read(&over(&content)).unwrap();
            prop_assert_eq!(after.at(at(now), None), switch.at(at(u64::MAX), None));
            prop_assert_eq!(after.at(at(now), Some("i")), &Setting::Number(3.0));
        }

        /// Whatever content somebody sends: looking at it does not fail.
        #[test]
        fn any_content_can_be_looked_at(text in "\\PC{0,20}", number: f64, on: bool) {
            for value in [json!(text), json!(number), json!(on), json!([text]), json!({"a": on})] {
                drop(check(&json!({"type": "number", "value": value, "until": value})));
                drop(check(&value));
            }
        }
    }
}
