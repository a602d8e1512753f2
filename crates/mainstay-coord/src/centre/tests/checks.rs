//! Whether contents are what they claim to be.

use std::collections::BTreeMap;

use mainstay_core::problem::Code;
use serde_json::json;

use crate::centre::check::check;
use crate::centre::{CentreError, Item, RawItem};

fn item(json: serde_json::Value) -> Item {
    Item::new("it", serde_json::from_value::<RawItem>(json).unwrap()).unwrap()
}

fn checked(json: serde_json::Value) -> Result<(), CentreError> {
    let item = item(json);
    check(&BTreeMap::from([("it".to_owned(), &item)]))
}

#[test]
fn each_format_is_told_from_what_only_claims_to_be_it() {
    let billion = "<!DOCTYPE x [<!ENTITY a \"b\">]><x>&a;</x>";
    for (format, good, bad) in [
        ("json", "{\"a\": [1, 2]}", "{\"a\": [1, 2}"),
        ("json", "1", ""),
        ("yaml", "a: 1\nb: [x, y]\n", "a: [1"),
        ("yaml", "a: &x 1\nb: *x\n", "a: 1\na: 2\n"),
        ("toml", "a = 1\n[b]\nc = 1979-05-27\n", "a = \n"),
        ("xml", "<a b=\"c\">d</a>", "<a><b></a>"),
        ("xml", "<a/>", billion),
        ("xml", "<?xml version=\"1.0\"?><a/>", "<a/><b/>"),
    ] {
        checked(json!({ "format": format, "content": good })).unwrap();
        let error = checked(json!({ "format": format, "content": bad })).unwrap_err();
        assert_eq!(error.code(), Code::FormatInvalid, "{format} {bad}");
        let told = &error.failures()[0];
        assert!(told.message.starts_with(&format!("is not valid {format}: ")), "{told:?}");
    }
    for anything in ["text", "properties"] {
        checked(json!({ "format": anything, "content": "a: [1\u{1}" })).unwrap();
    }
}

#[test]
fn aliases_that_multiply_are_refused_in_time() {
    let mut bomb = vec!["a: &a [x, x, x, x, x, x, x, x, x]".to_owned()];
    for (next, last) in ('b'..='j').zip('a'..) {
        let nine = vec![format!("*{last}"); 9].join(", ");
        bomb.push(format!("{next}: &{next} [{nine}]"));
    }
    let error = checked(json!({ "format": "yaml", "content": bomb.join("\n") })).unwrap_err();
    assert_eq!(error.code(), Code::FormatInvalid);
}

#[test]
fn a_schema_names_item_pointer_and_message() {
    let schema = json!({
        "type": "object",
        "required": ["port"],
        "properties": {
            "port": { "type": "integer", "maximum": 65535 },
            "peers": { "items": { "type": "string" } },
        },
    });
    let with = |format: &str, content: &str| {
        checked(json!({ "format": format, "content": content, "schema": schema }))
    };
    with("yaml", "port: 80\npeers: [a]\n").unwrap();
    with("toml", "port = 80\n").unwrap();
    let error = with("json", "{\"port\": 70000, \"peers\": [\"a\", 7]}").unwrap_err();
    assert_eq!(error.code(), Code::SchemaViolation);
    let mut told: Vec<(&str, &str, &str)> =
        error.failures().iter().map(|it| (&*it.item, &*it.pointer, &*it.message)).collect();
    told.sort_unstable();
    let want = [
        ("it", "/peers/1", "7 is not of type \"string\""),
        ("it", "/port", "70000 is greater than the maximum of 65535"),
    ];
    assert_eq!(told, want);
    let error = with("yaml", "{}").unwrap_err();
    assert_eq!(error.to_string(), "item it: \"port\" is a required property");
}

#[test]
fn a_schema_of_2020_12_is_what_it_is_and_fetches_nothing() {
    let prefix = json!({ "prefixItems": [{ "type": "string" }], "items": false });
    let with = |schema: serde_json::Value, content: &str| {
        checked(json!({ "format": "json", "content": content, "schema": schema }))
    };
    with(prefix.clone(), "[\"a\"]").unwrap();
    assert_eq!(with(prefix, "[\"a\", 1]").unwrap_err().code(), Code::SchemaViolation);
    for broken in [
        json!({ "type": "nonsense" }),
        json!({ "$ref": "https://example.org/other.json" }),
        json!({ "$ref": "file:///etc/passwd" }),
        json!({ "pattern": "(?=x)" }),
    ] {
        let error = with(broken.clone(), "\"x\"").unwrap_err();
        assert_eq!(error.code(), Code::FormatInvalid, "{broken}");
        assert!(error.to_string().contains("schema cannot be used"), "{error}");
    }
    let raw = json!({ "format": "text", "content": "x", "schema": { "type": "string" } });
    let error = Item::new("it", serde_json::from_value(raw).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "items.it.schema needs a content in json, yaml or toml");
}

#[test]
fn no_fault_of_a_secret_quotes_it() {
    const HUSH: &str = "swordfish";
    for (format, content, schema) in [
        ("json", format!("{{\"a\": {HUSH}"), None),
        ("yaml", format!("a: [{HUSH}"), None),
        ("toml", format!("a = {HUSH}"), None),
        ("xml", format!("<a>{HUSH}"), None),
        ("json", format!("\"{HUSH}\""), Some(json!({ "type": "integer" }))),
        ("json", format!("\"{HUSH}\""), Some(json!({ "enum": ["other"] }))),
        ("json", format!("[\"{HUSH}\", \"{HUSH}\"]"), Some(json!({ "uniqueItems": true }))),
        ("json", format!("\"{HUSH}\""), Some(json!({ "maxLength": 3, "pattern": "^x" }))),
    ] {
        let mut raw = json!({ "format": format, "content": content, "secret": true });
        if let Some(schema) = schema {
            raw["schema"] = schema;
        }
        let one = item(raw.clone());
        assert!(!format!("{one:?}").contains(HUSH));
        let error = checked(raw).unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(!told.contains(HUSH), "{told}");
    }
}
