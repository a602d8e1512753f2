//! What differs between two contents.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use similar::TextDiff;

/// Longest search for the smallest difference; then a larger one is told.
const SEARCH_MAX: Duration = Duration::from_millis(100);

/// Most fields told one by one; the text has them all.
const FIELDS_MAX: usize = 1_000;

/// What differs between two revisions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = ObjectDiff)]
pub struct Diff {
    /// From this revision; 0 is nothing.
    pub from: u64,
    /// To this one; of a dry run, the number it would get.
    pub to: u64,
    /// The lines that differ, as `diff -u` writes them.
    pub unified: String,
    /// The fields that differ, by path; at most 1,000.
    pub fields: Vec<FieldChange>,
}

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct FieldChange {
    /// Where: members and indexes separated by `/`; empty is the whole content.
    pub path: String,
    /// What it was; null where it was not there.
    pub before: Value,
    /// What it became; null where it is no longer there.
    pub after: Value,
}

impl Diff {
    /// What differs between two contents. Contents that are texts are compared as they are, all
    /// others as JSON with one field a line.
    pub fn between((from, before): (u64, &Value), (to, after): (u64, &Value)) -> Self {
        let (old, new) = (text(before), text(after));
        let mut lines = TextDiff::configure();
        lines.timeout(SEARCH_MAX);
        let lines = lines.diff_lines(&*old, &*new);
        let (from_name, to_name) = (format!("revision {from}"), format!("revision {to}"));
        let unified = lines.unified_diff().header(&from_name, &to_name).to_string();
        let mut fields = Vec::new();
        compare(&mut fields, String::new(), before, after);
        Self { from, to, unified, fields }
    }
}

fn text(content: &Value) -> String {
    let mut text = match content {
        Value::Null => return String::new(),
        Value::String(text) => text.clone(),
        other => format!("{other:#}"),
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn compare(fields: &mut Vec<FieldChange>, path: String, before: &Value, after: &Value) {
    if before == after || fields.len() == FIELDS_MAX {
        return;
    }
    let under = |member: &str| {
        if path.is_empty() { member.to_owned() } else { format!("{path}/{member}") }
    };
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, before) in old {
                compare(fields, under(name), before, new.get(name).unwrap_or(&Value::Null));
            }
            for (name, after) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                compare(fields, under(name), &Value::Null, after);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for at in 0..old.len().max(new.len()) {
                let of = |list: &[Value]| list.get(at).cloned().unwrap_or_default();
                compare(fields, under(&at.to_string()), &of(old), &of(new));
            }
        }
        _ => {
            let (before, after) = (before.clone(), after.clone());
            fields.push(FieldChange { path, before, after });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_is_told_by_line_and_by_field() {
        let before = json!({"value": true, "until": "x", "list": [1, 2]});
        let after = json!({"value": false, "list": [1, 3, 4], "note": "n"});
        let diff = Diff::between((41, &before), (42, &after));
        let fields: Vec<(&str, String)> = diff
            .fields
            .iter()
            .map(|field| (&*field.path, format!("{} → {}", field.before, field.after)))
            .collect();
        assert_eq!(
            fields,
            [
                ("list/1", "2 → 3".to_owned()),
                ("list/2", "null → 4".to_owned()),
                ("until", "\"x\" → null".to_owned()),
                ("value", "true → false".to_owned()),
                ("note", "null → \"n\"".to_owned()),
            ]
        );
        assert!(diff.unified.starts_with("--- revision 41\n+++ revision 42\n"), "{}", diff.unified);
        for line in ["-  \"value\": true\n", "+  \"value\": false\n"] {
            assert!(diff.unified.contains(line), "{}", diff.unified);
        }
    }

    proptest! {
        /// Whatever two contents: nothing differs exactly when they are equal, but for members
        /// that are null.
        #[test]
        fn equal_contents_do_not_differ(a in 0u8..3, b in 0u8..3, c in "[a-c]{0,2}", d in "[a-c]{0,2}") {
            let one = json!({"n": a, "t": [c, {"x": b}]});
            let two = json!({"n": b, "t": [d, {"x": a}]});
            let diff = Diff::between((1, &one), (2, &two));
            prop_assert_eq!(diff.fields.is_empty(), one == two);
            prop_assert_eq!(diff.unified.is_empty(), one == two);
        }
    }
}
