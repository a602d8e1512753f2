//! What the data plane counts, in Prometheus' words.
//!
//! Names, units and sentences of every metric stand in [`Metrics::new`], and nowhere else. What is
//! counted for each request is looked up once for each route and kept ([`RouteMetrics`]), so that
//! counting costs an atomic addition and no hashing. What machines count themselves is read off
//! them when somebody asks ([`looked`]).

mod looked;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use self::looked::Looked;
use crate::identify::figures::JwtFigures;

/// Upper bounds in seconds: from a cached answer to the default deadline.
const DURATION_BUCKETS: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];

/// Most label values taken from instances; further ones are counted under `other`, so that a fleet
/// that changes its addresses cannot grow the exposition without end.
const INSTANCES_MAX: usize = 1_000;

/// Labels of [`Metrics::requests`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    route: String,
    service: String,
    code: u32,
    outcome: &'static str,
}

/// A route and the service it led to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    route: String,
    service: String,
}

/// An upstream, and how an attempt at one of its instances ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AttemptLabels {
    service: String,
    instance: String,
    result: &'static str,
}

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($field:ident),* })*) => {
        $($(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $name { $(pub(crate) $field: String,)* })*
    };
}

labels! {
    /// A route, the service it led to, and why an answer broke off.
    BrokenLabels { route, service, reason }
    /// An upstream.
    ServiceLabel { service }
    /// Why something happened to an upstream's calls.
    ServiceReason { service, reason }
    /// Why.
    Reason { reason }
    /// What became of it.
    ResultLabel { result }
    /// A kind of degraded answer and what called for it.
    Degradation { kind, cause }
    /// A limit and what it decided.
    LimitDecision { limit, decision }
    /// A limit.
    LimitLabel { limit }
    /// A circuit's change of state.
    CircuitTransition { circuit, to, reason }
    /// A circuit in a scope and state.
    CircuitState { circuit, scope, state }
    /// A circuit.
    CircuitLabel { circuit }
    /// A file.
    FileLabel { file }
    /// A rule of message framing.
    Rule { rule }
    /// A state of a connection.
    StateLabel { state }
    /// A kind of fault.
    FaultLabel { fault }
}

/// Every metric of the data plane.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    broken: Family<BrokenLabels, Counter>,
    durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    attempt_durations: Family<ServiceLabel, Histogram, fn() -> Histogram>,
    attempts: Family<AttemptLabels, Counter>,
    instances: Mutex<std::collections::BTreeSet<String>>,
    pub(crate) retries: Family<ServiceReason, Counter>,
    pub(crate) retries_stopped: Family<Reason, Counter>,
    pub(crate) hedges: Family<ResultLabel, Counter>,
    pub(crate) circuit_transitions: Family<CircuitTransition, Counter>,
    pub(crate) limit_decisions: Family<LimitDecision, Counter>,
    pub(crate) limit_waits: Family<LimitLabel, Histogram, fn() -> Histogram>,
    pub(crate) degraded: Family<Degradation, Counter>,
    pub(crate) ejections: Family<Reason, Counter>,
    pub(crate) ejections_withheld: Counter,
    pub(crate) panic_active: Family<ServiceLabel, Gauge<i64, AtomicI64>>,
    pub(crate) mirrored: Family<ResultLabel, Counter>,
    pub(crate) faults: Family<FaultLabel, Counter>,
    pub(crate) malformed: Family<Rule, Counter>,
    pub(crate) http2_abuse: Family<Rule, Counter>,
    pub(crate) stood_still: Counter<f64, AtomicU64>,
    pub(crate) drain_cut: Counter,
    pub(crate) log_dropped: Counter,
    pub(crate) records_dropped: Counter,
    pub(crate) jwt: JwtFigures,
    looked: Looked,
}

fn duration_histogram() -> Histogram {
    Histogram::new(DURATION_BUCKETS)
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Arc<Self> {
        let this = Self {
            registry: Mutex::new(Registry::with_prefix("mainstay")),
            requests: Family::default(),
            broken: Family::default(),
            durations: Family::new_with_constructor(duration_histogram),
            attempt_durations: Family::new_with_constructor(duration_histogram),
            attempts: Family::default(),
            instances: Mutex::default(),
            retries: Family::default(),
            retries_stopped: Family::default(),
            hedges: Family::default(),
            circuit_transitions: Family::default(),
            limit_decisions: Family::default(),
            limit_waits: Family::new_with_constructor(duration_histogram),
            degraded: Family::default(),
            ejections: Family::default(),
            ejections_withheld: Counter::default(),
            panic_active: Family::default(),
            mirrored: Family::default(),
            faults: Family::default(),
            malformed: Family::default(),
            http2_abuse: Family::default(),
            stood_still: Counter::default(),
            drain_cut: Counter::default(),
            log_dropped: Counter::default(),
            records_dropped: Counter::default(),
            jwt: JwtFigures::default(),
            looked: Looked::default(),
        };
        this.register_calls();
        this.register_policies();
        this.register_plane();
        this.jwt.register(&mut this.registry.lock());
        this.looked.register(&mut this.registry.lock());
        Arc::new(this)
    }

    fn register_calls(&self) {
        let mut r = self.registry.lock();
        r.register("requests", "Requests answered", self.requests.clone());
        r.register(
            "answers_broken",
            "Answers of which the caller got a part only, by why: counted as answered as well",
            self.broken.clone(),
        );
        let seconds = || Unit::Seconds;
        r.register_with_unit(
            "request_duration",
            "Time from the request's head to the answer's head",
            seconds(),
            self.durations.clone(),
        );
        r.register_with_unit(
            "attempt_duration",
            "Time of one attempt, to the answer's head",
            seconds(),
            self.attempt_durations.clone(),
        );
        r.register("attempts", "Attempts at instances", self.attempts.clone());
        r.register(
            "retries",
            "Attempts beyond the first, by what the one before came to",
            self.retries.clone(),
        );
        r.register(
            "retries_stopped",
            "Calls that were not repeated though they failed, by why",
            self.retries_stopped.clone(),
        );
        r.register(
            "hedges",
            "Attempts beside the first, by what became of them",
            self.hedges.clone(),
        );
    }

    fn register_policies(&self) {
        let mut r = self.registry.lock();
        r.register(
            "circuit_transitions",
            "Changes of circuits' states",
            self.circuit_transitions.clone(),
        );
        r.register("limit_decisions", "Decisions of limits", self.limit_decisions.clone());
        r.register_with_unit(
            "limit_wait",
            "Time that calls waited for a limit to let them through",
            Unit::Seconds,
            self.limit_waits.clone(),
        );
        r.register("degraded", "Answers given in place of the upstream's", self.degraded.clone());
        r.register(
            "ejections",
            "Instances taken out of balancing as outliers",
            self.ejections.clone(),
        );
        r.register(
            "ejections_withheld",
            "Ejections that would have left too few instances",
            self.ejections_withheld.clone(),
        );
        r.register(
            "panic_active",
            "1 while a service's instances are used whatever their health",
            self.panic_active.clone(),
        );
    }

    fn register_plane(&self) {
        let mut r = self.registry.lock();
        r.register("mirror", "Mirrored requests", self.mirrored.clone());
        r.register("faults_injected", "Faults injected on demand", self.faults.clone());
        r.register(
            "requests_malformed",
            "Messages refused for their framing",
            self.malformed.clone(),
        );
        r.register(
            "http2_abuse",
            "HTTP/2 connections ended because of what their clients did on them, by what",
            self.http2_abuse.clone(),
        );
        r.register_with_unit(
            "stood_still",
            "Time in which workers did not get to run for half a second or more",
            Unit::Seconds,
            self.stood_still.clone(),
        );
        r.register("drain_cut", "Connections cut at the end of a drain", self.drain_cut.clone());
        r.register(
            "access_log_dropped",
            "Access log lines dropped because the writer was behind",
            self.log_dropped.clone(),
        );
        r.register(
            "decision_records_dropped",
            "Decision records dropped for want of room",
            self.records_dropped.clone(),
        );
    }

    /// Makes every family show, with labels of nothing: the reference is printed from the
    /// exposition, and an empty family is not in that.
    pub fn show_all(&self) {
        show(&self.requests);
        show(&self.broken);
        show(&self.durations);
        show(&self.attempt_durations);
        show(&self.attempts);
        show(&self.retries);
        show(&self.retries_stopped);
        show(&self.hedges);
        show(&self.circuit_transitions);
        show(&self.limit_decisions);
        show(&self.limit_waits);
        show(&self.degraded);
        show(&self.ejections);
        show(&self.panic_active);
        show(&self.mirrored);
        show(&self.faults);
        show(&self.malformed);
        show(&self.http2_abuse);
        self.jwt.show_all();
        self.looked.show_all();
    }

    /// What `route` counts for each request it sends to `service`.
    pub fn route(self: &Arc<Self>, route: &str, service: &str) -> RouteMetrics {
        let labels = RouteLabels { route: route.to_owned(), service: service.to_owned() };
        let duration = self.durations.get_or_create(&labels).clone();
        RouteMetrics { metrics: Arc::clone(self), labels, duration, counters: RwLock::default() }
    }

    /// What is counted for each attempt at `instance` of `service`.
    pub fn instance(self: &Arc<Self>, service: &str, instance: &str) -> InstanceMetrics {
        let mut known = self.instances.lock();
        let instance = if known.contains(instance) || known.len() < INSTANCES_MAX {
            known.insert(instance.to_owned());
            instance.to_owned()
        } else {
            "other".to_owned()
        };
        drop(known);
        let service = service.to_owned();
        let duration = self
            .attempt_durations
            .get_or_create(&ServiceLabel { service: service.clone() })
            .clone();
        let of = |result| {
            let labels =
                AttemptLabels { service: service.clone(), instance: instance.clone(), result };
            self.attempts.get_or_create(&labels).clone()
        };
        InstanceMetrics {
            duration,
            success: of("success"),
            failure: of("failure"),
            abandoned: of("abandoned"),
        }
    }

    /// Counts an answer that broke off after its head, or that its caller gave up.
    pub(crate) fn answer_broken(&self, route: &str, service: &str, reason: &'static str) {
        let [route, service, reason] = [route, service, reason].map(str::to_owned);
        self.broken.get_or_create(&BrokenLabels { route, service, reason }).inc();
    }

    /// Counts decision records dropped for want of room.
    pub(crate) fn records_dropped(&self, dropped: u64) {
        self.records_dropped.inc_by(dropped);
    }

    /// Counts a message refused for its framing.
    pub fn malformed(&self, rule: &'static str) {
        self.malformed.get_or_create(&Rule { rule: rule.to_owned() }).inc();
    }

    /// Counts a connection ended because of what its client did on it.
    pub fn http2_abused(&self, abuse: &'static str) {
        self.http2_abuse.get_or_create(&Rule { rule: abuse.to_owned() }).inc();
    }

    /// Counts time in which a worker did not get to run.
    pub fn stood_still(&self, span: Duration) {
        self.stood_still.inc_by(span.as_secs_f64());
    }

    /// Counts connections cut at the end of a drain.
    pub fn connections_cut(&self, cut: usize) {
        self.drain_cut.inc_by(cut as u64);
    }

    /// Counts a fault that was injected on demand.
    pub(crate) fn fault_injected(&self, kind: &'static str) {
        self.faults.get_or_create(&FaultLabel { fault: kind.to_owned() }).inc();
    }

    /// Counts what became of a copy of a request.
    pub(crate) fn mirrored(&self, result: &'static str) {
        self.mirrored.get_or_create(&ResultLabel { result: result.to_owned() }).inc();
    }

    /// Lets another part of the process put what it counts into the same exposition.
    pub fn register(&self, put: impl FnOnce(&mut Registry)) {
        put(&mut self.registry.lock());
    }

    /// The exposition, in the `OpenMetrics` text format.
    ///
    /// # Errors
    ///
    /// When a value cannot be written as text, which formatting into a `String` does not do.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::with_capacity(16 * 1024);
        text::encode(&mut out, &self.registry.lock())?;
        Ok(out)
    }
}

fn show<L, M, C>(family: &Family<L, M, C>)
where
    L: Clone + Default + Eq + std::hash::Hash,
    M: Clone,
    C: MetricConstructor<M>,
{
    drop(family.get_or_create(&L::default()));
}

/// The counters of one route and service, found once.
#[derive(Debug)]
pub struct RouteMetrics {
    metrics: Arc<Metrics>,
    labels: RouteLabels,
    duration: Histogram,
    /// By status and outcome. A route sees a handful of pairs, which a walk finds faster than a
    /// hash does.
    counters: RwLock<Vec<(u16, &'static str, Counter<u64, AtomicU64>)>>,
}

impl RouteMetrics {
    /// Counts one answered request.
    pub fn answered(&self, status: u16, outcome: &'static str, took: Duration) {
        self.duration.observe(took.as_secs_f64());
        let found = |all: &[(u16, &'static str, Counter)]| {
            all.iter().find(|(s, o, _)| *s == status && *o == outcome).map(|(_, _, c)| c.inc())
        };
        if found(&self.counters.read()).is_some() {
            return;
        }
        let RouteLabels { route, service } = self.labels.clone();
        let labels = RequestLabels { route, service, code: status.into(), outcome };
        let counter = self.metrics.requests.get_or_create(&labels).clone();
        counter.inc();
        self.counters.write().push((status, outcome, counter));
    }
}

/// The counters of one instance, found once.
#[derive(Clone, Debug)]
pub struct InstanceMetrics {
    duration: Histogram,
    success: Counter,
    failure: Counter,
    abandoned: Counter,
}

impl InstanceMetrics {
    /// Counts an attempt that came to an end: `failed` as the classifier judged, `None` when
    /// nobody waited for it any more.
    pub fn ended(&self, failed: Option<bool>, took: Duration) {
        self.duration.observe(took.as_secs_f64());
        match failed {
            Some(false) => self.success.inc(),
            Some(true) => self.failure.inc(),
            None => self.abandoned.inc(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposition_has_names_units_and_bounded_instances() {
        let metrics = Metrics::new();
        let route = metrics.route("orders", "order");
        for _ in 0..3 {
            route.answered(200, "ok", Duration::from_millis(3));
        }
        route.answered(503, "circuit-open", Duration::ZERO);
        for n in 0..INSTANCES_MAX + 5 {
            metrics.instance("order", &format!("i{n}")).ended(Some(n % 2 == 0), Duration::ZERO);
        }
        let text = metrics.encode().expect("a string takes everything");
        let line =
            r#"mainstay_requests_total{route="orders",service="order",code="200",outcome="ok"} 3"#;
        assert!(text.contains(line), "{text}");
        assert!(text.contains("mainstay_request_duration_seconds_bucket"), "{text}");
        let others = text.lines().filter(|l| l.contains("instance=\"other\"")).count();
        assert_eq!(others, 3, "success, failure and abandoned of the surplus share one label");
    }
}
