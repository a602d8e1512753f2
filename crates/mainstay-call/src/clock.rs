//! The clock of a running process.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::Duration;

use mainstay_core::{Clock, Instant};
use tokio::time::Instant as TokioInstant;

/// The monotonic clock of this process, which tokio's timers share.
///
/// Reading it costs one clock read (about 40 ns); a stage reads it once and passes the moment
/// down, and in one [`turn`] of a task it is read once. Under tokio's paused test time it stands
/// still, as its timers do.
#[derive(Clone, Copy, Debug, Default)]
pub struct MonotonicClock;

/// The moment of the first look. It is not zero on this clock but [`EPOCH`], so that what began
/// before this process has a moment too: a window that a restart cut in two.
fn origin() -> TokioInstant {
    static ORIGIN: OnceLock<TokioInstant> = OnceLock::new();
    *ORIGIN.get_or_init(now)
}

/// The longest window of a limit, and a snapshot's greatest age, with room to spare.
const EPOCH: Duration = Duration::from_hours(2);

#[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else is handed")]
fn now() -> TokioInstant {
    TokioInstant::now()
}

impl Clock for MonotonicClock {
    fn now(&self) -> Instant {
        match TURN.get() {
            Turn::None => moment(now()),
            Turn::Begun => {
                let at = moment(now());
                TURN.set(Turn::At(at));
                at
            }
            Turn::At(at) => at,
        }
    }
}

/// The clock as what runs in a [`turn`] sees it.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// There is none.
    None,
    /// Nobody has asked yet.
    Begun,
    /// It stands still.
    At(Instant),
}

thread_local! {
    static TURN: Cell<Turn> = const { Cell::new(Turn::None) };
}

/// Does `work` in one turn: the clock stands still in it from the first look on. For the poll of a
/// call, in which nothing waits and every stage would read the same clock within a microsecond or
/// two. A turn within a turn is part of it.
pub fn turn<R>(work: impl FnOnce() -> R) -> R {
    /// The turn ends, also with a panic.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            TURN.set(Turn::None);
        }
    }
    let _end = matches!(TURN.get(), Turn::None).then(|| {
        TURN.set(Turn::Begun);
        End
    });
    work()
}

/// A moment of tokio's on this clock. One may lie before the origin: of two first looks at once,
/// or of two runtimes with test time of their own.
fn moment(of: TokioInstant) -> Instant {
    let origin = origin();
    let since_epoch_began = match of.checked_duration_since(origin) {
        Some(since) => EPOCH + since,
        None => EPOCH.saturating_sub(origin.duration_since(of)),
    };
    Instant::ZERO.plus(since_epoch_began)
}

/// `moment` as tokio's timers know it.
pub(crate) fn tokio_instant(moment: Instant) -> TokioInstant {
    let (origin, epoch) = (origin(), Instant::ZERO.plus(EPOCH));
    let away = if moment < epoch {
        origin.checked_sub(epoch.since(moment))
    } else {
        origin.checked_add(moment.since(epoch))
    };
    away.unwrap_or_else(|| {
        // Further away than the timer can express: a year stands for never.
        origin + Duration::from_hours(365 * 24)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_read_once_a_turn() {
        let pass = || {
            let from = now();
            while now() == from {}
        };
        let before = MonotonicClock.now();
        pass();
        let (first, last) = turn(|| {
            pass();
            let first = MonotonicClock.now();
            pass();
            let within = turn(|| MonotonicClock.now());
            assert_eq!(first, within);
            pass();
            (first, MonotonicClock.now())
        });
        assert!(before < first, "it was read when the turn asked, not before");
        assert_eq!(first, last);
        let panicked = std::panic::catch_unwind(|| turn(|| -> Instant { panic!("{first:?}") }));
        assert!(panicked.is_err());
        pass();
        assert!(last < MonotonicClock.now(), "the turn is over");
    }

    #[tokio::test(start_paused = true)]
    async fn time_passes_before_the_first_look_too() {
        let origin = origin();
        let early = origin.checked_sub(Duration::from_secs(3)).unwrap();
        assert_eq!(
            moment(early).plus(Duration::from_secs(5)),
            moment(early + Duration::from_secs(5))
        );
        assert_eq!(tokio_instant(moment(early)), early);
    }
}
