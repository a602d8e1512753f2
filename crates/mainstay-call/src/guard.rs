//! Guards anything that is not HTTP: a query, a file, a lock, a call by another protocol.
//!
//! ```no_run
//! use mainstay_call::guard::{Guard, Judgement};
//! use mainstay_call::Policy;
//!
//! # #[derive(Debug)] enum DbError { NotFound, Deadlock, Gone }
//! # async fn fetch(_: std::time::Duration) -> Result<u32, DbError> { Ok(7) }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let policy = Policy::from_toml("timeout_seconds = 2\n[limit.all]\nkind = \"concurrency\"\nmax = 20")?;
//! let stock = Guard::new("stock-db", policy).classify(|error: &DbError| match error {
//!     DbError::NotFound => Judgement::Fine,
//!     DbError::Deadlock => Judgement::Transient,
//!     DbError::Gone => Judgement::Failed,
//! });
//! let row = stock.run(async |call| fetch(call.remaining()).await).await;
//! # drop(row);
//! # Ok(())
//! # }
//! ```
//!
//! Of a [`Policy`] it uses `timeout_seconds`, the limits, the circuits (whatever their scope, they
//! guard the one thing there is) and of `retry` the attempts, `try_seconds`, back-off and budget.
//! What may be tried again is not for `retry_on` to say but for the error: only whoever made it
//! knows whether the work was done. There are no instances here, and so no balance.
//!
//! A run that is dropped, or whose work panics, gives back its permits, places and credits; it
//! counts neither as success nor as failure.

mod ask;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{Clock, Instant};
use mainstay_resilience::budget::Ended;
use mainstay_resilience::classify::Verdict;
use mainstay_resilience::retry::Stopped;
use mainstay_resilience::{Failure, Outcome};

use self::ask::Asking;
use crate::budget::{SharedBudget, Spending};
use crate::circuit::{CircuitKey, Permits, SharedCircuit};
use crate::clock::{MonotonicClock, tokio_instant};
use crate::draw;
use crate::error::CallError;
use crate::limit::{Fared, SharedLimit};
use crate::machines::Machines;
use crate::observe::{Observer, Silent};
use crate::pause;
use crate::policy::Policy;

/// Runs work under limits, circuits, a deadline and retries; see the [module](self). Clones share
/// everything.
#[derive(Clone, Debug)]
pub struct Guard<C = EveryErrorFails> {
    shared: Arc<Shared>,
    classify: C,
}

#[derive(Debug)]
struct Shared {
    name: Arc<str>,
    policy: Policy,
    limits: Vec<Arc<SharedLimit>>,
    circuits: Vec<Arc<SharedCircuit>>,
    budget: Arc<SharedBudget>,
    observer: Arc<dyn Observer>,
}

/// What an error of the work means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Judgement {
    /// An answer like any other: "no such row". Counts as a success.
    Fine,
    /// It failed, and trying again could do the work twice, or would not help.
    Failed,
    /// It failed without an effect, and may go better the next time.
    Transient,
    /// The other side had too much to do, and did nothing. May be tried again.
    Refused,
    /// Says nothing about the other side, such as a mistake in the question. Counts nowhere.
    Ignored,
}

/// Says what errors mean. Closures do, and so can the error type itself, by an implementation for
/// a type of one's own.
pub trait Classify<E> {
    /// What `error` means.
    fn judge(&self, error: &E) -> Judgement;
}

impl<E, F: Fn(&E) -> Judgement> Classify<E> for F {
    fn judge(&self, error: &E) -> Judgement {
        self(error)
    }
}

/// Every error is [`Judgement::Failed`]: what nobody has thought about is not done twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct EveryErrorFails;

impl<E> Classify<E> for EveryErrorFails {
    fn judge(&self, _error: &E) -> Judgement {
        Judgement::Failed
    }
}

/// Why a run has no result.
#[derive(Debug)]
pub enum GuardError<E> {
    /// A stage refused, or time was up; says which and when to come back.
    Stopped(CallError),
    /// The work failed, the last time it was tried.
    Failed(E),
}

/// One attempt at the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    number: u32,
    until: Instant,
}

impl Attempt {
    /// 1 for the first.
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// When this attempt is given up.
    pub fn deadline(&self) -> std::time::Instant {
        tokio_instant(self.until).into_std()
    }

    /// Time until then; for clients that take a timeout.
    pub fn remaining(&self) -> Duration {
        self.until.since(MonotonicClock.now())
    }
}

impl Guard {
    /// Guards what is called `name`.
    pub fn new(name: &str, policy: Policy) -> Self {
        let observer: Arc<dyn Observer> = Arc::new(Silent);
        Self::with(name, policy, &Machines::new(Arc::clone(&observer)), observer)
    }

    /// Guards what is called `name` with machines from `machines`, and tells `observer` of it.
    pub fn with(
        name: &str,
        policy: Policy,
        machines: &Machines,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let name: Arc<str> = Arc::from(name);
        let limits = policy.limits.iter().map(|(limit, policy)| machines.limit(limit, policy));
        let circuits = policy.circuits.iter().map(|(circuit, policy)| {
            let key = CircuitKey { policy: Arc::clone(circuit), subject: Arc::clone(&name) };
            machines.circuit(key, policy)
        });
        let shared = Shared {
            limits: limits.collect(),
            circuits: circuits.collect(),
            budget: machines.budget(&name, policy.retry.budget),
            name,
            policy,
            observer,
        };
        Self { shared: Arc::new(shared), classify: EveryErrorFails }
    }

    /// Says what errors mean.
    pub fn classify<C>(self, classify: C) -> Guard<C> {
        Guard { shared: self.shared, classify }
    }
}

impl<C> Guard<C> {
    /// The circuits that this asks.
    pub fn circuits(&self) -> &[Arc<SharedCircuit>] {
        &self.shared.circuits
    }

    /// The limits that this asks.
    pub fn limits(&self) -> &[Arc<SharedLimit>] {
        &self.shared.limits
    }

    /// Runs `work`, as often as policy and errors allow, and returns what it came to.
    ///
    /// An attempt that is not over in time is dropped, and counts as a timeout. It is not made
    /// again: what it has done by then is unknown.
    ///
    /// # Errors
    ///
    /// [`GuardError::Stopped`] when a limit or a circuit refused or time was up,
    /// [`GuardError::Failed`] with the last error of the work.
    ///
    /// # Cancel safety
    ///
    /// As safe as `work`: dropping the run drops it, and gives back all that was held for it.
    pub async fn run<T, E, W, F>(&self, mut work: W) -> Result<T, GuardError<E>>
    where
        C: Classify<E>,
        W: FnMut(Attempt) -> F,
        F: Future<Output = Result<T, E>>,
    {
        let shared = &*self.shared;
        let deadline = MonotonicClock.now().plus(shared.policy.patience.timeout);
        let held = Asking::new(&shared.limits, deadline, &*shared.observer).await?;
        let mut spending = Spending::begin(Arc::clone(&shared.budget), MonotonicClock.now());
        let mut number = 1;
        loop {
            let ran = self.attempt(&mut work, number, deadline).await;
            let (result, judgement) = match ran {
                Ok(done) => done,
                Err(stopped) => {
                    held.ended(fared(&stopped));
                    return Err(GuardError::Stopped(stopped));
                }
            };
            let again = matches!(judgement, Judgement::Transient | Judgement::Refused);
            spending.ended(match judgement {
                Judgement::Fine => Ended::Well,
                Judgement::Transient | Judgement::Refused => Ended::Badly,
                Judgement::Failed | Judgement::Ignored => Ended::Otherwise,
            });
            if !again {
                held.ended(if judgement == Judgement::Fine { Fared::Well } else { Fared::Unknown });
                return result.map_err(GuardError::Failed);
            }
            match shared.again_at(number, deadline, &mut spending) {
                Err(why) => {
                    shared.observer.retry_stopped(why.as_str());
                    let refused = judgement == Judgement::Refused;
                    held.ended(if refused { Fared::Dropped } else { Fared::Unknown });
                    return result.map_err(GuardError::Failed);
                }
                Ok(at) => {
                    let reason =
                        if judgement == Judgement::Refused { "refused" } else { "transient" };
                    shared.observer.retried(&shared.name, reason);
                    drop(result);
                    tokio::time::sleep_until(tokio_instant(at)).await;
                    spending.sent();
                    number += 1;
                }
            }
        }
    }

    /// Makes one attempt, and tells the circuits of it.
    async fn attempt<T, E, W, F>(
        &self,
        work: &mut W,
        number: u32,
        deadline: Instant,
    ) -> Result<(Result<T, E>, Judgement), CallError>
    where
        C: Classify<E>,
        W: FnMut(Attempt) -> F,
        F: Future<Output = Result<T, E>>,
    {
        let shared = &*self.shared;
        let started = MonotonicClock.now();
        if deadline <= started {
            return Err(Failure::Deadline { sent: false }.into());
        }
        let permits = Permits::take(started, shared.circuits.iter())?;
        let own = shared.policy.retry.try_timeout.map(|span| started.plus(span));
        let until = own.map_or(deadline, |own| own.min(deadline));
        let running = work(Attempt { number, until });
        let ended = tokio::time::timeout_at(tokio_instant(until), running).await;
        let now = MonotonicClock.now();
        let took = pause::awake(started, now);
        let Ok(result) = ended else {
            if pause::excuses(started, until, now) {
                return Err(Failure::Overslept { connecting: false }.into());
            }
            permits.record(now, Outcome::RequestTimeout, took);
            return Err(Failure::RequestTimeout.into());
        };
        let judgement = match &result {
            Ok(_) => Judgement::Fine,
            Err(error) => self.classify.judge(error),
        };
        if let Verdict::Record(outcome) = judgement.verdict() {
            permits.record(now, outcome, took);
        }
        Ok((result, judgement))
    }
}

impl Shared {
    /// When the attempt after `number` may begin, with the credit for it taken.
    fn again_at(
        &self,
        number: u32,
        deadline: Instant,
        spending: &mut Spending,
    ) -> Result<Instant, Stopped> {
        let now = MonotonicClock.now();
        let retry = &self.policy.retry;
        let at = now.plus(retry.backoff.delay(number, draw::next()));
        if retry.attempts.get() <= number {
            Err(Stopped::Attempts)
        } else if deadline <= at {
            Err(Stopped::Deadline)
        } else if spending.take(now) {
            Ok(at)
        } else {
            Err(Stopped::Budget)
        }
    }
}

impl Judgement {
    const fn verdict(self) -> Verdict {
        match self {
            Self::Fine => Verdict::Record(Outcome::Success),
            Self::Failed | Self::Transient => Verdict::Record(Outcome::Failure),
            Self::Refused => Verdict::Record(Outcome::Refused),
            Self::Ignored => Verdict::Ignore,
        }
    }
}

/// What a run that was stopped tells limits that adapt.
fn fared(stopped: &CallError) -> Fared {
    match stopped {
        CallError::Failed { failure: Failure::RequestTimeout, .. } => Fared::Dropped,
        _ => Fared::Unknown,
    }
}

impl<E> From<CallError> for GuardError<E> {
    fn from(stopped: CallError) -> Self {
        Self::Stopped(stopped)
    }
}

impl<E: fmt::Display> fmt::Display for GuardError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped(stopped) => stopped.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for GuardError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // Its text is that of what it holds, so the source is the source of that.
        match self {
            Self::Stopped(stopped) => stopped.source(),
            Self::Failed(error) => error.source(),
        }
    }
}
