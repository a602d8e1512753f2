//! Calls of branches, within their limits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Coordinator, Slot};
use crate::crash;
use crate::machine::{Event, Outcome};
use crate::name::BranchId;
use crate::port::{Outgoing, To};
use crate::transaction::{Goal, Payload, Transaction};
use crate::word::{Op, State};

/// How long a call waits that is not wanted any more, or that this node may not make now.
const NOT_NOW: Duration = Duration::from_millis(100);

/// The same for one that waits for an operator.
const BEHIND: Duration = Duration::from_secs(30);

/// A call that waits for its turn.
pub(super) struct Job {
    pub(super) slot: Arc<Slot>,
    pub(super) branch: BranchId,
    pub(super) op: Op,
    pub(super) attempt: u32,
}

impl Coordinator {
    /// Makes all calls that may be made; a node that stops lets those under way end.
    pub(super) fn make_calls(&self) {
        while !self.shared.stopping.load(Ordering::Acquire) {
            let next = self.shared.schedule.lock().take_next();
            let Some((peer, job)) = next else { return };
            let own = self.clone();
            let Job { slot, branch, op, attempt } = &job;
            let (gid, branch, op) = (slot.gid.as_str(), branch.as_str(), op.as_str());
            let span = tracing::debug_span!("branch.call", gid, branch, op, attempt);
            self.shared.work.spawn_within(span, |stop| async move {
                own.make(&job, stop).await;
                own.shared.schedule.lock().ended(&peer);
                own.make_calls();
            });
        }
    }

    async fn make(&self, job: &Job, stop: CancellationToken) {
        let Job { slot, branch, op, .. } = job;
        if slot.is_closed() || stop.is_cancelled() {
            return;
        }
        let outgoing = {
            let Some(transaction) = slot.live().await else { return };
            let wanted = transaction.wants(branch, *op);
            if wanted && self.believes() { self.outgoing(job, &transaction) } else { None }
        };
        let outcome = match outgoing {
            // What this log would have said may have been decided otherwise.
            Some(_) if self.is_behind() => Outcome::Unsent {
                why: "the transaction log is behind what a database was told".to_owned(),
                retry_after: Some(BEHIND),
            },
            Some(outgoing) => {
                tokio::select! {
                    biased;
                    outcome = self.shared.ports.participants.call(outgoing) => outcome,
                    // Its outcome is not known: whoever reads the log next asks again.
                    () = stop.cancelled() => return,
                }
            }
            None => Outcome::Unsent {
                why: "overtaken before it was sent".to_owned(),
                retry_after: Some(NOT_NOW),
            },
        };
        let was_done = outcome == Outcome::Done;
        match op {
            Op::Action if was_done => crash::point("action-answered", &slot.gid),
            Op::Confirm | Op::Cancel | Op::Commit | Op::Rollback if was_done => {
                crash::point("branch-ended", &slot.gid);
            }
            _ => {}
        }
        let draw = self.shared.ports.surroundings.draw();
        let event = Event::Answered { branch: branch.clone(), op: *op, outcome, draw };
        if let Some(mut transaction) = slot.live().await {
            // What could not be written is asked again.
            drop(self.take_in(slot, &mut transaction, event).await);
            match op {
                Op::Compensate if was_done => crash::point("step-undone", &slot.gid),
                Op::Prepare => crash::point("vote-taken", &slot.gid),
                Op::Confirm | Op::Cancel | Op::Commit | Op::Rollback if was_done => {
                    crash::point("branch-told", &slot.gid);
                }
                _ => {}
            }
        }
    }

    fn outgoing(&self, job: &Job, transaction: &Transaction) -> Option<Outgoing> {
        let (to, payload) = match transaction.branch(&job.branch) {
            Some(branch) => {
                let to = match branch.goes_to(job.op)? {
                    Goal::Endpoint(target) => To::Endpoint(target.clone()),
                    Goal::Resource { resource, session_id } => To::Resource {
                        resource: resource.clone(),
                        session_id: session_id.map(ToOwned::to_owned),
                    },
                };
                (to, branch.payload.clone())
            }
            None => (To::Endpoint(transaction.begin.check.clone()?), Payload::default()),
        };
        let payload = under(&transaction.begin.headers, payload);
        let decided = !matches!(transaction.state(), State::Preparing | State::Querying);
        Some(Outgoing {
            gid: transaction.gid().clone(),
            mode: transaction.begin.mode,
            dialect: transaction.begin.dialect,
            branch: job.branch.clone(),
            op: job.op,
            attempt: job.attempt,
            epoch: self.epoch(job.slot.owned),
            decision: transaction.register.decision.filter(|_| decided),
            to,
            payload,
            timeout: transaction.begin.call_timeout.unwrap_or(self.shared.settings.call_timeout),
        })
    }
}

/// `payload` with `headers` below its own.
fn under(headers: &[(String, String)], mut payload: Payload) -> Payload {
    let is_own = |name: &str| payload.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
    let mut all: Vec<_> = headers.iter().filter(|(name, _)| !is_own(name)).cloned().collect();
    all.append(&mut payload.headers);
    Payload { headers: all, ..payload }
}

/// Whom a job calls is known to the schedule alone.
impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { slot, branch, op, attempt } = self;
        write!(f, "{op} {branch} of {} ({attempt})", slot.gid)
    }
}
