//! Mainstay's own configuration: read in layers, checked whole, explained to the line.
//!
//! Silence is the worst answer a configuration can give. So every key must be known, every named
//! file must be there, and all faults of all files are collected before anything is said. What
//! was written stays a tree with places ([`tree`]) until the end: the types are checked against
//! the JSON Schema of the root type ([`schema`]), the ranges by the policies themselves, and an
//! error of either is led back to a line through the same tree.
//!
//! The loader knows no key. It is generic over a root type that serde can read and schemars can
//! describe; [`root::Settings`] is the one of the binary.
//!
//! | step | module |
//! |---|---|
//! | which files, variables and flags | [`layers`] |
//! | TOML, YAML, JSON into one tree | [`parse`], [`tree`], [`spans`] |
//! | unknown keys, wrong types | [`schema`], [`suggest`], [`errors`] |
//! | who said what | [`origin`] |
//! | again, while running | [`reload`], [`watch`] |
//! | tables that are kept elsewhere | [`graft`] |

pub mod errors;
pub mod graft;
pub mod layers;
pub mod origin;
pub mod parse;
pub mod reload;
pub mod root;
pub mod schema;
pub mod spans;
pub mod suggest;
#[cfg(test)]
mod tests;
pub mod tree;
pub mod watch;

use mainstay_core::problem::Code;
use mainstay_resilience::Invalid;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

pub use errors::Errors;
pub use layers::Sources;
pub use root::Settings;
use schema::Schema;
use tree::{Node, Value};

use crate::report::Report;

/// A configuration read and found to be of the right form.
#[derive(Debug)]
pub struct Loaded<R> {
    /// As written: every field optional, ranges unchecked.
    pub raw: R,
    /// The same with places.
    pub tree: Node,
    /// What was probably not meant, but does no harm.
    pub warnings: Vec<Report>,
}

impl Sources {
    /// Reads all layers and checks them against the type `R`.
    ///
    /// # Errors
    ///
    /// [`Errors`] with every fault found in every layer. Types are checked layer by layer, so a
    /// wrong value is found even where a later layer hides it.
    pub fn load<R: DeserializeOwned + JsonSchema>(&self) -> Result<Loaded<R>, Errors> {
        let schema = Schema::of::<R>();
        let layers = self.read();
        let mut reports = layers.faults;
        let mut tree = Node::empty(layers::nowhere());
        for file in layers.files {
            schema.root().check("", &file, &mut reports);
            tree.lay(file);
        }
        self.lay_words(&schema, &mut tree, &mut reports);
        let files = self.files().unwrap_or_default();
        number_layers(&files, &mut reports);
        let warnings = Errors::unless_only_warnings(reports)?;
        let raw = deserialize(&tree)?;
        Ok(Loaded { raw, tree, warnings })
    }
}

impl<R> Loaded<R> {
    /// Turns what was written into what it means with `resolve`.
    ///
    /// # Errors
    ///
    /// [`Errors`]: every [`Invalid`] with the place of the value it speaks of.
    pub fn resolve<T>(
        self,
        resolve: impl FnOnce(R) -> Result<T, Vec<Invalid>>,
    ) -> Result<Resolved<T>, Errors> {
        let Self { raw, tree, warnings } = self;
        match resolve(raw) {
            Ok(value) => Ok(Resolved { value, tree, warnings }),
            Err(invalid) => Err(Errors {
                reports: invalid.iter().map(|invalid| locate(&tree, invalid)).collect(),
            }),
        }
    }
}

/// A configuration that needs no further check.
#[derive(Debug)]
pub struct Resolved<T> {
    /// What it means.
    pub value: T,
    /// As written, with places.
    pub tree: Node,
    /// What was probably not meant, but does no harm.
    pub warnings: Vec<Report>,
}

/// The report for an error of a policy: at the value it names, or at the table it is missing in.
fn locate(tree: &Node, invalid: &Invalid) -> Report {
    let node = tree.nearest(&invalid.path);
    let place = if matches!(node.value, Value::Table(_)) { &node.key } else { &node.at };
    let message = format!("`{}`: {}", invalid.path, invalid.problem);
    let report = Report::error(invalid.code, message).of(&invalid.path);
    if std::ptr::eq(node, tree) { report } else { report.at(place.clone()) }
}

/// The last word has serde: what the schema cannot express (an address, a regular expression) is
/// checked by the field's own type.
fn deserialize<R: DeserializeOwned>(tree: &Node) -> Result<R, Errors> {
    serde_path_to_error::deserialize(tree.to_json()).map_err(|error| {
        let path = error.path().to_string();
        let node = tree.nearest(&path);
        let message = format!("`{path}`: {}", error.inner());
        Report::error(Code::ConfigWrongType, message).at(node.at.clone()).of(path).into()
    })
}

/// Gives reports the number of their layer: files by position, then variables, then flags.
fn number_layers(files: &[std::path::PathBuf], reports: &mut [Report]) {
    for report in reports {
        let name = report.place.as_ref().and_then(spans::Place::file_name);
        report.layer = match (&report.place, name) {
            (None, _) => 0,
            (_, Some(name)) => {
                files.iter().position(|file| file.display().to_string() == name).unwrap_or(0)
            }
            (Some(_), None) => files.len(),
        };
    }
}
