//! Protection of this process by the state of its machine.
//!
//! Quotas protect a service from its callers; this protects the process from the sum of them. It
//! sheds only while the machine is short of processor or memory, and then only what exceeds what
//! the process has shown it can carry: by Little's law, its best rate of the last ten seconds
//! times its best mean latency is the number of calls that were in flight when it worked best.
//! More than that only wait. (The idea is that of TCP BBR, Cardwell et al. 2016, as Sentinel and
//! Kratos apply it to servers.)
//!
//! Two things keep the rule from feeding on itself. What is shed is not answered, so the best of
//! the last ten seconds would fall with every ten seconds of shedding, until one call at a time
//! were left: while a shortage lasts, what was carried before it and since is not forgotten. And
//! a process that has answered nothing yet has shown nothing, so it sheds nothing: a second later
//! it has (see decision 0040).
//!
//! Low priority goes first: a call is measured against calls of its own and higher priority only,
//! so a flood of low ones cannot push out a normal one, while normal calls leave no room for low
//! ones. Critical calls, health and control traffic among them, are never shed.

use std::time::Duration;

use mainstay_core::Instant;
use schemars::JsonSchema;
use serde::Serialize;

mod policy;
mod seconds;
#[cfg(test)]
mod tests;

pub use self::policy::{Priority, RawSystem, SystemPolicy};
use self::seconds::Seconds;

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
    /// When calls were last taken note of in bulk.
    learnt_at: Option<Instant>,
    /// The most that was carried since ten seconds before the shortage, while one lasts.
    held: Option<f64>,
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
            learnt_at: None,
            held: None,
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
        self.held = self.over.and_then(|_| self.carries());
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
    /// [`Shed`], during a shortage, when more calls are in flight than the process has shown it
    /// can carry. One call may always be in flight: without any there would be nothing to learn
    /// from.
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
    /// [`System::record`] is for a caller that counts itself. `latency` is the sum of theirs. On a
    /// machine without a processor to spare the second may have been a long one: rates are of the
    /// time that has really passed.
    pub fn learn(&mut self, now: Instant, calls: u64, latency: Duration) {
        self.poll(now);
        // Before the first time there is no telling; it is one second then.
        let span = self.learnt_at.map_or(Duration::ZERO, |at| self.now.since(at));
        self.seconds.add_span(calls, latency, span);
        self.learnt_at = Some(self.now);
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
        if self.seconds.is_over(self.now) {
            self.held = self.over.and_then(|_| self.carries());
            self.seconds.roll(self.now);
        }
        let over = self.over?;
        if self.now < self.read_at.plus(READING_HOLDS) {
            return None;
        }
        (self.over, self.held) = (None, None);
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
        let held = self.held.into_iter();
        held.chain(self.seconds.carries()).reduce(f64::max)
    }

    /// Calls shed.
    pub fn shed_total(&self) -> u64 {
        self.shed_total
    }

    fn fits(&self, over: Over, priority: Priority, in_flight: &[u32; 4]) -> Result<(), Shed> {
        let in_flight = in_flight[priority as usize..].iter().sum();
        let Some(carries) = self.carries().map(|carries| carries.max(1.0)) else { return Ok(()) };
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
