//! What one upstream's calls are told, as the library reads it.
//!
//! The tables are those of the gateway, without the names of routes and upstreams around them, so
//! a policy moves from a program into the gateway by pasting it:
//!
//! ```
//! let policy = mainstay_call::Policy::from_toml(r#"
//!     timeout_seconds = 2
//!     retry = { attempts = 2, budget = { ratio_percent = 10 } }
//!     balance = { kind = "peak_ewma" }
//!     [circuit]                       # or [circuit.NAME], as many as needed
//!     slow_call_seconds = 1
//!     [limit.all]                     # or [[limit]]
//!     max = 100
//! "#)?;
//! # Ok::<(), mainstay_call::policy::PolicyError>(())
//! ```

mod locate;
mod raw;

use std::sync::Arc;
use std::time::Duration;

use mainstay_resilience::Invalid;
use mainstay_resilience::balance::BalancePolicy;
use mainstay_resilience::circuit::CircuitPolicy;
use mainstay_resilience::classify::Classifier;
use mainstay_resilience::deadline::Patience;
use mainstay_resilience::fallback::FallbackPolicy;
use mainstay_resilience::invalid::span;
use mainstay_resilience::limit::LimitPolicy;
use mainstay_resilience::outlier::OutlierPolicy;
use mainstay_resilience::retry::RetryPolicy;

use crate::circuit::CIRCUITS_MAX;
use crate::stage::limit::LIMITS_MAX;

pub use raw::{RawCircuits, RawLimits, RawPolicy};

/// Everything about the calls to one upstream. The default is the specification's.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// How long a call may take.
    pub patience: Patience,
    /// Longest time without a byte of an answer's body.
    pub idle: Duration,
    /// Kept back of the deadline for the way between two hops.
    pub hop: Duration,
    /// What counts as a failure.
    pub classifier: Arc<Classifier>,
    /// When a call is sent again.
    pub retry: RetryPolicy,
    /// How an instance is picked.
    pub balance: BalancePolicy,
    /// Who is ejected.
    pub outlier: OutlierPolicy,
    /// Circuits by name, at most [`CIRCUITS_MAX`]; each guards what its scope says.
    pub circuits: Vec<(Arc<str>, Arc<CircuitPolicy>)>,
    /// Limits by name, at most [`LIMITS_MAX`], all of which must grant.
    pub limits: Vec<(Arc<str>, Arc<LimitPolicy>)>,
    /// What to answer when the real answer cannot be had.
    pub fallback: Option<Arc<FallbackPolicy>>,
}

/// Why a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {key}: {problem}")]
pub struct PolicyError {
    /// Line, from 1.
    pub line: usize,
    /// Key from the top: `circuit.default.probes`.
    pub key: String,
    /// What is wrong and what is allowed.
    pub problem: String,
}

impl Policy {
    /// Reads a policy; see [`RawPolicy`] for the keys.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] naming line and key, when the text is no TOML, has a key that does not
    /// exist, or a value that is not allowed.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        let raw = raw::parse(text).map_err(|error| locate::toml(text, &error))?;
        Self::try_from(raw).map_err(|invalid| locate::invalid(text, invalid))
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::try_from(RawPolicy::default()).expect("every default lies in its range")
    }
}

impl TryFrom<RawPolicy> for Policy {
    type Error = Invalid;

    fn try_from(raw: RawPolicy) -> Result<Self, Invalid> {
        let timeout =
            span("timeout_seconds", raw.timeout_seconds.unwrap_or(15.0), 0.001, 86_400.0)?;
        // A longer timeout of one's own is not forbidden by a maximum that nobody wrote.
        let max = raw.deadline_max_seconds.unwrap_or_else(|| timeout.as_secs_f64().max(300.0));
        let max = span("deadline_max_seconds", max, timeout.as_secs_f64(), 86_400.0)?;
        Ok(Self {
            patience: Patience { timeout, max },
            idle: span("idle_seconds", raw.idle_seconds.unwrap_or(60.0), 0.001, 86_400.0)?,
            hop: span("hop_seconds", raw.hop_seconds.unwrap_or(0.005), 0.0, 60.0)?,
            classifier: Classifier::new(raw.failure.as_deref(), raw.ignore.as_deref())?.into(),
            retry: part("retry", raw.retry)?,
            balance: part("balance", raw.balance)?,
            outlier: part("outlier", raw.outlier)?,
            circuits: circuits(raw.circuit)?,
            limits: limits(raw.limit)?,
            fallback: match raw.fallback {
                Some(raw) => Some(Arc::new(part("fallback", Some(raw))?)),
                None => None,
            },
        })
    }
}

/// Resolves a sub-table, written or not.
fn part<R, P>(table: &str, written: Option<R>) -> Result<P, Invalid>
where
    R: Default,
    P: TryFrom<R, Error = Invalid>,
{
    P::try_from(written.unwrap_or_default()).map_err(|error| error.within(table))
}

fn circuits(written: Option<RawCircuits>) -> Result<Vec<(Arc<str>, Arc<CircuitPolicy>)>, Invalid> {
    let named = match written {
        None => return Ok(vec![("default".into(), Arc::new(CircuitPolicy::default()))]),
        Some(RawCircuits::One(raw)) => {
            return Ok(vec![("default".into(), Arc::new(part("circuit", Some(*raw))?))]);
        }
        Some(RawCircuits::Named(named)) => named,
    };
    at_most("circuit", named.len(), CIRCUITS_MAX)?;
    let resolve = |(name, raw)| {
        let policy = part(&format!("circuit.{name}"), Some(raw))?;
        Ok((Arc::from(name), Arc::new(policy)))
    };
    named.into_iter().map(resolve).collect()
}

fn limits(written: Option<RawLimits>) -> Result<Vec<(Arc<str>, Arc<LimitPolicy>)>, Invalid> {
    let written: Vec<_> = match written {
        None => return Ok(Vec::new()),
        Some(RawLimits::Listed(list)) => {
            let all = list.into_iter().enumerate();
            let named =
                all.map(|(n, raw)| (format!("limit-{}", n + 1), format!("limit[{n}]"), raw));
            named.collect()
        }
        Some(RawLimits::Named(named)) => {
            let all = named.into_iter();
            all.map(|(name, raw)| (name.clone(), format!("limit.{name}"), raw)).collect()
        }
    };
    at_most("limit", written.len(), LIMITS_MAX)?;
    let resolve = |(name, table, raw): (String, String, _)| {
        Ok((Arc::from(name), Arc::new(part(&table, Some(raw))?)))
    };
    written.into_iter().map(resolve).collect()
}

fn at_most(table: &str, found: usize, max: usize) -> Result<(), Invalid> {
    if found <= max {
        return Ok(());
    }
    let problem = format!("one call passes at most {max} of these, found {found}");
    Err(Invalid::contradiction(table, problem))
}

#[cfg(test)]
mod tests;
