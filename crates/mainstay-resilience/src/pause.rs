//! Whether a timeout says anything of the peer, or only that this process stood still.
//!
//! A machine that is suspended, starved or swapping stops this process and often the peers with
//! it. When it goes on, every timer that fell due meanwhile fires at once. Five calls each to five
//! instances are then five open circuits, and a service that was never ill is refused to
//! everybody: an outage of our own making, which no rule about last instances undoes, since
//! nothing overrides a circuit. So a process watches its own heart: a timer that fires late, or a
//! ticker that comes round late, shows a pause, and an attempt that lost half of its time or more
//! to one is told to nobody who learns (see decision 0041). Its caller gets the timeout all the
//! same, and it may be tried again.
//!
//! Half, because the peer then had less time to answer than we had lost. An attempt given fifteen
//! seconds of which a pause took one is a fair trial of its peer.

use std::time::Duration;

use mainstay_core::Instant;

/// Shorter lateness is what a busy machine does: a runtime has a backlog now and then.
pub const PAUSE_MIN: Duration = Duration::from_millis(500);

/// A span in which this process did nothing, though it had something to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// When it should have gone on at the latest.
    pub from: Instant,
    /// When it did.
    pub to: Instant,
}

impl Pause {
    /// The pause that something due at `due` and done at `now` shows; none when it was in time, or
    /// nearly.
    pub fn seen(due: Instant, now: Instant) -> Option<Self> {
        (PAUSE_MIN <= now.since(due)).then_some(Self { from: due, to: now })
    }

    /// How long it was.
    pub fn length(self) -> Duration {
        self.to.since(self.from)
    }

    /// What an attempt that ran from `began` to `ended` lost to this.
    pub fn lost(self, began: Instant, ended: Instant) -> Duration {
        self.to.min(ended).since(self.from.max(began))
    }

    /// Whether an attempt that ran from `began` to `ended` lost at least half of its time to this.
    pub fn excuses(self, began: Instant, ended: Instant) -> bool {
        let lost = self.lost(began, ended);
        !lost.is_zero() && ended.since(began) <= lost.saturating_mul(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Instant {
        Instant::ZERO.plus(Duration::from_millis(millis))
    }

    #[test]
    fn only_a_long_lateness_is_a_pause() {
        for (due, now, want) in [(0, 0, None), (0, 499, None), (9, 3, None), (0, 500, Some(500))] {
            let seen = Pause::seen(ms(due), ms(now));
            assert_eq!(seen.map(|pause| pause.length().as_millis()), want, "{due} {now}");
        }
    }

    #[test]
    fn an_attempt_is_excused_that_lost_half_of_its_time() {
        // A pause from 1,000 to 4,000.
        let pause = Pause { from: ms(1_000), to: ms(4_000) };
        for (began, ended, want, why) in [
            (900, 4_000, true, "nearly all of it"),
            (0, 4_000, true, "three of four seconds"),
            (0, 6_000, true, "just half"),
            (0, 6_001, false, "a little less than half"),
            (0, 15_000, false, "a trifle"),
            (3_900, 4_100, true, "half of a short one"),
            (3_950, 4_100, false, "less than half of a short one"),
            (4_000, 5_000, false, "it began afterwards"),
            (0, 1_000, false, "it was over before"),
            (1_500, 2_000, true, "inside, if there were such a thing"),
        ] {
            assert_eq!(pause.excuses(ms(began), ms(ended)), want, "{began} to {ended}: {why}");
        }
    }
}
