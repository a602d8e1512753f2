//! Why a call did not come back with an answer.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::problem::{Code, Problem};
use mainstay_core::{Effect, Rejection};
use mainstay_resilience::Failure;
use mainstay_resilience::circuit::Scope;

/// Any error that may travel between threads.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a call did not come back with an answer: it failed on its way, or a stage refused it.
#[derive(Debug)]
pub enum CallError {
    /// The last attempt failed.
    Failed {
        /// How; decides effect, retry and code.
        failure: Failure,
        /// What the transport said, for the operator.
        source: Option<BoxError>,
    },
    /// A stage refused; nothing was sent by the attempt that was refused.
    Refused(Refusal),
    /// The caller is not let in. No rule with figures says so, but what the problem tells.
    Denied(Box<Problem>),
}

/// A stage's refusal, with the evidence a person can act on.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Which kind of problem the caller is told of.
    pub code: Code,
    /// Stage that refused: `limit`, `circuit`, `balance`, …
    pub stage: &'static str,
    /// For a circuit: whether one instance is meant, or the whole service or route.
    pub scope: Option<Scope>,
    /// Name of the rule, as configured.
    pub rule: Arc<str>,
    /// What was observed and what the rule allows, in the rule's own unit.
    pub figures: Figures,
    /// For how long this has been so.
    pub since: Duration,
    /// When trying again may help; `None` when time alone will not.
    pub retry_after: Option<Duration>,
    /// Status of the HTTP answer, where the rule names another than the code's own.
    pub status: Option<u16>,
    /// What the call may have done before it was refused: nothing, unless a fallback refuses in
    /// the place of a call that was made.
    pub effect: Effect,
}

/// What a rule saw and what it allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// The observed value.
    pub observed: f64,
    /// The rule's threshold.
    pub threshold: f64,
    /// Unit of both: `calls`, `%`, `instances`.
    pub unit: &'static str,
}

impl CallError {
    /// A failed attempt, with what the transport said.
    pub fn failed(failure: Failure, source: impl Into<BoxError>) -> Self {
        Self::Failed { failure, source: Some(source.into()) }
    }

    /// What the call may have done on the other side. See [`Failure::effect`]; a refusal usually
    /// has none.
    pub const fn effect(&self) -> Effect {
        match self {
            Self::Failed { failure, .. } => failure.effect(),
            Self::Refused(refusal) => refusal.effect,
            Self::Denied(_) => Effect::None,
        }
    }

    /// Whether sending again can help at all. A refusal by one instance's circuit is answered by
    /// the balancer with another instance; one that reaches the caller stands for all of them, and
    /// repeating it at once would only be refused again.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Failed { failure, .. } => failure.is_retryable(),
            Self::Refused(_) | Self::Denied(_) => false,
        }
    }

    /// The code of the problem a caller is told of.
    pub const fn code(&self) -> Code {
        match self {
            Self::Failed { failure, .. } => failure.code(),
            Self::Refused(refusal) => refusal.code,
            Self::Denied(problem) => problem.code,
        }
    }

    /// The problem document for a caller. It names no instance and repeats nothing the transport
    /// said.
    pub fn problem(&self) -> Problem {
        if let Self::Denied(problem) = self {
            return (**problem).clone();
        }
        let code = self.code();
        let mut problem = Problem::new(code, code.title());
        problem.effect = self.effect();
        if let Self::Refused(refusal) = self {
            problem.status = refusal.status.unwrap_or(problem.status);
            problem.retry_after = refusal.retry_after;
            problem.rejection = Some(Box::new(refusal.rejection()));
        }
        problem
    }
}

impl Refusal {
    /// The evidence in words.
    pub fn rejection(&self) -> Rejection {
        let Figures { observed, threshold, unit } = self.figures;
        let clears_when = match self.retry_after {
            Some(span) => format!("may pass in {:.1} s", span.as_secs_f64()).into(),
            None => "not by time alone".into(),
        };
        Rejection {
            stage: self.stage,
            rule: self.rule.as_ref().to_owned(),
            revision: None,
            observed: format!("{observed} {unit}").into(),
            threshold: format!("{threshold} {unit}").into(),
            since: self.since,
            clears_when,
        }
    }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        Self::Failed { failure, source: None }
    }
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { failure, .. } => f.write_str(failure.code().as_str()),
            Self::Refused(refusal) => {
                write!(f, "{} by {} `{}`", refusal.code, refusal.stage, refusal.rule)
            }
            Self::Denied(problem) => f.write_str(problem.code.as_str()),
        }
    }
}

impl Error for CallError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed { source: Some(source), .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}
