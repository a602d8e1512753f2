//! Waiting for other processes, which no clock of ours can hurry.

use std::time::{Duration, Instant};

/// The time now; tests of whole processes run by the machine's clock.
#[expect(clippy::disallowed_methods, reason = "other processes run by the machine's clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Lets time pass.
#[expect(clippy::disallowed_methods, reason = "a test's own thread, no runtime")]
pub(crate) fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// Waits until `held` is true, at most `limit`; returns how long it took.
///
/// # Panics
///
/// When it does not become true in time.
#[track_caller]
pub(crate) fn until(what: &str, limit: Duration, mut held: impl FnMut() -> bool) -> Duration {
    let began = now();
    while !held() {
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        pause(Duration::from_millis(10));
    }
    began.elapsed()
}
