//! What waits for the committer.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::batch::{Applied, Batch};
use crate::entry::{LeaseId, Revision};
use crate::error::Error;
use crate::lease::Granted;

/// Something to be committed, and who wants to know.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) work: Work,
    pub(super) reply: oneshot::Sender<Outcome>,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Work {
    Apply(Batch),
    Grant {
        ttl: Duration,
        id: Option<LeaseId>,
    },
    Revoke(LeaseId),
    /// Ends leases whose time is up.
    Expire(Vec<LeaseId>),
    Compact(Revision),
}

/// What was done.
#[derive(Clone, Debug)]
pub(super) enum Done {
    Applied(Applied),
    Granted(Granted),
    Revision(Revision),
    Nothing,
}

pub(super) type Outcome = Result<Done, Error>;

impl Work {
    /// Operations it may take, for the limit of a commit.
    fn operations(&self) -> usize {
        match self {
            Self::Apply(batch) => batch.then.len().max(batch.otherwise.len()).max(1),
            Self::Expire(leases) => leases.len(),
            Self::Grant { .. } | Self::Revoke(_) | Self::Compact(_) => 1,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Apply(batch) => batch.bytes(),
            Self::Expire(_) | Self::Grant { .. } | Self::Revoke(_) | Self::Compact(_) => 0,
        }
    }
}

/// How much one commit takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupMax {
    pub(super) operations: usize,
    pub(super) bytes: usize,
    /// How long it waits for as many as last time.
    pub(super) linger: Duration,
}

/// Members, in the order they came.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    ready: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    members: VecDeque<Member>,
    /// The committer waits for this many; nobody wakes it for fewer.
    wake_at: usize,
    closing: bool,
}

impl Queue {
    /// Adds `work`; the receiver is told once it is done.
    pub(super) fn submit(&self, work: Work) -> Result<oneshot::Receiver<Outcome>, Error> {
        let mut inner = self.inner.lock();
        if inner.closing {
            return Err(Error::Closed);
        }
        if MEMBERS_MAX <= inner.members.len() {
            return Err(Error::Busy { retry_after: BUSY_RETRY_AFTER });
        }
        let (reply, answer) = oneshot::channel();
        inner.members.push_back(Member { work, reply });
        if inner.wake_at <= inner.members.len() {
            self.ready.notify_one();
        }
        Ok(answer)
    }

    /// Waits for members and takes as many as one commit may; `None` once the queue is closed and
    /// empty. With `idle_work` there may be none: the committer has something of its own to do.
    ///
    /// It waits a little for as many as `last` time: clients that wait for their answers come back
    /// together, and would otherwise split into two halves that wait for each other's commits.
    pub(super) fn take(&self, max: GroupMax, last: usize, idle_work: bool) -> Option<Vec<Member>> {
        let mut inner = self.inner.lock();
        while inner.members.is_empty() && !inner.closing && !idle_work {
            inner.wake_at = 1;
            self.ready.wait(&mut inner);
        }
        if inner.members.len() < last && !inner.members.is_empty() && !inner.closing {
            inner.wake_at = last;
            self.ready.wait_for(&mut inner, max.linger);
        }
        inner.wake_at = usize::MAX;
        if inner.members.is_empty() && inner.closing {
            return None;
        }
        let (mut operations, mut bytes) = (0, 0);
        let fits = |member: &mut Member| {
            let is_first = operations == 0;
            operations += member.work.operations();
            bytes += member.work.bytes();
            is_first || (operations <= max.operations && bytes <= max.bytes)
        };
        let mut fits = fits;
        let mut group = Vec::new();
        while let Some(member) = inner.members.pop_front_if(&mut fits) {
            group.push(member);
        }
        Some(group)
    }

    /// Takes no more; what waits is still done.
    pub(super) fn close(&self) {
        self.inner.lock().closing = true;
        self.ready.notify_one();
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.inner.lock().members.len()
    }
}

/// Members that may wait: 8,192, eight commits of 1,024 operations. At 3 ms a commit that is 25 ms
/// of waiting, at 100 ms, on a disk in trouble, a second.
const MEMBERS_MAX: usize = 8_192;

/// When to come back to a full queue: a few commits later.
const BUSY_RETRY_AFTER: Duration = Duration::from_millis(100);
