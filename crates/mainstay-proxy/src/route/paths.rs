//! The routes of one host, by path.
//!
//! Exact paths stand in a hash map. Templates, prefixes and regular expressions hang on one tree
//! of segments: a template at its end, with a branch of its own for captures; a prefix at its
//! end; a regular expression where its literal beginning ends, so that only those are run that
//! could match. The way down the tree is one hash look-up a segment and at most as deep as the
//! deepest pattern, whatever the request says.
//!
//! Where any route of the host ignores letter case, all keys are in lower case, and every
//! candidate checks its own path in the end anyway.

use std::borrow::Cow;
use std::collections::HashMap;
use std::str::Split;
use std::sync::Arc;

use super::Route;
use super::path::{Kind, segments_of};
use super::table::{Search, folded};

/// The routes of one host. Lists of routes are in ascending order: of falling rank.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    folds: bool,
    exact: HashMap<Box<str>, Vec<usize>>,
    root: Node,
}

/// One place in the tree of segments.
#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, Node>,
    capture: Option<Box<Node>>,
    templates: Vec<usize>,
    prefixes: Vec<usize>,
    regexes: Vec<usize>,
}

impl Paths {
    /// Sorts `members` of `routes` in; also returns which pairs of them compete.
    pub(crate) fn new(routes: &[Arc<Route>], members: &[usize]) -> (Self, Vec<(usize, usize)>) {
        let folds = members.iter().any(|&index| routes[index].path.ignore_case);
        let mut paths = Self { folds, ..Self::default() };
        let (mut clashes, mut regexes) = (Vec::new(), Vec::new());
        for &index in members {
            let rivals = paths.insert(routes, index, &mut regexes);
            let clash = rivals.into_iter().find(|&rival| routes[rival].competes(&routes[index]));
            clashes.extend(clash.map(|rival| (rival, index)));
        }
        (paths, clashes)
    }

    /// Sorts one route in; returns those before it that may match the same paths.
    fn insert(
        &mut self,
        routes: &[Arc<Route>],
        index: usize,
        regexes: &mut Vec<usize>,
    ) -> Vec<usize> {
        let key = |text: &str| if self.folds { text.to_ascii_lowercase() } else { text.to_owned() };
        let place = match &routes[index].path.kind {
            Kind::Exact(path) => self.exact.entry(key(path).into()).or_default(),
            Kind::Prefix(prefix) => &mut self.root.descend(&key(prefix)).prefixes,
            Kind::Template(segments) => {
                let segments: Vec<_> =
                    segments.iter().map(|segment| segment.as_deref().map(key)).collect();
                let mut rivals = Vec::new();
                self.root.overlapping(&segments, &mut rivals);
                rivals.sort_unstable();
                let mut node = &mut self.root;
                for segment in segments {
                    node = match segment {
                        Some(literal) => node.literals.entry(literal.into()).or_default(),
                        None => node.capture.get_or_insert_default(),
                    };
                }
                node.templates.push(index);
                return rivals;
            }
            Kind::Regex(pattern) => {
                // Only whole segments lead anywhere: the last one may go on.
                let whole = pattern.leading().rsplit_once('/').map_or("", |(whole, _)| whole);
                self.root.descend(&key(whole)).regexes.push(index);
                let rivals = regexes.clone();
                regexes.push(index);
                return rivals;
            }
        };
        let rivals = place.clone();
        place.push(index);
        rivals
    }

    /// Shows `search` what could match, best first. Whether a route was lost for its method.
    pub(crate) fn walk(&self, search: &mut Search<'_>) -> bool {
        let path = search.view.path;
        let path = if self.folds { folded(path) } else { Cow::Borrowed(path) };
        let mut lost = self.exact.get(&*path).is_some_and(|found| search.consider(found));
        let segments = path.strip_prefix('/').unwrap_or_default().split('/');
        for stage in [Node::templates, Node::prefixes, Node::regexes] {
            if search.is_done() {
                return false;
            }
            lost |= stage(&self.root, segments.clone(), search);
        }
        lost
    }
}

impl Node {
    /// The place of a literal path without a slash at the end, made if it is not there.
    fn descend(&mut self, literal: &str) -> &mut Self {
        segments_of(literal)
            .fold(self, |node, segment| node.literals.entry(segment.into()).or_default())
    }

    /// Adds every template that may match a path which `segments` match as well.
    fn overlapping(&self, segments: &[Option<String>], found: &mut Vec<usize>) {
        let Some((segment, rest)) = segments.split_first() else {
            found.extend(&self.templates);
            return;
        };
        match segment {
            Some(literal) => {
                if let Some(node) = self.literals.get(&**literal) {
                    node.overlapping(rest, found);
                }
            }
            None => self.literals.values().for_each(|node| node.overlapping(rest, found)),
        }
        if let Some(node) = &self.capture {
            node.overlapping(rest, found);
        }
    }

    /// The place below for the next segment of `rest`; where nothing is below, none is cut off.
    fn below(&self, rest: &mut Split<'_, char>) -> Option<&Self> {
        if self.literals.is_empty() {
            return None;
        }
        rest.next().and_then(|segment| self.literals.get(segment))
    }

    /// Templates that end where `rest` ends. Each place of the tree is looked at once at most.
    fn templates(&self, mut rest: Split<'_, char>, search: &mut Search<'_>) -> bool {
        if self.literals.is_empty() && self.capture.is_none() && self.templates.is_empty() {
            return false;
        }
        let Some(segment) = rest.next() else { return search.consider(&self.templates) };
        let mut lost = false;
        if let Some(node) = self.literals.get(segment) {
            lost |= node.templates(rest.clone(), search);
        }
        if let Some(node) = &self.capture
            && !segment.is_empty()
        {
            lost |= node.templates(rest, search);
        }
        lost
    }

    /// Prefixes on the way down, the longest first.
    fn prefixes(&self, mut rest: Split<'_, char>, search: &mut Search<'_>) -> bool {
        let below = self.below(&mut rest);
        let lost = below.is_some_and(|node| node.prefixes(rest, search));
        search.consider(&self.prefixes) | lost
    }

    /// Regular expressions on the way down.
    fn regexes(&self, mut rest: Split<'_, char>, search: &mut Search<'_>) -> bool {
        let lost = search.consider(&self.regexes);
        let below = self.below(&mut rest);
        below.is_some_and(|node| node.regexes(rest, search)) | lost
    }
}
