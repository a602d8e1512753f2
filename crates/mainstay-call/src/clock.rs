//! The clock of a running process.

use std::sync::OnceLock;
use std::time::Duration;

use mainstay_core::{Clock, Instant};
use tokio::time::Instant as TokioInstant;

/// The monotonic clock of this process, which tokio's timers share.
///
/// Reading it costs one clock read (about 40 ns); a stage reads it once and passes the moment
/// down. Under tokio's paused test time it stands still, as its timers do.
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
        let since = now().saturating_duration_since(origin());
        Instant::ZERO.plus(EPOCH).plus(since)
    }
}

/// `moment` as tokio's timers know it.
pub(crate) fn tokio_instant(moment: Instant) -> TokioInstant {
    let origin = origin();
    let since = moment.since(Instant::ZERO.plus(EPOCH));
    origin.checked_add(since).unwrap_or_else(|| {
        // Further away than the timer can express: a year stands for never.
        origin + Duration::from_hours(365 * 24)
    })
}
