//! `GET /checks`: is the running gateway well?

mod agreed;
mod locks;
mod transactions;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use mainstay_call::budget::SharedBudget;
use mainstay_call::circuit::SharedCircuit;
use mainstay_call::limit::SharedLimit;
use mainstay_proxy::identify::keys::View;
use mainstay_resilience::circuit::State as Stands;
use mainstay_security::jwks::State as Keys;
use mainstay_security::jws::Unusable;
use serde_json::{Value, json};

use super::answer::first_of;
use super::moment::Moment;
use super::{balance, circuits, limits};
use crate::check::{Checked, State as Verdict};
use crate::role::Shared;

/// Names listed as evidence; whoever wants all of them asks for the list.
const NAMED_MAX: usize = 5;

/// `GET /checks`
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let moment = Moment::now();
    let mut checked = vec![
        settings_loaded(&shared),
        circuits_open(&shared, moment),
        panic_active(&shared),
        retry_budget_spent(&shared),
        limits_saturated(&shared),
        gateway_state_age(&shared),
        instances(&shared, moment),
    ];
    checked.extend(jwks_state(&shared, moment));
    if let Some(cluster) = &shared.cluster {
        // At once: each has a time limit of its own, and whoever asks has one for all of them.
        let (agreed, locks, transactions) = tokio::join!(
            agreed::all(cluster, shared.ready.data_dir.join("keyring")),
            locks::all(cluster),
            transactions::all(cluster)
        );
        checked.extend(agreed);
        checked.extend(locks);
        checked.extend(transactions);
    }
    Json(json!({ "items": checked }))
}

fn settings_loaded(shared: &Shared) -> Checked {
    let last = shared.live.lock().last().clone();
    let (state, summary, evidence) = match &last {
        Ok(()) => (Verdict::Pass, "the configuration on disk is in force", None),
        Err(errors) => {
            let summary = "the last reload failed; the configuration before it is in force";
            (Verdict::Fail, summary, Some(first_of(errors)))
        }
    };
    let next = evidence.is_some().then_some("mainstay settings validate");
    checked("settings-loaded", "settings", state, summary.to_owned(), evidence, next)
}

fn circuits_open(shared: &Shared, moment: Moment) -> Checked {
    let is_open = |circuit: &Arc<SharedCircuit>| {
        let view = circuit.view(moment.now);
        view.enforced && view.state == Stands::Open
    };
    let all = shared.gateway.parts().machines.circuits();
    let open: Vec<String> = all.iter().filter(|c| is_open(c)).map(|c| circuits::id(c)).collect();
    let summary = format!("{} of {} circuits are open", open.len(), all.len());
    warned("circuits-open", summary, &open, "mainstay circuit list --state open")
}

fn panic_active(shared: &Shared) -> Checked {
    let running = shared.gateway.running();
    let all = running.upstreams.iter().filter(|(_, upstream)| balance::panics(upstream));
    let panicking: Vec<String> = all.map(|(name, _)| name.as_str().to_owned()).collect();
    let summary = format!("{} services use instances that look unusable", panicking.len());
    let first = panicking.first().map_or("", String::as_str);
    warned("panic-active", summary, &panicking, &format!("mainstay explain {first}"))
}

fn retry_budget_spent(shared: &Shared) -> Checked {
    let all = shared.gateway.parts().machines.budgets();
    // A budget that forbids every retry has none to spend.
    let is_spent = |budget: &SharedBudget| {
        let view = budget.view();
        view.credits() == 0 && view.spent() > 0
    };
    let spent: Vec<String> = all
        .iter()
        .filter(|(_, budget)| is_spent(budget))
        .map(|(service, _)| service.as_ref().to_owned())
        .collect();
    let summary = format!("{} of {} retry budgets are spent", spent.len(), all.len());
    let first = spent.first().map_or("", String::as_str);
    warned("retry-budget-spent", summary, &spent, &format!("mainstay explain {first}"))
}

fn gateway_state_age(shared: &Shared) -> Checked {
    let (age, overdue) = shared.state_age();
    let (state, summary) = match age {
        None => (Verdict::Unknown, "what calls taught has not been written down yet".to_owned()),
        Some(age) => {
            let state = if overdue { Verdict::Warn } else { Verdict::Pass };
            (state, format!("what calls taught was written down {} s ago", age.as_secs()))
        }
    };
    let next = (state != Verdict::Pass).then_some("mainstay explain check-gateway-state-age");
    checked("gateway-state-age", "calls", state, summary, None, next)
}

fn limits_saturated(shared: &Shared) -> Checked {
    let all = shared.gateway.parts().machines.limits();
    let is_full = |limit: &&Arc<SharedLimit>| {
        limits::filled(limit).is_some_and(|usage| usage.remaining() == 0)
    };
    let full: Vec<String> =
        all.iter().filter(is_full).map(|l| l.name().as_ref().to_owned()).collect();
    let summary = format!("{} of {} limits have nothing left", full.len(), all.len());
    let first = full.first().map_or("", String::as_str);
    warned("limits-saturated", summary, &full, &format!("mainstay limit usage {first}"))
}

fn instances(shared: &Shared, moment: Moment) -> Checked {
    let running = shared.gateway.running();
    let (mut without, mut total, mut usable) = (Vec::new(), 0, 0);
    for (name, upstream) in &running.upstreams {
        let all = upstream.instances.view();
        let fit = all.iter().filter(|row| balance::why_not(row, moment).is_none()).count();
        if fit == 0 {
            without.push(name.as_str().to_owned());
        }
        (total, usable) = (total + all.len(), usable + fit);
    }
    if let Some(first) = without.first() {
        let summary = format!("{} services have no usable instance", without.len());
        let next = format!("mainstay explain {first}");
        return checked(
            "instances",
            "calls",
            Verdict::Fail,
            summary,
            Some(named(&without)),
            Some(&next),
        );
    }
    let state = if usable < total { Verdict::Warn } else { Verdict::Pass };
    let summary = format!("{usable} of {total} instances are usable");
    checked("instances", "calls", state, summary, None, None)
}

/// Nothing where no issuer is configured.
fn jwks_state(shared: &Shared, moment: Moment) -> Option<Checked> {
    let running = shared.gateway.running();
    let views: Vec<_> = running.issuers.iter().map(|issuer| issuer.keys.view(moment.now)).collect();
    let dropped = |view: &View| view.dropped.iter().any(|key| key.why != Unusable::Purpose);
    let mut verdict = Verdict::Pass;
    let mut evidence = Vec::new();
    for view in &views {
        let state = match view.state {
            Keys::Empty | Keys::Expired => Verdict::Fail,
            Keys::Stale => Verdict::Warn,
            Keys::Fresh if dropped(view) => Verdict::Warn,
            Keys::Fresh => continue,
        };
        let why = view.failure.clone().or_else(|| {
            let key = view.dropped.iter().find(|key| key.why != Unusable::Purpose)?;
            Some(format!("key {} cannot be used: {}", key.place, key.why))
        });
        let why = why.unwrap_or_else(|| "not fetched yet".to_owned());
        evidence.push(format!("{} is {}: {why}", view.issuer, view.state.as_str()));
        if verdict != Verdict::Fail {
            verdict = state;
        }
    }
    let total = views.len();
    let summary =
        format!("the keys of {} of {total} issuers are as they should be", total - evidence.len());
    let next = (!evidence.is_empty()).then_some("mainstay explain check-jwks-state");
    let evidence = (!evidence.is_empty()).then(|| named(&evidence));
    (0 < total).then(|| checked("jwks-state", "security", verdict, summary, evidence, next))
}

/// Good when nothing is in `found`, else a warning.
fn warned(id: &str, summary: String, found: &[String], next: &str) -> Checked {
    if found.is_empty() {
        return checked(id, "calls", Verdict::Pass, summary, None, None);
    }
    checked(id, "calls", Verdict::Warn, summary, Some(named(found)), Some(next))
}

fn named(all: &[String]) -> String {
    let more = if NAMED_MAX < all.len() { ", …" } else { "" };
    let first: Vec<&str> = all.iter().take(NAMED_MAX).map(String::as_str).collect();
    format!("{}{more}", first.join(", "))
}

fn checked(
    id: &str,
    category: &str,
    state: Verdict,
    summary: String,
    evidence: Option<String>,
    next: Option<&str>,
) -> Checked {
    let next = next.map(str::to_owned);
    Checked { id: id.to_owned(), category: category.to_owned(), state, summary, evidence, next }
}
