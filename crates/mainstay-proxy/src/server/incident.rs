//! What the transport tells of: clients that misbehave, workers that were not let run.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::framing::Rule;

/// Something worth counting that no request tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incident {
    /// A connection ended because its client broke a rule of framing.
    Malformed(Rule),
    /// An HTTP/2 connection ended because of what its client did on it.
    Http2Abuse {
        /// The client.
        peer: SocketAddr,
        /// What it did.
        abuse: Abuse,
    },
    /// A worker did not get to run for so long, though it had something to do.
    StoodStill(Duration),
}

/// How a client wears an HTTP/2 connection out (security.md, 12.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Abuse {
    /// Most of many streams reset by the client, one after the other (CVE-2023-44487).
    RapidReset,
    /// What its library has a limit for and gives up at: a head in ever more CONTINUATION frames
    /// (CVE-2024-27316) or that unpacks to many times its size, data frames without data, streams
    /// reset before they were taken up, streams we had to reset. It does not say which.
    Flood,
}

impl Abuse {
    /// The word for it, in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RapidReset => "rapid-reset",
            Self::Flood => "flood",
        }
    }

    /// What a connection ended for, if it was this: h2 gives up with `ENHANCE_YOUR_CALM`.
    pub(super) fn of(error: &hyper::Error) -> Option<Self> {
        let first: &(dyn std::error::Error + 'static) = error;
        let error = std::iter::successors(Some(first), |error| error.source())
            .find_map(|error| error.downcast_ref::<h2::Error>())?;
        let calm = error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
        calm.then_some(Self::Flood)
    }
}

/// What is done about an incident; by default nothing.
#[derive(Clone)]
pub struct OnIncident(Arc<dyn Fn(Incident) + Send + Sync>);

impl OnIncident {
    /// Calls `tell` on the worker's thread: it must not block.
    pub fn new(tell: impl Fn(Incident) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub(super) fn tell(&self, incident: Incident) {
        (self.0)(incident);
    }
}

impl Default for OnIncident {
    fn default() -> Self {
        Self::new(|_incident| ())
    }
}

impl fmt::Debug for OnIncident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnIncident")
    }
}
