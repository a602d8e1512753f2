//! What a `[limit.N]` table means.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Kind, LimitPolicy, Override, Quota, RawKind, RawLimit, RawOverride, Waiting};
use crate::Invalid;
use crate::invalid::{namespace, span, within};
use crate::key::{self, KeyPart};
use crate::limit::counter::AHEAD;
use crate::limit::sliding::SUB_WINDOWS_MAX;

impl TryFrom<RawLimit> for LimitPolicy {
    type Error = Invalid;

    fn try_from(raw: RawLimit) -> Result<Self, Invalid> {
        namespace(raw.namespace.as_deref())?;
        let name = raw.kind.unwrap_or_default();
        refuse_idle_keys(&raw, name)?;
        let kind = kind(&raw, name)?;
        let cost = at_least_one("cost", raw.cost.unwrap_or(1))?;
        let capacity = capacity(&kind);
        if cost > capacity {
            let problem = format!("must be at most what the limit holds, {capacity}, found {cost}");
            return Err(Invalid::contradiction("cost", problem));
        }
        let key = key::parts("key", raw.key.as_deref().unwrap_or_default(), |part| match part {
            KeyPart::WholePath => Some(NO_PATH.to_owned()),
            _ => None,
        })?;
        let keys_max = within("keys_max", raw.keys_max.unwrap_or(65_536), 1, KEYS_MAX)?;
        Ok(Self {
            mode: raw.mode.unwrap_or_default(),
            cost: cost.into(),
            keys_max: at_least_one("keys_max", keys_max)?,
            overrides: overrides(raw.overrides.unwrap_or_default(), key.len(), &kind, cost)?,
            headers: raw.headers.unwrap_or(!key.is_empty()),
            on_deny: raw.on_deny.unwrap_or_default(),
            scale_switch: raw.scale_switch,
            kind,
            key,
        })
    }
}

const NO_PATH: &str = "must not be all of the path; name one capture of it with `path:NAME`";

/// Refuses what was written but would do nothing, so that nobody relies on it.
fn refuse_idle_keys(raw: &RawLimit, kind: RawKind) -> Result<(), Invalid> {
    use RawKind::{Adaptive, Bucket, Concurrency, Counter, Sliding, WarmUp};
    let timed = !kind.counts_in_flight();
    let queues = kind.is_paced() || kind.counts_in_flight();
    let keyed = raw.key.as_ref().is_some_and(|key| !key.is_empty());
    let adaptive = kind == Adaptive;
    let uses = [
        ("max", raw.max.is_some(), !adaptive),
        ("window_seconds", raw.window_seconds.is_some(), timed),
        ("burst", raw.burst.is_some(), kind == Bucket),
        ("cost", raw.cost.is_some(), timed),
        ("sub_windows", raw.sub_windows.is_some(), kind == Sliding),
        ("edge", raw.edge.is_some(), kind == Sliding),
        ("wait_max_seconds", raw.wait_max_seconds.is_some(), queues || kind == Counter),
        ("queue_max", raw.queue_max.is_some(), queues),
        ("order", raw.order.is_some(), matches!(kind, Concurrency | Adaptive)),
        ("warm_up_seconds", raw.warm_up_seconds.is_some(), kind == WarmUp),
        ("cold_factor", raw.cold_factor.is_some(), kind == WarmUp),
        ("algorithm", raw.algorithm.is_some(), adaptive),
        ("floor", raw.floor.is_some(), adaptive),
        ("ceiling", raw.ceiling.is_some(), adaptive),
        ("initial", raw.initial.is_some(), adaptive),
        ("tolerance", raw.tolerance.is_some(), adaptive),
        ("sample_seconds", raw.sample_seconds.is_some(), adaptive),
        ("key", keyed, timed),
        ("scale_switch", raw.scale_switch.is_some(), !adaptive),
    ];
    for (path, written, used) in uses {
        if written && !used {
            let problem = format!("means nothing to a limit of kind `{}`", kind.as_str());
            return Err(Invalid::contradiction(path, problem));
        }
    }
    let needs_key = [("keys_max", raw.keys_max.is_some()), ("overrides", raw.overrides.is_some())];
    match needs_key.into_iter().find(|&(_, written)| written && !keyed) {
        Some((path, _)) => Err(Invalid::contradiction(path, "means nothing without `key`")),
        None => Ok(()),
    }
}

fn kind(raw: &RawLimit, name: RawKind) -> Result<Kind, Invalid> {
    Ok(match name {
        RawKind::Counter => {
            let quota = quota(raw)?;
            let wait_max = wait_max(raw, name)?;
            if quota.window.saturating_mul(AHEAD) < wait_max {
                let problem = format!("must be at most {AHEAD} windows");
                return Err(Invalid::contradiction("wait_max_seconds", problem));
            }
            Kind::Counter { quota, wait_max }
        }
        RawKind::Sliding => Kind::Sliding {
            quota: quota(raw)?,
            sub_windows: within("sub_windows", raw.sub_windows.unwrap_or(10), 1, SUB_WINDOWS_MAX)?,
            edge: raw.edge.unwrap_or_default(),
        },
        RawKind::Bucket => {
            let quota = quota(raw)?;
            let burst = at_least_one("burst", raw.burst.unwrap_or_else(|| quota.max.get()))?;
            refills_in_time("burst", quota, burst)?;
            Kind::Bucket { quota, burst }
        }
        RawKind::Pacing => Kind::Pacing { quota: quota(raw)?, waiting: waiting(raw, name)? },
        RawKind::WarmUp => Kind::WarmUp {
            quota: quota(raw)?,
            waiting: waiting(raw, name)?,
            warm_up: span("warm_up_seconds", raw.warm_up_seconds.unwrap_or(10.0), 0.01, 3600.0)?,
            cold_factor: within("cold_factor", raw.cold_factor.unwrap_or(3.0), 1.1, 100.0)?,
        },
        RawKind::Concurrency => Kind::Concurrency {
            max: max(raw.max)?,
            waiting: waiting(raw, name)?,
            order: raw.order.unwrap_or_default(),
        },
        RawKind::Adaptive => {
            let floor = at_least_one("floor", raw.floor.unwrap_or(5))?;
            let ceiling = raw.ceiling.unwrap_or(1_000);
            let ceiling = within("ceiling", ceiling, floor.get(), u32::MAX)?;
            let initial = raw.initial.unwrap_or_else(|| 20.clamp(floor.get(), ceiling));
            let initial = within("initial", initial, floor.get(), ceiling)?;
            Kind::Adaptive {
                algorithm: raw.algorithm.unwrap_or_default(),
                floor,
                ceiling: at_least_one("ceiling", ceiling)?,
                initial: at_least_one("initial", initial)?,
                tolerance: within("tolerance", raw.tolerance.unwrap_or(1.5), 1.0, 10.0)?,
                sample: span("sample_seconds", raw.sample_seconds.unwrap_or(1.0), 0.01, 60.0)?,
                waiting: waiting(raw, name)?,
                order: raw.order.unwrap_or_default(),
            }
        }
    })
}

fn quota(raw: &RawLimit) -> Result<Quota, Invalid> {
    let window = span("window_seconds", raw.window_seconds.unwrap_or(1.0), 0.01, 3600.0)?;
    Ok(Quota { max: max(raw.max)?, window })
}

fn max(written: Option<u32>) -> Result<NonZeroU32, Invalid> {
    let problem = match written {
        None => "is required",
        Some(_) => "must be at least 1; to refuse every call turn a switch off",
    };
    NonZeroU32::new(written.unwrap_or(0)).ok_or_else(|| Invalid::range("max", problem))
}

fn at_least_one(path: &str, value: u32) -> Result<NonZeroU32, Invalid> {
    NonZeroU32::new(value).ok_or_else(|| Invalid::range(path, "must be at least 1, found 0"))
}

fn wait_max(raw: &RawLimit, kind: RawKind) -> Result<Duration, Invalid> {
    let default = if kind.is_paced() { 0.5 } else { 0.0 };
    span("wait_max_seconds", raw.wait_max_seconds.unwrap_or(default), 0.0, 3600.0)
}

/// A queue nobody may wait in, and a wait without a queue, are both mistakes; a paced limit may be
/// told not to wait by either.
fn waiting(raw: &RawLimit, kind: RawKind) -> Result<Waiting, Invalid> {
    let default = if kind.is_paced() { 1_024 } else { 0 };
    let queue_max = within("queue_max", raw.queue_max.unwrap_or(default), 0, QUEUE_MAX)?;
    let wait_max = wait_max(raw, kind)?;
    if kind.counts_in_flight() && (queue_max == 0) != wait_max.is_zero() {
        let (path, other) = match queue_max {
            0 => ("wait_max_seconds", "queue_max"),
            _ => ("queue_max", "wait_max_seconds"),
        };
        return Err(Invalid::contradiction(path, format!("means nothing while `{other}` is 0")));
    }
    Ok(Waiting { wait_max, queue_max })
}

/// Refuses a bucket so large that its theoretical arrival time would not fit a word.
fn refills_in_time(path: &str, quota: Quota, burst: NonZeroU32) -> Result<(), Invalid> {
    let units = u128::from(burst.get()) * quota.window.as_nanos();
    if units.div_ceil(u128::from(quota.max.get())) <= REFILL_MAX.as_nanos() {
        return Ok(());
    }
    let problem = format!("must refill within a year at {} per window, found {burst}", quota.max);
    Err(Invalid::contradiction(path, problem))
}

/// The largest cost a limit can grant.
fn capacity(kind: &Kind) -> NonZeroU32 {
    match *kind {
        Kind::Bucket { burst, .. } => burst,
        Kind::Counter { quota, .. }
        | Kind::Sliding { quota, .. }
        | Kind::Pacing { quota, .. }
        | Kind::WarmUp { quota, .. } => quota.max,
        Kind::Concurrency { .. } | Kind::Adaptive { .. } => NonZeroU32::MIN,
    }
}

fn overrides(
    written: Vec<RawOverride>,
    parts: usize,
    kind: &Kind,
    cost: NonZeroU32,
) -> Result<Vec<Override>, Invalid> {
    within("overrides", written.len(), 0, OVERRIDES_MAX)?;
    let mut overrides: Vec<Override> = Vec::with_capacity(written.len());
    let mut seen = std::collections::BTreeSet::new();
    for (i, raw) in written.into_iter().enumerate() {
        let table = format!("overrides[{i}]");
        let max = max(raw.max).map_err(|invalid| invalid.within(&table))?;
        if raw.burst.is_some() && !matches!(kind, Kind::Bucket { .. }) {
            let path = format!("{table}.burst");
            return Err(Invalid::contradiction(path, "means something to a bucket only"));
        }
        let burst =
            at_least_one(&format!("{table}.burst"), raw.burst.unwrap_or_else(|| max.get()))?;
        let key = raw.key.unwrap_or_default();
        let path = format!("{table}.key");
        if key.len() != parts {
            let problem = format!("must have {parts} values, one for each part of `key`");
            return Err(Invalid::contradiction(path, problem));
        }
        if !seen.insert(key.clone()) {
            return Err(Invalid::contradiction(path, "stands in an earlier entry already"));
        }
        let other = Override { key, max, burst };
        let kind = kind.overridden(&other);
        if let Kind::Bucket { quota, burst } = kind {
            refills_in_time(&format!("{table}.burst"), quota, burst)?;
        }
        if capacity(&kind) < cost {
            let problem = format!("must hold at least one call's `cost`, {cost}");
            return Err(Invalid::contradiction(format!("{table}.max"), problem));
        }
        overrides.push(other);
    }
    Ok(overrides)
}

/// Longest queue: 65,536 waiting calls of about 1 KiB are 64 MiB.
const QUEUE_MAX: u32 = 65_536;

/// Most keys: a million at 96 bytes are 96 MiB.
const KEYS_MAX: u32 = 1 << 20;

/// Most overrides; those who need more want a directory of quotas, not a table.
const OVERRIDES_MAX: usize = 4_096;

/// Longest time an empty bucket may take to fill.
const REFILL_MAX: Duration = Duration::from_hours(365 * 24);
