//! How long is waited before something is tried again.

use std::time::Duration;

use mainstay_call::draw;

/// Waits before try `tries` + 1: as long as the server asked for, else a random part of 100 ms
/// doubling to 2 s, so that those whom one server left do not come back as one.
pub(crate) async fn pause(tries: u32, asked: Option<Duration>) {
    let wait = asked.map_or_else(|| part_of(tries, PAUSE_MAX), |asked| asked.min(PAUSE_MAX));
    tokio::time::sleep(wait).await;
}

/// Before try `tries` + 1 of what goes on by itself: a random part of 100 ms doubling to `most`, and
/// 100 ms at least, so that a server that comes back is not met by everybody at once.
pub(crate) fn retry_after(tries: u32, most: Duration) -> Duration {
    part_of(tries, most).max(RETRY_MIN)
}

/// Before a stream is opened again.
pub(crate) fn reopen_after(tries: u32) -> Duration {
    retry_after(tries, REOPEN_MAX)
}

/// A random part, never nothing, of 100 ms that double with each try to `most`.
fn part_of(tries: u32, most: Duration) -> Duration {
    let whole = Duration::from_millis(100 << tries.saturating_sub(1).min(10)).min(most);
    let part = u32::try_from(draw::next() % 1_000).unwrap_or(0) + 1;
    whole * part / 1_000
}

/// Shortest wait before something is tried again by itself.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// Longest wait before a stream is opened again.
const REOPEN_MAX: Duration = Duration::from_secs(10);

/// Longest pause of whoever waits for an answer.
const PAUSE_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_grow_to_the_most_there_is_and_are_never_nothing() {
        for (tries, most_ms) in [(0, 100), (1, 100), (2, 200), (4, 800), (8, 10_000), (99, 10_000)]
        {
            for _ in 0..200 {
                let part = part_of(tries, Duration::from_secs(10));
                assert!(!part.is_zero() && part <= Duration::from_millis(most_ms), "{tries}");
            }
        }
    }
}
