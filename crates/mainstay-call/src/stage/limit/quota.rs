//! What an answer's headers say about a quota.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::limit::{Left, SharedLimit};

/// A quota as an answer's headers show it.
#[derive(Clone, Debug)]
pub struct Quota {
    limit: Arc<str>,
    max: u64,
    window: Duration,
    remaining: u64,
    reset: Duration,
}

impl Quota {
    /// What is left of `limit`; `None` for one that counts calls in flight, of which nobody can
    /// say when they will end.
    pub(super) fn of(limit: &SharedLimit, left: Left) -> Option<Self> {
        let quota = limit.settings().kind.quota()?;
        Some(Self {
            limit: Arc::clone(limit.name()),
            max: u64::from(quota.max.get()),
            window: quota.window,
            remaining: left.remaining,
            reset: left.reset,
        })
    }

    /// Writes `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10).
    pub fn write(&self, headers: &mut HeaderMap) {
        const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
        const STATE: HeaderName = HeaderName::from_static("ratelimit");
        let Self { limit, max, window, remaining, reset } = self;
        let seconds = |span: &Duration| span.as_secs() + u64::from(span.subsec_nanos() > 0);
        let policy = format!("\"{limit}\";q={max};w={}", seconds(window));
        let state = format!("\"{limit}\";r={remaining};t={}", seconds(reset));
        for (name, value) in [(POLICY, policy), (STATE, state)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
    }
}
