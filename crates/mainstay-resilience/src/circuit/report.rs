//! What a circuit says: states, transitions, refusals, and the view a console draws.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use mainstay_core::{Instant, Rejection};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::window::Tally;

/// Where a circuit stands. Traffic flows when it is closed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Every call passes.
    Closed,
    /// No call passes.
    Open,
    /// A few calls pass as probes.
    HalfOpen,
    /// A growing share of calls passes.
    Ramp,
}

impl State {
    /// `closed`, `open`, `half-open` or `ramp`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
            Self::Ramp => "ramp",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who decides: the circuit itself, or somebody above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The circuit, by its policy.
    #[default]
    Auto,
    /// Nothing passes, and no time ends it.
    ForcedOpen,
    /// Everything passes and is recorded; nothing opens the circuit.
    ForcedClosed,
    /// Everything passes and nothing is recorded.
    Disabled,
    /// Everything passes; the circuit says when it would have opened.
    Observe,
}

impl Mode {
    /// `auto`, `forced-open`, `forced-closed`, `disabled` or `observe`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::ForcedOpen => "forced-open",
            Self::ForcedClosed => "forced-closed",
            Self::Disabled => "disabled",
            Self::Observe => "observe",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be auto, forced-open, forced-closed, disabled or observe")]
pub struct UnknownMode;

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        let all = [Self::Auto, Self::ForcedOpen, Self::ForcedClosed, Self::Disabled, Self::Observe];
        all.into_iter().find(|mode| mode.as_str() == text).ok_or(UnknownMode)
    }
}

/// Why a circuit stands where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It is new, or was reset.
    Reset,
    /// Too many failures in a row.
    Consecutive,
    /// A whole sub-window of nothing but timeouts.
    Unavailable,
    /// Too large a share of calls, or of probes, failed.
    FailureRate,
    /// Too large a share of calls, or of probes, was slow.
    SlowRate,
    /// Too many failures in the window.
    Failures,
    /// Too many tripped sub-windows.
    SubWindows,
    /// The cooldown is over and a call came.
    CooldownOver,
    /// A probe was bad and the rule wants all of them good.
    ProbeFailed,
    /// No probe had a result in time.
    ProbesSilent,
    /// The probes were good.
    ProbesPassed,
    /// The ramp came to its end.
    RampDone,
    /// Somebody set the mode, or its time ran out.
    Mode,
    /// State from before a restart was taken over.
    Restored,
}

impl Reason {
    /// The name in metrics and records, as in `failure_rate`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Consecutive => "consecutive",
            Self::Unavailable => "unavailable",
            Self::FailureRate => "failure_rate",
            Self::SlowRate => "slow_rate",
            Self::Failures => "failures",
            Self::SubWindows => "sub_windows",
            Self::CooldownOver => "cooldown_over",
            Self::ProbeFailed => "probe_failed",
            Self::ProbesSilent => "probes_silent",
            Self::ProbesPassed => "probes_passed",
            Self::RampDone => "ramp_done",
            Self::Mode => "mode",
            Self::Restored => "restored",
        }
    }

    /// What the figures of a [`Cause`] count, as the end of a sentence.
    const fn unit(self) -> &'static str {
        match self {
            Self::Consecutive => "failures in a row",
            Self::Unavailable => "timeouts and nothing else in one sub-window",
            Self::FailureRate => "% of calls failed",
            Self::SlowRate => "% of calls slow",
            Self::Failures => "failures in the window",
            Self::SubWindows => "tripped sub-windows",
            Self::ProbeFailed => "bad probes",
            Self::CooldownOver | Self::ProbesSilent | Self::ProbesPassed => "probes",
            Self::RampDone => "% let through",
            Self::Reset | Self::Mode | Self::Restored => "(set from outside)",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reason with its figures: percent for rates, else a count.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cause {
    /// Which condition.
    pub reason: Reason,
    /// What was observed.
    pub observed: f64,
    /// What the policy allows.
    pub threshold: f64,
}

impl Cause {
    /// A cause without figures.
    pub(super) const fn bare(reason: Reason) -> Self {
        Self { reason, observed: 0.0, threshold: 0.0 }
    }

    #[expect(clippy::cast_precision_loss, reason = "call counts stay far below 2^52")]
    pub(super) const fn counts(reason: Reason, observed: u64, threshold: u64) -> Self {
        Self { reason, observed: observed as f64, threshold: threshold as f64 }
    }
}

/// The calls a transition rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// Since when these calls were counted: for `unavailable` the start of the sub-window, for
    /// probes the moment the circuit became half-open, else the start of the oldest sub-window.
    pub start: Instant,
    /// The calls; none for a transition by time or by hand.
    pub tally: Tally,
}

/// A change of state or of mode, or one that an observing circuit would have made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transition {
    /// State before.
    pub from: State,
    /// State after; equal to `from` when only the mode changed.
    pub to: State,
    /// Mode after.
    pub mode: Mode,
    /// Why.
    pub cause: Cause,
    /// When. A change by time alone bears the moment it was due, however late it was noticed.
    pub at: Instant,
    /// Calls it rests on.
    pub evidence: Evidence,
    /// When the new state changes by itself or can be left, if that is known.
    pub until: Option<Instant>,
    /// Whether calls feel it: false while the circuit only observes.
    pub enforced: bool,
}

impl Transition {
    /// Whether the circuit opened by its own judgement, or would have.
    pub fn is_trip(&self) -> bool {
        self.to == State::Open && self.from != State::Open && self.cause.reason != Reason::Mode
    }
}

/// Why a call was not let through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refused {
    /// What stood in the way.
    pub why: Why,
    /// For how long this state has lasted.
    pub since: Duration,
    /// When to ask again: the rest of the cooldown, until a probe's place is free at the latest,
    /// or the rest of a step. Nobody knows when a forced circuit is released; then it is the rest
    /// of the mode's time, or the policy's longest cooldown.
    pub retry_after: Duration,
    /// What was observed, in percent for rates, else a count.
    pub observed: f64,
    /// What the policy allows, in the same unit.
    pub threshold: f64,
}

/// What stood in the way of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The circuit is open, for this reason.
    Open(Reason),
    /// Someone wants the circuit open.
    ForcedOpen,
    /// All probes are out or have reported.
    HalfOpen,
    /// The ramp lets only a share through.
    Ramp,
}

impl Why {
    /// The state that refuses.
    pub const fn state(self) -> State {
        match self {
            Self::Open(_) | Self::ForcedOpen => State::Open,
            Self::HalfOpen => State::HalfOpen,
            Self::Ramp => State::Ramp,
        }
    }
}

impl Refused {
    /// The same in words, for whoever will read it. Allocates; not for the refusing path.
    pub fn rejection(&self, rule: &str) -> Rejection {
        let seconds = self.retry_after.as_secs_f64();
        let (unit, clears_when) = match self.why {
            Why::Open(reason) => (reason.unit(), format!("probes in {seconds:.1} s")),
            Why::ForcedOpen => ("(forced open)", "the mode is set to auto".to_owned()),
            Why::HalfOpen => {
                ("probes out or recorded", format!("a free probe in {seconds:.1} s at most"))
            }
            Why::Ramp => ("% let through", format!("the next step in {seconds:.1} s")),
        };
        let figure = |n: f64| {
            let text =
                if n.fract() == 0.0 { format!("{n} {unit}") } else { format!("{n:.1} {unit}") };
            Cow::Owned(text)
        };
        Rejection {
            stage: "circuit",
            rule: rule.to_owned(),
            revision: None,
            observed: figure(self.observed),
            threshold: figure(self.threshold),
            since: self.since,
            clears_when: clears_when.into(),
        }
    }
}

/// Everything there is to see of a circuit at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Where it stands; while observing, where it would stand.
    pub state: State,
    /// Who decides.
    pub mode: Mode,
    /// When a mode with an end is over.
    pub mode_until: Option<Instant>,
    /// Whether calls feel the state.
    pub enforced: bool,
    /// Why it stands there.
    pub cause: Cause,
    /// Since when.
    pub since: Instant,
    /// When the state changes by itself or can be left; none while closed or forced.
    pub next_change: Option<Instant>,
    /// The sub-windows, oldest first.
    pub window: Vec<SubWindowView>,
    /// The whole window.
    pub total: Tally,
    /// Failed share of the window, or `None` for "not enough calls".
    pub failure_rate_percent: Option<f64>,
    /// Slow share of the window, or `None` for "not enough calls".
    pub slow_rate_percent: Option<f64>,
    /// Probes that may still go out; zero unless half-open.
    pub probes_free: u32,
    /// Probes out; zero unless half-open.
    pub probes_in_flight: u32,
    /// Results of probes so far; empty unless half-open.
    pub probes: Tally,
    /// Share let through, while on the ramp.
    pub ramp_percent: Option<u8>,
    /// How often it opened, or would have.
    pub opened_total: u64,
    /// How often it would have opened while only observing.
    pub would_trip_total: u64,
    /// Calls refused.
    pub refused_total: u64,
    /// Calls that would have been refused while only observing.
    pub would_reject_total: u64,
}

/// One sub-window, with the verdict on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubWindowView {
    /// When it began.
    pub start: Instant,
    /// What happened in it.
    pub tally: Tally,
    /// Whether it has at least `sub_window_failures` failures.
    pub tripped: bool,
}
