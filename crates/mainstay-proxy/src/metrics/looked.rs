//! What is read off the machines when somebody asks.
//!
//! Circuits, limits and budgets know how they stand and count what they refuse. A second count
//! beside theirs would cost every call and differ from theirs one day; so before the exposition is
//! written they are looked at. A total that a machine took with it when it was no longer used is
//! gone, as after a restart.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use mainstay_call::circuit::SharedCircuit;
use mainstay_call::clock::MonotonicClock;
use mainstay_call::failing::Failing;
use mainstay_call::limit::{LimitUsage, SharedLimit};
use mainstay_call::machines::Machines;
use mainstay_core::{Clock, Instant};
use mainstay_resilience::circuit::{Scope, State};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::{
    CircuitLabel, CircuitState, FileLabel, LimitLabel, Metrics, ResultLabel, ServiceLabel,
    StateLabel, show,
};
use crate::listener::Caps;
use crate::upstream::Census;

type Gauges<L> = Family<L, Gauge<i64, AtomicI64>>;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Looked {
    circuit_state: Gauges<CircuitState>,
    circuit_rejected: Family<CircuitLabel, Counter>,
    limit_keys: Gauges<LimitLabel>,
    limit_evictions: Family<LimitLabel, Counter>,
    limit_would_reject: Family<LimitLabel, Counter>,
    concurrency_limit: Gauges<LimitLabel>,
    concurrency_in_flight: Gauges<LimitLabel>,
    budget_credits: Gauges<ServiceLabel>,
    observations: Family<ResultLabel, Counter>,
    connections: Gauges<StateLabel>,
    connections_refused: Counter,
    upstream_connections: Gauges<StateLabel>,
    snapshot_age: Gauge<f64, AtomicU64>,
    reload_failed: Gauges<FileLabel>,
}

impl Looked {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register("circuit_state", "Circuits in each state", self.circuit_state.clone());
        r.register(
            "circuit_rejected",
            "Calls that circuits did not let through",
            self.circuit_rejected.clone(),
        );
        r.register("limit_keys", "Keys a keyed limit holds", self.limit_keys.clone());
        r.register("limit_evictions", "Keys a full limit forgot", self.limit_evictions.clone());
        r.register(
            "limit_would_reject",
            "Calls a limit in observe mode would have refused",
            self.limit_would_reject.clone(),
        );
        r.register(
            "concurrency_limit",
            "Calls that a limit lets be in flight at once",
            self.concurrency_limit.clone(),
        );
        r.register(
            "concurrency_in_flight",
            "Calls in flight under a limit",
            self.concurrency_in_flight.clone(),
        );
        r.register(
            "retry_budget_credits",
            "Retries that a service's budget would grant now",
            self.budget_credits.clone(),
        );
        r.register("connections", "Open downstream connections", self.connections.clone());
        r.register(
            "connections_refused",
            "Downstream connections closed unanswered because a limit was reached",
            self.connections_refused.clone(),
        );
        r.register(
            "upstream_connections",
            "Connections to services by state, and calls that await one, as of the last second",
            self.upstream_connections.clone(),
        );
        r.register(
            "observations",
            "Instances that failed calls, taken to the registry, or dropped for want of room",
            self.observations.clone(),
        );
        r.register_with_unit(
            "calls_snapshot_age",
            "Time since what calls taught was written down; NaN before the first time",
            Unit::Seconds,
            self.snapshot_age.clone(),
        );
        r.register(
            "settings_reload_failed",
            "1 while the last reload failed, by the file at fault",
            self.reload_failed.clone(),
        );
    }
}

impl Looked {
    pub(super) fn show_all(&self) {
        show(&self.circuit_state);
        show(&self.circuit_rejected);
        show(&self.limit_evictions);
        show(&self.limit_would_reject);
        show(&self.limit_keys);
        show(&self.concurrency_limit);
        show(&self.concurrency_in_flight);
        show(&self.budget_credits);
        show(&self.observations);
        show(&self.connections);
        show(&self.upstream_connections);
        show(&self.reload_failed);
    }
}

impl Metrics {
    /// Takes in how the machines and the process's connections stand.
    pub fn look(&self, machines: &Machines, caps: &Caps) {
        let (now, looked) = (MonotonicClock.now(), &self.looked);
        looked.circuits(now, &machines.circuits());
        looked.limits(&machines.limits());
        looked.budget_credits.clear();
        for (service, budget) in machines.budgets() {
            let credits = i64::try_from(budget.view().credits()).unwrap_or(i64::MAX);
            let label = ServiceLabel { service: service.as_ref().to_owned() };
            looked.budget_credits.get_or_create(&label).set(credits);
        }
        let set = |family: &Gauges<StateLabel>, state: &str, count: i64| {
            family.get_or_create(&StateLabel { state: state.to_owned() }).set(count);
        };
        set(&looked.connections, "open", i64::try_from(caps.open()).unwrap_or(i64::MAX));
        looked.connections_refused.inner().store(caps.refused() as u64, Ordering::Relaxed);
        for (state, count) in Census::of_process().by_state() {
            set(&looked.upstream_connections, state, count);
        }
    }

    /// Takes in how old the snapshot is; `None` before it was written.
    pub fn snapshot_age(&self, age: Option<Duration>) {
        self.looked.snapshot_age.set(age.map_or(f64::NAN, |age| age.as_secs_f64()));
    }

    /// Takes in how many instances failed calls.
    pub fn failing(&self, failing: &Failing) {
        for (result, count) in [("taken", failing.taken()), ("dropped", failing.dropped())] {
            let label = ResultLabel { result: result.to_owned() };
            let counter = self.looked.observations.get_or_create(&label);
            counter.inner().store(count, Ordering::Relaxed);
        }
    }

    /// Takes in which files kept the last reload from succeeding.
    pub fn reload_failed<'a>(&self, files: impl IntoIterator<Item = &'a str>) {
        self.looked.reload_failed.clear();
        for file in files {
            let label = FileLabel { file: file.to_owned() };
            self.looked.reload_failed.get_or_create(&label).set(1);
        }
    }
}

impl Looked {
    fn circuits(&self, now: Instant, circuits: &[std::sync::Arc<SharedCircuit>]) {
        self.circuit_state.clear();
        self.circuit_rejected.clear();
        for circuit in circuits {
            let view = circuit.view(now);
            let name = || circuit.key().policy.as_ref().to_owned();
            let scope = match circuit.scope() {
                Scope::Instance => "instance",
                Scope::Service => "service",
                Scope::Route => "route",
            };
            for state in [State::Closed, State::Open, State::HalfOpen, State::Ramp] {
                let (circuit, scope) = (name(), scope.to_owned());
                let labels = CircuitState { circuit, scope, state: state.as_str().to_owned() };
                let gauge = self.circuit_state.get_or_create(&labels);
                gauge.inc_by(i64::from(state == view.state));
            }
            let rejected = self.circuit_rejected.get_or_create(&CircuitLabel { circuit: name() });
            rejected.inc_by(view.refused_total);
        }
    }

    fn limits(&self, limits: &[std::sync::Arc<SharedLimit>]) {
        for gauges in [&self.limit_keys, &self.concurrency_limit, &self.concurrency_in_flight] {
            gauges.clear();
        }
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        for limit in limits {
            let label = LimitLabel { limit: limit.name().as_ref().to_owned() };
            let tally = match limit.usage() {
                LimitUsage::Lone(usage) => usage.tally,
                LimitUsage::Keyed(usage) => {
                    self.limit_keys.get_or_create(&label).set(gauge(usage.keys as u64));
                    let evictions = self.limit_evictions.get_or_create(&label);
                    evictions.inner().store(usage.evictions, Ordering::Relaxed);
                    usage.tally
                }
                LimitUsage::InFlight { usage, .. } => {
                    self.concurrency_limit.get_or_create(&label).set(gauge(usage.capacity));
                    self.concurrency_in_flight.get_or_create(&label).set(gauge(usage.used));
                    usage.tally
                }
            };
            let would_reject = self.limit_would_reject.get_or_create(&label);
            would_reject.inner().store(tally.would_reject, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mainstay_call::circuit::CircuitKey;
    use mainstay_call::observe::Silent;
    use mainstay_resilience::budget::BudgetPolicy;
    use mainstay_resilience::circuit::{CircuitPolicy, Mode};
    use mainstay_resilience::limit::{LimitPolicy, RawLimit};

    use super::*;

    #[test]
    fn what_machines_know_is_in_the_exposition() {
        let machines = Machines::new(Arc::new(Silent));
        let key = CircuitKey { policy: "default".into(), subject: "order@a".into() };
        let circuit = machines.circuit(key, &Arc::new(CircuitPolicy::default()));
        let now = MonotonicClock.now();
        circuit.set_mode(now, Mode::ForcedOpen, Instant::MAX);
        assert!(circuit.admit(now).is_err());
        let limit = |name: &str, text: &str| {
            let raw: RawLimit = toml::from_str(text).expect("a limit");
            let policy = Arc::new(LimitPolicy::try_from(raw).expect("in range"));
            machines.limit(&Arc::from(name), &policy)
        };
        let _limits = [
            limit("users", "max = 1\nkey = ['client_address']"),
            limit("slots", "kind = 'concurrency'\nmax = 7"),
        ];
        let budget = machines.budget(&Arc::from("order"), BudgetPolicy::default());
        let metrics = Metrics::new();
        metrics.snapshot_age(Some(Duration::from_millis(500)));
        metrics.reload_failed(["conf.d/50-bad.toml"]);
        metrics.look(&machines, &Caps::new(10, 0));
        let text = metrics.encode().expect("a string takes everything");
        for line in [
            r#"mainstay_circuit_state{circuit="default",scope="instance",state="open"} 1"#,
            r#"mainstay_circuit_rejected_total{circuit="default"} 1"#,
            r#"mainstay_limit_keys{limit="users"} 0"#,
            r#"mainstay_limit_evictions_total{limit="users"} 0"#,
            r#"mainstay_limit_would_reject_total{limit="users"} 0"#,
            r#"mainstay_concurrency_limit{limit="slots"} 7"#,
            r#"mainstay_concurrency_in_flight{limit="slots"} 0"#,
            r#"mainstay_retry_budget_credits{service="order"} 100"#,
            r#"mainstay_connections{state="open"} 0"#,
            "mainstay_connections_refused_total 0",
            r#"mainstay_upstream_connections{state="idle"} "#,
            "mainstay_calls_snapshot_age_seconds 0.5",
            r#"mainstay_settings_reload_failed{file="conf.d/50-bad.toml"} 1"#,
        ] {
            assert!(text.contains(line), "no {line} in {text}");
        }
        metrics.reload_failed([]);
        let text = metrics.encode().expect("a string takes everything");
        assert!(!text.contains("50-bad"), "{text}");
        drop(budget);
    }
}
