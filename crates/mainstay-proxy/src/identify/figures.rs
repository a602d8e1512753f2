//! What is counted of tokens and keys.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// An issuer, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct IssuerResult {
    issuer: String,
    result: &'static str,
}

/// An issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct IssuerLabel {
    issuer: String,
}

/// Metrics of tokens and keys. An issuer is a label only if it is configured.
#[derive(Clone, Debug, Default)]
pub(crate) struct JwtFigures {
    checks: Family<IssuerResult, Counter>,
    age: Family<IssuerLabel, Gauge<f64, AtomicU64>>,
    fetches: Family<IssuerResult, Counter>,
}

impl JwtFigures {
    /// Puts them into `registry`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "jwt_checks",
            "Tokens looked at, by issuer (none: of nobody trusted, or no token) and by what came of \
             it",
            self.checks.clone(),
        );
        registry.register_with_unit(
            "jwks_age",
            "Time since the keys of an issuer were fetched",
            Unit::Seconds,
            self.age.clone(),
        );
        registry.register(
            "jwks_fetches",
            "Fetches of keys, by issuer and by what came of it",
            self.fetches.clone(),
        );
    }

    /// Makes every family show.
    pub(crate) fn show_all(&self) {
        drop(self.checks.get_or_create(&IssuerResult::default()));
        drop(self.age.get_or_create(&IssuerLabel::default()));
        drop(self.fetches.get_or_create(&IssuerResult::default()));
    }

    /// The counters of `issuer`, found once.
    pub(super) fn checks_of(&self, issuer: &str) -> Checks {
        let of = |result| {
            let labels = IssuerResult { issuer: issuer.to_owned(), result };
            self.checks.get_or_create(&labels).clone()
        };
        Checks {
            cached: of("cached"),
            verified: of("verified"),
            invalid: of("invalid"),
            unavailable: of("unavailable"),
            missing: of("missing"),
        }
    }

    /// Counts a fetch of the keys of `issuer`.
    pub(super) fn fetched(&self, issuer: &str, result: &'static str) {
        let labels = IssuerResult { issuer: issuer.to_owned(), result };
        self.fetches.get_or_create(&labels).inc();
    }

    /// Says how old the keys of `issuer` are; nothing while there are none.
    pub(super) fn aged(&self, issuer: &str, age: Option<std::time::Duration>) {
        let labels = IssuerLabel { issuer: issuer.to_owned() };
        match age {
            Some(age) => drop(self.age.get_or_create(&labels).set(age.as_secs_f64())),
            None => drop(self.age.remove(&labels)),
        }
    }
}

/// What came of tokens.
#[derive(Clone, Debug)]
pub(super) struct Checks {
    /// Verified lately.
    pub(super) cached: Counter,
    /// Verified now.
    pub(super) verified: Counter,
    /// Not believed.
    pub(super) invalid: Counter,
    /// No keys to verify with.
    pub(super) unavailable: Counter,
    /// None was brought where one is needed.
    pub(super) missing: Counter,
}
