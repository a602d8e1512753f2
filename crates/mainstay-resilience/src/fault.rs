//! Faults made on purpose, to see what the rest does about them.
//!
//! A fault acts at the upstream end of a call, in the place of the network, so that circuit, retry
//! and fallback meet it as if it were real. It is no stage of its own, and no machine knows of it.
//!
//! What is dangerous about injected faults is that they are forgotten. So each has an end, an hour
//! away at most, kept here rather than by whoever asked for it: it ends by itself, also when that
//! somebody is gone. Each has a reason, and each says whom it is for: a fault for everybody cannot
//! be written.

mod config;

use std::num::NonZeroU64;
use std::time::Duration;

use mainstay_core::Instant;

use crate::classify::Answer;
use crate::retry::{Backoff, Jitter, Shape};

pub use config::{
    RawAbort, RawDelay, RawFault, RawFaultKind, RawHeaderMatch, RawMatch, RawSlowBody, RawTruncate,
};

/// A fault as asked for, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultPolicy {
    /// Whom it is for.
    pub matches: FaultMatch,
    /// Share of the attempts matched, in millionths, 1 to 1,000,000.
    pub share_millionths: u32,
    /// What is done to them.
    pub kind: FaultKind,
    /// How long, at most an hour.
    pub ttl: Duration,
    /// Why; for the list and the audit record.
    pub reason: String,
}

/// Whom a fault is for: every condition given holds, and at least one is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultMatch {
    /// Name of the route.
    pub route: Option<String>,
    /// Name of the service.
    pub service: Option<String>,
    /// Instance, as the registry names it.
    pub instance: Option<String>,
    /// Name of a request header, and its value if that matters.
    pub header: Option<(String, Option<String>)>,
}

/// What is done to an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FaultKind {
    /// It is held back, then sent.
    Delay {
        /// For how long.
        span: Duration,
        /// Give or take so many percent, 0 to 100.
        jitter_percent: f64,
    },
    /// It is answered at once, and never sent.
    Abort(Answer),
    /// Its connection is reset before a response head.
    Reset,
    /// It is never answered.
    Blackhole,
    /// Its response body trickles.
    SlowBody {
        /// How fast.
        bytes_per_second: NonZeroU64,
    },
    /// No connection comes up in time.
    ConnectTimeout,
    /// Its response breaks off.
    Truncate {
        /// After so many bytes of the body.
        after_bytes: u64,
    },
}

/// Names one fault of a table; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FaultId(pub u64);

/// A fault in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Its name.
    pub id: FaultId,
    /// When it ends.
    pub until: Instant,
    /// What was asked for.
    pub policy: FaultPolicy,
}

/// An attempt that is about to be sent.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Route the call came by, if by any.
    pub route: Option<&'a str>,
    /// Service it is for.
    pub service: &'a str,
    /// Instance that was picked.
    pub instance: &'a str,
    /// Value of the request header of a name; names are compared without regard to case, which is
    /// this function's business.
    pub header: &'a dyn Fn(&str) -> Option<&'a [u8]>,
}

/// There are as many faults as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are {FAULTS_MAX} faults already; clear one, or wait for one to end")]
pub struct TableFull;

/// The faults in force.
#[derive(Clone, Debug)]
pub struct FaultTable {
    /// In the order they were added.
    faults: Vec<Fault>,
    /// When the first of them ends.
    next_end: Instant,
    last_seen: Instant,
    next_id: u64,
}

impl FaultTable {
    /// Whether no fault is in force, as far as is known; a caller may then skip asking.
    pub fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// Ends the faults whose time has come.
    pub fn poll(&mut self, now: Instant) {
        self.last_seen = self.last_seen.max(now);
        if self.next_end <= self.last_seen {
            let now = self.last_seen;
            self.faults.retain(|fault| now < fault.until);
            self.find_next_end();
        }
    }

    /// When time alone will change something next.
    pub fn next_wake(&self) -> Option<Instant> {
        (!self.faults.is_empty()).then_some(self.next_end)
    }

    /// Puts a fault in force for its ttl, from `now` on.
    ///
    /// # Errors
    ///
    /// [`TableFull`] when there are 1,000 already.
    pub fn add(&mut self, now: Instant, policy: FaultPolicy) -> Result<FaultId, TableFull> {
        self.poll(now);
        if FAULTS_MAX <= self.faults.len() {
            return Err(TableFull);
        }
        let id = FaultId(self.next_id);
        self.next_id += 1;
        self.faults.push(Fault { id, until: self.last_seen.plus(policy.ttl), policy });
        self.find_next_end();
        Ok(id)
    }

    /// Ends one fault; says whether it was in force.
    pub fn clear(&mut self, now: Instant, id: FaultId) -> bool {
        self.poll(now);
        let before = self.faults.len();
        self.faults.retain(|fault| fault.id != id);
        self.find_next_end();
        self.faults.len() != before
    }

    /// Ends all of them; says how many there were.
    pub fn clear_all(&mut self, now: Instant) -> usize {
        self.poll(now);
        let ended = self.faults.len();
        self.faults.clear();
        self.find_next_end();
        ended
    }

    /// The faults in force at `now`, each with the time it has left.
    pub fn list(&mut self, now: Instant) -> impl Iterator<Item = (&Fault, Duration)> {
        self.poll(now);
        let now = self.last_seen;
        self.faults.iter().map(move |fault| (fault, fault.until.since(now)))
    }

    /// The fault to do to the attempt described by `target`: the first in force that is for it and
    /// that wins its share.
    ///
    /// `draw` is any random number. Each fault makes its own draw of it, so that of two faults of
    /// 50 % the second meets half of what the first left over.
    pub fn pick(&mut self, now: Instant, target: &Target<'_>, draw: u64) -> Option<&Fault> {
        if self.faults.is_empty() {
            return None;
        }
        self.poll(now);
        self.faults.iter().find(|fault| {
            fault.policy.matches.holds(target)
                && falls_within(mix(draw, fault.id.0), fault.policy.share_millionths)
        })
    }

    fn find_next_end(&mut self) {
        let ends = self.faults.iter().map(|fault| fault.until);
        self.next_end = ends.min().unwrap_or(Instant::MAX);
    }
}

impl Default for FaultTable {
    fn default() -> Self {
        Self { faults: Vec::new(), next_end: Instant::MAX, last_seen: Instant::ZERO, next_id: 1 }
    }
}

impl FaultMatch {
    /// Whether the fault is for `target`.
    pub fn holds(&self, target: &Target<'_>) -> bool {
        let is = |want: &Option<String>, found: Option<&str>| {
            want.as_deref().is_none_or(|want| found == Some(want))
        };
        let header = self.header.as_ref().is_none_or(|(name, want)| {
            (target.header)(name)
                .is_some_and(|found| want.as_deref().is_none_or(|want| found == want.as_bytes()))
        });
        is(&self.service, Some(target.service))
            && is(&self.instance, Some(target.instance))
            && is(&self.route, target.route)
            && header
    }
}

impl FaultKind {
    /// How long a [`FaultKind::Delay`] holds an attempt back; zero for every other kind. `draw`
    /// picks the jitter as in [`Backoff::delay`].
    pub fn delay(&self, draw: u64) -> Duration {
        let Self::Delay { span, jitter_percent } = *self else { return Duration::ZERO };
        let jitter = Jitter::Percent(jitter_percent);
        Backoff { shape: Shape::Constant, base: span, multiplier: 1.0, max: span, jitter }
            .delay(1, draw)
    }

    /// The word for it in configuration and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Delay { .. } => "delay",
            Self::Abort(_) => "abort",
            Self::Reset => "reset",
            Self::Blackhole => "blackhole",
            Self::SlowBody { .. } => "slow_body",
            Self::ConnectTimeout => "connect_timeout",
            Self::Truncate { .. } => "truncate",
        }
    }
}

impl std::fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { route, service, instance, header: _ } = self;
        f.debug_struct("Target")
            .field("route", route)
            .field("service", service)
            .field("instance", instance)
            .finish_non_exhaustive()
    }
}

/// Whether `draw`, read as a fraction of 2⁶⁴, lies below a share; a whole share holds them all.
fn falls_within(draw: u64, share_millionths: u32) -> bool {
    (u128::from(draw) * 1_000_000) >> 64 < u128::from(share_millionths)
}

/// A draw of its own for each fault: the finalizer of `SplitMix64` (Steele, Lea and Flood, "Fast
/// Splittable Pseudorandom Number Generators", 2014), on the draw moved by the fault's number.
fn mix(draw: u64, id: u64) -> u64 {
    let mut z = draw.wrapping_add(id.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Each is compared with every attempt while it lasts; nobody can watch a thousand experiments.
const FAULTS_MAX: usize = 1_000;

#[cfg(test)]
mod tests;
