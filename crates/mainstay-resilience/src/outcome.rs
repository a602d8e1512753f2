//! How a call ended, as circuits and balancers see it.

/// How a call ended. The classifier of an upstream makes it (see [`crate::classify`]); machines
/// that learn from calls take nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A good answer. 4xx answers are good ones: the service did its part.
    Success,
    /// A bad answer, or none for another reason than those below.
    Failure,
    /// Sent, but no complete response head in time. Fails.
    RequestTimeout,
    /// No connection in time. Fails.
    ConnectTimeout,
    /// The peer said "too many requests". Counts as a failure in rates, never in a run of
    /// consecutive failures, and fails a probe.
    Refused,
}

impl Outcome {
    /// Whether it counts as a failure in rates.
    pub const fn is_failure(self) -> bool {
        !matches!(self, Self::Success)
    }

    /// Whether it is one of the two timeouts.
    pub const fn is_timeout(self) -> bool {
        matches!(self, Self::RequestTimeout | Self::ConnectTimeout)
    }
}
