//! Compaction by one node of all: elected, and stepping down by its own clock.
//!
//! The elected one holds a key under a lease of ten seconds. The key lies beside the port's key
//! space (see [`wire`](crate::wire)), so nobody reads or watches it by accident. Should two ever
//! believe to be elected, history is compacted by the same rule twice, and no harm is done.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Instant;
use mainstay_store::retention::Retention;
use mainstay_store::{Error, LeaseId};

use crate::draw;
use crate::events::{Compacted, Elected};
use crate::leases::Belief;
use crate::session::{Fault, How, Session};
use crate::stub::{Compare, PutRequest, RequestOp, TxnRequest, compare, request_op};
use crate::wire::signed;

/// Stands for election, and compacts as long as it holds.
pub(crate) async fn compact(session: Arc<Session>) {
    let Some(rule) = session.options.compact else { return };
    while !session.closing.is_cancelled() {
        if let Some((lease, belief)) = session.elect().await {
            Elected { elected: true }.emit();
            let mut retention = Retention::new(rule.after, rule.revisions_max);
            *session.office.lock() = Some(lease);
            session.hold(lease, belief, &mut retention).await;
            *session.office.lock() = None;
            Elected { elected: false }.emit();
        }
        // Somewhere between 5 and 10 s: nodes do not all ask at once.
        let jitter = Duration::from_millis(draw::next() % 5_000);
        session.pause(ELECT_EVERY + jitter).await;
    }
}

impl Session {
    /// Tries to take the key; the lease it hangs on, if that succeeds.
    async fn elect(&self) -> Option<(LeaseId, Belief)> {
        let sent = self.clock.now();
        let granted = self.grant(TTL, None).await.ok()?;
        let key = self.space.own("duty/compact");
        let is_free = Compare {
            result: compare::CompareResult::Equal.into(),
            target: compare::CompareTarget::Version.into(),
            key: key.clone(),
            target_union: Some(compare::TargetUnion::Version(0)),
            ..Compare::default()
        };
        let lease = signed(granted.id.get());
        let put = PutRequest { key, lease, ..PutRequest::default() };
        let put = RequestOp { request: Some(request_op::Request::RequestPut(put)) };
        let take = TxnRequest { compare: vec![is_free], success: vec![put], failure: Vec::new() };
        match self.call(take, How::WRITE).await {
            Ok(answer) if answer.succeeded => Some((granted.id, Belief::new(sent, granted.ttl))),
            // Held by another; or not known, and then the key goes with the lease.
            _ => {
                drop(self.revoke(granted.id).await);
                None
            }
        }
    }

    /// Compacts until the lease cannot be believed in any more.
    async fn hold(&self, lease: LeaseId, mut belief: Belief, retention: &mut Retention) {
        let mut look = self.clock.now();
        while !self.closing.is_cancelled() {
            let now = self.clock.now();
            if belief.until() <= now {
                return;
            }
            if look <= now {
                look = now.plus(LOOK_EVERY);
                // Whatever fails is tried again at the next look.
                drop(self.compact_if_due(now, retention).await);
            }
            if belief.due() <= self.clock.now() {
                let sent = self.clock.now();
                match self.keep_alive(lease).await {
                    Ok(ttl) => belief.kept(sent, ttl),
                    Err(Error::LeaseNotFound { .. }) => return,
                    Err(_away) => self.pause(RETRY_AFTER).await,
                }
            }
            let next = belief.due().min(look).since(self.clock.now());
            self.pause(next.max(BREATH)).await;
        }
    }

    async fn compact_if_due(&self, now: Instant, retention: &mut Retention) -> Result<(), Fault> {
        let revision = self.revision().await?;
        let compacted = self.refresh_compacted().await?;
        let Some(target) = retention.due(now, revision, compacted) else { return Ok(()) };
        self.compact_to(target).await?;
        self.figures.compacted();
        Compacted { revision: target }.emit();
        Ok(())
    }
}

const TTL: Duration = Duration::from_secs(10);

const ELECT_EVERY: Duration = Duration::from_secs(5);

/// How often it is looked whether something is due; the rule itself samples every five minutes.
const LOOK_EVERY: Duration = Duration::from_secs(10);

const RETRY_AFTER: Duration = Duration::from_millis(500);

const BREATH: Duration = Duration::from_millis(50);
