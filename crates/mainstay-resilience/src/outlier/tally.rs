//! The results of one instance in one interval.

use std::time::Duration;

use crate::Outcome;

/// Results of one instance since the last look. About 650 bytes; recording touches three lines
/// of cache and allocates nothing.
///
/// Tallies of several threads are added up with [`Tally::merge`].
#[derive(Clone, Debug)]
pub struct Tally {
    calls: u32,
    failures: u32,
    run: u32,
    shortest: Duration,
    longest: Duration,
    buckets: [u32; BUCKETS],
}

/// Steps an octave is cut into. A median is off by at most a sixteenth.
const STEPS: u32 = 8;

/// Octaves of microseconds: 20 reach a little over one second times two; all above is the last.
const BUCKETS: usize = 20 * STEPS as usize;

impl Default for Tally {
    fn default() -> Self {
        Self {
            calls: 0,
            failures: 0,
            run: 0,
            shortest: Duration::MAX,
            longest: Duration::ZERO,
            buckets: [0; BUCKETS],
        }
    }
}

impl Tally {
    /// Counts a result. Returns whether it completed a run of `consecutive` failures (0: never),
    /// and then starts the next run.
    ///
    /// A refusal counts as a failure, but neither lengthens a run nor ends it: an instance that
    /// says "too many requests" is not broken, and not well either.
    pub fn record(&mut self, outcome: Outcome, latency: Duration, consecutive: u32) -> bool {
        self.calls = self.calls.saturating_add(1);
        self.failures = self.failures.saturating_add(u32::from(outcome.is_failure()));
        self.shortest = self.shortest.min(latency);
        self.longest = self.longest.max(latency);
        let bucket = &mut self.buckets[bucket(latency)];
        *bucket = bucket.saturating_add(1);
        match outcome {
            Outcome::Success => self.run = 0,
            Outcome::Refused => (),
            Outcome::Failure | Outcome::RequestTimeout | Outcome::ConnectTimeout => {
                self.run = self.run.saturating_add(1);
                if consecutive > 0 && self.run >= consecutive {
                    self.run = 0;
                    return true;
                }
            }
        }
        false
    }

    /// Takes the counts out, leaving the run of failures, which knows no intervals.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let left = Self { run: self.run, ..Self::default() };
        std::mem::replace(self, left)
    }

    /// Adds the counts of another thread's tally of the same instance.
    pub fn merge(&mut self, other: &Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.failures = self.failures.saturating_add(other.failures);
        self.shortest = self.shortest.min(other.shortest);
        self.longest = self.longest.max(other.longest);
        for (bucket, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *bucket = bucket.saturating_add(*more);
        }
    }

    /// Calls counted.
    pub const fn calls(&self) -> u32 {
        self.calls
    }

    /// Failures among them, refusals included.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Successes, in percent; 100 without a call.
    pub fn success_percent(&self) -> f64 {
        match self.calls {
            0 => 100.0,
            calls => 100.0 * f64::from(calls - self.failures) / f64::from(calls),
        }
    }

    /// Median latency, off by at most a sixteenth; exact when all latencies are the same. Above
    /// two seconds it is two seconds or the shortest seen, whichever is more.
    pub fn median(&self) -> Duration {
        let middle = self.calls.div_ceil(2);
        let mut below = 0_u32;
        for (i, &count) in self.buckets.iter().enumerate() {
            below = below.saturating_add(count);
            if below >= middle {
                return bucket_middle(i).clamp(self.shortest.min(self.longest), self.longest);
            }
        }
        self.longest
    }
}

/// Bucket of a latency: octave and the three bits below its leading one.
fn bucket(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    let bucket = match micros.checked_ilog2() {
        // Below one octave's steps every microsecond is its own bucket.
        None | Some(0..3) => micros,
        Some(octave) => {
            let step = (micros >> (octave - 3)) & u64::from(STEPS - 1);
            u64::from((octave - 2) * STEPS) + step
        }
    };
    usize::try_from(bucket).map_or(BUCKETS - 1, |bucket| bucket.min(BUCKETS - 1))
}

/// Middle of a bucket.
fn bucket_middle(bucket: usize) -> Duration {
    let (octave, step) = (bucket / STEPS as usize, (bucket % STEPS as usize) as u64);
    let nanos = match octave {
        0 => step * 1_000,
        octave => {
            let width = 1_000_u64 << (octave - 1);
            (u64::from(STEPS) + step) * width + (width - 1_000) / 2
        }
    };
    Duration::from_nanos(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(millis: &[u64]) -> Tally {
        let mut tally = Tally::default();
        for &ms in millis {
            assert!(!tally.record(Outcome::Success, Duration::from_millis(ms), 3));
        }
        tally
    }

    #[test]
    fn a_median_is_off_by_a_sixteenth_at_most() {
        for micros in (0..1_000).chain((1_000..2_000_000).step_by(997)) {
            let exact = Duration::from_micros(micros);
            let middle = bucket_middle(bucket(exact));
            let error = middle.abs_diff(exact);
            assert!(error * 16 <= exact, "{exact:?} became {middle:?}");
        }
        assert_eq!(tally(&[7; 5]).median(), Duration::from_millis(7));
        assert_eq!(tally(&[90_000; 5]).median(), Duration::from_secs(90));
        assert_eq!(tally(&[]).median(), Duration::ZERO);
        let median = tally(&[1, 2, 10, 100, 1_000]).median().as_secs_f64();
        assert!((median - 0.010).abs() < 0.000_7, "{median}");
    }

    #[test]
    fn a_run_is_ended_by_success_and_not_by_a_refusal() {
        let mut tally = Tally::default();
        let script = "xxr.xxrrx xx.xxx";
        let mut reached = Vec::new();
        for (step, op) in script.chars().enumerate() {
            let outcome = match op {
                '.' => Outcome::Success,
                'r' => Outcome::Refused,
                _ => Outcome::RequestTimeout,
            };
            if op == ' ' {
                assert_eq!(tally.take().calls(), 9);
            } else if tally.record(outcome, Duration::ZERO, 3) {
                reached.push(step);
            }
        }
        assert_eq!(reached, [8, 15]);
        assert_eq!((tally.calls(), tally.failures()), (6, 5));
    }

    #[test]
    fn tallies_of_two_threads_add_up() {
        let mut all = tally(&[1, 2, 3]);
        all.merge(&tally(&[100, 200]));
        assert_eq!(all.calls(), 5);
        let median = all.median().as_secs_f64();
        assert!((median - 0.003).abs() < 0.000_2, "{median}");
    }
}
