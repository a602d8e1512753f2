//! What may be written of a switch, and what a change makes of it.

use mainstay_core::switch::{RawSwitch, Switch, Wrong};
use serde_json::Value;

use crate::moment::Moment;
use crate::revisions::Fault;

/// Largest content of a switch, in bytes: a plan sets 60 of them in one batch of 1,400,000 bytes,
/// each written twice.
pub const CONTENT_BYTES_MAX: usize = 4_096;

/// Most instances a switch is set apart for.
pub const OVERRIDES_MAX: usize = 64;

/// Longest description, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 1_024;

/// Finds what is wrong with a content that somebody writes.
pub(super) fn check(content: &Value) -> Vec<Fault> {
    let mut faults = faults(Switch::read(content));
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

fn faults(read: Result<Switch, Vec<Wrong>>) -> Vec<Fault> {
    let wrong = read.err().unwrap_or_default().into_iter();
    wrong.map(|Wrong { path, code, detail }| Fault::new(path, code.as_str(), detail)).collect()
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
    use serde_json::{Map, json};

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
        /// Whatever the moment: what is written when the time of a switch is over says what whoever
        /// reads it says by itself.
        #[test]
        fn what_is_written_then_is_what_is_read(now in 0u64..2_000, until in 0u64..2_000) {
            let at = Moment::from_unix_millis;
            let content = json!({
                "type": "number", "value": 1, "default": 2, "until": at(until).to_string(),
                "overrides": {"i": 3}
            });
            let switch = Switch::read(&content).unwrap();
            let after = Switch::read(&over(&content)).unwrap();
            prop_assert_eq!(after.at(at(now), None), switch.at(at(u64::MAX), None));
            prop_assert_eq!(after.at(at(now), Some("i")), switch.at(at(now), Some("i")));
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
