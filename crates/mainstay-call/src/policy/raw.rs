//! A policy as written.

use std::collections::BTreeMap;

use mainstay_resilience::balance::RawBalance;
use mainstay_resilience::circuit::RawCircuit;
use mainstay_resilience::fallback::RawFallback;
use mainstay_resilience::limit::RawLimit;
use mainstay_resilience::outlier::RawOutlier;
use mainstay_resilience::retry::RawRetry;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

/// A policy as written: every key optional, nothing checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawPolicy {
    /// How long a call may take to its answer's head, in seconds, 0.001 to 86400; the most that a
    /// request's own headers can ask for. Default 15.
    pub timeout_seconds: Option<f64>,
    /// Longest time without a byte of an answer's body, in seconds, 0.001 to 86400. Default 60.
    pub idle_seconds: Option<f64>,
    /// The most that code can ask for with [`Within`](crate::calls::Within), in seconds,
    /// `timeout_seconds` to 86400. Default 300, or `timeout_seconds` if that is more.
    pub deadline_max_seconds: Option<f64>,
    /// What is taken off the deadline told to the service, in seconds, 0 to 60. Default 0.005.
    pub hop_seconds: Option<f64>,
    /// Results that count as failures: `5xx`, `timeout`, `connect`, `congestion`, `refused`,
    /// `refused-stream`, statuses, gRPC codes. Default `["5xx", "timeout", "connect",
    /// "congestion"]`.
    pub failure: Option<Vec<String>>,
    /// Results that count neither as success nor as failure, in the same words. Default none.
    pub ignore: Option<Vec<String>>,
    /// `[retry]`: when a call is sent again.
    pub retry: Option<RawRetry>,
    /// `[balance]`: how an instance is picked.
    pub balance: Option<RawBalance>,
    /// `[outlier]`: who is ejected.
    pub outlier: Option<RawOutlier>,
    /// `[circuit]` or `[circuit.NAME]`. Default: one, called `default`, with every default.
    pub circuit: Option<RawCircuits>,
    /// `[[limit]]` or `[limit.NAME]`. Default none.
    pub limit: Option<RawLimits>,
    /// `[fallback]`: what to answer when the real answer cannot be had. Steps for switches never
    /// hold here and `substitute` never answers: other services are the program's own business.
    pub fallback: Option<RawFallback>,
}

/// `circuit` as written.
#[derive(Clone, Debug, PartialEq)]
pub enum RawCircuits {
    /// `[circuit]`: one, called `default`.
    One(Box<RawCircuit>),
    /// `[circuit.NAME]`.
    Named(BTreeMap<String, RawCircuit>),
}

/// `limit` as written.
#[derive(Clone, Debug, PartialEq)]
pub enum RawLimits {
    /// `[[limit]]`: called `limit-1`, `limit-2` and so on.
    Listed(Vec<RawLimit>),
    /// `[limit.NAME]`.
    Named(BTreeMap<String, RawLimit>),
}

/// Reads `text`.
///
/// Which of two shapes a table has is decided before it is read, by looking at it: trying one and
/// then the other would lose the place of a mistake, and complain about the wrong shape.
pub(super) fn parse(text: &str) -> Result<RawPolicy, toml::de::Error> {
    let document = DeTable::parse(text)?;
    let document = document.get_ref();
    let tables = |value: &DeValue<'_>| {
        value
            .as_table()
            .is_some_and(|t| !t.is_empty() && t.values().all(|v| v.get_ref().is_table()))
    };
    let named = document.get("circuit").is_some_and(|value| tables(value.get_ref()));
    let listed = document.get("limit").is_some_and(|value| value.get_ref().is_array());
    match (named, listed) {
        (false, false) => read(text, |raw| RawCircuits::One(Box::new(raw)), RawLimits::Named),
        (false, true) => read(text, |raw| RawCircuits::One(Box::new(raw)), RawLimits::Listed),
        (true, false) => read(text, RawCircuits::Named, RawLimits::Named),
        (true, true) => read(text, RawCircuits::Named, RawLimits::Listed),
    }
}

/// The document, when it is known which shape its tables have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<C, L> {
    timeout_seconds: Option<f64>,
    idle_seconds: Option<f64>,
    deadline_max_seconds: Option<f64>,
    hop_seconds: Option<f64>,
    failure: Option<Vec<String>>,
    ignore: Option<Vec<String>>,
    retry: Option<RawRetry>,
    balance: Option<RawBalance>,
    outlier: Option<RawOutlier>,
    circuit: Option<C>,
    limit: Option<L>,
    fallback: Option<RawFallback>,
}

fn read<C: DeserializeOwned, L: DeserializeOwned>(
    text: &str,
    circuits: impl FnOnce(C) -> RawCircuits,
    limits: impl FnOnce(L) -> RawLimits,
) -> Result<RawPolicy, toml::de::Error> {
    let document: Document<C, L> = toml::from_str(text)?;
    Ok(RawPolicy {
        timeout_seconds: document.timeout_seconds,
        idle_seconds: document.idle_seconds,
        deadline_max_seconds: document.deadline_max_seconds,
        hop_seconds: document.hop_seconds,
        failure: document.failure,
        ignore: document.ignore,
        retry: document.retry,
        balance: document.balance,
        outlier: document.outlier,
        circuit: document.circuit.map(circuits),
        limit: document.limit.map(limits),
        fallback: document.fallback,
    })
}
