//! Turns what the stages tell into metrics and log lines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_call::circuit::SharedCircuit;
use mainstay_call::context::Degraded;
use mainstay_call::endpoint::Endpoint;
use mainstay_call::failing::Failing;
use mainstay_call::observe::Observer;
use mainstay_resilience::circuit::Transition;
use mainstay_resilience::outlier::Change;
use parking_lot::RwLock;
use prometheus_client::metrics::counter::Counter;

use crate::events;
use crate::metrics::{
    CircuitTransition, Degradation, InstanceMetrics, LimitDecision, LimitLabel, Metrics, Reason,
    ResultLabel, ServiceLabel, ServiceReason,
};

/// Counts what happens, and logs what changes state.
#[derive(Debug)]
pub(super) struct Counting {
    metrics: Arc<Metrics>,
    failing: Arc<Failing>,
    /// Counters of decisions by limit, found once: limits decide about every request. There are a
    /// handful, which a walk finds faster than a hash does.
    decisions: RwLock<Vec<(Box<str>, &'static str, Counter)>>,
}

impl Counting {
    pub(super) fn new(metrics: Arc<Metrics>, failing: Arc<Failing>) -> Self {
        Self { metrics, failing, decisions: RwLock::default() }
    }

    #[cold]
    fn first_decision(&self, limit: &str, decision: &'static str) {
        let labels = LimitDecision { limit: limit.to_owned(), decision: decision.to_owned() };
        let counter = self.metrics.limit_decisions.get_or_create(&labels).clone();
        counter.inc();
        let mut known = self.decisions.write();
        // Names come from configurations; a process that has seen very many begins anew.
        if known.len() >= DECISIONS_MAX {
            known.clear();
        }
        known.push((limit.into(), decision, counter));
    }
}

/// Counters kept at hand: limits times decisions.
const DECISIONS_MAX: usize = 1_024;

impl Observer for Counting {
    fn circuit_changed(&self, circuit: &SharedCircuit, transition: &Transition) {
        let key = circuit.key();
        let name = key.policy.as_ref().to_owned();
        let labels = CircuitTransition {
            circuit: name,
            to: transition.to.as_str().to_owned(),
            reason: transition.cause.reason.as_str().to_owned(),
        };
        self.metrics.circuit_transitions.get_or_create(&labels).inc();
        events::CircuitChanged { circuit: &key.policy, subject: &key.subject, transition }.emit();
        self.failing.circuit_changed(circuit, transition);
    }

    fn retried(&self, service: &str, reason: &'static str) {
        let labels = ServiceReason { service: service.to_owned(), reason: reason.to_owned() };
        self.metrics.retries.get_or_create(&labels).inc();
    }

    fn retry_stopped(&self, why: &'static str) {
        self.metrics.retries_stopped.get_or_create(&Reason { reason: why.to_owned() }).inc();
    }

    fn limit_decided(&self, limit: &str, decision: &'static str) {
        let known = self.decisions.read();
        match known.iter().find(|(name, kind, _)| *kind == decision && **name == *limit) {
            Some((_, _, counter)) => drop(counter.inc()),
            None => {
                drop(known);
                self.first_decision(limit, decision);
            }
        }
    }

    fn limit_waited(&self, limit: &str, wait: Duration) {
        let label = LimitLabel { limit: limit.to_owned() };
        self.metrics.limit_waits.get_or_create(&label).observe(wait.as_secs_f64());
    }

    fn hedged(&self, result: &'static str) {
        self.metrics.hedges.get_or_create(&ResultLabel { result: result.to_owned() }).inc();
    }

    fn degraded(&self, degraded: Degraded) {
        let labels =
            Degradation { kind: degraded.kind.to_owned(), cause: degraded.cause.to_owned() };
        self.metrics.degraded.get_or_create(&labels).inc();
    }

    fn ejection(&self, service: &str, endpoint: Option<&Endpoint>, change: &Change) {
        let instance = endpoint.map_or("", |endpoint| endpoint.name());
        self.failing.ejection(service, endpoint, change);
        match change {
            Change::Ejected { ejection, .. } => {
                let reason = ejection.evidence.rule.as_str().to_owned();
                self.metrics.ejections.get_or_create(&Reason { reason }).inc();
                events::InstanceEjected { service, instance, ejection }.emit();
            }
            Change::Returned { early, .. } => {
                events::InstanceReturned { service, instance, early: *early }.emit();
            }
            Change::Withheld { evidence, .. } => {
                self.metrics.ejections_withheld.inc();
                events::EjectionWithheld { service, instance, evidence }.emit();
            }
        }
    }

    fn panicking(&self, service: &str, active: bool) {
        let labels = ServiceLabel { service: service.to_owned() };
        self.metrics.panic_active.get_or_create(&labels).set(i64::from(active));
        events::PanicChanged { service, active }.emit();
    }
}

/// Counts the attempts at the instances of one service, and passes everything else on.
///
/// Only here is it known which service an instance belongs to. Its counters are found once and
/// kept by the number of the endpoint: an attempt costs one look-up under a shared lock.
#[derive(Debug)]
pub(super) struct Attempts {
    service: Arc<str>,
    metrics: Arc<Metrics>,
    known: RwLock<BTreeMap<u32, InstanceMetrics>>,
    rest: Arc<dyn Observer>,
}

/// Counters kept at hand; beyond this many the memory starts anew, which costs look-ups and
/// nothing else.
const KNOWN_MAX: usize = 16_384;

impl Attempts {
    pub(super) fn new(service: Arc<str>, metrics: Arc<Metrics>, rest: Arc<dyn Observer>) -> Self {
        Self { service, metrics, known: RwLock::default(), rest }
    }
}

impl Observer for Attempts {
    fn circuit_changed(&self, circuit: &SharedCircuit, transition: &Transition) {
        self.rest.circuit_changed(circuit, transition);
    }

    fn attempt_ended(&self, endpoint: &Endpoint, failed: Option<bool>, took: Duration) {
        if let Some(counters) = self.known.read().get(&endpoint.id()) {
            counters.ended(failed, took);
            return;
        }
        let counters = self.metrics.instance(&self.service, endpoint.name());
        counters.ended(failed, took);
        let mut known = self.known.write();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(endpoint.id(), counters);
    }

    fn retried(&self, service: &str, reason: &'static str) {
        self.rest.retried(service, reason);
    }

    fn retry_stopped(&self, why: &'static str) {
        self.rest.retry_stopped(why);
    }

    fn limit_decided(&self, limit: &str, decision: &'static str) {
        self.rest.limit_decided(limit, decision);
    }

    fn limit_waited(&self, limit: &str, wait: Duration) {
        self.rest.limit_waited(limit, wait);
    }

    fn hedged(&self, result: &'static str) {
        self.rest.hedged(result);
    }

    fn degraded(&self, degraded: Degraded) {
        self.rest.degraded(degraded);
    }

    fn ejection(&self, service: &str, endpoint: Option<&Endpoint>, change: &Change) {
        self.rest.ejection(service, endpoint, change);
    }

    fn panicking(&self, service: &str, active: bool) {
        self.rest.panicking(service, active);
    }
}
