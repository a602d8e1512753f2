//! The `[circuit.N]` table as written, and how it is resolved.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    CircuitPolicy, Compare, Enforcement, ProbeRule, Scope, Share, SubWindowPolicy, WindowKind,
    WindowShape,
};
use crate::invalid::{Invalid, namespace, span, within};

/// A `[circuit.N]` table as written: every field optional, nothing checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawCircuit {
    /// Namespace it is kept under, 1 to 63 of `a-z`, `0-9`, `-`. It is named without it: two of
    /// one name cannot be. Default `default`.
    pub namespace: Option<String>,
    /// What one circuit guards: `instance`, `service` or `route`. A refused instance means that
    /// another one is tried; a refused service or route means fallback. Default `instance`.
    pub scope: Option<Scope>,
    /// `enforce`, or `observe`: everything is computed and shown, nothing is refused. Default
    /// `enforce`.
    pub mode: Option<Enforcement>,
    /// `at_least`: a threshold that is reached fires. `above`: it must be passed, as in rules
    /// brought from Sentinel. Applies to both rates, `failures` and `slow_call_seconds`. Default
    /// `at_least`.
    pub compare: Option<Compare>,
    /// `time`: results of the last `window_seconds`. `count`: the last `window_calls` results.
    /// Default `time`.
    pub window: Option<WindowKind>,
    /// Length of a time window in seconds, 0.1 to 3600. Default 10.
    pub window_seconds: Option<f64>,
    /// Length of a count window in calls, 1 to 100000, a multiple of `sub_windows`. Default 100.
    pub window_calls: Option<u32>,
    /// Parts of the window, 1 to 100. Default 10.
    pub sub_windows: Option<u32>,
    /// Calls in the window below which no rate is judged, 1 to 1000000. Default 20, or
    /// `window_calls` if that is less.
    pub min_calls: Option<u32>,
    /// Failed calls, in percent of all, that open the circuit; 0 to 100, 0 is off. Default 50.
    pub failure_rate_percent: Option<f64>,
    /// Latency in seconds that makes a call slow, 0.001 to 3600. Default: no call is slow.
    pub slow_call_seconds: Option<f64>,
    /// Slow calls, in percent of all, that open the circuit; 0 to 100, 0 is off. Default 50.
    pub slow_rate_percent: Option<f64>,
    /// Failures in a row that open the circuit, 0 to 1000000, 0 is off. A refusal by the peer
    /// neither adds to the run nor ends it. Default 5 for scope `instance`, else 0.
    pub consecutive_failures: Option<u32>,
    /// Failures in the window that open the circuit, 0 to 1000000, 0 is off. Default 0.
    pub failures: Option<u32>,
    /// Failures that trip one sub-window, 0 to 1000000, 0 is off. Default 0.
    pub sub_window_failures: Option<u32>,
    /// Which tripped sub-windows open the circuit: `off` (none), `any` (one), `k_of_n`
    /// (`sub_window_k` of them). Default `off`.
    pub sub_window_policy: Option<SubWindowPolicy>,
    /// Tripped sub-windows that open the circuit under `k_of_n`, 1 to `sub_windows`. Default 2.
    pub sub_window_k: Option<u32>,
    /// Calls in one ended sub-window that, all timed out, open the circuit at once; 0 to 1000000,
    /// 0 is off. Default 3.
    pub unavailable_calls: Option<u32>,
    /// First cooldown in seconds, 0.001 to 86400. Default 5.
    pub cooldown_seconds: Option<f64>,
    /// Factor between one cooldown and the next while the circuit has not been closed, 1 to 10.
    /// Default 1.5.
    pub cooldown_multiplier: Option<f64>,
    /// Longest cooldown in seconds before jitter, `cooldown_seconds` to 86400. Default 60, or
    /// `cooldown_seconds` if that is more.
    pub cooldown_max_seconds: Option<f64>,
    /// Share by which a cooldown is made longer or shorter at random, in percent, 0 to 90.
    /// Default 0.
    pub cooldown_jitter_percent: Option<f64>,
    /// Calls let through to find out whether the peer has recovered, 1 to 1000. Default 5.
    pub probes: Option<u32>,
    /// `rate`: probes are judged together by failure and slow rate. `all`: the first bad one
    /// opens the circuit again. Default `rate`.
    pub probe_rule: Option<ProbeRule>,
    /// Seconds after which a probe without a result gives its place to another, 0.001 to 3600.
    /// Default 10.
    pub probe_lease_seconds: Option<f64>,
    /// Longest time half-open in seconds, 0.001 to 3600; then the results so far decide. Default
    /// 60.
    pub half_open_max_seconds: Option<f64>,
    /// Shares of calls let through, step by step, after probes have passed: rising, each 1 to 100
    /// percent, at most 10; empty: all at once. Default [10, 25, 50].
    pub ramp_percent: Option<Vec<u8>>,
    /// Shortest time of a step in seconds, 0.001 to 3600. Default 2.
    pub ramp_step_seconds: Option<f64>,
    /// Name of a string switch that sets the mode: `auto`, `forced-open`, `forced-closed`,
    /// `disabled` or `observe`. Default: none.
    pub mode_switch: Option<String>,
}

impl TryFrom<RawCircuit> for CircuitPolicy {
    type Error = Invalid;

    fn try_from(raw: RawCircuit) -> Result<Self, Invalid> {
        namespace(raw.namespace.as_deref())?;
        let scope = raw.scope.unwrap_or_default();
        let run = if scope == Scope::Instance { 5 } else { 0 };
        let (cooldown, cooldown_max) = cooldown(&raw)?;
        Ok(Self {
            scope,
            enforcement: raw.mode.unwrap_or_default(),
            compare: raw.compare.unwrap_or_default(),
            window: window(&raw)?,
            min_calls: min_calls(&raw)?,
            failure_rate: share("failure_rate_percent", raw.failure_rate_percent, 50.0, 100.0)?,
            slow_call: raw
                .slow_call_seconds
                .map(|s| seconds("slow_call_seconds", s))
                .transpose()?,
            slow_rate: share("slow_rate_percent", raw.slow_rate_percent, 50.0, 100.0)?,
            consecutive_failures: count("consecutive_failures", raw.consecutive_failures, run)?,
            failures: count("failures", raw.failures, 0)?,
            sub_window_failures: count("sub_window_failures", raw.sub_window_failures, 0)?,
            sub_windows_tripped: sub_windows_tripped(&raw)?,
            unavailable_calls: count("unavailable_calls", raw.unavailable_calls, 3)?,
            cooldown,
            cooldown_multiplier: within(
                "cooldown_multiplier",
                raw.cooldown_multiplier.unwrap_or(1.5),
                1.0,
                10.0,
            )?,
            cooldown_max,
            cooldown_jitter: share(
                "cooldown_jitter_percent",
                raw.cooldown_jitter_percent,
                0.0,
                90.0,
            )?,
            probes: within("probes", raw.probes.unwrap_or(5), 1, 1_000)?,
            probe_rule: raw.probe_rule.unwrap_or_default(),
            probe_lease: seconds("probe_lease_seconds", raw.probe_lease_seconds.unwrap_or(10.0))?,
            half_open_max: seconds(
                "half_open_max_seconds",
                raw.half_open_max_seconds.unwrap_or(60.0),
            )?,
            ramp: ramp(raw.ramp_percent)?,
            ramp_step: seconds("ramp_step_seconds", raw.ramp_step_seconds.unwrap_or(2.0))?,
            mode_switch: raw.mode_switch.map(String::into_boxed_str),
        })
    }
}

fn window(raw: &RawCircuit) -> Result<WindowShape, Invalid> {
    let parts = within("sub_windows", raw.sub_windows.unwrap_or(10), 1, 100)?;
    let length = span("window_seconds", raw.window_seconds.unwrap_or(10.0), 0.1, 3600.0)?;
    let calls = within("window_calls", raw.window_calls.unwrap_or(100), 1, 100_000)?;
    match raw.window.unwrap_or_default() {
        WindowKind::Time => Ok(WindowShape::Time { length, sub_windows: parts as usize }),
        WindowKind::Count if calls.is_multiple_of(parts) => {
            Ok(WindowShape::Count { calls: calls as usize, sub_windows: parts as usize })
        }
        WindowKind::Count => Err(Invalid::contradiction(
            "window_calls",
            format!("must be a multiple of `sub_windows` ({parts}), found {calls}"),
        )),
    }
}

/// More calls than the window holds would turn the rates off without saying so.
fn min_calls(raw: &RawCircuit) -> Result<u32, Invalid> {
    let held = match raw.window.unwrap_or_default() {
        WindowKind::Time => u32::MAX,
        WindowKind::Count => raw.window_calls.unwrap_or(100),
    };
    let min = within("min_calls", raw.min_calls.unwrap_or_else(|| held.min(20)), 1, 1_000_000)?;
    if min <= held {
        Ok(min)
    } else {
        let problem = format!("must be at most `window_calls` ({held}), found {min}");
        Err(Invalid::contradiction("min_calls", problem))
    }
}

fn sub_windows_tripped(raw: &RawCircuit) -> Result<u32, Invalid> {
    let parts = raw.sub_windows.unwrap_or(10);
    let needed = match raw.sub_window_policy.unwrap_or_default() {
        SubWindowPolicy::Off => return Ok(0),
        SubWindowPolicy::Any => 1,
        SubWindowPolicy::KOfN => within("sub_window_k", raw.sub_window_k.unwrap_or(2), 1, parts)?,
    };
    if raw.sub_window_failures.unwrap_or(0) == 0 {
        return Err(Invalid::contradiction(
            "sub_window_policy",
            "needs `sub_window_failures`, the failures that trip a sub-window",
        ));
    }
    Ok(needed)
}

fn cooldown(raw: &RawCircuit) -> Result<(Duration, Duration), Invalid> {
    let first = raw.cooldown_seconds.unwrap_or(5.0);
    let cooldown = span("cooldown_seconds", first, 0.001, 86_400.0)?;
    let max = raw.cooldown_max_seconds.unwrap_or_else(|| first.max(60.0));
    Ok((cooldown, span("cooldown_max_seconds", max, first, 86_400.0)?))
}

fn ramp(written: Option<Vec<u8>>) -> Result<Box<[u8]>, Invalid> {
    let steps = written.unwrap_or_else(|| vec![10, 25, 50]);
    if steps.len() > RAMP_STEPS_MAX {
        let problem = format!("must have at most {RAMP_STEPS_MAX} steps, found {}", steps.len());
        return Err(Invalid::range("ramp_percent", problem));
    }
    for (i, &step) in steps.iter().enumerate() {
        within(&format!("ramp_percent[{i}]"), step, 1, 100)?;
    }
    if steps.is_sorted_by(|a, b| a < b) {
        Ok(steps.into())
    } else {
        Err(Invalid::contradiction("ramp_percent", "each step must be more than the one before"))
    }
}

/// More steps than this make no difference that traffic could show.
const RAMP_STEPS_MAX: usize = 10;

fn seconds(path: &str, seconds: f64) -> Result<Duration, Invalid> {
    span(path, seconds, 0.001, 3600.0)
}

fn share(path: &str, written: Option<f64>, default: f64, max: f64) -> Result<Share, Invalid> {
    Ok(Share::from_percent(within(path, written.unwrap_or(default), 0.0, max)?))
}

fn count(path: &str, written: Option<u32>, default: u32) -> Result<u32, Invalid> {
    within(path, written.unwrap_or(default), 0, 1_000_000)
}
