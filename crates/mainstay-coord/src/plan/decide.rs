//! What activating and deactivating a plan comes to. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::content::Plan;
use super::error::PlanError;
use super::state::{Activation, Captured, Ended, PlanState};
use crate::keys::{RuleKind, RuleRef};
use crate::moment::Moment;
use crate::name::RuleName;
use crate::revisions::{Edition, Fault, Head, RuleError, Terms, What};
use crate::switch::content::with_value;
use crate::switch::{Setting, Switch};

/// What a plan does to a switch.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = PlanEffect)]
pub struct Effect {
    /// The switch.
    pub switch: String,
    /// What it is now.
    pub from: Value,
    /// What it becomes.
    pub to: Value,
    /// Instances with a value of their own, which stays.
    pub overridden: usize,
}

/// The switches of a plan as they were read.
pub(super) type Heads = BTreeMap<RuleName, Head>;

/// A change that was decided: everything the batch writes.
#[derive(Clone, Debug)]
pub(super) struct Decided {
    pub(super) state: PlanState,
    pub(super) editions: Vec<(RuleRef, Edition)>,
    pub(super) effects: Vec<Effect>,
    pub(super) kept: Vec<String>,
}

/// Who decides, when, under which name.
#[derive(Clone, Copy, Debug)]
pub(super) struct By<'a> {
    pub(super) terms: &'a Terms,
    pub(super) at: Moment,
    pub(super) change: &'a str,
}

/// What is wrong with the values of a plan, as its switches are.
pub(super) fn misfits(plan: &RuleRef, content: &Plan, heads: &Heads) -> Result<(), PlanError> {
    let mut faults = Vec::new();
    for (name, value) in &content.switches {
        let switch = switch(plan, name);
        let there = heads.get(name).and_then(Head::there);
        let there = there.ok_or_else(|| RuleError::not_found(&switch, What::Object))?;
        if let Some(managed_by) = &there.managed_by {
            let managed_by = managed_by.clone();
            return Err(RuleError::ManagedElsewhere { rule: switch, managed_by }.into());
        }
        let Ok(known) = Switch::read(&there.content) else {
            return Err(RuleError::Unreadable { rule: switch }.into());
        };
        if Setting::read(known.kind(), value).is_none() {
            let path = format!("switches/{name}");
            let detail = format!("{path} must be {}", known.kind().wanted());
            faults.push(Fault::new(path, "switch-type", detail));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(PlanError::Type { plan: plan.clone(), faults }) }
}

/// Which active plan has a switch of this one, and which.
pub(super) fn conflict(
    plan: &RuleRef,
    content: &Plan,
    states: &BTreeMap<RuleRef, PlanState>,
) -> Result<(), PlanError> {
    for (other, state) in states.iter().filter(|(other, _)| *other != plan) {
        let shared: Vec<String> = content
            .switches
            .keys()
            .filter(|name| state.has(name))
            .map(RuleName::to_string)
            .collect();
        if !shared.is_empty() {
            let (plan, other) = (plan.clone(), other.clone());
            return Err(PlanError::Conflict { plan, other, switches: shared });
        }
    }
    Ok(())
}

/// Decides the activation of a plan whose values fit and which has no conflict.
///
/// Every switch gets an edition, also one that has the value already: so no other plan that was
/// decided upon the same switches can be activated beside this one.
pub(super) fn activation(
    plan: &RuleRef,
    content: &Plan,
    state: &PlanState,
    heads: &Heads,
    by: By<'_>,
) -> Result<Decided, PlanError> {
    if state.active.is_some() {
        return Err(PlanError::Active { plan: plan.clone() });
    }
    let (mut editions, mut effects, mut captured) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (name, value) in &content.switches {
        let Some(before) = heads.get(name).and_then(Head::there) else { continue };
        let was = Captured { value: value_of(before), until: until_of(before), set: value.clone() };
        effects.push(effect(name, before, value));
        captured.insert(name.to_string(), was);
        editions.push((switch(plan, name), edition(before, value, None, by)));
    }
    let author = &by.terms.author;
    let active = Activation {
        at: by.at,
        who: author.actor.principal.clone(),
        why: author.reason.clone(),
        until: content.max_active.map(|span| by.at.plus(span)),
        captured,
    };
    let mut state = state.clone().by(by.change);
    state.active = Some(active);
    Ok(Decided { state, editions, effects, kept: Vec::new() })
}

/// Decides the deactivation of a plan: each switch gets back what it was, unless somebody changed
/// its value since; with `force`, in any case. One that was removed, or is of another type now,
/// stays so.
pub(super) fn deactivation(
    plan: &RuleRef,
    state: &PlanState,
    heads: &Heads,
    force: bool,
    by: By<'_>,
) -> Result<Decided, PlanError> {
    let Some(active) = &state.active else {
        return Err(PlanError::Inactive { plan: plan.clone() });
    };
    let (mut editions, mut effects, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for (name, captured) in &active.captured {
        let Ok(name) = RuleName::new(name.clone()) else { continue };
        let there = heads.get(&name).and_then(Head::there);
        let is_as_set =
            |now: &&Edition| force || (value_of(now) == captured.set && until_of(now).is_none());
        // One that was made anew since may be of another type.
        let fits = |now: &&Edition| {
            Switch::read(&now.content)
                .is_ok_and(|now| Setting::read(now.kind(), &captured.value).is_some())
        };
        let there = there.filter(|now| now.managed_by.is_none());
        let Some(before) = there.filter(is_as_set).filter(fits) else {
            kept.push(name.to_string());
            continue;
        };
        // A value whose time was over meanwhile does not come back: its default does.
        let (value, until) = match captured.until {
            Some(until) if until <= by.at => {
                (before.content.get("default").unwrap_or(&captured.value), None)
            }
            until => (&captured.value, until),
        };
        effects.push(effect(&name, before, value));
        editions.push((switch(plan, &name), edition(before, value, until, by)));
    }
    let author = &by.terms.author;
    let ended = Ended {
        at: by.at,
        who: author.actor.principal.clone(),
        why: author.reason.clone(),
        kept: kept.clone(),
    };
    let mut state = state.clone().by(by.change);
    (state.active, state.last) = (None, Some(ended));
    Ok(Decided { state, editions, effects, kept })
}

/// The switch `name` of a plan: it lies in the same namespace.
pub(super) fn switch(plan: &RuleRef, name: &RuleName) -> RuleRef {
    RuleRef { kind: RuleKind::SWITCH, namespace: plan.namespace.clone(), name: name.clone() }
}

fn edition(before: &Edition, value: &Value, until: Option<Moment>, by: By<'_>) -> Edition {
    let content = with_value(&before.content, value, until);
    let terms = Terms { managed_by: None, ..by.terms.clone() };
    let mut edition = Edition::after(Some(before), by.at, by.change, &terms);
    edition.content = content;
    edition
}

fn effect(name: &RuleName, before: &Edition, to: &Value) -> Effect {
    let overrides = before.content.get("overrides").and_then(Value::as_object);
    Effect {
        switch: name.to_string(),
        from: value_of(before),
        to: to.clone(),
        overridden: overrides.map_or(0, serde_json::Map::len),
    }
}

fn value_of(edition: &Edition) -> Value {
    edition.content.get("value").cloned().unwrap_or_default()
}

fn until_of(edition: &Edition) -> Option<Moment> {
    Moment::parse(edition.content.get("until")?.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::audit::{Actor, Author};
    use crate::name::Namespace;
    use mainstay_store::Revision;

    fn head(edition: Edition) -> Head {
        let (written, read_at) = (Revision::FIRST, Revision::FIRST);
        Head { edition: Some(edition), written, read_at }
    }

    proptest! {
        /// Whatever values a plan meets and sets, and whatever is changed meanwhile: what was not
        /// changed is as before, what was changed is kept, and with force everything is as before.
        #[test]
        fn a_plan_gives_back_what_was_not_changed(
            switches in prop::collection::btree_map("[a-z]{1,3}", (0u8..3, 0u8..3, 0u8..4), 1..10),
            force: bool,
        ) {
            let terms = Terms::new(Author::new(Actor::system("test")));
            let by = By { terms: &terms, at: Moment::from_unix_millis(7), change: "c" };
            let namespace = Namespace::new("shop").unwrap();
            let name = RuleName::new("sale").unwrap();
            let plan = RuleRef { kind: RuleKind::PLAN, namespace, name };
            let (mut heads, mut wanted) = (Heads::new(), BTreeMap::new());
            for (name, (was, set, _)) in &switches {
                let name = RuleName::new(name.clone()).unwrap();
                let mut edition = Edition::after(None, by.at, "x", &terms);
                edition.content = json!({"type": "number", "value": was});
                heads.insert(name.clone(), head(edition));
                wanted.insert(name, json!(set));
            }
            let content = Plan { switches: wanted, max_active: None };
            misfits(&plan, &content, &heads).unwrap();
            let on = activation(&plan, &content, &PlanState::default(), &heads, by).unwrap();
            prop_assert_eq!(on.editions.len(), switches.len());
            let mut after = Heads::new();
            for (switch, mut edition) in on.editions {
                let (_, _, change) = switches[switch.name.as_str()];
                if change < 3 {
                    edition.content["value"] = json!(change);
                }
                after.insert(switch.name, head(edition));
            }
            let off = deactivation(&plan, &on.state, &after, force, by).unwrap();
            for (name, (was, set, change)) in &switches {
                let is_changed = *change < 3 && change != set;
                let back = off.editions.iter().find(|(switch, _)| switch.name.as_str() == name);
                prop_assert_eq!(off.kept.contains(name), is_changed && !force, "{}", name);
                match back {
                    Some((_, edition)) => prop_assert_eq!(&edition.content["value"], &json!(was)),
                    None => prop_assert!(is_changed && !force),
                }
            }
            prop_assert!(off.state.active.is_none());
        }
    }
}
