//! What keys there are, and what each may hold, read from the JSON Schema of the root type.
//!
//! The schema is the one description of the configuration: the reference, the editor's completion
//! and these checks all come from it, so they cannot disagree. A [`Shape`] is everything a value
//! may be at one place, as a list of alternatives; walking the tree and the shapes side by side
//! finds every unknown key and wrong type of every file in one pass, where deserializing would
//! stop at the first.

use std::collections::BTreeSet;

use mainstay_core::problem::Code;
use serde_json::{Map, Value as Json};

use super::origin::is_secret;
use super::suggest;
use super::tree::{Node, Value, join};
use crate::report::Report;

/// Alternatives nested in alternatives followed before giving up: no type of ours nests deeper.
const NESTING_MAX: usize = 16;

/// Tables looked into when the same key is sought elsewhere.
const SEARCH_DEPTH_MAX: usize = 6;

/// The JSON Schema of a root type.
#[derive(Clone, Debug)]
pub struct Schema(Json);

impl Schema {
    /// The schema of `R`.
    pub fn of<R: schemars::JsonSchema>() -> Self {
        Self(schemars::schema_for!(R).to_value())
    }

    /// The document, as published by `mainstay settings schema`.
    pub const fn document(&self) -> &Json {
        &self.0
    }

    /// What the whole document may be.
    pub fn root(&self) -> Shape<'_> {
        self.shape(&self.0)
    }

    fn shape<'s>(&'s self, of: &'s Json) -> Shape<'s> {
        let mut shape = Shape { schema: self, alternatives: Vec::new(), open: false };
        shape.add(of, NESTING_MAX);
        shape
    }

    fn resolve<'s>(&'s self, reference: &str) -> Option<&'s Json> {
        self.0.pointer(reference.strip_prefix('#')?)
    }
}

/// Everything a value may be at one place.
#[derive(Clone, Debug)]
pub struct Shape<'s> {
    schema: &'s Schema,
    alternatives: Vec<&'s Map<String, Json>>,
    /// Anything goes.
    open: bool,
}

/// What a key of a table leads to.
#[derive(Debug)]
pub enum Child<'s> {
    /// A key of the type.
    Known(Shape<'s>),
    /// A name the user chooses.
    Named(Shape<'s>),
    /// No such key.
    Unknown,
}

impl<'s> Shape<'s> {
    fn add(&mut self, of: &'s Json, depth: usize) {
        let Json::Object(object) = of else {
            self.open |= of.as_bool() == Some(true);
            return;
        };
        let Some(depth) = depth.checked_sub(1) else { return self.open = true };
        let mut composed = false;
        if let Some(reference) = object.get("$ref").and_then(Json::as_str) {
            composed = true;
            match self.schema.resolve(reference) {
                Some(target) => self.add(target, depth),
                None => self.open = true,
            }
        }
        for word in ["anyOf", "oneOf", "allOf"] {
            for alternative in object.get(word).and_then(Json::as_array).into_iter().flatten() {
                composed = true;
                self.add(alternative, depth);
            }
        }
        let says = |word: &&str| object.contains_key(*word);
        if ["type", "enum", "const", "properties"].iter().any(says) {
            self.alternatives.push(object);
        } else {
            self.open |= !composed;
        }
    }

    /// What key `name` of a table leads to.
    pub fn child(&self, name: &str) -> Child<'s> {
        let empty = Self { schema: self.schema, alternatives: Vec::new(), open: false };
        let (mut known, mut named) = (empty.clone(), empty);
        let (mut is_known, mut is_named) = (false, self.open);
        named.open = self.open;
        for object in self.tables() {
            if let Some(property) = property(object, name) {
                is_known = true;
                known.add(property, NESTING_MAX);
            }
            match additional(object) {
                Some(Json::Bool(false)) => (),
                Some(additional) => {
                    is_named = true;
                    named.add(additional, NESTING_MAX);
                }
                None => (is_named, named.open) = (true, true),
            }
        }
        match (is_known, is_named) {
            (true, _) => Child::Known(known),
            (false, true) => Child::Named(named),
            (false, false) => Child::Unknown,
        }
    }

    /// What the elements of a list may be.
    pub fn element(&self) -> Self {
        let mut shape = Self { schema: self.schema, alternatives: Vec::new(), open: self.open };
        for object in self.of_type("array") {
            let fixed = object.get("prefixItems").and_then(Json::as_array).into_iter().flatten();
            let items = object.get("items").into_iter().chain(fixed).collect::<Vec<_>>();
            shape.open |= items.is_empty();
            for item in items {
                shape.add(item, NESTING_MAX);
            }
        }
        shape
    }

    /// The keys of the type, without names users choose.
    pub fn keys(&self) -> BTreeSet<&'s str> {
        let properties = self.tables().filter_map(|object| object.get("properties")?.as_object());
        properties.flat_map(|properties| properties.keys().map(String::as_str)).collect()
    }

    /// The description of the type or field, as its documentation has it.
    pub fn alternatives(&self) -> &[&'s Map<String, Json>] {
        &self.alternatives
    }

    /// Whether names users choose are keys here.
    pub fn names(&self) -> Option<Self> {
        match self.child("\u{0}") {
            Child::Named(shape) => Some(shape),
            Child::Known(_) | Child::Unknown => None,
        }
    }

    /// Whether a value of `kind` (a type of JSON Schema) can stand here.
    pub fn allows(&self, kind: &str) -> bool {
        self.open || self.of_type(kind).next().is_some()
    }

    fn tables(&self) -> impl Iterator<Item = &'s Map<String, Json>> {
        let alternatives = self.alternatives.clone();
        alternatives.into_iter().filter(|o| has_type(o, "object") || o.contains_key("properties"))
    }

    fn of_type<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'s Map<String, Json>> + 'a {
        self.alternatives.iter().copied().filter(move |object| has_type(object, kind))
    }

    /// The words that may stand here; none when any text may.
    fn words(&self) -> Option<Vec<&'s str>> {
        let mut words = Vec::new();
        for object in self.of_type("string") {
            match (object.get("enum").and_then(Json::as_array), object.get("const")) {
                (Some(list), _) => words.extend(list.iter().filter_map(Json::as_str)),
                (None, Some(word)) => words.extend(word.as_str()),
                (None, None) => return None,
            }
        }
        Some(words)
    }

    /// Adds a report for everything in `node` that cannot be. `path` is that of the node.
    pub fn check(&self, path: &str, node: &Node, reports: &mut Vec<Report>) {
        if self.open {
            return;
        }
        match &node.value {
            Value::Table(table) if self.allows("object") => {
                for (name, inner) in table {
                    let path = join(path, name);
                    match self.child(name) {
                        Child::Known(shape) | Child::Named(shape) => {
                            shape.check(&path, inner, reports);
                        }
                        Child::Unknown => reports.push(self.unknown(&path, name, inner)),
                    }
                }
            }
            Value::List(items) if self.allows("array") => {
                let shape = self.element();
                for (index, item) in items.iter().enumerate() {
                    shape.check(&format!("{path}[{index}]"), item, reports);
                }
            }
            Value::Null if self.allows("null") => (),
            Value::Bool(_) if self.allows("boolean") => (),
            Value::Text(text) if self.allows("string") => {
                self.check_word(path, node, text, reports);
            }
            Value::Integer(_) if self.allows("integer") || self.allows("number") => {
                self.check_range(path, node, reports);
            }
            Value::Float(_) if self.allows("number") => self.check_range(path, node, reports),
            _ => reports.push(self.wrong_type(path, node)),
        }
    }

    fn unknown(&self, path: &str, name: &str, node: &Node) -> Report {
        let report = Report::error(Code::ConfigUnknownKey, format!("unknown key `{path}`"))
            .at(node.key.clone())
            .of(path);
        let report = Report { secret: is_secret(name), ..report };
        let table = path.strip_suffix(name).unwrap_or("").trim_end_matches('.');
        if let Some(key) = suggest::nearest(name, self.keys()) {
            let is_table = matches!(node.value, Value::Table(_));
            let meant = if is_table { format!("[{}]", join(table, key)) } else { key.to_owned() };
            return report.help(format!("did you mean `{meant}`?"));
        }
        match self.schema.root().find(&name.to_lowercase(), "", SEARCH_DEPTH_MAX) {
            Some(elsewhere) => report.help(format!("`{name}` is a key of `[{elsewhere}]`")),
            None if table.is_empty() => report.help(list("tables there are", self.keys())),
            None => report.help(list(&format!("keys of `[{table}]`"), self.keys())),
        }
    }

    /// The first table that has the key `name`, in order of the alphabet.
    fn find(&self, name: &str, path: &str, depth: usize) -> Option<String> {
        let depth = depth.checked_sub(1)?;
        let keys = self.keys();
        if !path.is_empty() && keys.iter().any(|key| key.eq_ignore_ascii_case(name)) {
            return Some(path.to_owned());
        }
        let inner = keys.into_iter().find_map(|key| match self.child(key) {
            Child::Known(shape) => shape.find(name, &join(path, key), depth),
            Child::Named(_) | Child::Unknown => None,
        });
        inner.or_else(|| self.names()?.find(name, &join(path, "NAME"), depth))
    }

    fn wrong_type(&self, path: &str, node: &Node) -> Report {
        let key = key_of(path);
        let found = if is_secret(key) { "another".to_owned() } else { found(&node.value) };
        let message = format!("`{path}`: expected {}, found {found}", self.expected(key));
        let report = Report::error(Code::ConfigWrongType, message).at(node.at.clone()).of(path);
        Report { secret: is_secret(key), ..report }
    }

    /// What may stand at `key`, in words: `a number of seconds`, `text or a list`.
    pub fn expected(&self, key: &str) -> String {
        let unit = if key.ends_with("_seconds") {
            " of seconds"
        } else if key.contains("bytes") {
            " of bytes"
        } else {
            ""
        };
        let words = self.words().filter(|words| !words.is_empty());
        let text = words.map_or_else(|| "text".to_owned(), |words| one_of(&words));
        let kinds = [
            ("boolean", "`true` or `false`".to_owned()),
            ("integer", format!("a whole number{unit}")),
            ("number", format!("a number{unit}")),
            ("string", text),
            ("array", "a list".to_owned()),
            ("object", "a table".to_owned()),
        ];
        let kinds = kinds.into_iter().filter(|(kind, _)| self.allows(kind));
        kinds.map(|(_, words)| words).collect::<Vec<_>>().join(" or ")
    }

    fn check_word(&self, path: &str, node: &Node, text: &str, reports: &mut Vec<Report>) {
        let Some(words) = self.words().filter(|words| !words.contains(&text)) else { return };
        let message = format!("`{path}`: must be {}, found `\"{text}\"`", one_of(&words));
        let report = Report::error(Code::ConfigOutOfRange, message).at(node.at.clone()).of(path);
        reports.push(match suggest::nearest(text, words) {
            Some(word) => report.help(format!("did you mean `\"{word}\"`?")),
            None => report,
        });
    }

    /// A number of the right kind, but too small or too large for every alternative.
    fn check_range(&self, path: &str, node: &Node, reports: &mut Vec<Report>) {
        #[expect(clippy::cast_precision_loss, reason = "bounds are far below 2^53")]
        let number = match node.value {
            Value::Integer(i) => i as f64,
            Value::Float(x) => x,
            _ => return,
        };
        let kinds = ["integer", "number"];
        let ranges: Vec<(f64, f64)> =
            kinds.iter().flat_map(|kind| self.of_type(kind)).map(range).collect();
        if ranges.iter().any(|(min, max)| (*min..=*max).contains(&number)) {
            return;
        }
        let Some((min, max)) = ranges.first() else { return };
        let allowed = match (min.is_finite(), max.is_finite()) {
            (true, true) => format!("{min} to {max}"),
            (true, false) => format!("at least {min}"),
            _ => format!("at most {max}"),
        };
        let message = format!("`{path}`: must be {allowed}, found {number}");
        reports.push(Report::error(Code::ConfigOutOfRange, message).at(node.at.clone()).of(path));
    }
}

fn property<'s>(object: &'s Map<String, Json>, name: &str) -> Option<&'s Json> {
    object.get("properties")?.as_object()?.get(name)
}

fn additional(object: &Map<String, Json>) -> Option<&Json> {
    object.get("additionalProperties").or_else(|| object.get("unevaluatedProperties"))
}

fn has_type(object: &Map<String, Json>, kind: &str) -> bool {
    match object.get("type") {
        Some(Json::String(one)) => one == kind,
        Some(Json::Array(several)) => several.iter().any(|one| one == kind),
        _ => {
            let values = object.get("enum").and_then(Json::as_array).into_iter().flatten();
            values.chain(object.get("const")).any(|value| match value {
                Json::String(_) => kind == "string",
                Json::Bool(_) => kind == "boolean",
                Json::Number(_) => kind == "number",
                Json::Null => kind == "null",
                Json::Array(_) | Json::Object(_) => false,
            })
        }
    }
}

/// The least and greatest number `object` allows.
fn range(object: &Map<String, Json>) -> (f64, f64) {
    let bound = |word: &str| object.get(word).and_then(Json::as_f64);
    let by_format = match object.get("format").and_then(Json::as_str) {
        Some("uint8") => f64::from(u8::MAX),
        Some("uint16") => f64::from(u16::MAX),
        Some("uint32") => f64::from(u32::MAX),
        _ => f64::INFINITY,
    };
    (bound("minimum").unwrap_or(f64::NEG_INFINITY), bound("maximum").unwrap_or(by_format))
}

/// The last name of a path, without indices.
fn key_of(path: &str) -> &str {
    let last = path.rsplit('.').next().unwrap_or(path);
    last.split('[').next().unwrap_or(last)
}

fn found(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(b) => format!("`{b}`"),
        Value::Integer(i) => format!("number `{i}`"),
        Value::Float(x) => format!("number `{x}`"),
        Value::Text(text) => format!("text `{text:?}`"),
        Value::List(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    }
}

fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

fn list(what: &str, keys: BTreeSet<&str>) -> String {
    let keys: Vec<String> = keys.into_iter().map(|key| format!("`{key}`")).collect();
    format!("{what}: {}", keys.join(", "))
}
