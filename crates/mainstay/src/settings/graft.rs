//! A table that no file holds, laid beside those of the files.

use super::spans::Place;
use super::tree::{Node, Value};

/// One named table that is kept elsewhere: `[limit.order-api]`.
#[derive(Clone, Debug)]
pub struct Graft {
    /// The table it belongs to: `limit`.
    pub table: &'static str,
    /// Its name there.
    pub name: String,
    /// What it holds.
    pub node: Node,
}

impl Graft {
    /// Lays it into the configuration `root`, where nothing goes by its name yet: a file that says
    /// something of the same name wins as a whole, for a table of two authors has none.
    pub fn onto(&self, root: &mut Node) {
        let Value::Table(tables) = &mut root.value else { return };
        let at: &Place = &self.node.at;
        let table = tables.entry(self.table.to_owned()).or_insert_with(|| Node::empty(at.clone()));
        if let Value::Table(named) = &mut table.value {
            named.entry(self.name.clone()).or_insert_with(|| self.node.clone());
        }
    }
}

/// What a file says of `name` in `table`, if one does.
pub fn written<'a>(files: &'a Node, table: &str, name: &str) -> Option<&'a Node> {
    all(files, table).find(|(there, _)| *there == name).map(|(_, node)| node)
}

/// Every name a file gives in `table`, with what it holds.
pub fn all<'a>(files: &'a Node, table: &str) -> impl Iterator<Item = (&'a str, &'a Node)> {
    let tables = match &files.value {
        Value::Table(tables) => tables.get(table),
        _ => None,
    };
    let named = tables.and_then(|node| match &node.value {
        Value::Table(named) => Some(named),
        _ => None,
    });
    named.into_iter().flatten().map(|(name, node)| (name.as_str(), node))
}
