//! The configuration of a running process: the last good one, until a better one is whole.
//!
//! A reload reads everything again. One broken file among good ones changes nothing: mixing would
//! put the process into a state no file describes. What was accepted replaces the old value as a
//! whole, and the caller learns which keys now have another value and which of those wait for a
//! restart.
//!
//! What the files say must be whole by itself, so that it can be checked where nothing runs. Tables
//! that are kept elsewhere ([`Graft`]) are laid beside it and may refer to it. A reload takes all of
//! them along or is refused: a file must not take away what they stand on.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_resilience::Invalid;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::graft::Graft;
use super::tree::{Node, Value};
use super::{Errors, Loaded, Sources, deserialize};
use crate::report::Report;

/// Turns what was written into what it means.
pub type Resolve<R, T> = fn(R) -> Result<T, Vec<Invalid>>;

/// The configuration in force, and how to read it again.
#[derive(Debug)]
pub struct Live<R, T> {
    sources: Sources,
    resolve: Resolve<R, T>,
    restart_only: &'static [&'static str],
    /// As at start: what restart-only keys are compared with.
    started: Node,
    /// What the files, the environment and the flags say.
    files: Node,
    /// What is laid beside that.
    grafts: Vec<Graft>,
    /// All of it together.
    tree: Node,
    current: Arc<T>,
    last: Result<(), Errors>,
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// Keys whose new value is in force.
    pub applied: Vec<String>,
    /// Keys whose new value waits for the next start.
    pub needs_restart: Vec<String>,
}

impl<R: DeserializeOwned + JsonSchema, T> Live<R, T> {
    /// Reads the configuration for the first time. `restart_only` are the paths that cannot
    /// change while running; a path covers everything below it, and `!path` excepts it again.
    ///
    /// # Errors
    ///
    /// [`Errors`]: nothing starts half.
    pub fn start(
        sources: Sources,
        resolve: Resolve<R, T>,
        restart_only: &'static [&'static str],
    ) -> Result<(Self, Vec<Report>), Errors> {
        let resolved = sources.load()?.resolve(resolve)?;
        let live = Self {
            sources,
            resolve,
            restart_only,
            started: resolved.tree.clone(),
            files: resolved.tree.clone(),
            grafts: Vec::new(),
            tree: resolved.tree,
            current: Arc::new(resolved.value),
            last: Ok(()),
        };
        Ok((live, resolved.warnings))
    }

    /// Reads everything again, and takes it over if all of it is good and `serve` can serve by it.
    ///
    /// # Errors
    ///
    /// [`Errors`], of what was read or those of `serve`; what was in force stays in force.
    pub fn reload(
        &mut self,
        serve: impl FnOnce(&Arc<T>) -> Result<(), Errors>,
    ) -> Result<Reloaded, Errors> {
        let read = self.sources.load().and_then(|loaded| loaded.resolve(self.resolve));
        let served = read.and_then(|alone| {
            let (tree, value) = if self.grafts.is_empty() {
                (alone.tree.clone(), Arc::new(alone.value))
            } else {
                self.together(&alone.tree, &self.grafts)?
            };
            serve(&value)?;
            Ok((alone.tree, tree, value))
        });
        self.last = served.as_ref().map(|_| ()).map_err(Clone::clone);
        let (files, tree, value) = served?;
        let is_restart_only = |path: &String| {
            let covers = |key: &str| {
                path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            let excepted = self.restart_only.iter().filter_map(|key| key.strip_prefix('!'));
            self.restart_only.iter().any(|key| covers(key)) && !excepted.into_iter().any(covers)
        };
        let reloaded = Reloaded {
            applied: changes(&self.tree, &tree)
                .into_iter()
                .filter(|path| !is_restart_only(path))
                .collect(),
            needs_restart: changes(&self.started, &tree)
                .into_iter()
                .filter(is_restart_only)
                .collect(),
        };
        self.files = files;
        self.tree = tree;
        self.current = value;
        Ok(reloaded)
    }

    /// Lays `grafts` beside the files, instead of those before, if `serve` can serve by all of it.
    /// Returns the paths of the values that changed.
    ///
    /// # Errors
    ///
    /// [`Errors`], of what they come to or those of `serve`; what was in force stays in force.
    pub fn lay(
        &mut self,
        grafts: Vec<Graft>,
        serve: impl FnOnce(&Arc<T>) -> Result<(), Errors>,
    ) -> Result<Vec<String>, Errors> {
        let (tree, value) = self.together(&self.files, &grafts)?;
        serve(&value)?;
        let changed = changes(&self.tree, &tree);
        self.grafts = grafts;
        self.tree = tree;
        self.current = value;
        Ok(changed)
    }

    /// What the files and `grafts` would come to. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`Errors`]: every fault there would be.
    pub fn rehearse(&self, grafts: &[Graft]) -> Result<Arc<T>, Errors> {
        self.together(&self.files, grafts).map(|(_, value)| value)
    }

    fn together(&self, files: &Node, grafts: &[Graft]) -> Result<(Node, Arc<T>), Errors> {
        let mut tree = files.clone();
        for graft in grafts {
            graft.onto(&mut tree);
        }
        let raw = deserialize(&tree)?;
        let resolved = Loaded { raw, tree, warnings: Vec::new() }.resolve(self.resolve)?;
        Ok((resolved.tree, Arc::new(resolved.value)))
    }
}

impl<R, T> Live<R, T> {
    /// The configuration in force.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.current)
    }

    /// What the files say alone, with places.
    pub const fn files(&self) -> &Node {
        &self.files
    }

    /// As written, with places; what is laid beside the files among it.
    pub const fn tree(&self) -> &Node {
        &self.tree
    }

    /// How the last reload went.
    pub const fn last(&self) -> &Result<(), Errors> {
        &self.last
    }

    /// Where it is read from.
    pub const fn sources(&self) -> &Sources {
        &self.sources
    }
}

/// Paths of all values that differ, in order.
pub fn changes(old: &Node, new: &Node) -> Vec<String> {
    let (old, mut new) = (leaves(old), leaves(new));
    let mut paths: Vec<String> = old
        .into_iter()
        .filter(|(path, value)| new.remove(path) != Some(*value))
        .map(|(path, _)| path)
        .collect();
    paths.extend(new.into_keys());
    paths.sort_unstable();
    paths
}

fn leaves(root: &Node) -> BTreeMap<String, &Value> {
    let mut leaves = BTreeMap::new();
    root.each_leaf("", &mut |path, node| {
        leaves.insert(path.to_owned(), &node.value);
    });
    leaves
}
