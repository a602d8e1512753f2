//! Whether an instance can do its work: checks that are sent, reports that come in.
//!
//! | what | module | decides or acts |
//! |---|---|---|
//! | a check as it is written and as it is meant | [`check`] | decides |
//! | which results change the status | [`steady`] | decides |
//! | when which check is due | [`rounds`] | decides |
//! | where a check may be sent | [`targets`] | decides |
//! | what an answer means | [`probe`] | decides |
//! | HTTP, TCP and gRPC on sockets | [`send`] | acts |
//! | whom a check over TLS believes | [`tls`] | acts |
//!
//! Status words are Consul's. An instance is as well as the worst of its checks; who calls it also
//! accepts `unknown`, since a check that has no result yet is no reason to keep a service down.

pub mod check;
pub mod probe;
pub mod rounds;
pub mod send;
pub mod steady;
pub mod targets;
pub mod tls;

use std::fmt;

use serde::{Deserialize, Serialize};

/// How an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// All is well.
    Passing,
    /// It answers, but something is not as it should be; it is still called.
    Warning,
    /// It is not called.
    Critical,
    /// Nothing is known yet.
    Unknown,
}

impl Health {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Passing, Self::Warning, Self::Critical, Self::Unknown];

    /// The word used in documents and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }

    /// Passing or warning: what `healthy=true` means.
    pub const fn is_healthy(self) -> bool {
        matches!(self, Self::Passing | Self::Warning)
    }

    /// Healthy, or not known to be otherwise: what a balancer may pick.
    pub const fn is_usable(self) -> bool {
        !matches!(self, Self::Critical)
    }

    /// The worse of two. Unknown is worse than warning: one check that says nothing yet must not
    /// be hidden by another that already complains.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        if self.rank() < other.rank() { other } else { self }
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Passing => 0,
            Self::Warning => 1,
            Self::Unknown => 2,
            Self::Critical => 3,
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
