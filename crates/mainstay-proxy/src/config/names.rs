//! Whether the names that tables use lead to a table.
//!
//! A name leads somewhere when a table of that name was written, good or not: what is wrong with
//! the table is reported there, and a second report at every place that uses it would only hide
//! the first.

use std::collections::BTreeSet;

use mainstay_core::name::{PolicyName, ServiceName};
use mainstay_core::problem::Code;
use mainstay_resilience::Invalid;
use mainstay_resilience::fallback::{Action as FallbackAction, FallbackPolicy};

use super::UpstreamConfig;
use super::plane::RawPlane;
use crate::route::{Action, Route};

/// The names of all tables as written.
#[derive(Debug)]
pub(super) struct Written {
    upstreams: BTreeSet<String>,
    circuits: BTreeSet<String>,
    limits: BTreeSet<String>,
    fallbacks: BTreeSet<String>,
}

impl Written {
    pub(super) fn of(raw: &RawPlane) -> Self {
        let mut circuits: BTreeSet<String> = raw.circuit.keys().cloned().collect();
        circuits.insert("default".to_owned());
        Self {
            upstreams: raw.upstream.keys().cloned().collect(),
            circuits,
            limits: raw.limit.keys().cloned().collect(),
            fallbacks: raw.fallback.keys().cloned().collect(),
        }
    }

    /// Notes every name in `route` that leads nowhere.
    pub(super) fn check_route(&self, route: &Route, faults: &mut Vec<Invalid>) {
        let at = format!("route.{}", route.name);
        self.check_policies(&at, &route.limits, &route.circuits, faults);
        if let Some(name) = &route.fallback
            && !self.fallbacks.contains(name.as_str())
        {
            faults.push(unknown(format!("{at}.fallback"), "fallback", name.as_str()));
        }
        if let Action::To(split) = &route.action {
            for (service, _) in split.shares() {
                self.check_service(format!("{at}.to"), service, faults);
            }
        }
        if let Some(mirror) = &route.mirror {
            self.check_service(format!("{at}.mirror.service"), &mirror.service, faults);
        }
    }

    /// Notes every name in the upstream called `name` that leads nowhere.
    pub(super) fn check_upstream(
        &self,
        name: &ServiceName,
        upstream: &UpstreamConfig,
        faults: &mut Vec<Invalid>,
    ) {
        let at = format!("upstream.{name}");
        self.check_policies(&at, &upstream.limits, &upstream.circuits, faults);
    }

    /// Notes every name in the fallback called `name` that leads nowhere.
    pub(super) fn check_fallback(
        &self,
        name: &PolicyName,
        fallback: &FallbackPolicy,
        faults: &mut Vec<Invalid>,
    ) {
        for (n, step) in fallback.steps().iter().enumerate() {
            if let FallbackAction::Substitute { service } = &step.action {
                let at = format!("fallback.{name}.steps[{n}].substitute.service");
                self.check_service(at, service, faults);
            }
        }
    }

    fn check_policies(
        &self,
        at: &str,
        limits: &[PolicyName],
        circuits: &[PolicyName],
        faults: &mut Vec<Invalid>,
    ) {
        let (most_limits, most_circuits) =
            (mainstay_call::stage::limit::LIMITS_MAX, mainstay_call::circuit::CIRCUITS_MAX);
        for (key, table, names, known, most) in [
            ("limits", "limit", limits, &self.limits, most_limits),
            ("circuits", "circuit", circuits, &self.circuits, most_circuits),
        ] {
            for (n, name) in names.iter().enumerate() {
                if !known.contains(name.as_str()) {
                    faults.push(unknown(format!("{at}.{key}[{n}]"), table, name.as_str()));
                }
            }
            let found = names.len();
            if found > most {
                let problem = format!("must name at most {most}, found {found}");
                faults.push(Invalid::range(format!("{at}.{key}"), problem));
            }
        }
    }

    fn check_service(&self, path: String, service: &ServiceName, faults: &mut Vec<Invalid>) {
        if !self.upstreams.contains(service.as_str()) {
            faults.push(unknown(path, "upstream", service.as_str()));
        }
    }
}

fn unknown(path: String, table: &str, name: &str) -> Invalid {
    let problem = format!("names `{name}`, but there is no `[{table}.{name}]`");
    Invalid { path, code: Code::ConfigUnknownReference, problem }
}
