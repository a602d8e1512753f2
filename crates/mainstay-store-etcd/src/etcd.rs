//! The port on etcd.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mainstay_core::Clock;
use mainstay_store::limits::OPERATIONS_MAX;
use mainstay_store::store::State;
use mainstay_store::{
    Answer, Applied, Attach, Batch, Error, Get, Got, Granted, LeaseId, LeaseStatus, Op, Page,
    Pending, RangeRequest, Revision, Snapshot, Status, Store, StoreId, Watch, WatchRequest,
};

use crate::duty;
use crate::figures::Counted;
use crate::identity::revision;
use crate::options::Options;
use crate::refusal::Refusal;
use crate::session::{Fault, How, Session};
use crate::stub::{CompactionRequest, StatusRequest, TxnResponse};
use crate::upstream::Readable;
use crate::watching;
use crate::wire::signed;

/// A store on etcd: several nodes, one history.
///
/// Nothing is dialled before something is asked for, so a handle can be opened while etcd is away;
/// calls wait for a connection as long as a call may take. Leases are what etcd makes of them: the
/// shortest is granted two seconds, a change of its leader gives every lease its full ttl again.
///
/// An etcd before 3.4.38 and 3.5.23 may let a lease live on that was revoked. Whoever holds a lock by a
/// lease therefore believes in it only if a linearizable read of the same round still shows the key.
///
/// What is larger than the port allows is refused here, as everywhere. Two limits cannot be kept on
/// etcd, which knows nothing of them: that of keys a lease (another node may attach as many), and a
/// branch with a put that keeps the lease of a key that is **not there** has room for 127
/// operations.
pub struct Etcd {
    session: Arc<Session>,
}

impl Etcd {
    /// A handle on the etcd that `options` describe. `clock` is that of leases and backoff.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime: the handle has tasks of its own.
    pub fn open(options: Options, clock: impl Clock + 'static) -> Self {
        let session = Session::new(options, Arc::new(clock));
        if session.options.compact.is_some() {
            session.tasks.spawn(duty::compact(Arc::clone(&session)));
        }
        Self { session }
    }

    /// Goes on with the history that answers now, after [`Error::Regressed`].
    ///
    /// Revisions begin anew there, and with them fencing tokens: whoever accepts raises the base
    /// of fencing tokens first. Watches have ended already.
    pub fn accept(&self) {
        self.session.accept();
    }

    /// Which history this handle knows, and the highest revision seen of it: what
    /// [`Options::known`] takes after a restart. `None` before etcd has answered.
    pub fn known(&self) -> Option<(StoreId, Revision)> {
        self.session.with_identity(|known| known.cluster().map(|cluster| (cluster, known.seen())))
    }

    /// What this handle has counted since it was opened.
    pub fn counted(&self) -> Counted {
        self.session.figures.read()
    }

    /// How many watches it has open in etcd for areas.
    pub fn areas(&self) -> usize {
        self.session.areas.count()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.session.closing.cancel();
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("options", &self.session.options).finish_non_exhaustive()
    }
}

impl Store for Etcd {
    fn get(&self, get: Get) -> Pending<'_, Got> {
        Box::pin(self.session.get(get))
    }

    fn range(&self, request: RangeRequest) -> Pending<'_, Page> {
        Box::pin(self.session.range(request))
    }

    fn apply(&self, batch: Batch) -> Pending<'_, Applied> {
        Box::pin(self.session.apply(batch))
    }

    fn watch(&self, request: WatchRequest) -> Result<Watch, Error> {
        watching::start(&self.session, request)
    }

    fn grant(&self, ttl: Duration, id: Option<LeaseId>) -> Pending<'_, Granted> {
        Box::pin(self.session.grant(ttl, id))
    }

    fn keep_alive(&self, id: LeaseId) -> Pending<'_, Duration> {
        Box::pin(self.session.keep_alive(id))
    }

    fn revoke(&self, id: LeaseId) -> Pending<'_, Revision> {
        Box::pin(self.session.revoke(id))
    }

    fn lease(&self, id: LeaseId) -> Pending<'_, LeaseStatus> {
        Box::pin(self.session.time_to_live(id))
    }

    fn compact(&self, revision: Revision) -> Pending<'_, ()> {
        Box::pin(async move {
            match self.session.compact_to(revision).await {
                Ok(()) => Ok(()),
                Err(fault) => Err(self.session.read_error(fault, Some(revision.before())).await),
            }
        })
    }

    fn snapshot(&self) -> Pending<'_, Snapshot> {
        Box::pin(Arc::clone(&self.session).snapshot())
    }

    fn status(&self) -> Pending<'_, Status> {
        Box::pin(async { Ok(self.session.status().await) })
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(async {
            let office = self.session.office.lock().take();
            if let Some(lease) = office {
                // Another node takes over at once, rather than when the lease ends.
                drop(tokio::time::timeout(RESIGN_GRACE, self.session.revoke(lease)).await);
            }
            self.session.closing.cancel();
            self.session.tasks.close();
            // Tasks end at their next wait; what they wait for is this signal.
            drop(tokio::time::timeout(CLOSE_GRACE, self.session.tasks.wait()).await);
            self.session.calls.close();
            self.session.watches.close();
            self.session.leases.close();
            Ok(())
        })
    }
}

impl Session {
    async fn apply(&self, batch: Batch) -> Result<Applied, Error> {
        batch.check()?;
        let asked = match self.call(self.space.batch(&batch, false), How::WRITE).await {
            Err(Fault::Refused(Refusal::KeyMissing)) => {
                let longest = batch.then.len().max(batch.otherwise.len());
                if OPERATIONS_MAX <= longest {
                    // The small batch inside it would be one operation too many.
                    let (found, max) = (longest + 1, OPERATIONS_MAX);
                    return Err(Error::BatchTooLarge { what: "operations", found, max });
                }
                self.call(self.space.batch(&batch, true), How::WRITE).await
            }
            asked => asked,
        };
        match asked {
            Ok(answer) => self.applied(&batch, answer),
            Err(Fault::Refused(Refusal::LeaseNotFound)) => Err(self.missing_lease(&batch).await),
            Err(fault) => Err(fault.into_error()),
        }
    }

    fn applied(&self, batch: &Batch, answer: TxnResponse) -> Result<Applied, Error> {
        let at = answer.header.map(|header| revision(header.revision)).unwrap_or_default();
        let succeeded = answer.succeeded;
        let ops = if succeeded { &batch.then } else { &batch.otherwise };
        let answers = answer.responses.into_iter().take(ops.len());
        let answers: Option<Vec<Answer>> =
            answers.map(|answer| self.space.answer(answer, at)).collect();
        // An answer that cannot be read does not mean that nothing was done.
        let answers = answers.filter(|answers| answers.len() == ops.len());
        Ok(Applied { succeeded, revision: at, answers: answers.ok_or(Error::OutcomeUnknown)? })
    }

    /// Which of the leases that a refused batch names is missing; etcd does not say. It is one of
    /// the branch that would have run.
    async fn missing_lease(&self, batch: &Batch) -> Error {
        let compares = Batch { compares: batch.compares.clone(), ..Batch::new() };
        // It changes nothing, and so can be asked again.
        let ops = match self.call(self.space.batch(&compares, false), How::READ).await {
            Ok(answer) if answer.succeeded => &batch.then,
            Ok(_) => &batch.otherwise,
            Err(fault) => return fault.into_error(),
        };
        let mut leases = ops.iter().filter_map(|op| match op {
            Op::Put(put) => match put.lease {
                Attach::To(lease) => Some(lease),
                Attach::Detach | Attach::Keep => None,
            },
            Op::Delete { .. } | Op::Range(_) => None,
        });
        let first = leases.clone().next();
        let all_the_same = leases.clone().all(|lease| Some(lease) == first);
        if !all_the_same {
            let mut asked = BTreeSet::new();
            for lease in leases.by_ref().filter(|lease| asked.insert(*lease)) {
                if let Err(missing @ Error::LeaseNotFound { .. }) = self.time_to_live(lease).await {
                    return missing;
                }
            }
        }
        match first {
            Some(lease) => Error::LeaseNotFound { lease },
            // The compares have turned since.
            None => Error::Busy { retry_after: Duration::ZERO },
        }
    }

    pub(crate) async fn compact_to(&self, target: Revision) -> Result<(), Fault> {
        let request = CompactionRequest { revision: signed(target.get()), physical: false };
        self.call(request, How::WRITE).await?;
        self.compacted_at(target);
        Ok(())
    }

    /// The oldest revision that can be read, asked for.
    pub(crate) async fn refresh_compacted(&self) -> Result<Revision, Fault> {
        match self.readable(self.compacted()).await? {
            Readable::Compacted(compacted) => Ok(compacted),
            Readable::Yes(_) | Readable::Future(_) => Ok(self.compacted()),
        }
    }

    async fn status(&self) -> Status {
        let asked = async {
            let revision = self.revision().await?;
            let compacted = self.refresh_compacted().await?;
            let member = self.call(StatusRequest {}, How::LOCAL).await?;
            let leases = self.lease_count().await?;
            Ok::<_, Fault>((revision, compacted, member, leases))
        };
        let asked = asked.await;
        let (store, seen) =
            self.with_identity(|known| (known.cluster().unwrap_or(StoreId::new(0)), known.seen()));
        let status = |state| Status {
            backend: "etcd",
            store,
            revision: seen,
            compacted: self.compacted(),
            bytes: 0,
            leases: 0,
            watchers: self.watchers.load(Ordering::SeqCst) as u64,
            state,
        };
        match asked {
            Ok((revision, compacted, member, leases)) => {
                let is_full = member.errors.iter().any(|error| error.contains("NOSPACE"));
                let bytes = u64::try_from(member.db_size).unwrap_or(0);
                let state = if is_full { State::Full } else { State::Ready };
                Status { revision, compacted, bytes, leases, ..status(state) }
            }
            Err(Fault::Closed) => status(State::Closed),
            Err(Fault::Regressed { .. }) => status(State::Regressed),
            Err(_away) => status(State::Away),
        }
    }
}

const RESIGN_GRACE: Duration = Duration::from_secs(1);

/// How long `close` waits for tasks that should be gone at once.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
