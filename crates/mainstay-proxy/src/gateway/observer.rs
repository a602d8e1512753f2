//! Turns what the stages tell into metrics and log lines.

use std::sync::Arc;
use std::time::Duration;

use mainstay_call::circuit::SharedCircuit;
use mainstay_call::context::Degraded;
use mainstay_call::endpoint::Endpoint;
use mainstay_call::observe::Observer;
use mainstay_resilience::circuit::{Scope, State, Transition};
use mainstay_resilience::outlier::Change;

use crate::events;
use crate::metrics::{
    CircuitState, CircuitTransition, Degradation, LimitDecision, Metrics, Reason, ServiceLabel,
    ServiceReason,
};

/// Counts what happens, and logs what changes state.
#[derive(Debug)]
pub(super) struct Counting(Arc<Metrics>);

impl Counting {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self(metrics)
    }
}

impl Observer for Counting {
    fn circuit_changed(&self, circuit: &SharedCircuit, transition: &Transition) {
        let key = circuit.key();
        let name = key.policy.as_ref().to_owned();
        let scope = match circuit.scope() {
            Scope::Instance => "instance",
            Scope::Service => "service",
            Scope::Route => "route",
        };
        if transition.enforced {
            for state in [State::Closed, State::Open, State::HalfOpen, State::Ramp] {
                // The gauge counts circuits of a policy that are in each state.
                let change =
                    i64::from(state == transition.to) - i64::from(state == transition.from);
                let labels = CircuitState {
                    circuit: name.clone(),
                    scope: scope.to_owned(),
                    state: state.as_str().to_owned(),
                };
                self.0.circuit_state.get_or_create(&labels).inc_by(change);
            }
        }
        let labels = CircuitTransition {
            circuit: name,
            to: transition.to.as_str().to_owned(),
            reason: transition.cause.reason.as_str().to_owned(),
        };
        self.0.circuit_transitions.get_or_create(&labels).inc();
        events::CircuitChanged { circuit: &key.policy, subject: &key.subject, transition }.emit();
    }

    fn attempt_ended(&self, endpoint: &Endpoint, failed: Option<bool>, took: Duration) {
        let _unused = (endpoint, failed, took);
    }

    fn retried(&self, service: &str, reason: &'static str) {
        let labels = ServiceReason { service: service.to_owned(), reason: reason.to_owned() };
        self.0.retries.get_or_create(&labels).inc();
    }

    fn retry_stopped(&self, why: &'static str) {
        self.0.retries_stopped.get_or_create(&Reason { reason: why.to_owned() }).inc();
    }

    fn limit_decided(&self, limit: &str, decision: &'static str) {
        let labels = LimitDecision { limit: limit.to_owned(), decision: decision.to_owned() };
        self.0.limit_decisions.get_or_create(&labels).inc();
    }

    fn degraded(&self, degraded: Degraded) {
        let labels =
            Degradation { kind: degraded.kind.to_owned(), cause: degraded.cause.to_owned() };
        self.0.degraded.get_or_create(&labels).inc();
    }

    fn ejection(&self, service: &str, endpoint: Option<&Endpoint>, change: &Change) {
        let instance = endpoint.map_or("", |endpoint| endpoint.name());
        match change {
            Change::Ejected { ejection, .. } => {
                let reason = ejection.evidence.rule.as_str().to_owned();
                self.0.ejections.get_or_create(&Reason { reason }).inc();
                events::InstanceEjected { service, instance, ejection }.emit();
            }
            Change::Returned { early, .. } => {
                events::InstanceReturned { service, instance, early: *early }.emit();
            }
            Change::Withheld { evidence, .. } => {
                self.0.ejections_withheld.inc();
                events::EjectionWithheld { service, instance, evidence }.emit();
            }
        }
    }

    fn panicking(&self, service: &str, active: bool) {
        let labels = ServiceLabel { service: service.to_owned() };
        self.0.panic_active.get_or_create(&labels).set(i64::from(active));
        events::PanicChanged { service, active }.emit();
    }
}
