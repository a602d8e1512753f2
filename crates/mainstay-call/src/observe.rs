//! Who is told of what the stages do.
//!
//! Stages neither log nor count. They tell an [`Observer`], which the gateway turns into metrics
//! and log lines and a library user into whatever they use. Every method has an empty default, and
//! is called on the path of the call: count, do not wait.

use std::fmt::Debug;
use std::time::Duration;

use mainstay_resilience::circuit::Transition;
use mainstay_resilience::outlier::Change;

use crate::circuit::SharedCircuit;
use crate::context::Degraded;
use crate::endpoint::Endpoint;

/// Is told of what the stages do.
#[expect(unused_variables, reason = "the default of every method tells nobody")]
pub trait Observer: Debug + Send + Sync {
    /// A circuit changed its state or mode, or would have while observing.
    fn circuit_changed(&self, circuit: &SharedCircuit, transition: &Transition) {}

    /// An attempt at `endpoint` ended; `failed` is `None` when nobody waited for it any more.
    fn attempt_ended(&self, endpoint: &Endpoint, failed: Option<bool>, took: Duration) {}

    /// A call to `service` is tried again because of `reason`.
    fn retried(&self, service: &str, reason: &'static str) {}

    /// A call that failed is not tried again, though it might have been.
    fn retry_stopped(&self, why: &'static str) {}

    /// A limit decided: `granted`, `denied`, `waited`, `would-reject`.
    fn limit_decided(&self, limit: &str, decision: &'static str) {}

    /// A call waited `wait` for what a limit then gave it.
    fn limit_waited(&self, limit: &str, wait: Duration) {}

    /// A hedge was `sent`, `withheld` for want of a credit, or its answer `won`.
    fn hedged(&self, result: &'static str) {}

    /// An answer was given in place of the upstream's.
    fn degraded(&self, degraded: Degraded) {}

    /// An instance was ejected, returned, or kept though it broke a rule. `endpoint` is `None`
    /// when it has left the set since.
    fn ejection(&self, service: &str, endpoint: Option<&Endpoint>, change: &Change) {}

    /// A service's instances are now used whatever their health, or no longer.
    fn panicking(&self, service: &str, active: bool) {}
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
