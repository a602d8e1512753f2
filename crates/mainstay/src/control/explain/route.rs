//! What a call by a route would meet at this moment, and what a fallback has to offer.

use std::sync::Arc;

use mainstay_core::name::{PolicyName, ServiceName};
use mainstay_proxy::gateway::Running;
use mainstay_proxy::route::{Action, Route};
use mainstay_resilience::circuit::Scope;
use mainstay_resilience::fallback::{Action as Answers, FallbackPolicy};
use serde_json::Value;

use super::{circuit_step, document, limit_step, step};
use crate::control::moment::Moment;
use crate::control::{balance, limits};
use crate::role::Shared;

/// Stage by stage, outermost first, as things stand.
pub(super) fn document_of(
    shared: &Shared,
    running: &Running,
    subject: &str,
    route: &Route,
) -> Value {
    let deadline = format!("{} s", route.timeout.as_secs_f64());
    let mut steps = vec![step("deadline", "pass", &deadline, None, None)];
    steps.extend(limit_steps(shared, &route.limits));
    let Action::To(split) = &route.action else {
        let what =
            if matches!(route.action, Action::Redirect(_)) { "redirects" } else { "answers" };
        let whole = format!("route {subject}: {what} by itself, and calls no service");
        if !route.has_own_stages() {
            return document(subject, "route", &whole, Vec::new());
        }
        steps.extend(route.fallback.iter().map(ready));
        let summary = format!("{whole}; {}", verdict(&steps));
        return document(subject, "route", &summary, steps);
    };
    let shares: Vec<(&ServiceName, u16)> = split.shares().collect();
    for (service, _) in &shares {
        if let Some(upstream) = running.upstreams.get(*service) {
            let own = upstream.config.limits.iter().filter(|name| !route.limits.contains(name));
            steps.extend(limit_steps(shared, own));
        }
    }
    steps.extend(route.fallback.iter().map(ready));
    for (service, _) in &shares {
        steps.extend(service_steps(shared, running, route, service));
    }
    let to: Vec<String> = shares
        .iter()
        .map(|(service, share)| format!("{service} {} %", f64::from(*share) / 100.0))
        .collect();
    let summary = format!("route {subject}: to {}; {}", to.join(", "), verdict(&steps));
    document(subject, "route", &summary, steps)
}

fn ready(fallback: &PolicyName) -> Value {
    step("fallback", "ready", fallback.as_str(), None, None)
}

fn verdict(steps: &[Value]) -> String {
    match steps.iter().filter(|step| step["outcome"] == "reject").count() {
        0 => "a call would pass".to_owned(),
        1 => "one stage would refuse a call".to_owned(),
        several => format!("{several} stages would refuse a call"),
    }
}

/// What a call to `service` meets behind the limits.
fn service_steps(
    shared: &Shared,
    running: &Running,
    route: &Route,
    service: &ServiceName,
) -> Vec<Value> {
    let Some(upstream) = running.upstreams.get(service) else {
        return vec![step("balance", "reject", service.as_str(), None, None)];
    };
    let moment = Moment::now();
    let machines = &shared.gateway.parts().machines;
    let budgets = machines.budgets();
    let budget = budgets.iter().find(|(name, _)| **name == *service.as_str());
    let credits = budget.map(|(_, budget)| format!("{} retries to spend", budget.view().credits()));
    let attempts = format!("{} attempts", upstream.config.retry.attempts);
    let all = upstream.instances.view();
    let usable = all.iter().filter(|row| balance::why_not(row, moment).is_none()).count();
    let outcome = if usable == 0 { "reject" } else { "pass" };
    let observed = format!("{usable} of {} instances can be picked", all.len());
    let rule = format!("{service}, {}", balance::kind(upstream.config.balance.kind));
    let mut steps = vec![
        step("retry", "pass", &attempts, credits, None),
        step("balance", outcome, &rule, Some(observed), None),
    ];
    // Those of instances are behind the count of instances; these stand in everybody's way.
    let circuits = machines.circuits();
    let in_the_way = circuits.iter().filter(|circuit| {
        let subject = &*circuit.key().subject;
        match circuit.scope() {
            Scope::Instance => false,
            Scope::Service => subject == service.as_str(),
            Scope::Route => subject == route.name.as_str(),
        }
    });
    steps.extend(in_the_way.map(|circuit| circuit_step(circuit)));
    steps
}

fn limit_steps<'a>(
    shared: &'a Shared,
    names: impl IntoIterator<Item = &'a PolicyName>,
) -> impl Iterator<Item = Value> {
    let found = names.into_iter().filter_map(|name| limits::find(shared, name.as_str()));
    found.map(|limit| limit_step(&limit))
}

/// The steps of a fallback in their order, and who uses it; in a process that keeps deferred
/// requests or does not.
pub(super) fn fallback(
    (running, defers): (&Running, bool),
    subject: &str,
    name: &str,
    fallback: &Arc<FallbackPolicy>,
) -> Value {
    let steps = fallback.steps().iter().map(|one| {
        let (outcome, observed) = match &one.action {
            Answers::Substitute { service } => {
                let instances = running.upstreams.get(service).map(|it| it.instances.view());
                let moment = Moment::now();
                let usable = instances.iter().flatten();
                let usable = usable.filter(|row| balance::why_not(row, moment).is_none()).count();
                let outcome = if usable == 0 { "reject" } else { "ready" };
                (outcome, Some(format!("{usable} instances of {service} can be picked")))
            }
            Answers::Stale { max_age, .. } => {
                ("ready", Some(format!("answers up to {} s old", max_age.as_secs_f64())))
            }
            Answers::Defer { queue } => {
                let holds = running.plane.queue(queue.as_str());
                let observed = format!("queue {queue}, at most {} requests", holds.items_max);
                (if defers { "ready" } else { "reject" }, Some(observed))
            }
            Answers::Delay { span, .. } => ("ready", Some(format!("{} s", span.as_secs_f64()))),
            Answers::Silent { status, .. }
            | Answers::Value { status, .. }
            | Answers::Fail { status, .. } => ("ready", Some(format!("status {status}"))),
        };
        let rule = format!("{} when {}", one.action.as_str(), one.when().join(", "));
        step("fallback", outcome, &rule, observed, None)
    });
    let steps: Vec<Value> = steps.collect();
    let users = running.plane.routes.iter();
    let users = users.filter(|route| route.fallback.as_ref().is_some_and(|it| it.as_str() == name));
    let users: Vec<&str> = users.map(|route| route.name.as_str()).collect();
    let used = if users.is_empty() {
        "used by no route".to_owned()
    } else {
        format!("used by {}", users.join(", "))
    };
    let summary = format!("fallback {subject}: {} steps, {used}", steps.len());
    document(subject, "fallback", &summary, steps)
}
