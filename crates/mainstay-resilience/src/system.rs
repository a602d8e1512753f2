//! Protection of this process by the state of its machine.
//!
//! Quotas protect a service from its callers; this protects the process from the sum of them. It
//! sheds only while the machine is short of processor or memory, and then only what exceeds what
//! the process has shown it can carry: by Little's law, its best rate of the last ten seconds
//! times its best mean latency is the number of calls that were in flight when it worked best.
//! More than that only wait. (The idea is that of TCP BBR, Cardwell et al. 2016, as Sentinel and
//! Kratos apply it to servers.)
//!
//! Low priority goes first: a call is measured against calls of its own and higher priority only,
//! so a flood of low ones cannot push out a normal one, while normal calls leave no room for low
//! ones. Critical calls, health and control traffic among them, are never shed.

use std::time::Duration;

use mainstay_core::Instant;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::invalid::{Invalid, within};

#[cfg(test)]
mod tests;

/// How much a call matters while there is not room for all.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Shed first.
    Low,
    /// What a call is unless its route says otherwise.
    #[default]
    Normal,
    /// Shed last.
    High,
    /// Never shed.
    Critical,
}

/// The `[system]` table as written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_field_names, reason = "these are the keys of the table")]
pub struct RawSystem {
    /// Processor use, in percent of what the process may use, from which on calls are shed; 0 to
    /// 100, 0 is off. Default 85.
    pub cpu_percent_max: Option<f64>,
    /// Memory use, in percent of what the process may use, from which on calls are shed; 0 to 100,
    /// 0 is off. Default 90.
    pub memory_percent_max: Option<f64>,
    /// Load average per processor from which on calls are shed; 0 to 1000, 0 is off. Default 0.
    pub load_per_core_max: Option<f64>,
}

/// The `[system]` table, resolved. None turns a condition off.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::struct_field_names, reason = "these are the keys of the table")]
pub struct SystemPolicy {
    /// Percent of the processor time there is.
    pub cpu_percent_max: Option<f64>,
    /// Percent of the memory there is.
    pub memory_percent_max: Option<f64>,
    /// Load average per processor.
    pub load_per_core_max: Option<f64>,
}

impl Default for SystemPolicy {
    fn default() -> Self {
        Self::try_from(RawSystem::default()).expect("every default lies in its range")
    }
}

impl TryFrom<RawSystem> for SystemPolicy {
    type Error = Invalid;

    fn try_from(raw: RawSystem) -> Result<Self, Invalid> {
        let threshold = |path, written: Option<f64>, default, max| {
            let value = within(path, written.unwrap_or(default), 0.0, max)?;
            Ok::<_, Invalid>((value > 0.0).then_some(value))
        };
        Ok(Self {
            cpu_percent_max: threshold("cpu_percent_max", raw.cpu_percent_max, 85.0, 100.0)?,
            memory_percent_max: threshold(
                "memory_percent_max",
                raw.memory_percent_max,
                90.0,
                100.0,
            )?,
            load_per_core_max: threshold("load_per_core_max", raw.load_per_core_max, 0.0, 1000.0)?,
        })
    }
}

/// The machine as the caller found it. In a container, of what the container may use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Processor use of the last second in percent.
    pub cpu_percent: f64,
    /// Memory use in percent.
    pub memory_percent: f64,
    /// Load average per processor.
    pub load_per_core: f64,
}

/// Which figure is over its threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Short {
    /// Processor.
    Cpu,
    /// Memory.
    Memory,
    /// Load average.
    Load,
}

/// A shortage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Over {
    /// Of what.
    pub short: Short,
    /// The figure that began it, or the last one since.
    pub observed: f64,
    /// The figure from which on it is one.
    pub threshold: f64,
    /// Since when.
    pub since: Instant,
}

/// A change between enough and too little.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// Shedding may begin.
    Began(Over),
    /// Shedding has ended.
    Ended(Over),
}

/// Why a call was shed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shed {
    /// The shortage.
    pub over: Over,
    /// Calls in flight of the same or higher priority.
    pub in_flight: u32,
    /// Calls the process has shown it can carry.
    pub carries: u32,
    /// When it can be asked again: the machine is looked at once a second.
    pub retry_after: Duration,
}

/// A call that was let in. Hand it back with [`System::record`] or [`System::cancel`].
#[derive(Debug)]
#[must_use = "the call counts as in flight until it is recorded"]
pub struct Admitted {
    priority: Priority,
}

/// System protection of one process.
#[derive(Clone, Debug)]
pub struct System {
    policy: SystemPolicy,
    now: Instant,
    over: Option<Over>,
    /// When the machine was last looked at.
    read_at: Instant,
    in_flight: [u32; 4],
    seconds: Seconds,
    shed_total: u64,
}

impl System {
    /// Protection that has seen nothing yet and lets everything in.
    pub fn new(policy: SystemPolicy, now: Instant) -> Self {
        Self {
            policy,
            now,
            over: None,
            read_at: now,
            in_flight: [0; 4],
            seconds: Seconds::new(now),
            shed_total: 0,
        }
    }

    /// Takes what the caller found, about once a second; returns what that changed. A shortage
    /// ends only when the figure is five points below its threshold, so that it does not flicker.
    pub fn observe(&mut self, now: Instant, reading: Reading) -> Option<Change> {
        let ended = self.poll(now);
        self.read_at = self.now;
        let before = self.over;
        self.over = self.judge(reading);
        match (before, self.over) {
            (None, Some(over)) => Some(Change::Began(over)),
            (Some(over), None) => Some(Change::Ended(over)),
            _ => ended,
        }
    }

    /// Asks to let a call in.
    ///
    /// # Errors
    ///
    /// [`Shed`], during a shortage, when more calls are in flight than the process can carry. One
    /// call may always be in flight: without any there would be nothing to learn from.
    #[inline]
    pub fn admit(&mut self, now: Instant, priority: Priority) -> Result<Admitted, Shed> {
        self.poll(now);
        if let Some(over) = self.over
            && priority < Priority::Critical
            && let Err(shed) = self.fits(over, priority, &self.in_flight)
        {
            self.shed_total += 1;
            return Err(shed);
        }
        self.in_flight[priority as usize] += 1;
        Ok(Admitted { priority })
    }

    /// [`System::admit`] for a caller that counts calls itself, as one does whose workers share no
    /// lock while there is no shortage: `in_flight` is by [`Priority`], without this call.
    ///
    /// # Errors
    ///
    /// As [`System::admit`].
    pub fn weigh(
        &mut self,
        now: Instant,
        priority: Priority,
        in_flight: [u32; 4],
    ) -> Result<(), Shed> {
        self.poll(now);
        let Some(over) = self.over.filter(|_| priority < Priority::Critical) else {
            return Ok(());
        };
        let fits = self.fits(over, priority, &in_flight);
        self.shed_total += u64::from(fits.is_err());
        fits
    }

    /// Takes note of calls that came back since the last time, about once a second: what
    /// [`System::record`] is for a caller that counts itself. `latency` is the sum of theirs.
    pub fn learn(&mut self, now: Instant, calls: u64, latency: Duration) {
        self.poll(now);
        self.seconds.add(calls, latency);
    }

    /// Records that a call came back after `latency`.
    #[inline]
    pub fn record(&mut self, now: Instant, call: Admitted, latency: Duration) {
        self.poll(now);
        self.leave(call);
        self.seconds.add(1, latency);
    }

    /// Takes back a call that says nothing about the process.
    pub fn cancel(&mut self, now: Instant, call: Admitted) {
        self.poll(now);
        self.leave(call);
    }

    /// Does what time alone does. A shortage nobody has confirmed for five seconds is over: stale
    /// figures must not shed.
    #[inline]
    pub fn poll(&mut self, now: Instant) -> Option<Change> {
        self.now = self.now.max(now);
        self.seconds.advance(self.now);
        let over = self.over?;
        if self.now < self.read_at.plus(READING_HOLDS) {
            return None;
        }
        self.over = None;
        Some(Change::Ended(over))
    }

    /// When [`System::poll`] will have something to tell, as things stand.
    pub fn next_wake(&self) -> Option<Instant> {
        self.over.map(|_| self.read_at.plus(READING_HOLDS))
    }

    /// Takes another policy; the next reading is judged by it.
    pub fn set_policy(&mut self, policy: SystemPolicy) {
        self.policy = policy;
    }

    /// The shortage, as of the last moment seen.
    pub fn over(&self) -> Option<Over> {
        self.over
    }

    /// Calls in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.iter().sum()
    }

    /// Calls the process has shown it can carry at once; none before it has answered any.
    pub fn carries(&self) -> Option<f64> {
        self.seconds.carries()
    }

    /// Calls shed.
    pub fn shed_total(&self) -> u64 {
        self.shed_total
    }

    fn fits(&self, over: Over, priority: Priority, in_flight: &[u32; 4]) -> Result<(), Shed> {
        let in_flight = in_flight[priority as usize..].iter().sum();
        let carries = self.seconds.carries().unwrap_or(0.0).max(1.0);
        if f64::from(in_flight) <= carries {
            return Ok(());
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "below in_flight"
        )]
        let carries = carries as u32;
        Err(Shed { over, in_flight, carries, retry_after: Duration::from_secs(1) })
    }

    fn leave(&mut self, call: Admitted) {
        let Admitted { priority } = call;
        let place = &mut self.in_flight[priority as usize];
        *place = place.saturating_sub(1);
    }

    fn judge(&self, reading: Reading) -> Option<Over> {
        let SystemPolicy { cpu_percent_max, memory_percent_max, load_per_core_max } = self.policy;
        let figures = [
            (Short::Cpu, reading.cpu_percent, cpu_percent_max, POINTS),
            (Short::Memory, reading.memory_percent, memory_percent_max, POINTS),
            (Short::Load, reading.load_per_core, load_per_core_max, POINTS / 100.0),
        ];
        figures.into_iter().find_map(|(short, observed, threshold, hysteresis)| {
            let threshold = threshold?;
            let lasting = self.over.filter(|over| over.short == short);
            let least = if lasting.is_some() { threshold - hysteresis } else { threshold };
            // While it lasts the lower bound must be passed, to begin the upper must be reached.
            let holds = if lasting.is_some() { observed > least } else { observed >= least };
            let since = self.over.map_or(self.now, |over| over.since);
            holds.then_some(Over { short, observed, threshold, since })
        })
    }
}

/// Hysteresis in points of percent; of a load per processor the same share.
const POINTS: f64 = 5.0;

/// Five times the interval at which the machine is looked at.
const READING_HOLDS: Duration = Duration::from_secs(5);

/// Answered calls and their latencies, by the second.
#[derive(Clone, Debug)]
struct Seconds {
    cells: [Cell; SECONDS],
    head: usize,
    end: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    calls: u64,
    latency_nanos: u64,
}

const SECONDS: usize = 10;
const SECOND: Duration = Duration::from_secs(1);

impl Seconds {
    fn new(now: Instant) -> Self {
        Self { cells: [Cell::default(); SECONDS], head: 0, end: now.plus(SECOND) }
    }

    #[inline]
    fn advance(&mut self, now: Instant) {
        if now >= self.end {
            self.roll(now);
        }
    }

    #[cold]
    fn roll(&mut self, now: Instant) {
        let passed = now.since(self.end).as_secs() + 1;
        for _ in 0..passed.min(SECONDS as u64) {
            self.head = (self.head + 1) % SECONDS;
            self.cells[self.head] = Cell::default();
        }
        self.end = self.end.plus(Duration::from_secs(passed));
    }

    #[inline]
    fn add(&mut self, calls: u64, latency: Duration) {
        let cell = &mut self.cells[self.head];
        cell.calls += calls;
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        cell.latency_nanos = cell.latency_nanos.saturating_add(nanos);
    }

    /// Most calls in one second times the least mean latency of one, in calls.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn carries(&self) -> Option<f64> {
        let used = || self.cells.iter().filter(|cell| cell.calls > 0);
        let most = used().map(|cell| cell.calls).max()?;
        let means = used().map(|cell| cell.latency_nanos as f64 / cell.calls as f64);
        let least = means.fold(f64::INFINITY, f64::min);
        Some(most as f64 * least / 1e9)
    }
}
