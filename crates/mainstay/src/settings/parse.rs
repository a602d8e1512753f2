//! TOML, YAML and JSON into [`Node`]s, with every fault that can be found in one pass.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use mainstay_core::problem::Code;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use toml::de::{DeTable, DeValue};

use super::spans::{Place, Text};
use super::tree::{Node, Value};
use crate::report::Report;

/// The language of a file, told by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `.toml`, and names without an ending.
    Toml,
    /// `.yaml`, `.yml`.
    Yaml,
    /// `.json`.
    Json,
}

impl Language {
    /// The language of the file called `name`; none for endings nobody reads.
    pub fn of(name: &str) -> Option<Self> {
        match name.rsplit('/').next().unwrap_or(name).rsplit_once('.').map(|(_, ending)| ending) {
            Some("toml") | None => Some(Self::Toml),
            Some("yaml" | "yml") => Some(Self::Yaml),
            Some("json") => Some(Self::Json),
            Some(_) => None,
        }
    }
}

/// Reads `text`. What can be read in spite of faults is returned beside them.
pub fn parse(language: Language, text: &Arc<Text>) -> (Node, Vec<Report>) {
    let mut reader = Reader { text, faults: Vec::new() };
    let root = match language {
        Language::Toml => Some(reader.toml()),
        Language::Yaml => reader.yaml(),
        Language::Json => reader.json(),
    };
    let root = root.unwrap_or_else(|| Node::empty(reader.place(0..0)));
    (root, reader.faults)
}

/// A value of the environment or a flag: TOML when it reads as such, otherwise text.
pub fn word(text: &str, at: &Place) -> Node {
    let scratch = Text::new("", text);
    let value = DeValue::parse(text).map_or_else(
        |_| Value::Text(text.to_owned()),
        |value| Reader { text: &scratch, faults: Vec::new() }.toml_value(value.into_inner()),
    );
    let mut node = Node::new(value, at.clone());
    move_to(&mut node, at);
    node
}

/// Gives every node inside `node` the place `at`: a variable has no lines.
fn move_to(node: &mut Node, at: &Place) {
    node.key = at.clone();
    node.at = at.clone();
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| move_to(item, at)),
        Value::Table(table) => table.values_mut().for_each(|item| move_to(item, at)),
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => (),
    }
}

struct Reader<'t> {
    text: &'t Arc<Text>,
    faults: Vec<Report>,
}

impl Reader<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        Place::file(self.text, span)
    }

    fn fault(&mut self, code: Code, message: impl Into<String>, span: Range<usize>) {
        let place = self.place(span);
        self.faults.push(Report::error(code, message).at(place));
    }

    fn duplicate(&mut self, name: &str, span: Range<usize>) {
        self.fault(
            Code::ConfigDuplicateKey,
            format!("key `{name}` stands twice in this file"),
            span,
        );
    }

    /// The first of two equal keys stays.
    fn insert(
        &mut self,
        nodes: &mut BTreeMap<String, Node>,
        name: String,
        node: Node,
        span: Range<usize>,
    ) {
        match nodes.entry(name) {
            Entry::Vacant(vacant) => drop(vacant.insert(node)),
            Entry::Occupied(there) => self.duplicate(there.key(), span),
        }
    }

    fn toml(&mut self) -> Node {
        let text = Arc::clone(self.text);
        let (table, errors) = DeTable::parse_recoverable(&text.body);
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            if error.message().starts_with("duplicate key") {
                let name = text.body.get(span.clone()).unwrap_or("").to_owned();
                self.duplicate(&name, span);
            } else {
                self.fault(Code::ConfigSyntax, error.message().to_owned(), span);
            }
        }
        let broken = !self.faults.is_empty();
        let value = self.toml_table(table.into_inner(), broken);
        Node::new(value, self.place(0..0))
    }

    /// `broken`: the parser has put in empty keys and values where it found faults.
    fn toml_table(&mut self, table: DeTable<'_>, broken: bool) -> Value {
        let mut nodes = BTreeMap::new();
        for (key, value) in table {
            let (key_span, at) = (key.span(), value.span());
            let guessed = broken && (at.is_empty() || key_span.is_empty());
            if broken && key.get_ref().is_empty() {
                continue;
            }
            let value = match value.into_inner() {
                DeValue::Table(inner) => self.toml_table(inner, broken),
                _ if guessed => continue,
                other => self.toml_value(other),
            };
            let node =
                Node { value, key: self.place(key_span), at: self.place(at), hidden: Vec::new() };
            nodes.insert(key.into_inner().into_owned(), node);
        }
        Value::Table(nodes)
    }

    fn toml_value(&mut self, value: DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Boolean(b) => Value::Bool(b),
            DeValue::Integer(i) => i128::from_str_radix(i.as_str(), i.radix())
                .map_or_else(|_| Value::Text(i.to_string()), Value::Integer),
            DeValue::Float(x) => {
                x.as_str().parse().map_or_else(|_| Value::Text(x.to_string()), Value::Float)
            }
            DeValue::Datetime(moment) => Value::Text(moment.to_string()),
            DeValue::Array(items) => Value::List(
                items
                    .into_iter()
                    .map(|item| {
                        let at = self.place(item.span());
                        Node::new(self.toml_value(item.into_inner()), at)
                    })
                    .collect(),
            ),
            DeValue::Table(table) => self.toml_table(table, false),
        }
    }

    fn yaml(&mut self) -> Option<Node> {
        let text = Arc::clone(self.text);
        if text.body.lines().all(|line| line.trim().is_empty() || line.starts_with('#')) {
            return None;
        }
        let options = serde_saphyr::options! {
            duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
            strict_booleans: true,
            with_snippet: false,
        };
        match serde_saphyr::from_str_with_options::<serde_saphyr::Spanned<Yaml>>(
            &text.body, options,
        ) {
            Ok(root) => Some(self.yaml_node(root)),
            Err(error) => {
                let span = error.location().map_or(0..0, |location| self.yaml_span(&location));
                let message = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
                let message = message.split(" at line ").next().unwrap_or("").to_owned();
                self.fault(Code::ConfigSyntax, message, span);
                None
            }
        }
    }

    fn yaml_node(&mut self, yaml: serde_saphyr::Spanned<Yaml>) -> Node {
        let span = self.yaml_span(&yaml.referenced);
        let value = match yaml.value {
            Yaml::Scalar(value) => value,
            Yaml::List(items) => {
                Value::List(items.into_iter().map(|item| self.yaml_node(item)).collect())
            }
            Yaml::Table(entries) => {
                let mut nodes = BTreeMap::new();
                for (key, value) in entries {
                    let key_span = self.yaml_span(&key.referenced);
                    let mut node = self.yaml_node(value);
                    node.key = self.place(key_span.clone());
                    self.insert(&mut nodes, key.value, node, key_span);
                }
                Value::Table(nodes)
            }
        };
        Node::new(value, self.place(span))
    }

    fn yaml_span(&self, location: &serde_saphyr::Location) -> Range<usize> {
        let to_usize = |n: u64| usize::try_from(n).unwrap_or(0);
        let span = location.span();
        let start = span.byte_offset().map_or_else(
            || self.text.offset_of(to_usize(location.line()), to_usize(location.column())),
            to_usize,
        );
        let end = start + span.byte_len().map_or(0, to_usize);
        start..end.min(self.text.body.len())
    }

    fn json(&mut self) -> Option<Node> {
        let text = Arc::clone(self.text);
        match serde_json::from_str::<&serde_json::value::RawValue>(&text.body) {
            Ok(raw) => Some(self.json_node(raw.get())),
            Err(error) => {
                let at = text.offset_of(error.line(), error.column());
                let message = error.to_string();
                let message = message.split(" at line ").next().unwrap_or("").to_owned();
                self.fault(Code::ConfigSyntax, message, at..at);
                None
            }
        }
    }

    /// `raw` is a piece of the text and one whole JSON value.
    fn json_node(&mut self, raw: &str) -> Node {
        let value = match raw.as_bytes().first() {
            Some(b'{') => self.json_table(raw),
            Some(b'[') => Value::List(
                serde_json::from_str::<Vec<&serde_json::value::RawValue>>(raw)
                    .unwrap_or_default()
                    .into_iter()
                    .map(|item| self.json_node(item.get()))
                    .collect(),
            ),
            _ => json_scalar(raw),
        };
        Node::new(value, self.place(self.json_span(raw)))
    }

    fn json_table(&mut self, raw: &str) -> Value {
        let mut nodes = BTreeMap::new();
        let entries = serde_json::from_str::<Entries<'_>>(raw).map_or(Vec::new(), |e| e.0);
        for (key, value) in entries {
            let name: String = serde_json::from_str(key.get()).unwrap_or_default();
            let span = self.json_span(key.get());
            let mut node = self.json_node(value.get());
            node.key = self.place(span.clone());
            self.insert(&mut nodes, name, node, span);
        }
        Value::Table(nodes)
    }

    /// Where the borrowed piece `raw` stands in the text it was borrowed from.
    fn json_span(&self, raw: &str) -> Range<usize> {
        let start = (raw.as_ptr() as usize).saturating_sub(self.text.body.as_ptr() as usize);
        start..start + raw.len()
    }
}

fn json_scalar(raw: &str) -> Value {
    match serde_json::from_str::<serde_json::Value>(raw) {
        Ok(serde_json::Value::Bool(b)) => Value::Bool(b),
        Ok(serde_json::Value::String(text)) => Value::Text(text),
        Ok(serde_json::Value::Number(number)) => number
            .as_i128()
            .map(Value::Integer)
            .or_else(|| number.as_f64().map(Value::Float))
            .unwrap_or(Value::Null),
        _ => Value::Null,
    }
}

/// The entries of a JSON object, repeated keys included.
struct Entries<'t>(Vec<(&'t serde_json::value::RawValue, &'t serde_json::value::RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of;
        impl<'de> Visitor<'de> for Of {
            type Value = Entries<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Of)
    }
}

/// A YAML value, repeated keys included.
enum Yaml {
    Scalar(Value),
    List(Vec<serde_saphyr::Spanned<Yaml>>),
    Table(Vec<(serde_saphyr::Spanned<String>, serde_saphyr::Spanned<Yaml>)>),
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OfYaml)
    }
}

struct OfYaml;

impl<'de> Visitor<'de> for OfYaml {
    type Value = Yaml;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Value::Integer(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Value::Integer(value.into())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Value::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Value::Text(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Yaml, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Yaml::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Yaml, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Yaml::Table(entries))
    }
}
