//! What the data plane tells its operator: one type a kind of event, one log line each.
//!
//! What happens for each request is counted (see [`metrics`](crate::metrics)); only what changes a
//! state is logged.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstay_call::clock::MonotonicClock;
use mainstay_core::{Clock as _, Instant};
use mainstay_resilience::circuit::{State, Transition};
use mainstay_resilience::outlier::{Ejection, Evidence};
use mainstay_resilience::system::Change;

use crate::metrics::Metrics;
use crate::server::Abuse;

/// A circuit changed its state, or would have.
#[derive(Debug)]
pub(crate) struct CircuitChanged<'a> {
    pub(crate) circuit: &'a str,
    /// Instance, service or route.
    pub(crate) subject: &'a str,
    pub(crate) transition: &'a Transition,
}

impl CircuitChanged<'_> {
    pub(crate) fn emit(self) {
        let Self { circuit, subject, transition } = self;
        let Transition { from, to, cause, enforced, .. } = transition;
        let (from, to, reason) = (from.as_str(), to.as_str(), cause.reason.as_str());
        let (observed, threshold) = (cause.observed, cause.threshold);
        if transition.to == State::Open {
            tracing::warn!(
                circuit,
                subject,
                from,
                to,
                reason,
                observed,
                threshold,
                enforced,
                "circuit opened"
            );
        } else {
            tracing::info!(circuit, subject, from, to, reason, enforced, "circuit changed");
        }
    }
}

/// The keys of an issuer were fetched, for the first time or after they could not be.
#[derive(Debug)]
pub(crate) struct KeysFetched<'a> {
    pub(crate) issuer: &'a str,
}

impl KeysFetched<'_> {
    pub(crate) fn emit(self) {
        let Self { issuer } = self;
        tracing::info!(issuer, "the keys of an issuer were fetched");
    }
}

/// The keys of an issuer could not be fetched.
#[derive(Debug)]
pub(crate) struct KeysNotFetched<'a> {
    pub(crate) issuer: &'a str,
    /// How what is known of them stands.
    pub(crate) state: &'static str,
    pub(crate) why: &'a str,
}

impl KeysNotFetched<'_> {
    pub(crate) fn emit(self) {
        let Self { issuer, state, why } = self;
        tracing::warn!(issuer, state, why, "the keys of an issuer could not be fetched");
    }
}

/// The machine became short of something, or has enough again.
#[derive(Debug)]
pub(crate) struct ShortageChanged(pub(crate) Change);

impl ShortageChanged {
    pub(crate) fn emit(self) {
        match self.0 {
            Change::Began(over) => tracing::warn!(
                short = ?over.short,
                observed = over.observed,
                threshold = over.threshold,
                "machine overloaded: calls beyond what it carries are shed"
            ),
            Change::Ended(over) => {
                tracing::info!(short = ?over.short, "machine no longer overloaded");
            }
        }
    }
}

/// A worker stood still: this machine, or this process, did not get to run.
#[derive(Debug)]
pub(crate) struct StoodStill {
    /// For how long.
    pub(crate) span: Duration,
}

impl StoodStill {
    /// Reports it: one log line at `warn`, and its time in `mainstay_stood_still_seconds_total`.
    pub(crate) fn emit(self, metrics: &Metrics) {
        metrics.stood_still(self.span);
        tracing::warn!(
            seconds = self.span.as_secs_f64(),
            "this process stood still: timeouts of that time count against no instance"
        );
    }
}

/// `h2-abuse`: a client wore an HTTP/2 connection out, and was told to go.
#[derive(Debug)]
pub(crate) struct Http2Abused {
    /// The client.
    pub(crate) peer: SocketAddr,
    /// What it did.
    pub(crate) abuse: Abuse,
}

impl Http2Abused {
    /// Reports it: one in `mainstay_http2_abuse_total`, and a log line at `warn`, at most one a
    /// second: how often there is something to tell is for the attacker to say.
    pub(crate) fn emit(self, metrics: &Metrics) {
        static TOLD_AT: AtomicU64 = AtomicU64::new(0);
        let Self { peer, abuse } = self;
        metrics.http2_abused(abuse.as_str());
        let now = MonotonicClock.now();
        let last = Instant::from_nanos(TOLD_AT.load(Ordering::Relaxed));
        if now.since(last) >= Duration::from_secs(1) {
            TOLD_AT.store(now.as_nanos(), Ordering::Relaxed);
            tracing::warn!(event = "h2-abuse", %peer, abuse = abuse.as_str(), "client told to go");
        }
    }
}

/// An instance was taken out of balancing.
#[derive(Debug)]
pub(crate) struct InstanceEjected<'a> {
    pub(crate) service: &'a str,
    pub(crate) instance: &'a str,
    pub(crate) ejection: &'a Ejection,
}

impl InstanceEjected<'_> {
    pub(crate) fn emit(self) {
        let Self { service, instance, ejection } = self;
        let seconds = ejection.until.since(ejection.since).as_secs_f64();
        let Evidence { rule, observed, threshold } = ejection.evidence;
        let rule = rule.as_str();
        tracing::warn!(service, instance, rule, observed, threshold, seconds, "instance ejected");
    }
}

/// An ejected instance is back.
#[derive(Debug)]
pub(crate) struct InstanceReturned<'a> {
    pub(crate) service: &'a str,
    pub(crate) instance: &'a str,
    pub(crate) early: bool,
}

impl InstanceReturned<'_> {
    pub(crate) fn emit(self) {
        let Self { service, instance, early } = self;
        tracing::info!(service, instance, early, "instance returned");
    }
}

/// An instance broke a rule and stays, because too few would be left.
#[derive(Debug)]
pub(crate) struct EjectionWithheld<'a> {
    pub(crate) service: &'a str,
    pub(crate) instance: &'a str,
    pub(crate) evidence: &'a Evidence,
}

impl EjectionWithheld<'_> {
    pub(crate) fn emit(self) {
        let Self { service, instance, evidence } = self;
        let Evidence { rule, observed, threshold } = *evidence;
        let rule = rule.as_str();
        tracing::warn!(service, instance, rule, observed, threshold, "ejection withheld");
    }
}

/// A service's instances are used whatever their health, or no longer.
#[derive(Debug)]
pub(crate) struct PanicChanged<'a> {
    pub(crate) service: &'a str,
    pub(crate) active: bool,
}

impl PanicChanged<'_> {
    pub(crate) fn emit(self) {
        let Self { service, active } = self;
        if active {
            tracing::warn!(service, "too few usable instances: all are used");
        } else {
            tracing::info!(service, "enough usable instances again");
        }
    }
}
