//! Whether contents are what they claim to be.
//!
//! Syntax comes first, then the schema: what does not parse has nothing a schema could judge. A
//! schema is taken as JSON Schema 2020-12, reads nothing from files or networks, and its patterns
//! run in linear time. Of a secret only the kind of a fault is told, never the content.

use std::collections::BTreeMap;

use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::Value;

use super::error::{CentreError, Failure};
use super::item::{Format, Item};

/// Most faults told at once.
const FAILURES_MAX: usize = 100;

/// Longest message of a fault.
const MESSAGE_BYTES_MAX: usize = 300;

/// Checks every item; tells all faults of the first kind there are.
///
/// # Errors
///
/// [`CentreError::FormatInvalid`] for contents, or schemas, that do not parse;
/// [`CentreError::SchemaViolation`] for contents that their schema refuses.
pub fn check(items: &BTreeMap<String, &Item>) -> Result<(), CentreError> {
    let (mut syntax, mut schema) = (Vec::new(), Vec::new());
    for (name, item) in items {
        match parse(item) {
            Err(message) => syntax.push(failure(name, String::new(), message)),
            Ok(tree) => {
                let Some(text) = &item.schema else { continue };
                match validator(text) {
                    Err(message) => syntax.push(failure(name, String::new(), message)),
                    Ok(validator) => violations(name, item, &validator, &tree, &mut schema),
                }
            }
        }
    }
    syntax.truncate(FAILURES_MAX);
    if !syntax.is_empty() {
        return Err(CentreError::FormatInvalid { failures: syntax });
    }
    if schema.is_empty() { Ok(()) } else { Err(CentreError::SchemaViolation { failures: schema }) }
}

/// The tree in a content; null where the format has none.
fn parse(item: &Item) -> Result<Value, String> {
    let Item { format, content, secret, .. } = item;
    let parsed = match format {
        Format::Text | Format::Properties => Ok(Value::Null),
        Format::Json => serde_json::from_str(content).map_err(|error| error.to_string()),
        Format::Yaml => yaml(content),
        Format::Toml => toml::from_str(content).map_err(|error| error.message().to_owned()),
        Format::Xml => match roxmltree::Document::parse(content) {
            Ok(_document) => Ok(Value::Null),
            Err(error) => Err(error.to_string()),
        },
    };
    parsed.map_err(|why| {
        let format = format.as_str();
        if *secret {
            format!("is not valid {format}")
        } else {
            format!("is not valid {format}: {why}")
        }
    })
}

fn yaml(content: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(content, options)
        .map_err(|error| error.render_with_formatter(&serde_saphyr::UserMessageFormatter))
}

fn validator(schema: &str) -> Result<Validator, String> {
    let schema: Value =
        serde_json::from_str(schema).map_err(|_syntax| "schema is not JSON".to_owned())?;
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .with_pattern_options(PatternOptions::regex())
        .offline()
        .build(&schema)
        .map_err(|error| format!("schema cannot be used: {error}"))
}

fn violations(
    name: &str,
    item: &Item,
    validator: &Validator,
    tree: &Value,
    into: &mut Vec<Failure>,
) {
    let left = FAILURES_MAX.saturating_sub(into.len());
    let told = |error: ValidationError<'_>| {
        let pointer = error.instance_path().to_string();
        let message = if item.secret { error.masked().to_string() } else { error.to_string() };
        failure(name, pointer, message)
    };
    into.extend(validator.iter_errors(tree).take(left).map(told));
}

fn failure(item: &str, pointer: String, mut message: String) -> Failure {
    if MESSAGE_BYTES_MAX < message.len() {
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        message.push('…');
    }
    Failure { item: item.to_owned(), pointer, message }
}
