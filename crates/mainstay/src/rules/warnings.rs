//! What is probably not meant, though it can be.
//!
//! Asked of a rule that fits; the plane is the one it would be part of.

use std::collections::BTreeSet;

use mainstay_coord::keys::{RuleKind, RuleRef};
use mainstay_coord::revisions::Fault;
use mainstay_proxy::config::{Plane, SHARED_NAMESPACE};
use mainstay_proxy::route::{Action, Route};
use mainstay_resilience::circuit::Enforcement;
use mainstay_resilience::fallback::Action as Answer;
use mainstay_resilience::limit::Mode;

/// The circuit that guards every service which names none.
const DEFAULT_CIRCUIT: &str = "default";

/// What is to be said of `rule` as a part of `plane`. `is_switch` knows the switches there are, by
/// namespace and name.
pub fn warnings(
    plane: &Plane,
    rule: &RuleRef,
    is_switch: impl Fn(&str, &str) -> bool,
) -> Vec<Fault> {
    let unused = (!is_used(plane, rule)).then(|| {
        let how = match rule.kind {
            RuleKind::UPSTREAM => "no route leads to it",
            RuleKind::FALLBACK => "no route names it",
            _ => "no route and no upstream names it",
        };
        Fault::new("", "rule-unused", format!("{} {rule} changes nothing: {how}", rule.kind))
    });
    let observes = (only_observes(plane, rule)).then(|| Fault {
        suggestion: Some("leave `mode` out to enforce".to_owned()),
        ..Fault::new("mode", "rule-observes", "is `observe`: it counts, and refuses nothing")
    });
    let switches = switches(plane, rule).into_iter();
    let missing = switches.filter(|(_, namespace, name)| !is_switch(namespace, name)).map(
        |(key, namespace, name)| Fault {
            suggestion: Some(format!("mainstay switch set {namespace}/{name} …")),
            ..Fault::new(key, "switch-missing", format!("there is no switch {namespace}/{name}"))
        },
    );
    unused.into_iter().chain(observes).chain(missing).collect()
}

/// Whether calls are made differently for it.
fn is_used(plane: &Plane, rule: &RuleRef) -> bool {
    let name = rule.name.as_str();
    let names = |list: &[mainstay_core::name::PolicyName]| list.iter().any(|n| n.as_str() == name);
    let (mut routes, mut upstreams) = (plane.routes.iter(), plane.upstreams.values());
    match rule.kind {
        RuleKind::UPSTREAM => {
            let leads = |route: &Route| leads_to(route).any(|service| service == name);
            let answers = |step: &mainstay_resilience::fallback::Step| matches!(&step.action, Answer::Substitute { service } if service.as_str() == name);
            routes.any(|route| leads(route))
                || plane.fallbacks.values().any(|f| f.steps().iter().any(answers))
        }
        RuleKind::CIRCUIT => {
            name == DEFAULT_CIRCUIT
                || routes.any(|route| names(&route.circuits))
                || upstreams.any(|upstream| names(&upstream.circuits))
        }
        RuleKind::LIMIT => {
            routes.any(|route| names(&route.limits))
                || upstreams.any(|upstream| names(&upstream.limits))
        }
        RuleKind::FALLBACK => {
            routes.any(|route| route.fallback.as_ref().is_some_and(|f| f.as_str() == name))
        }
        _ => true,
    }
}

/// The services that calls of `route` go to.
fn leads_to(route: &Route) -> impl Iterator<Item = &str> {
    let split = match &route.action {
        Action::To(split) => Some(split),
        Action::Redirect(_) | Action::Respond(_) => None,
    };
    let to = split
        .into_iter()
        .flat_map(mainstay_proxy::split::Split::shares)
        .map(|(name, _)| name.as_str());
    to.chain(route.mirror.as_ref().map(|mirror| mirror.service.as_str()))
}

fn only_observes(plane: &Plane, rule: &RuleRef) -> bool {
    let name = rule.name.as_str();
    match rule.kind {
        RuleKind::CIRCUIT => plane.circuits.iter().any(|(known, circuit)| {
            known.as_str() == name && circuit.enforcement == Enforcement::Observe
        }),
        RuleKind::LIMIT => plane
            .limits
            .iter()
            .any(|(known, limit)| known.as_str() == name && limit.mode == Mode::Observe),
        _ => false,
    }
}

/// The switches that `rule` is turned by: the key, the namespace and the name of each.
fn switches(plane: &Plane, rule: &RuleRef) -> BTreeSet<(&'static str, String, String)> {
    let name = rule.name.as_str();
    let found = match rule.kind {
        RuleKind::ROUTE => {
            plane.routes.iter().find(|route| route.name.as_str() == name).and_then(|route| {
                Some(("switch", route.namespace.to_string(), route.switch.clone()?.into()))
            })
        }
        RuleKind::UPSTREAM => {
            plane.upstreams.iter().find(|(known, _)| known.as_str() == name).and_then(|(_, at)| {
                let switch = at.attempts_switch.clone()?.into();
                Some(("attempts_switch", at.namespace.to_string(), switch))
            })
        }
        RuleKind::LIMIT => {
            let limit = plane.limits.iter().find(|(known, _)| known.as_str() == name);
            let switch = limit.and_then(|(_, limit)| limit.scale_switch.clone());
            switch.map(|switch| ("scale_switch", SHARED_NAMESPACE.to_owned(), switch))
        }
        RuleKind::CIRCUIT => {
            let circuit = plane.circuits.iter().find(|(known, _)| known.as_str() == name);
            let switch = circuit.and_then(|(_, circuit)| circuit.mode_switch.clone());
            switch.map(|switch| ("mode_switch", SHARED_NAMESPACE.to_owned(), switch.into()))
        }
        // A fallback asks switches of the namespaces of its routes.
        _ => {
            let by = plane.routes.iter().filter(|route| {
                route.fallback.as_ref().is_some_and(|fallback| fallback.as_str() == name)
            });
            let steps = plane.fallbacks.iter().find(|(known, _)| known.as_str() == name);
            return by
                .flat_map(|route| {
                    let switches = steps.into_iter().flat_map(|(_, steps)| steps.switches());
                    switches
                        .map(|switch| ("steps", route.namespace.to_string(), switch.to_string()))
                })
                .collect();
        }
    };
    found.into_iter().collect()
}
