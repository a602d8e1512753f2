//! Which rules are in force.
//!
//! All of them together with the files make one configuration, and it resolves or it does not. When
//! it does not, the rules that its faults are about go back to what they were when it last did; if
//! that is not enough, all that changed goes back. So what was in force stays in force, and what
//! fits is not held up by what does not. At a start nothing was in force, and what does not fit is
//! left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_coord::keys::{RuleKind, RuleRef};

use super::rule::Rule;
use crate::report::Report;
use crate::settings::Errors;
use crate::settings::graft::{self, Graft};
use crate::settings::tree::Node;

/// A name among those of its kind: the files know no other, so neither may two namespaces.
type Name = (RuleKind, String);

/// Rules by name.
type Rules = BTreeMap<Name, Arc<Rule>>;

/// The rules of the store, and which of them are in force.
#[derive(Debug, Default)]
pub struct Book {
    /// As the store has them.
    kept: BTreeMap<RuleRef, Arc<Rule>>,
    in_force: Rules,
    unfit: BTreeMap<RuleRef, Unfit>,
}

/// Why a rule is not in force as it is written.
#[derive(Clone, Debug)]
pub enum Unfit {
    /// A file uses its name.
    Shadowed {
        /// Where.
        place: String,
    },
    /// The same name is used in another namespace.
    Taken {
        /// By which rule.
        by: RuleRef,
    },
    /// With it the configuration has these faults.
    Faulty(Errors),
}

/// Whether a rule is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it is written.
    InForce,
    /// Not, or not as it is written: it does not fit.
    Unfit,
    /// Not: a file uses its name.
    Shadowed,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::InForce, Self::Unfit, Self::Shadowed];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InForce => "in_force",
            Self::Unfit => "unfit",
            Self::Shadowed => "shadowed",
        }
    }
}

impl Book {
    /// The rule as the store has it.
    pub fn kept(&self, rule: &RuleRef) -> Option<&Arc<Rule>> {
        self.kept.get(rule)
    }

    /// The rule that goes by the name of `rule` in another namespace, if one does.
    pub fn namesake(&self, rule: &RuleRef) -> Option<&RuleRef> {
        let is_namesake = |other: &&RuleRef| {
            other.kind == rule.kind && other.name == rule.name && other.namespace != rule.namespace
        };
        self.kept.keys().find(is_namesake)
    }

    /// The rule in force that goes by this name.
    pub fn in_force(&self, kind: RuleKind, name: &str) -> Option<&Arc<Rule>> {
        self.in_force.get(&(kind, name.to_owned()))
    }

    /// The revision of a rule that is in force.
    pub fn revision_in_force(&self, rule: &RuleRef) -> Option<u64> {
        let there = self.in_force.get(&name_of(rule)).filter(|there| there.id == *rule);
        there.map(|there| there.revision)
    }

    /// Rules that were removed and are still in force, since others stand on them.
    pub fn lingering(&self) -> impl Iterator<Item = &RuleRef> {
        self.in_force.values().map(|rule| &rule.id).filter(|rule| !self.kept.contains_key(*rule))
    }

    /// Why a rule is not in force as it is written.
    pub fn why_not(&self, rule: &RuleRef) -> Option<&Unfit> {
        self.unfit.get(rule)
    }

    /// Every rule that is not in force as it is written, and why.
    pub fn unfit(&self) -> impl Iterator<Item = (&RuleRef, &Unfit)> {
        self.unfit.iter()
    }

    /// Whether a rule is in force.
    pub fn state(&self, rule: &RuleRef) -> State {
        match self.unfit.get(rule) {
            None => State::InForce,
            Some(Unfit::Shadowed { .. }) => State::Shadowed,
            Some(_) => State::Unfit,
        }
    }

    /// How many rules of `kind` are in `state`.
    pub fn count(&self, kind: RuleKind, state: State) -> usize {
        let is_it = |rule: &&RuleRef| rule.kind == kind && self.state(rule) == state;
        self.kept.keys().filter(is_it).count()
    }

    /// Whether `kept` is what it has: the same rules, as they were read.
    pub fn has(&self, kept: &BTreeMap<RuleRef, Arc<Rule>>) -> bool {
        kept.values().map(Arc::as_ptr).eq(self.kept.values().map(Arc::as_ptr))
    }

    /// What would be laid beside the files if `rule` were changed to `draft`, or removed.
    pub fn grafts_with(&self, rule: &RuleRef, draft: Option<&Rule>) -> Vec<Graft> {
        // Namespaces share names: a draft takes the place of whatever goes by its own; what is
        // removed is gone by itself alone.
        let stays = |name: &_, other: &Rule| match draft {
            Some(_) => *name != name_of(rule),
            None => other.id != *rule,
        };
        let others = self.in_force.iter().filter(|(name, other)| stays(*name, other));
        others.map(|(_, other)| other.graft()).chain(draft.map(Rule::graft)).collect()
    }

    /// Takes over `kept`, as far as `lay` accepts it beside `files`. Returns what `lay` said of
    /// what was accepted.
    ///
    /// # Errors
    ///
    /// What `lay` says of the files alone; then everything is as before.
    pub fn settle<T>(
        &mut self,
        kept: BTreeMap<RuleRef, Arc<Rule>>,
        files: &Node,
        mut lay: impl FnMut(Vec<Graft>) -> Result<T, Errors>,
    ) -> Result<T, Errors> {
        let mut before = self.in_force.clone();
        before.retain(|_, rule| shadow(&rule.id, files).is_none());
        let (mut tried, mut unfit) = eligible(&kept, &before, files);
        let laid = loop {
            let errors = match lay(tried.values().map(|rule| rule.graft()).collect()) {
                Ok(laid) => break laid,
                Err(errors) if tried.is_empty() => return Err(errors),
                Err(errors) => errors,
            };
            for rule in step_back(&mut tried, &mut before, &errors) {
                unfit.entry(rule).or_insert_with(|| Unfit::Faulty(errors.clone()));
            }
        };
        unfit.retain(|rule, _| kept.contains_key(rule));
        (self.kept, self.in_force, self.unfit) = (kept, tried, unfit);
        Ok(laid)
    }
}

/// Takes back what `errors` are about, at least one rule; returns which rules of the store are not
/// in force as they are written for it. Each step leaves fewer rules that differ from `before`, or
/// fewer rules.
fn step_back(tried: &mut Rules, before: &mut Rules, errors: &Errors) -> Vec<RuleRef> {
    let is_new = |name: &Name| {
        let id = |rules: &Rules| rules.get(name).map(|rule| (rule.id.clone(), rule.revision));
        id(tried) != id(before)
    };
    let names = tried.keys().chain(before.keys());
    let changed: Vec<Name> = names.filter(|name| is_new(name)).cloned().collect();
    let mut blamed = blamed(errors, tried);
    if changed.is_empty() {
        if blamed.is_empty() {
            blamed = tried.keys().cloned().collect();
        }
        let left =
            blamed.iter().filter_map(|name| before.remove(name).and_then(|_| tried.remove(name)));
        return left.map(|rule| rule.id.clone()).collect();
    }
    // What did not change is not at fault: it was whole with the rest as it was before.
    let is_theirs = !blamed.is_empty() && blamed.iter().all(is_new);
    let back = if is_theirs { blamed } else { changed };
    let left = back.into_iter().filter_map(|name| match before.get(&name) {
        Some(rule) => tried.insert(name, Arc::clone(rule)),
        None => tried.remove(&name),
    });
    left.map(|rule| rule.id.clone()).collect()
}

/// The rules that `errors` are about: those whose fields they stand at; else those they name.
fn blamed(errors: &Errors, tried: &Rules) -> Vec<Name> {
    let paths = errors.reports.iter().filter_map(|report| report.path.as_deref());
    let at = |path: &str| {
        let (kind, rest) = path.split_once('.')?;
        let name = rest.split(['.', '[']).next()?;
        tried.keys().find(|(k, n)| k.as_str() == kind && n == name).cloned()
    };
    let mut blamed: Vec<Name> = paths.filter_map(at).collect();
    if blamed.is_empty() {
        let named = |(_, name): &&Name| {
            let quoted = format!("`{name}`");
            errors.reports.iter().any(|report| report.message.contains(&quoted))
        };
        blamed = tried.keys().filter(named).cloned().collect();
    }
    blamed.sort_unstable();
    blamed.dedup();
    blamed
}

/// The rules that may be in force, by name; and why the others may not.
fn eligible(
    kept: &BTreeMap<RuleRef, Arc<Rule>>,
    before: &Rules,
    files: &Node,
) -> (Rules, BTreeMap<RuleRef, Unfit>) {
    let (mut tried, mut unfit) = (Rules::new(), BTreeMap::new());
    for (id, rule) in kept {
        let name = name_of(id);
        let why = if let Some(place) = shadow(id, files) {
            Unfit::Shadowed { place }
        } else if let Some(other) = tried.get(&name) {
            // The first in order of namespaces, so that all nodes agree.
            Unfit::Taken { by: other.id.clone() }
        } else if rule.faults.is_empty() {
            tried.insert(name, Arc::clone(rule));
            continue;
        } else {
            let last = before.get(&name).filter(|last| last.id == *id);
            tried.extend(last.map(|last| (name, Arc::clone(last))));
            Unfit::Faulty(Errors { reports: rule.faults.clone() })
        };
        unfit.insert(id.clone(), why);
    }
    (tried, unfit)
}

/// Where a file uses the name of `rule`.
pub fn shadow(rule: &RuleRef, files: &Node) -> Option<String> {
    let node = graft::written(files, rule.kind.as_str(), rule.name.as_str())?;
    Some(node.key.brief())
}

/// The first thing `unfit` is about, on one line.
pub fn reason(unfit: &Unfit) -> String {
    match unfit {
        Unfit::Shadowed { place } => format!("a file uses the name: {place}"),
        Unfit::Taken { by } => format!("the name is used by {} {by}", by.kind),
        Unfit::Faulty(errors) => {
            let line = |report: &Report| {
                let place = report.place.as_ref().map(|place| format!("{place}: "));
                format!("{}{}", place.unwrap_or_default(), report.message)
            };
            errors.reports.first().map(line).unwrap_or_default()
        }
    }
}

fn name_of(rule: &RuleRef) -> Name {
    (rule.kind, rule.name.to_string())
}
