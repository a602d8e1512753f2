//! What the port says about leases.

use std::time::Duration;

use crate::entry::LeaseId;
use crate::error::Error;
use crate::key::Key;
use crate::limits::{TTL_SECONDS_MAX, TTL_SECONDS_MIN};

/// A lease as it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Its id.
    pub id: LeaseId,
    /// How long it lives after the grant and after each keep-alive; whole seconds, never less than
    /// was asked for.
    pub ttl: Duration,
}

/// A lease as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    /// The ttl it was granted.
    pub granted: Duration,
    /// What is left of it, as far as this node knows.
    pub remaining: Duration,
    /// The keys that end with it, in order.
    pub keys: Vec<Key>,
}

/// The ttl granted to whoever asks for `asked`: whole seconds, rounded up, at least one.
///
/// # Errors
///
/// [`Error::TtlInvalid`] above a day.
pub fn granted_ttl(asked: Duration) -> Result<Duration, Error> {
    let seconds = asked.as_secs().saturating_add(u64::from(asked.subsec_nanos() > 0));
    if seconds > TTL_SECONDS_MAX {
        return Err(Error::TtlInvalid { asked });
    }
    Ok(Duration::from_secs(seconds.max(TTL_SECONDS_MIN)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_rounded_up_to_whole_seconds_and_refused_above_a_day() {
        let cases = [(0, Some(1)), (1_000, Some(1)), (1_001, Some(2)), (86_400_000, Some(86_400))];
        for (asked, want) in cases {
            let got = granted_ttl(Duration::from_millis(asked)).ok();
            assert_eq!(got, want.map(Duration::from_secs), "{asked} ms");
        }
        assert!(granted_ttl(Duration::from_millis(86_400_001)).is_err());
    }
}
