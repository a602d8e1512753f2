//! Circuits.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A circuit, and where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Circuit {
    /// `policy/subject`.
    pub id: String,
    /// Its policy.
    #[serde(rename = "circuit")]
    pub policy: String,
    /// What it guards: `instance`, `service` or `route`.
    pub scope: String,
    /// The service it is about.
    pub service: Option<String>,
    /// The instance it is about.
    pub instance: Option<String>,
    /// The route it is about.
    pub route: Option<String>,
    /// `closed` (calls flow), `open`, `half-open` or `ramp`.
    pub state: String,
    /// Who decides: `auto`, `forced-open`, `forced-closed`, `disabled`, `observe`.
    pub mode: String,
    /// When that mode is over.
    pub mode_until: Option<String>,
    /// Whether calls feel the state.
    pub enforced: bool,
    /// Why it stands there.
    pub reason: String,
    /// What was observed, in the unit of the reason.
    pub observed: f64,
    /// What the policy allows.
    pub threshold: f64,
    /// Since when.
    pub since: Option<String>,
    /// When it changes by itself, or can be left.
    pub next_change: Option<String>,
    /// Calls of the window.
    pub calls: u64,
    /// Failures of the window.
    pub failures: u64,
    /// Their share; absent while there are too few calls.
    pub failure_rate_percent: Option<f64>,
    /// The share of slow calls.
    pub slow_rate_percent: Option<f64>,
    /// The window by its parts, oldest first.
    pub window: Vec<CircuitPart>,
    /// Probes, while half-open.
    pub probes: CircuitProbes,
    /// The share let through, on the ramp.
    pub ramp_percent: Option<u8>,
    /// How often it opened.
    pub opened_total: u64,
    /// Calls refused.
    pub refused_total: u64,
    /// How often it would have opened, while it only observes.
    pub would_trip_total: u64,
    /// Calls it would have refused, while it only observes.
    pub would_reject_total: u64,
}

/// One part of a circuit's window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CircuitPart {
    /// When it began.
    pub start: Option<String>,
    /// Calls.
    pub calls: u64,
    /// Those that failed.
    pub failures: u64,
    /// Those that were slow.
    pub slow: u64,
    /// Those that were cut.
    pub timeouts: u64,
    /// Whether it counts as a bad one.
    pub tripped: bool,
}

/// Probes of a half-open circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CircuitProbes {
    /// Those that may go out.
    pub free: u32,
    /// Those that are out.
    pub in_flight: u32,
}
