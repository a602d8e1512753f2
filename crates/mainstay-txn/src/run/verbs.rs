//! Verbs of initiators and operators.

use std::time::Duration;

use mainstay_core::Effect;
use mainstay_store::Put;
use tokio::sync::oneshot;

use super::{Coordinator, Standing};
use crate::commit::LogError;
use crate::database::{Cluster, Xid};
use crate::error::Refused;
use crate::log::Unreadable;
use crate::machine::{Amendment, By, Event, Resolution, Submit};
use crate::moment::Moment;
use crate::name::{BranchId, Gid, Shard};
use crate::transaction::{Begin, NewBranch, Transaction};
use crate::word::State;

/// Why a verb did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// The machine refused it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It could not be written down.
    #[error(transparent)]
    Log(#[from] LogError),
    /// No such transaction: it was aborted, or ended longer ago than is kept.
    #[error("transaction `{gid}` is not known: it was aborted, or ended long ago")]
    Unknown {
        /// Its name.
        gid: Gid,
    },
    /// More live transactions than a node takes.
    #[error("coordinator has {live} live transactions and takes no more")]
    Overloaded {
        /// How many.
        live: usize,
    },
    /// The node is going away.
    #[error("coordinator is stopping")]
    Stopping,
    /// The node went away in the middle of it.
    #[error("coordinator stopped before it knew what became of it")]
    Stopped,
    /// The log was put back from an old backup: it does not know what databases know.
    #[error("transaction log is behind: {why}")]
    Behind {
        /// Which database says so, and how.
        why: String,
    },
    /// Its record cannot be read.
    #[error("record of the transaction cannot be read")]
    Unreadable(#[from] Unreadable),
    /// The log could not be read.
    #[error("transaction log could not be read")]
    Store(#[from] mainstay_store::Error),
}

impl VerbError {
    /// The code of the problem it becomes at the edge.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused(refused) => refused.code(),
            Self::Log(error) => error.code(),
            Self::Unknown { .. } => "transaction-unknown",
            Self::Overloaded { .. } | Self::Stopping => "transaction-overloaded",
            Self::Behind { .. } => "transaction-log-behind",
            Self::Unreadable(unreadable) => unreadable.code(),
            Self::Store(_) | Self::Stopped => "transaction-log-unavailable",
        }
    }

    /// What the verb may have done.
    pub const fn effect(&self) -> Effect {
        match self {
            Self::Log(error) => error.effect(),
            Self::Stopped | Self::Store(mainstay_store::Error::OutcomeUnknown) => Effect::Unknown,
            _ => Effect::None,
        }
    }

    /// When it makes sense to ask again.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Log(_)
            | Self::Overloaded { .. }
            | Self::Stopping
            | Self::Stopped
            | Self::Store(_) => Some(Duration::from_secs(1)),
            // An operator has to look.
            Self::Behind { .. } => Some(Duration::from_secs(30)),
            Self::Refused(_) | Self::Unknown { .. } | Self::Unreadable(_) => None,
        }
    }
}

/// A transaction as it was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// As it stands.
    pub transaction: Transaction,
    /// Where it lies.
    pub shard: Shard,
    /// Epoch of the owner.
    pub epoch: u64,
    /// Whether this call has made it.
    pub begun: bool,
    /// Whose it is: part of what databases call its branches.
    pub cluster: Cluster,
}

impl Seen {
    /// What databases call its branch `branch`; `None` where its gid cannot be part of that.
    pub fn xid(&self, branch: &BranchId) -> Option<Xid> {
        let gid = self.transaction.gid().clone();
        Xid::new(self.cluster.clone(), gid, branch.clone()).ok()
    }
}

/// How far an answer waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// It is decided.
    Decided,
    /// Every branch has heard, or an operator is needed.
    Done,
    /// That, or everybody who could be called was called, and nobody is until some time goes by.
    Tried,
}

/// What an operator says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Decide to abort.
    Abort(By),
    /// Try everything now.
    Retry(By),
    /// Call nobody.
    Pause(By),
    /// Call again.
    Resume(By),
    /// It ended so: what cannot be ended otherwise.
    Resolve(Resolution),
}

impl From<Verb> for Event {
    fn from(verb: Verb) -> Self {
        match verb {
            Verb::Abort(by) => Self::Abort(by),
            Verb::Retry(by) => Self::Retry(by),
            Verb::Pause(by) => Self::Pause(by),
            Verb::Resume(by) => Self::Resume(by),
            Verb::Resolve(resolution) => Self::Resolve(resolution),
        }
    }
}

impl Coordinator {
    /// Begins a transaction; the same again answers with the one there is.
    ///
    /// # Errors
    ///
    /// [`VerbError`].
    ///
    /// # Cancel safety
    ///
    /// It goes on: ask again, or look.
    pub async fn begin(&self, begin: Begin) -> Result<Seen, VerbError> {
        self.begin_recorded(begin, None).await
    }

    /// The same, and `record` is put: by the batch that writes what begins, or by one of its own
    /// where that was begun before.
    ///
    /// # Errors
    ///
    /// As [`Coordinator::begin`].
    ///
    /// # Cancel safety
    ///
    /// As [`Coordinator::begin`].
    pub async fn begin_recorded(
        &self,
        begin: Begin,
        record: Option<Put>,
    ) -> Result<Seen, VerbError> {
        let (own, gid) = (self.clone(), begin.gid.clone());
        self.run(&gid, async move { own.do_begin(begin, record).await }).await
    }

    /// Takes a branch in.
    ///
    /// # Errors
    ///
    /// [`VerbError`].
    ///
    /// # Cancel safety
    ///
    /// It goes on: ask again, or look.
    pub async fn register(&self, gid: &Gid, branch: NewBranch) -> Result<Seen, VerbError> {
        self.happens(gid, Event::Register(branch)).await
    }

    /// Puts options in the place of those a transaction was begun with.
    ///
    /// # Errors
    ///
    /// [`VerbError`]; [`Refused::GidTaken`] when it is of another mode or dialect,
    /// [`Refused::NotAllowed`] once it is decided.
    ///
    /// # Cancel safety
    ///
    /// It goes on: ask again, or look.
    pub async fn amend(&self, gid: &Gid, amendment: Amendment) -> Result<Seen, VerbError> {
        self.happens(gid, Event::Amend(Box::new(amendment))).await
    }

    /// Live transactions for which time brings something about later than `at`, the last first, at
    /// most `max` of them; and whether there are more. Only those of shards this node owns.
    pub fn due_later(&self, at: Moment, max: usize) -> (Vec<Gid>, bool) {
        self.shared.due.lock().later(at, max)
    }

    /// Decides to commit, if every branch voted so. `lost` is what is known of a two-phase commit
    /// whose begin a failover may have forgotten: what it was begun with, when, and its deadline.
    /// The answer may say that it was decided otherwise.
    ///
    /// # Errors
    ///
    /// [`VerbError`]; [`Refused::Aborted`] when it is not known: presumed.
    ///
    /// # Cancel safety
    ///
    /// It goes on: ask again, or look.
    pub async fn submit(
        &self,
        gid: &Gid,
        submit: Submit,
        lost: Option<(Begin, Moment, Moment)>,
    ) -> Result<Seen, VerbError> {
        self.is_up_to_date()?;
        match self.happens(gid, Event::Submit(submit.clone())).await {
            Err(VerbError::Unknown { .. }) => {}
            answer => return answer,
        }
        let Some((begin, begun_at, deadline_at)) = lost else {
            return Err(Refused::Aborted(None).into());
        };
        let (own, span) = (self.clone(), (begun_at, deadline_at));
        self.run(gid, async move { own.do_submit_lost(begin, span, submit).await }).await
    }

    /// Decides to abort, as its initiator wishes.
    ///
    /// # Errors
    ///
    /// [`VerbError`].
    ///
    /// # Cancel safety
    ///
    /// It goes on: ask again, or look.
    pub async fn abort(&self, gid: &Gid, by: By) -> Result<Seen, VerbError> {
        self.happens(gid, Event::Abort(by)).await
    }

    /// Does as an operator says. `record` says who did it and why, for those who ask later: it is
    /// put by the batch that writes what changed, so there is neither without the other.
    ///
    /// # Errors
    ///
    /// [`VerbError`].
    ///
    /// # Cancel safety
    ///
    /// It goes on: ask again, or look.
    pub async fn operate(
        &self,
        gid: &Gid,
        verb: Verb,
        record: Option<Put>,
    ) -> Result<Seen, VerbError> {
        let (own, of) = (self.clone(), gid.clone());
        self.run(gid, async move { own.deliver(&of, verb.into(), record).await }).await
    }

    /// Delivers once more a message that was given up; `record` as of [`Coordinator::operate`].
    ///
    /// # Errors
    ///
    /// [`VerbError`].
    ///
    /// # Cancel safety
    ///
    /// It goes on: ask again, or look.
    pub async fn redeliver(
        &self,
        gid: &Gid,
        by: &By,
        record: Option<Put>,
    ) -> Result<Seen, VerbError> {
        by.check()?;
        let given_up = self.get(gid).await?.transaction;
        let mut number = 1;
        loop {
            let again = given_up.redelivery(number)?;
            match self.get(&again.gid).await {
                Err(VerbError::Unknown { .. }) => return self.begin_recorded(again, record).await,
                Err(error) => return Err(error),
                Ok(_) => number += 1,
            }
        }
    }

    /// A transaction as it stands, or as it ended.
    ///
    /// # Errors
    ///
    /// [`VerbError::Unknown`], or what was in the way of reading it.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn get(&self, gid: &Gid) -> Result<Seen, VerbError> {
        let owned = self.owned(gid)?;
        match self.locked(gid).await? {
            Some((slot, transaction)) => Ok(self.seen(&slot, &transaction)),
            None => self.ended(gid, owned).await,
        }
    }

    /// Waits until a transaction is decided or done, at most for `patience`, and returns it as it
    /// then stands.
    ///
    /// # Errors
    ///
    /// As [`Coordinator::get`].
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn wait(
        &self,
        gid: &Gid,
        until: Until,
        patience: Duration,
    ) -> Result<Seen, VerbError> {
        let is_done = |state: State| state.is_final() || state == State::Mixed;
        let is_there = |standing: &Standing| match until {
            // Another node goes on, and whoever waits is to ask it.
            _ if standing.is_closed => true,
            Until::Decided => !standing.state.is_undecided(),
            Until::Done => is_done(standing.state),
            Until::Tried => is_done(standing.state) || !standing.is_calling,
        };
        if let Some(slot) = self.slot(gid) {
            let mut standing = slot.standing.subscribe();
            // What it is in the end is read below.
            drop(tokio::time::timeout(patience, standing.wait_for(is_there)).await);
        }
        self.get(gid).await
    }

    /// Runs `verb` of `gid` as a task of its own, so that nothing is left half done when the caller goes.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        gid: &Gid,
        verb: impl Future<Output = Result<T, VerbError>> + Send + 'static,
    ) -> Result<T, VerbError> {
        let (sender, receiver) = oneshot::channel();
        let span = tracing::debug_span!("transaction.run", gid = gid.as_str());
        self.shared.work.spawn_within(span, |_stop| async move {
            let answer = verb.await;
            drop(sender.send(answer)); // Whoever went away does not want to know.
        });
        receiver.await.unwrap_or(Err(VerbError::Stopped))
    }
}
