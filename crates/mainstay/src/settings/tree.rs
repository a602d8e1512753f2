//! What was written, and where: one tree for three languages.
//!
//! TOML, YAML and JSON are read into the same [`Node`]s. A node knows the place of its key and of
//! its value, and, once layers are laid over each other, every place it hides. So an error found
//! long after parsing still points at a line, and `settings show --origin` is a walk.

use std::collections::BTreeMap;

use super::spans::Place;

/// A value with its places.
#[derive(Clone, Debug)]
pub struct Node {
    /// What was written.
    pub value: Value,
    /// Where its key stands; for an element of a list, where the value stands.
    pub key: Place,
    /// Where the value stands.
    pub at: Place,
    /// Where earlier layers wrote the same key, earliest first.
    pub hidden: Vec<Place>,
}

/// A value as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// YAML's and JSON's `null`: as if the key were not there.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A number without a point.
    Integer(i128),
    /// A number with one.
    Float(f64),
    /// Text; TOML's dates are text here.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A table.
    Table(BTreeMap<String, Node>),
}

impl PartialEq for Node {
    /// Equal when the values are: moving a key to another line changes nothing.
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Node {
    /// A value whose key and value stand at the same place.
    pub fn new(value: Value, at: Place) -> Self {
        Self { value, key: at.clone(), at, hidden: Vec::new() }
    }

    /// An empty table.
    pub fn empty(at: Place) -> Self {
        Self::new(Value::Table(BTreeMap::new()), at)
    }

    /// Lays `upper` over this node: tables key by key, anything else as a whole.
    pub fn lay(&mut self, upper: Self) {
        let Self { value, key, at, hidden } = upper;
        match (&mut self.value, value) {
            (Value::Table(lower), Value::Table(upper)) => {
                for (name, node) in upper {
                    match lower.get_mut(&name) {
                        Some(under) => under.lay(node),
                        None => drop(lower.insert(name, node)),
                    }
                }
            }
            (under, value) => {
                *under = value;
                self.hidden.push(std::mem::replace(&mut self.at, at));
                self.hidden.extend(hidden);
                self.key = key;
            }
        }
    }

    /// The same as a JSON document, without its `null`s.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Integer(i) => serde_json::Number::from_i128(*i).map_or(Json::Null, Json::Number),
            Value::Float(x) => serde_json::Number::from_f64(*x).map_or(Json::Null, Json::Number),
            Value::Text(text) => Json::String(text.clone()),
            Value::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Table(table) => Json::Object(
                table
                    .iter()
                    .filter(|(_, node)| node.value != Value::Null)
                    .map(|(name, node)| (name.clone(), node.to_json()))
                    .collect(),
            ),
        }
    }

    /// The node at `path`, or the deepest one on the way there.
    ///
    /// A path is names and indices as an error writes them: `route.orders.to[1].weight`. Names may
    /// hold dots themselves, so the longest name that fits is taken first.
    pub fn nearest(&self, path: &str) -> &Self {
        let rest = path.trim_start_matches('.');
        match &self.value {
            Value::Table(table) => {
                let mut names: Vec<&String> =
                    table.keys().filter(|name| starts_a_path(rest, name)).collect();
                names.sort_by_key(|name| std::cmp::Reverse(name.len()));
                names
                    .first()
                    .map_or(self, |name| table[*name].nearest(rest.get(name.len()..).unwrap_or("")))
            }
            Value::List(items) => index(rest).map_or(self, |(number, rest)| {
                items.get(number).map_or(self, |item| item.nearest(rest))
            }),
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {
                self
            }
        }
    }

    /// Calls `visit` with the path and node of every value that is no table, in order of names.
    pub fn each_leaf<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a Self)) {
        let Value::Table(table) = &self.value else { return visit(path, self) };
        if table.is_empty() && !path.is_empty() {
            return visit(path, self);
        }
        for (name, node) in table {
            node.each_leaf(&join(path, name), visit);
        }
    }
}

/// `path.name`, or `name` at the root.
pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn starts_a_path(path: &str, name: &str) -> bool {
    path.strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || rest.starts_with('['))
}

/// Splits `[2].when` into 2 and `.when`.
fn index(path: &str) -> Option<(usize, &str)> {
    let (number, rest) = path.strip_prefix('[')?.split_once(']')?;
    Some((number.parse().ok()?, rest))
}
