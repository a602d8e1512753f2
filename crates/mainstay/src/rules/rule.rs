//! One rule: its text, read as a table with places.

use std::sync::{Arc, LazyLock};

use mainstay_coord::keys::RuleRef;
use mainstay_core::problem::Code;
use serde_json::Value as Json;

use crate::report::Report;
use crate::settings::Settings;
use crate::settings::graft::Graft;
use crate::settings::parse::{Language, parse};
use crate::settings::schema::{Child, Schema};
use crate::settings::spans::Text;
use crate::settings::tree::{Node, Value};

/// The types of the configuration, read once.
static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<Settings>);

/// The namespace of what names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A rule as written, with what is wrong with it by itself.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Which it is.
    pub id: RuleRef,
    /// Its revision; 0 for one that is not written yet.
    pub revision: u64,
    /// The name its places go by: `limit shop/order-api, revision 3`.
    pub place: Arc<Text>,
    /// What it holds.
    pub node: Node,
    /// What cannot be, whatever else there is.
    pub faults: Vec<Report>,
}

impl Rule {
    /// Reads `text`.
    pub fn read(id: RuleRef, revision: u64, text: &str) -> Self {
        let name = match revision {
            0 => format!("{} {id}", id.kind),
            written => format!("{} {id}, revision {written}", id.kind),
        };
        let place = Text::new(name, text);
        let (mut node, mut faults) = parse(Language::Toml, &place);
        check_header(&id, &node, &mut faults);
        if faults.is_empty() {
            check_namespace(&id, &mut node, &mut faults);
            let path = path(&id);
            if let Child::Known(tables) = SCHEMA.root().child(id.kind.as_str())
                && let Some(table) = tables.names()
            {
                table.check(&path, &node, &mut faults);
            }
        }
        Self { id, revision, place, node, faults }
    }

    /// As it is laid beside the files.
    pub fn graft(&self) -> Graft {
        let (table, name) = (self.id.kind.as_str(), self.id.name.to_string());
        Graft { table, name, node: self.node.clone() }
    }
}

/// Where a rule stands in the configuration: `limit.order-api`.
pub fn path(rule: &RuleRef) -> String {
    format!("{}.{}", rule.kind, rule.name)
}

/// Whoever copies a table out of a file brings its header along.
fn check_header(rule: &RuleRef, node: &Node, faults: &mut Vec<Report>) {
    let Value::Table(keys) = &node.value else { return };
    let kind = rule.kind.as_str();
    let header = keys.get(kind).filter(|inner| matches!(inner.value, Value::Table(_)));
    if let (1, Some(header)) = (keys.len(), header) {
        let message = format!("`{kind}`: the content is the table alone, without its header");
        let report = Report::error(Code::ConfigUnknownKey, message).at(header.key.clone());
        let report = report.of(format!("{}.{kind}", path(rule)));
        faults.push(report.help(format!("leave out `[{kind}.{}]`", rule.name)));
    }
}

/// A rule may say whose it is; that is the namespace it is kept under.
fn check_namespace(rule: &RuleRef, node: &mut Node, faults: &mut Vec<Report>) {
    let at = node.at.clone();
    let Value::Table(keys) = &mut node.value else { return };
    let kept = Value::Text(rule.namespace.to_string());
    match keys.get("namespace") {
        None if rule.namespace.as_str() == DEFAULT_NAMESPACE => (),
        None => drop(keys.insert("namespace".to_owned(), Node::new(kept, at))),
        Some(said) if said.value == kept => (),
        Some(said) => {
            let message = format!("`namespace`: it is kept under `{}`", rule.namespace);
            let report = Report::error(Code::ConfigContradiction, message).at(said.at.clone());
            let report = report.of(format!("{}.namespace", path(rule)));
            faults.push(report.help("leave the key out, or keep the rule where it says"));
        }
    }
}

/// The namespace of a table that a file holds.
pub fn namespace_of(node: &Node) -> &str {
    let Value::Table(keys) = &node.value else { return DEFAULT_NAMESPACE };
    match keys.get("namespace").map(|node| &node.value) {
        Some(Value::Text(namespace)) => namespace,
        _ => DEFAULT_NAMESPACE,
    }
}

/// A table given as a document, as the text of that table.
///
/// # Errors
///
/// What of it no configuration file could say.
pub fn written(table: &Json) -> Result<String, String> {
    if !table.is_object() {
        return Err("expected the text of a table, or a table".to_owned());
    }
    toml::to_string(&without_nulls(table)).map_err(|error| error.to_string())
}

/// As in a configuration file, a key that is `null` is not there.
fn without_nulls(table: &Json) -> Json {
    match table {
        Json::Object(keys) => {
            let there = keys.iter().filter(|(_, value)| !value.is_null());
            Json::Object(there.map(|(k, value)| (k.clone(), without_nulls(value))).collect())
        }
        Json::Array(items) => Json::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

/// The table a text holds, as a document; null where it holds none.
pub fn table(text: &str) -> Json {
    text.parse::<toml::Table>().map_or(Json::Null, |table| serde_json::json!(table))
}
