//! Leases, and how long a holder may believe in one.

use std::time::Duration;

use mainstay_core::Instant;
use mainstay_store::lease::granted_ttl;
use mainstay_store::{Error, Granted, LeaseId, LeaseStatus, Revision};

use crate::identity::revision;
use crate::refusal::Refusal;
use crate::session::{Fault, How, Session, new_lease};
use crate::stub::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
};
use crate::wire::{lease, signed};

impl Session {
    pub(crate) async fn grant(&self, ttl: Duration, id: Option<LeaseId>) -> Result<Granted, Error> {
        let ttl = granted_ttl(ttl)?.max(TTL_MIN);
        // An id of our own choosing is free; whoever has it was granted it by this very call, of
        // which the answer was lost.
        let mut tries = 0;
        loop {
            let chosen = id.unwrap_or_else(new_lease);
            let request =
                LeaseGrantRequest { ttl: signed(ttl.as_secs()), id: signed(chosen.get()) };
            match self.call(request, How::LEASE_WRITE).await {
                Ok(answer) => {
                    let ttl = Duration::from_secs(u64::try_from(answer.ttl).unwrap_or(0));
                    let id = lease(answer.id).unwrap_or(chosen);
                    return Ok(Granted { id, ttl });
                }
                Err(Fault::Refused(Refusal::LeaseExists)) if id.is_some() => {
                    return Err(Error::LeaseExists { lease: chosen });
                }
                // A lease nobody knows of ends by itself, so another may be asked for.
                Err(Fault::Open | Fault::Refused(Refusal::LeaseExists))
                    if id.is_none() && tries < GRANT_TRIES =>
                {
                    tries += 1;
                }
                Err(fault) => return Err(fault.into_error()),
            }
        }
    }

    pub(crate) async fn keep_alive(&self, id: LeaseId) -> Result<Duration, Error> {
        let request = LeaseKeepAliveRequest { id: signed(id.get()) };
        match self.call(request, How::LEASE).await {
            Ok(answer) => match u64::try_from(answer.ttl) {
                Ok(seconds) if 0 < seconds => Ok(Duration::from_secs(seconds)),
                // etcd tells so that there is none.
                _ => Err(Error::LeaseNotFound { lease: id }),
            },
            Err(fault) => Err(lease_error(fault, id)),
        }
    }

    pub(crate) async fn revoke(&self, id: LeaseId) -> Result<Revision, Error> {
        let request = LeaseRevokeRequest { id: signed(id.get()) };
        match self.call(request, How::LEASE_WRITE).await {
            Ok(answer) => {
                let at = answer.header.map(|header| revision(header.revision)).unwrap_or_default();
                self.saw(at);
                Ok(at)
            }
            Err(fault) => Err(lease_error(fault, id)),
        }
    }

    pub(crate) async fn time_to_live(&self, id: LeaseId) -> Result<LeaseStatus, Error> {
        let request = LeaseTimeToLiveRequest { id: signed(id.get()), keys: true };
        let answer = self.call(request, How::LEASE).await;
        let answer = answer.map_err(|fault| lease_error(fault, id))?;
        // Seconds are cut off: 0 may be the last one, below it there is no lease.
        let Ok(remaining) = u64::try_from(answer.ttl) else {
            return Err(Error::LeaseNotFound { lease: id });
        };
        Ok(LeaseStatus {
            granted: Duration::from_secs(u64::try_from(answer.granted_ttl).unwrap_or(0)),
            remaining: Duration::from_secs(remaining),
            keys: self.space.keys(&answer.keys),
        })
    }

    /// How many leases the cluster has, those of its other users among them.
    pub(crate) async fn lease_count(&self) -> Result<u64, Fault> {
        let answer = self.call(LeaseLeasesRequest {}, How::LEASE).await?;
        Ok(answer.leases.len() as u64)
    }
}

fn lease_error(fault: Fault, lease: LeaseId) -> Error {
    match fault {
        Fault::Refused(Refusal::LeaseNotFound) => Error::LeaseNotFound { lease },
        other => other.into_error(),
    }
}

/// How long the holder of a lease may believe in it: a machine.
///
/// It counts from the moment the last keep-alive that succeeded was **sent**, since that is the
/// latest moment etcd can be said to have counted from, and leaves a margin for clocks that run
/// apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Belief {
    sent: Instant,
    ttl: Duration,
}

impl Belief {
    /// A lease of `ttl`, asked for at `sent`.
    pub(crate) const fn new(sent: Instant, ttl: Duration) -> Self {
        Self { sent, ttl }
    }

    /// A keep-alive sent at `sent` has succeeded.
    pub(crate) fn kept(&mut self, sent: Instant, ttl: Duration) {
        *self = Self { sent: self.sent.max(sent), ttl };
    }

    /// When the next keep-alive is due.
    pub(crate) fn due(&self) -> Instant {
        self.sent.plus(self.ttl / 3)
    }

    /// Until when the lease is sure to be there.
    pub(crate) fn until(&self) -> Instant {
        self.sent.plus(self.ttl.saturating_sub(self.ttl / MARGIN_PART))
    }
}

/// A tenth of the ttl is left as margin: two clocks that run 5 % apart still agree.
const MARGIN_PART: u32 = 10;

/// etcd's own minimum with its default election timeout of a second.
const TTL_MIN: Duration = Duration::from_secs(2);

const GRANT_TRIES: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_believes_no_longer_than_the_store() {
        let at = |seconds: u64| Instant::ZERO.plus(Duration::from_secs(seconds));
        let ttl = Duration::from_secs(30);
        let mut belief = Belief::new(at(100), ttl);
        assert_eq!((belief.due(), belief.until()), (at(110), at(127)));
        belief.kept(at(110), ttl);
        assert_eq!((belief.due(), belief.until()), (at(120), at(137)));
        belief.kept(at(105), ttl);
        assert_eq!(belief.until(), at(137), "an answer that comes late takes nothing back");
    }
}
