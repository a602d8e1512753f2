//! What each stage did to a call, put together from what the call left behind.
//!
//! Stages keep no record of their own on the way, which would cost every call what only a few are
//! asked about. What they do leave in the call's [`Context`], together with how it ended, tells
//! most of it; the state of circuits is looked up.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mainstay_call::circuit::SharedCircuit;
use mainstay_call::context::Context;
use mainstay_call::{CallError, Refusal};
use mainstay_core::Instant;
use mainstay_resilience::Failure;
use mainstay_resilience::circuit::{Cause, Mode, Reason, State, View};

use super::Step;

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// When its answer's head was there.
    pub now: Instant,
    /// The same moment on the wall clock.
    pub at: SystemTime,
    /// Status of the answer.
    pub status: u16,
    /// What the stages said, when no answer came out of them.
    pub error: Option<&'a CallError>,
}

/// What is configured for the route of a call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stages<'a> {
    /// Service it leads to.
    pub service: &'a str,
    /// Names of its limits.
    pub limits: &'a [&'a str],
    /// Whether callers are asked who they are.
    pub identify: bool,
    /// Name of its fallback.
    pub fallback: Option<&'a str>,
    /// Attempts a call may take.
    pub attempts_max: u32,
    /// Time for one attempt; unset, whatever remains of the deadline.
    pub attempt_timeout: Option<Duration>,
}

/// What each stage did to the call of `context`, outermost first: deadline, identify (where it asks), limit, fallback, retry,
/// balance, circuit (one step for each that was asked), timeout, upstream.
pub fn steps(context: &Context, ended: Ended<'_>, stages: Stages<'_>) -> Vec<Step> {
    let told = Teller { context, ended, stages };
    let mut steps = Vec::with_capacity(10);
    steps.push(told.deadline());
    steps.extend(told.identify());
    steps.extend([told.limit(), told.fallback(), told.retry(), told.balance()]);
    told.circuits(&mut steps);
    steps.extend([told.timeout(), told.upstream()]);
    steps
}

struct Teller<'a> {
    context: &'a Context,
    ended: Ended<'a>,
    stages: Stages<'a>,
}

impl Teller<'_> {
    fn deadline(&self) -> Step {
        let Some(deadline) = self.context.deadline() else {
            return none("deadline", "no deadline");
        };
        let started = self.context.started;
        let outcome = if self.ran_out() { "reject" } else { "pass" };
        let mut step = step("deadline", outcome);
        step.observed = Some(seconds(self.ended.now.since(started)));
        step.threshold = Some(seconds(deadline.at.since(started)));
        step
    }

    /// Who was calling: the issuer that vouches and the kind of principal, never its name.
    fn identify(&self) -> Option<Step> {
        if !self.stages.identify {
            return None;
        }
        let Some(caller) = self.context.caller() else {
            let Some(CallError::Denied(problem)) = self.ended.error else {
                return Some(step("identify", "not-passed"));
            };
            let observed = Some(format!("{}: {}", problem.code, problem.detail));
            return Some(Step { observed, ..step("identify", "reject") });
        };
        let rule = Some(caller.issuer.as_ref().to_owned()).filter(|issuer| !issuer.is_empty());
        Some(Step { rule, observed: Some(caller.kind.to_owned()), ..step("identify", "pass") })
    }

    fn limit(&self) -> Step {
        if self.was_denied() {
            return step("limit", "not-reached");
        }
        if let Some(refusal) = self.refused_by("limit") {
            return self.refused(refusal);
        }
        if self.stages.limits.is_empty() {
            return none("limit", "no limit set for this route");
        }
        let outcome = match self.context.degraded() {
            Some(degraded) if matches!(degraded.cause, "limited" | "shed") => "reject",
            // It may have waited for a limit, or come too late for any.
            _ if self.ran_out() && self.context.attempts() == 0 => "not-passed",
            _ => "pass",
        };
        Step { rule: Some(self.stages.limits.join(", ")), ..step("limit", outcome) }
    }

    fn fallback(&self) -> Step {
        if let Some(refusal) = self.refused_by("fallback") {
            return self.refused(refusal);
        }
        if self.was_denied() || self.refused_by("limit").is_some() {
            return step("fallback", "not-reached");
        }
        let Some(name) = self.stages.fallback else {
            return none("fallback", "no fallback set for this route");
        };
        let rule = Some(name.to_owned());
        match self.context.degraded() {
            Some(degraded) => {
                let observed = Some(format!("{} because of {}", degraded.kind, degraded.cause));
                Step { rule, observed, ..step("fallback", "answer") }
            }
            None => Step { rule, ..step("fallback", "pass") },
        }
    }

    fn retry(&self) -> Step {
        let attempts = self.context.attempts();
        if attempts == 0 && !self.was_turned_away() {
            return step("retry", "not-reached");
        }
        let many = |n: u32| format!("{n} attempt{}", if n == 1 { "" } else { "s" });
        let (outcome, observed) = match self.context.retry_stopped() {
            Some(why) => ("stop", format!("{}; no other because of {why}", many(attempts))),
            None if attempts > 1 => ("retry", many(attempts)),
            None => ("pass", many(attempts)),
        };
        let threshold = Some(many(self.stages.attempts_max));
        Step { observed: Some(observed), threshold, ..step("retry", outcome) }
    }

    fn balance(&self) -> Step {
        if let Some(refusal) = self.refused_by("balance") {
            return self.refused(refusal);
        }
        let rule = Some(self.stages.service.to_owned());
        let Some(instance) = self.context.instance() else {
            let outcome = if self.was_turned_away() { "reject" } else { "not-reached" };
            return Step { rule, ..step("balance", outcome) };
        };
        let (name, address) = (instance.name(), instance.address());
        let observed = if name == address {
            format!("instance {name}")
        } else {
            format!("instance {name} at {address}")
        };
        Step { rule, observed: Some(observed), ..step("balance", "pass") }
    }

    /// The circuits that the last attempt asked. When one refused, only that one: the others were
    /// asked for nothing.
    fn circuits(&self, steps: &mut Vec<Step>) {
        let Some(instance) = self.context.instance() else {
            return steps.push(step("circuit", "not-reached"));
        };
        let all = instance.circuits().iter().chain(self.context.facts.circuits.iter());
        if let Some(refusal) = self.refused_by("circuit") {
            let refuses = |circuit: &&Arc<SharedCircuit>| {
                circuit.key().policy == refusal.rule
                    && circuit.view(self.ended.now).state != State::Closed
            };
            let subject = all.clone().find(refuses).map(|circuit| &circuit.key().subject);
            let mut step = self.refused(refusal);
            if let (Some(subject), Some(observed)) = (subject, &mut step.observed) {
                observed.insert_str(0, &format!("{subject}: "));
            }
            return steps.push(step);
        }
        if all.clone().next().is_none() {
            return steps.push(none("circuit", "no circuit set for this service"));
        }
        steps.extend(all.map(|circuit| self.circuit(circuit)));
    }

    fn circuit(&self, circuit: &SharedCircuit) -> Step {
        let view = circuit.view(self.ended.now);
        let closed = view.state == State::Closed;
        let outcome = if self.degraded_by("circuit") && !closed { "reject" } else { "pass" };
        let View { total, state, mode, .. } = &view;
        let subject = &circuit.key().subject;
        let mut observed =
            format!("{subject} {state}; {} of {} calls failed", total.failures, total.calls);
        if *mode != Mode::Auto {
            observed.push_str("; mode ");
            observed.push_str(mode.as_str());
        }
        let clears_when = view.next_change.map(|at| {
            let what = if view.state == State::Open { "probes" } else { "next change" };
            format!("{what} in {}", seconds(at.since(self.ended.now)))
        });
        let threshold = if closed { None } else { threshold(view.cause) };
        Step {
            rule: Some(circuit.key().policy.as_ref().to_owned()),
            observed: Some(observed),
            threshold,
            since: self.wall(self.ended.now.since(view.since)),
            clears_when,
            ..step("circuit", outcome)
        }
    }

    fn timeout(&self) -> Step {
        if !self.was_sent() {
            return step("timeout", "not-reached");
        }
        let timed_out = matches!(
            self.failure(),
            Some(Failure::RequestTimeout | Failure::Overslept { connecting: false })
        );
        let cut = timed_out || self.degraded_by("timeout");
        let threshold = match self.stages.attempt_timeout {
            Some(span) => seconds(span),
            None => "what remains of the deadline".to_owned(),
        };
        let outcome = if cut { "cut" } else { "pass" };
        Step { threshold: Some(threshold), ..step("timeout", outcome) }
    }

    fn upstream(&self) -> Step {
        if !self.was_sent() {
            return step("upstream", "not-reached");
        }
        let (outcome, mut observed) = match (self.failure(), self.context.degraded()) {
            (Some(failure), _) => {
                ("fail", format!("{}, effect {}", failure.code(), failure.effect().as_str()))
            }
            (None, Some(degraded)) => ("fail", degraded.cause.to_owned()),
            (None, None) if self.ended.status >= 500 => ("fail", self.ended.status.to_string()),
            (None, None) => ("answer", self.ended.status.to_string()),
        };
        if let Some(kind) = self.context.fault() {
            observed = format!("{observed}, fault `{kind}` injected");
        }
        Step { observed: Some(observed), ..step("upstream", outcome) }
    }

    fn degraded_by(&self, cause: &str) -> bool {
        self.context.degraded().is_some_and(|degraded| degraded.cause == cause)
    }

    fn failure(&self) -> Option<Failure> {
        match self.ended.error {
            Some(CallError::Failed { failure, .. }) => Some(*failure),
            _ => None,
        }
    }

    fn refusal(&self) -> Option<&Refusal> {
        match self.ended.error {
            Some(CallError::Refused(refusal)) => Some(refusal),
            _ => None,
        }
    }

    fn refused_by(&self, stage: &str) -> Option<&Refusal> {
        self.refusal().filter(|refusal| refusal.stage == stage)
    }

    /// The caller was not let in.
    fn was_denied(&self) -> bool {
        matches!(self.ended.error, Some(CallError::Denied(_)))
    }

    /// The deadline ended the call.
    fn ran_out(&self) -> bool {
        matches!(self.failure(), Some(Failure::Deadline { .. }))
    }

    /// Balancing or a circuit refused the last attempt.
    fn was_turned_away(&self) -> bool {
        let refused = |cause| matches!(cause, "no-instance" | "circuit");
        self.refused_by("balance").is_some()
            || self.refused_by("circuit").is_some()
            || self.context.degraded().is_some_and(|degraded| refused(degraded.cause))
    }

    /// The last attempt passed its circuits, as far as is known.
    fn was_sent(&self) -> bool {
        self.context.attempts() > 0 && !self.was_turned_away()
    }

    fn refused(&self, refusal: &Refusal) -> Step {
        let rejection = refusal.rejection();
        Step {
            stage: rejection.stage,
            outcome: "reject",
            rule: Some(rejection.rule),
            revision: rejection.revision,
            observed: Some(rejection.observed.into_owned()),
            threshold: Some(rejection.threshold.into_owned()),
            since: self.wall(rejection.since),
            clears_when: Some(rejection.clears_when.into_owned()),
        }
    }

    /// The moment of the wall clock so long before the end.
    fn wall(&self, ago: Duration) -> Option<SystemTime> {
        self.ended.at.checked_sub(ago)
    }
}

/// What a policy allows of what opened a circuit; nothing where somebody did.
fn threshold(cause: Cause) -> Option<String> {
    let Cause { reason, threshold, .. } = cause;
    match reason {
        Reason::Mode | Reason::Reset | Reason::Restored => None,
        Reason::FailureRate | Reason::SlowRate => {
            Some(format!("{threshold} % ({})", reason.as_str()))
        }
        _ => Some(format!("{threshold} ({})", reason.as_str())),
    }
}

fn step(stage: &'static str, outcome: &'static str) -> Step {
    Step {
        stage,
        outcome,
        rule: None,
        revision: None,
        observed: None,
        threshold: None,
        since: None,
        clears_when: None,
    }
}

fn none(stage: &'static str, why: &str) -> Step {
    Step { observed: Some(why.to_owned()), ..step(stage, "none") }
}

fn seconds(span: Duration) -> String {
    format!("{:.3} s", span.as_secs_f64())
}

#[cfg(test)]
mod tests;
