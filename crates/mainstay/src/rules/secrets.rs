//! Secrets in the text of a rule: shown as marks, and taken back where a mark comes in.
//!
//! A rule may hold a secret, such as the `authorization` that a route sets. Whoever reads the rule
//! sees a [mark](Mask::mark) in its place, by which equal secrets can be told. Reading a rule,
//! changing a line and putting it back is the usual way to change one, so a mark that stands for a
//! secret of the rule as it is means that secret.

use std::ops::Range;

use mainstay_coord::audit::Mask;
use mainstay_coord::revisions::Fault;
use mainstay_core::problem::Code;
use serde_json::Value as Json;

use crate::settings::origin::{HIDDEN, is_secret};
use crate::settings::parse::{Language, parse};
use crate::settings::spans::{Place, Text};
use crate::settings::tree::{Node, Value, join};

/// What is shown of a table of a file, which nobody puts back.
pub fn without_secrets(table: Json) -> Json {
    hidden(table, false)
}

fn hidden(value: Json, is_one: bool) -> Json {
    match value {
        Json::Object(members) => {
            let members = members.into_iter().map(|(name, value)| {
                let value = hidden(value, is_one || is_secret(&name));
                (name, value)
            });
            Json::Object(members.collect())
        }
        Json::Array(items) => items.into_iter().map(|value| hidden(value, is_one)).collect(),
        Json::String(_) | Json::Number(_) if is_one => Json::String(HIDDEN.to_owned()),
        other => other,
    }
}

/// What is shown of a content: the text of a table.
pub fn shown(mask: &Mask, content: Json) -> Json {
    match content {
        Json::String(text) => Json::String(masked(mask, &text)),
        other => other,
    }
}

/// `text` with a mark in the place of each secret.
pub fn masked(mask: &Mask, text: &str) -> String {
    let source = Text::new("rule", text);
    let (root, faults) = parse(Language::Toml, &source);
    if !faults.is_empty() {
        // Where its secrets stand cannot be told.
        return format!("# {}\n", mask.mark(&Json::String(text.to_owned())));
    }
    let mut parts = Vec::new();
    for secret in secrets(&root) {
        parts.push((secret.span, format!("{:?}", mask.mark(&secret.value))));
    }
    replaced(&source.body, parts)
}

/// `text` with the secrets of `before` in the place of their marks.
///
/// # Errors
///
/// A fault for each mark that stands for no secret of `before`.
pub fn unmasked(mask: &Mask, text: &str, before: Option<&str>) -> Result<String, Vec<Fault>> {
    let source = Text::new("rule", text);
    let (root, faults) = parse(Language::Toml, &source);
    let marks: Vec<Secret> = secrets(&root).into_iter().filter(Secret::is_mark).collect();
    if !faults.is_empty() || marks.is_empty() {
        return Ok(text.to_owned());
    }
    let before = Text::new("before", before.unwrap_or_default());
    let known = secrets(&parse(Language::Toml, &before).0);
    let (mut parts, mut unknown) = (Vec::new(), Vec::new());
    for mark in marks {
        let meant = known.iter().find(|secret| mask.mark(&secret.value) == mark.value);
        match meant.and_then(|secret| before.body.get(secret.span.clone())) {
            Some(written) => parts.push((mark.span, written.to_owned())),
            None => unknown.push(fault(&source, &mark)),
        }
    }
    if unknown.is_empty() { Ok(replaced(&source.body, parts)) } else { Err(unknown) }
}

fn fault(source: &Text, mark: &Secret) -> Fault {
    let at = source.position(mark.span.start);
    Fault {
        line: u32::try_from(at.line).ok(),
        column: u32::try_from(at.column).ok(),
        suggestion: Some("write the secret itself".to_owned()),
        ..Fault::new(
            &*mark.path,
            Code::ConfigOutOfRange.as_str(),
            "is the mark of a secret, and no secret of the rule as it is has this mark",
        )
    }
}

/// A value that is never shown.
#[derive(Debug)]
struct Secret {
    path: String,
    value: Json,
    span: Range<usize>,
}

impl Secret {
    fn is_mark(&self) -> bool {
        let digits = self.value.as_str().and_then(|text| text.strip_prefix("***"));
        digits.is_some_and(|digits| {
            digits.len() == 8 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
    }
}

/// The secrets of a table, in no order.
fn secrets(root: &Node) -> Vec<Secret> {
    let mut found = Vec::new();
    look(root, "", false, &mut found);
    found
}

fn look(node: &Node, path: &str, is_one: bool, found: &mut Vec<Secret>) {
    match &node.value {
        Value::Table(keys) => {
            for (name, node) in keys {
                look(node, &join(path, name), is_one || is_secret(name), found);
            }
        }
        Value::List(items) => {
            for (at, node) in items.iter().enumerate() {
                look(node, &format!("{path}[{at}]"), is_one, found);
            }
        }
        Value::Text(_) | Value::Integer(_) | Value::Float(_) if is_one => {
            if let Place::File { span, .. } = &node.at {
                let (path, span) = (path.to_owned(), span.clone());
                found.push(Secret { path, value: node.to_json(), span });
            }
        }
        // Whether something is there is no secret.
        _ => (),
    }
}

/// `text` with other words in some places, none of which overlap.
fn replaced(text: &str, mut parts: Vec<(Range<usize>, String)>) -> String {
    parts.sort_by_key(|(span, _)| span.start);
    let (mut out, mut reached) = (String::with_capacity(text.len()), 0);
    for (span, words) in parts {
        out.push_str(text.get(reached..span.start).unwrap_or_default());
        out.push_str(&words);
        reached = span.end;
    }
    out.push_str(text.get(reached..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const RULE: &str = "# who asks 订单\nto = 'order'\n\
        header_rules = { request = { set = { Authorization = 'Bearer s3', x-a = 'b' } } }\n\
        [headers]\nx-api-key = { exact = \"k\\n1\" } # no secret here\ncookie = { present = true }\n";

    fn mask() -> Mask {
        Mask::new(b"key")
    }

    #[test]
    fn only_secrets_are_marked_and_the_rest_stays_as_written() {
        let mark = |text: &str| mask().mark(&json!(text));
        let want = RULE
            .replace("'Bearer s3'", &format!("\"{}\"", mark("Bearer s3")))
            .replace("\"k\\n1\"", &format!("\"{}\"", mark("k\n1")));
        assert_eq!(masked(&mask(), RULE), want);
        assert_eq!(masked(&mask(), "max = 1 # a"), "max = 1 # a");
        assert!(!masked(&mask(), "token = 'unclosed").contains("unclosed"));
    }

    #[test]
    fn a_mark_that_comes_back_is_the_secret_it_stands_for() {
        let edited = masked(&mask(), RULE).replace("'order'", "'orders'");
        let back = unmasked(&mask(), &edited, Some(RULE)).unwrap();
        assert_eq!(back, RULE.replace("'order'", "'orders'"));
        let faults = unmasked(&mask(), &edited, None).unwrap_err();
        assert_eq!(faults.len(), 2, "{faults:?}");
        let first = faults.iter().find(|fault| fault.path.starts_with("header_rules")).unwrap();
        assert_eq!((first.line, first.column), (Some(3), Some(54)));
        // Other words with stars are secrets like any.
        let stars = "token = '***'";
        assert_eq!(unmasked(&mask(), stars, None).unwrap(), stars);
    }

    proptest! {
        /// Whatever the secret: it is not shown, and comes back as it was written.
        #[test]
        fn secrets_are_hidden_and_come_back(secret in "[g-z\\\\\"'\n 中]{4,20}", other in "[a-z]{1,9}") {
            let text = format!("a = {:?}\nset.x-token = {}\nb = 1\n", other, json!(secret));
            let hidden = masked(&mask(), &text);
            prop_assert!(!hidden.contains(&json!(secret).to_string()));
            prop_assert_eq!(unmasked(&mask(), &hidden, Some(&text)).unwrap(), text);
        }
    }
}
