//! What a proposed limit or circuit would have done with the calls of the last minutes.
//!
//! The calls are those the rule guards in the plane it would be part of; where nothing names it
//! yet, all of them. Addresses of callers are known by a hash alone, so whatever a limit counts
//! apart (a header, a tenant), here it is the address.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mainstay_coord::keys::{RuleKind, RuleRef};
use mainstay_core::Instant;
use mainstay_proxy::config::Plane;
use mainstay_proxy::summary::{Fate, Summary};
use mainstay_resilience::circuit::{CircuitPolicy, Scope};
use mainstay_resilience::limit::LimitPolicy;
use mainstay_resilience::simulate::{self, Call, Verdict};
use serde_json::{Map, Value, json};

/// One line of `by_10s`.
const SLICE: Duration = Duration::from_secs(10);

/// Keys told of, those refused most first.
const TOP_KEYS: usize = 10;

/// Whether rules of `kind` can be played through.
pub fn replays(kind: RuleKind) -> bool {
    matches!(kind, RuleKind::LIMIT | RuleKind::CIRCUIT)
}

/// A rule, and whose calls it guards.
#[derive(Debug)]
pub struct Replay {
    machine: Machine,
    routes: BTreeSet<String>,
    services: BTreeSet<String>,
}

#[derive(Debug)]
enum Machine {
    Limit(Arc<LimitPolicy>),
    Circuit(Arc<CircuitPolicy>),
}

impl Replay {
    /// The rule as a part of `plane`; `None` for one that is not there or cannot be played.
    pub fn of(plane: &Plane, rule: &RuleRef) -> Option<Self> {
        let name = rule.name.as_str();
        let machine = match rule.kind {
            RuleKind::LIMIT => Machine::Limit(Arc::clone(plane.limits.get(name)?)),
            RuleKind::CIRCUIT => Machine::Circuit(Arc::clone(plane.circuits.get(name)?)),
            _ => return None,
        };
        let names = |limits: &[mainstay_core::name::PolicyName],
                     circuits: &[mainstay_core::name::PolicyName]| {
            let list = if rule.kind == RuleKind::LIMIT { limits } else { circuits };
            list.iter().any(|known| known.as_str() == name)
        };
        let routes = plane.routes.iter().filter(|at| names(&at.limits, &at.circuits));
        let services = plane.upstreams.iter().filter(|(_, at)| names(&at.limits, &at.circuits));
        Some(Self {
            machine,
            routes: routes.map(|route| route.name.to_string()).collect(),
            services: services.map(|(service, _)| service.to_string()).collect(),
        })
    }

    /// Whether it guards this call.
    pub fn guards(&self, call: &Summary) -> bool {
        let is_of = |names: &BTreeSet<String>, name: &Option<Arc<str>>| {
            name.as_deref().is_some_and(|name| names.contains(name))
        };
        let all = self.routes.is_empty() && self.services.is_empty();
        // An instance nobody was sent to has no circuit that could tell.
        let reached = match &self.machine {
            Machine::Limit(_) => true,
            Machine::Circuit(policy) => group(policy.scope, call).is_some(),
        };
        reached && (all || is_of(&self.routes, &call.route) || is_of(&self.services, &call.service))
    }

    /// Plays `calls`, which are in order of time, and tells what comes of it. `text` says when a
    /// moment was.
    pub fn play(&self, now: Instant, calls: &[Summary], text: impl Fn(Instant) -> Value) -> Value {
        let verdicts = self.verdicts(calls);
        let fates = calls.iter().map(|call| match call.fate {
            Fate::Permitted => Verdict::Permitted,
            Fate::Denied => Verdict::Denied,
            Fate::RejectedOpen => Verdict::RejectedOpen,
        });
        let covers = calls.first().map_or(Duration::ZERO, |first| now.since(first.at));
        let named = |kind: &str, names: &BTreeSet<String>| {
            names.iter().map(|name| format!("{kind} {name}")).collect::<Vec<_>>()
        };
        let guards = [named("route", &self.routes), named("upstream", &self.services)].concat();
        let mut document = json!({
            "records": calls.len(),
            "sampled_1_in": 1,
            "covers_seconds": covers.as_secs_f64(),
            "guards": guards,
            "actual": counted(fates),
            "proposed": null,
            "assumes": "callers unchanged",
        });
        if calls.is_empty() {
            document["note"] = json!("nothing to replay");
        }
        match verdicts {
            None => document["note"] = json!("an adaptive limit learns, and cannot be replayed"),
            Some(verdicts) => {
                let mut proposed = counted(verdicts.iter().copied());
                proposed.insert("by_10s".to_owned(), slices(calls, &verdicts, text));
                proposed.insert("top_keys".to_owned(), top_keys(calls, &verdicts));
                document["proposed"] = proposed.into();
            }
        }
        document
    }

    fn verdicts(&self, calls: &[Summary]) -> Option<Vec<Verdict>> {
        let call = |key: u64, call: &Summary| Call {
            at: call.at,
            took: call.took(),
            key,
            outcome: call.outcome,
        };
        match &self.machine {
            Machine::Limit(policy) => {
                let calls: Vec<Call> = calls.iter().map(|one| call(one.client, one)).collect();
                simulate::limit(policy, &calls)
            }
            Machine::Circuit(policy) => {
                let mut groups: BTreeMap<&str, u64> = BTreeMap::new();
                let calls: Vec<Call> = calls
                    .iter()
                    .map(|one| {
                        let next = groups.len() as u64;
                        let group = group(policy.scope, one).unwrap_or_default();
                        call(*groups.entry(group).or_insert(next), one)
                    })
                    .collect();
                Some(simulate::circuit(policy, 0, &calls))
            }
        }
    }
}

/// What has a circuit of its own.
fn group(scope: Scope, call: &Summary) -> Option<&str> {
    let is_asked = call.outcome.is_some() || call.fate == Fate::RejectedOpen;
    let of = match scope {
        Scope::Instance => &call.instance,
        Scope::Service => &call.service,
        Scope::Route => &call.route,
    };
    of.as_deref().filter(|_| is_asked)
}

fn counted(verdicts: impl Iterator<Item = Verdict>) -> Map<String, Value> {
    let (mut permitted, mut denied, mut rejected_open) = (0_u64, 0_u64, 0_u64);
    for verdict in verdicts {
        match verdict {
            Verdict::Permitted => permitted += 1,
            Verdict::Denied => denied += 1,
            Verdict::RejectedOpen => rejected_open += 1,
        }
    }
    let counts = [("permitted", permitted), ("denied", denied), ("rejected_open", rejected_open)];
    counts.into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect()
}

/// What would have become of the calls of each ten seconds in which there were some.
fn slices(calls: &[Summary], verdicts: &[Verdict], text: impl Fn(Instant) -> Value) -> Value {
    let Some(first) = calls.first() else { return json!([]) };
    let mut slices: BTreeMap<u64, Vec<Verdict>> = BTreeMap::new();
    for (call, verdict) in calls.iter().zip(verdicts) {
        let slice = call.at.since(first.at).as_secs() / SLICE.as_secs();
        slices.entry(slice).or_default().push(*verdict);
    }
    let told = slices.into_iter().map(|(slice, verdicts)| {
        let mut told = counted(verdicts.into_iter());
        let begin = first.at.plus(Duration::from_secs(slice * SLICE.as_secs()));
        told.insert("at".to_owned(), text(begin));
        Value::Object(told)
    });
    told.collect()
}

/// Callers that would have been refused most.
fn top_keys(calls: &[Summary], verdicts: &[Verdict]) -> Value {
    let mut keys: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for (call, verdict) in calls.iter().zip(verdicts) {
        let (permitted, refused) = keys.entry(call.client).or_default();
        let which = if *verdict == Verdict::Permitted { permitted } else { refused };
        *which += 1;
    }
    let mut keys: Vec<_> = keys.into_iter().collect();
    keys.sort_by_key(|(key, (permitted, refused))| {
        (std::cmp::Reverse((*refused, *permitted)), *key)
    });
    let told = keys.into_iter().take(TOP_KEYS).map(|(key, (permitted, refused))| {
        json!({ "key": format!("{key:016x}"), "permitted": permitted, "refused": refused })
    });
    told.collect()
}
