//! Where in a text a mistake stands.

use std::ops::Range;

use mainstay_resilience::Invalid;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::PolicyError;

/// The place of a mistake that reading found.
pub(super) fn toml(text: &str, error: &toml::de::Error) -> PolicyError {
    let at = error.span().map_or(0, |span| span.start);
    // A text that is no TOML has no keys, only a place.
    let document = DeTable::parse(text).ok();
    let key = document.map(|document| key_at(document.get_ref(), at)).unwrap_or_default();
    let key = if key.is_empty() { "policy".to_owned() } else { key };
    PolicyError { line: line(text, at), key, problem: error.message().to_owned() }
}

/// The place of a value that is not allowed, by its path. A key that was not written, but should
/// have been, stands where its table does.
pub(super) fn invalid(text: &str, invalid: Invalid) -> PolicyError {
    let document = DeTable::parse(text).ok();
    let at = document.map_or(0, |document| {
        let mut steps = invalid.path.split(['.', '[', ']']).filter(|step| !step.is_empty());
        let first = steps.next().unwrap_or_default();
        let Some((key, value)) = entry(document.get_ref(), first) else { return 0 };
        descend(key, value, steps)
    });
    PolicyError { line: line(text, at), key: invalid.path, problem: invalid.problem }
}

/// Follows `steps` from `value` as far as they lead; the place of the last.
fn descend<'a>(
    mut at: Range<usize>,
    mut value: &DeValue<'_>,
    steps: impl Iterator<Item = &'a str>,
) -> usize {
    for step in steps {
        let next = match value {
            DeValue::Table(table) => entry(table, step),
            DeValue::Array(array) => {
                let found = step.parse::<usize>().ok().and_then(|n| array.get(n));
                found.map(|item| (item.span(), item.get_ref()))
            }
            _ => None,
        };
        let Some((span, inner)) = next else { break };
        (at, value) = (span, inner);
    }
    at.start
}

fn entry<'t, 'i>(table: &'t DeTable<'i>, name: &str) -> Option<(Range<usize>, &'t DeValue<'i>)> {
    let (key, value) = table.get_key_value(name)?;
    Some((key.span(), value.get_ref()))
}

/// The path of the innermost key at or around `at`.
fn key_at(table: &DeTable<'_>, at: usize) -> String {
    // Of several that hold the place, the last to begin: a header's table holds what follows it.
    let holds = |(key, value): &(&Spanned<_>, &Spanned<DeValue<'_>>)| {
        key.span().contains(&at) || value.span().contains(&at) || inner(value.get_ref(), at)
    };
    let Some((key, value)) = table.iter().find(holds) else { return String::new() };
    let rest = match value.get_ref() {
        DeValue::Table(inner) => key_at(inner, at),
        DeValue::Array(items) => {
            let found = items.iter().enumerate().find(|(_, item)| inner(item.get_ref(), at));
            found
                .map(|(n, item)| format!("[{n}]{}", within(item.get_ref(), at)))
                .unwrap_or_default()
        }
        _ => String::new(),
    };
    let separator = if rest.is_empty() || rest.starts_with('[') { "" } else { "." };
    format!("{}{separator}{rest}", key.get_ref())
}

fn within(value: &DeValue<'_>, at: usize) -> String {
    match value {
        DeValue::Table(table) => {
            let key = key_at(table, at);
            if key.is_empty() { key } else { format!(".{key}") }
        }
        _ => String::new(),
    }
}

/// Whether `at` lies in something that `value` holds.
fn inner(value: &DeValue<'_>, at: usize) -> bool {
    match value {
        DeValue::Table(table) => table.iter().any(|(key, value)| {
            key.span().contains(&at) || value.span().contains(&at) || inner(value.get_ref(), at)
        }),
        DeValue::Array(items) => {
            items.iter().any(|item| item.span().contains(&at) || inner(item.get_ref(), at))
        }
        _ => false,
    }
}

fn line(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count()
}
