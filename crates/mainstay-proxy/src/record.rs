//! What was decided about a request, for whoever asks afterwards: `mainstay explain REQUEST`.
//!
//! A problem document tells its caller which rule refused; a record tells the operator what every
//! other stage thought meanwhile, outermost first. Rejected, failed and slow requests are recorded,
//! and one in a hundred of the rest to compare them with. [`Records::wants`] says which, without a
//! lock or an allocation; only a request it wants has its [`Step`]s put together.
//!
//! Records are kept for an hour, or until they take 64 MiB, whichever is first. They lie in a ring
//! in the order they came, found by scanning a hash for each: keeping one is an append, which is
//! what workers do all the time, while looking for one takes some hundred microseconds, which is
//! what a person does now and then. The scan lets go of the ring after every few thousand.

mod stages;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mainstay_core::Instant;
use parking_lot::Mutex;
use serde::{Serialize, Serializer};
use xxhash_rust::xxh64::xxh64;

pub use stages::{Ended, Stages, steps};

/// Records of this age are forgotten.
pub const AGE_MAX: Duration = Duration::from_hours(1);

/// Bytes that all records take together, as estimated: some 40,000 records of 1.6 KiB.
pub const BYTES_MAX: usize = 64 << 20;

/// What one stage did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Which: `limit`, `circuit`, …
    pub stage: &'static str,
    /// `pass`, `reject`, `none` where nothing is configured, `not-reached`, or what it did instead.
    pub outcome: &'static str,
    /// Rule, as configured.
    pub rule: Option<String>,
    /// Revision of the rule, when it comes from the store.
    pub revision: Option<u64>,
    /// What was observed, with its unit.
    pub observed: Option<String>,
    /// What the rule allows, with its unit.
    pub threshold: Option<String>,
    /// Since when this is so.
    #[serde(serialize_with = "rfc3339")]
    pub since: Option<SystemTime>,
    /// What ends it.
    pub clears_when: Option<String>,
}

/// What was decided about one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Ties it to logs.
    pub request_id: String,
    /// Ties it to spans.
    pub trace_id: String,
    /// When the request's head had arrived.
    pub at: SystemTime,
    /// What it came in by: `gateway`, `inbound`, `outbound`.
    pub listener: &'static str,
    /// `GET`, …
    pub method: String,
    /// Path as judged; what is longer than 1 KiB is cut.
    pub path: String,
    /// Status sent.
    pub status: u16,
    /// `ok`, or what happened instead.
    pub outcome: &'static str,
    /// From the request's head to the answer's.
    pub duration: Duration,
    /// What each stage did, outermost first.
    pub steps: Vec<Step>,
}

/// The document of `GET /api/v1/explain/{subject}`, with what is known of a request beside.
#[derive(Serialize)]
struct Document<'a> {
    subject: &'a str,
    kind: &'static str,
    summary: String,
    request_id: &'a str,
    trace_id: &'a str,
    at: String,
    listener: &'a str,
    method: &'a str,
    path: &'a str,
    status: u16,
    outcome: &'a str,
    duration_seconds: f64,
    steps: &'a [Step],
}

impl Record {
    /// One line: `GET /orders/7 → 503 circuit-open in 1.2 ms (gateway, 12:04:31.220)`.
    pub fn summary(&self) -> String {
        let Self { method, path, status, outcome, listener, .. } = self;
        let at = crate::time::rfc3339(self.at);
        let time = at.get(11..23).unwrap_or_default();
        let ms = self.duration.as_secs_f64() * 1_000.0;
        format!("{method} {path} → {status} {outcome} in {ms:.1} ms ({listener}, {time})")
    }

    /// Bytes it takes, about.
    fn bytes(&self) -> usize {
        let of = |text: &Option<String>| text.as_ref().map_or(0, String::capacity);
        let step = |step: &Step| {
            let Step { rule, observed, threshold, clears_when, .. } = step;
            of(rule) + of(observed) + of(threshold) + of(clears_when)
        };
        let Self { request_id, trace_id, method, path, steps, .. } = self;
        let texts = [request_id, trace_id, method, path].map(String::capacity);
        size_of::<Self>()
            + size_of::<Kept>()
            + texts.iter().sum::<usize>()
            + steps.capacity() * size_of::<Step>()
            + steps.iter().map(step).sum::<usize>()
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let document = Document {
            subject: &self.request_id,
            kind: "request",
            summary: self.summary(),
            request_id: &self.request_id,
            trace_id: &self.trace_id,
            at: crate::time::rfc3339(self.at),
            listener: self.listener,
            method: &self.method,
            path: &self.path,
            status: self.status,
            outcome: self.outcome,
            duration_seconds: self.duration.as_secs_f64(),
            steps: &self.steps,
        };
        document.serialize(serializer)
    }
}

/// There is no record of a request: `not-recorded`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRecorded {
    /// Every record since then is still there.
    #[error(
        "no request of this id was recorded in the last hour; only rejected, failed and slow \
         requests are, and 1 % of the rest"
    )]
    NeverKept,
    /// Some were dropped for want of room.
    #[error(
        "there is no record of this id; records dropped for want of room: {dropped}, and the oldest \
         left is {} s old",
        .oldest.as_secs()
    )]
    Crowded {
        /// Records dropped since the start.
        dropped: u64,
        /// Age of the oldest record.
        oldest: Duration,
    },
}

/// The records of this process.
#[derive(Debug)]
pub struct Records {
    bytes_max: usize,
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<Kept>,
    /// Number of the first one, counted from the start.
    first: u64,
    bytes: usize,
    dropped: u64,
}

#[derive(Debug)]
struct Kept {
    at: Instant,
    /// Hashes of the two ids.
    request: u64,
    trace: u64,
    bytes: usize,
    record: Arc<Record>,
}

impl Default for Records {
    fn default() -> Self {
        Self { bytes_max: BYTES_MAX, ring: Mutex::default() }
    }
}

impl Records {
    /// Whether a request that ended so is to be recorded. `draw` is any random number; the one of
    /// the call will do, whose bits are mixed first, since its upper ones have picked the instance.
    #[inline]
    pub fn wants(&self, failed: bool, slow: bool, draw: u64) -> bool {
        failed || slow || (draw.wrapping_mul(MIX) >> 32) * 100 < 1 << 32
    }

    /// Keeps `record`; returns how many others had to go for want of room, which is to be counted.
    pub fn keep(&self, now: Instant, mut record: Record) -> u64 {
        record.path.truncate(record.path.floor_char_boundary(PATH_BYTES_MAX));
        let bytes = record.bytes();
        if self.bytes_max < bytes {
            self.ring.lock().dropped += 1;
            return 1;
        }
        let kept = Kept {
            at: now,
            request: hash(&record.request_id),
            trace: hash(&record.trace_id),
            bytes,
            record: Arc::new(record),
        };
        let mut gone = Vec::new(); // Freed once the ring is free again.
        let mut ring = self.ring.lock();
        let dropped = ring.make_room(now, self.bytes_max - bytes, &mut gone);
        ring.dropped += dropped;
        ring.bytes += bytes;
        ring.kept.push_back(kept);
        drop(ring);
        dropped
    }

    /// The last record of the request or the trace with this `id`.
    ///
    /// # Errors
    ///
    /// [`NotRecorded`], with the reason.
    pub fn find(&self, now: Instant, id: &str) -> Result<Arc<Record>, NotRecorded> {
        let hash = hash(id);
        let is_it = |kept: &&Kept| {
            (kept.request == hash && kept.record.request_id == id)
                || (kept.trace == hash && kept.record.trace_id == id)
        };
        let mut before = u64::MAX;
        loop {
            let ring = self.ring.lock();
            let end = usize::try_from(before.saturating_sub(ring.first)).unwrap_or(usize::MAX);
            let end = end.min(ring.kept.len());
            let start = end.saturating_sub(SCAN);
            let mut newest_first = ring.kept.range(start..end).rev();
            if let Some(kept) = newest_first.find(is_it)
                && now.since(kept.at) < AGE_MAX
            {
                return Ok(Arc::clone(&kept.record));
            }
            if start == 0 {
                return Err(ring.missing(now));
            }
            before = ring.first + start as u64;
        }
    }

    /// Records there are, and the bytes they take.
    pub fn size(&self) -> (usize, usize) {
        let ring = self.ring.lock();
        (ring.kept.len(), ring.bytes)
    }
}

impl Ring {
    /// Forgets the oldest until at most `bytes_max` are taken, and a few that are too old besides;
    /// returns how many went before their time.
    fn make_room(&mut self, now: Instant, bytes_max: usize, gone: &mut Vec<Arc<Record>>) -> u64 {
        let mut dropped = 0;
        while let Some(oldest) = self.kept.front() {
            let old = AGE_MAX <= now.since(oldest.at);
            let room = self.bytes <= bytes_max;
            if room && (!old || FORGET <= gone.len()) {
                break;
            }
            dropped += u64::from(!old);
            if let Some(oldest) = self.kept.pop_front() {
                self.first += 1;
                self.bytes -= oldest.bytes;
                gone.push(oldest.record);
            }
        }
        dropped
    }

    fn missing(&self, now: Instant) -> NotRecorded {
        let oldest = self.kept.front().map_or(Duration::ZERO, |oldest| now.since(oldest.at));
        if self.dropped == 0 || AGE_MAX <= oldest {
            return NotRecorded::NeverKept;
        }
        NotRecorded::Crowded { dropped: self.dropped, oldest }
    }
}

fn hash(id: &str) -> u64 {
    xxh64(id.as_bytes(), 0)
}

#[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
fn rfc3339<S: Serializer>(at: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(crate::time::rfc3339).serialize(serializer)
}

/// Longest path kept, in bytes: a request may have one of 8 KiB, and a thousand such records would
/// push out everybody else's.
const PATH_BYTES_MAX: usize = 1_024;

/// Records looked at before the ring is let go: some 10 µs.
const SCAN: usize = 4_096;

/// Records that are too old and go with one that comes: more than one, so that they go in the end,
/// and few, so that the first one after a quiet hour does not wait for all of them.
const FORGET: usize = 8;

/// Fibonacci hashing (Knuth, TAOCP 3, 6.4): 2⁶⁴ by the golden ratio.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests;
