//! Sends the batches of a lane, one at a time, and tells whoever waits.

use std::sync::Arc;
use std::time::Duration;

use mainstay_store::{Error, Store};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::LogError;
use super::queue::{LaneQueue, Next, Place, Told};
use crate::crash;
use crate::figures::Figures;
use crate::log::Change;
use crate::name::Shard;
use crate::port::Surroundings;
use crate::sync::{Mutex, Notify, sleep};
use crate::tasks::Tasks;

/// How long after an outcome that is not known it is asked for, each time.
const ASK_EVERY: Duration = Duration::from_millis(100);

type Ticket = oneshot::Sender<Result<(), LogError>>;

/// A record on its way into the log.
#[derive(Debug)]
#[must_use = "what is not known to be durable may not be told"]
pub struct Pending(oneshot::Receiver<Result<(), LogError>>);

impl Pending {
    /// Waits until the record is durable, or known not to be.
    ///
    /// # Errors
    ///
    /// [`LogError`].
    ///
    /// # Cancel safety
    ///
    /// The record is written all the same.
    pub async fn written(self) -> Result<(), LogError> {
        let Self(receiver) = self;
        let ended = || LogError::Lost { why: "the lane has ended".to_owned() };
        receiver.await.unwrap_or_else(|_ended| Err(ended()))
    }
}

/// A lane of the log. Clones stand for the same lane.
#[derive(Clone)]
pub struct Lane {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    queue: Mutex<LaneQueue<Ticket>>,
    wake: Notify,
    figures: Figures,
    surroundings: Arc<dyn Surroundings>,
    lazy_flush: Duration,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("queue", &self.shared.queue).finish_non_exhaustive()
    }
}

impl Lane {
    /// Starts the lane whose queue is `queue`. What waits for company waits `lazy_flush` at most.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        queue: LaneQueue<Ticket>,
        lazy_flush: Duration,
        (figures, surroundings): (Figures, Arc<dyn Surroundings>),
        tasks: &Tasks,
    ) -> Self {
        let lane = Self::new(store, queue, lazy_flush, (figures, surroundings));
        let running = lane.clone();
        tasks.spawn("log lane", |stop| async move { running.run(stop).await });
        lane
    }

    /// The lane that [`Lane::run`] has yet to run.
    pub(super) fn new(
        store: Arc<dyn Store>,
        queue: LaneQueue<Ticket>,
        lazy_flush: Duration,
        (figures, surroundings): (Figures, Arc<dyn Surroundings>),
    ) -> Self {
        let (queue, wake) = (Mutex::new(queue), Notify::new());
        let shared = Shared { store, queue, wake, figures, surroundings, lazy_flush };
        Self { shared: Arc::new(shared) }
    }

    /// Writes a change as soon as may be.
    ///
    /// # Errors
    ///
    /// [`LogError`] when it is refused at once.
    pub fn write(&self, place: Place<'_>, change: Change) -> Result<Pending, LogError> {
        let (ticket, receiver) = oneshot::channel();
        self.shared.queue.lock().push(place, change, ticket)?;
        self.shared.wake.notify_one();
        Ok(Pending(receiver))
    }

    /// Writes a change along with others.
    ///
    /// # Errors
    ///
    /// [`LogError::NotOwner`], [`LogError::Lost`].
    pub fn write_lazily(&self, place: Place<'_>, change: Change) -> Result<Pending, LogError> {
        let (ticket, receiver) = oneshot::channel();
        self.shared.queue.lock().push_lazily(place, change, Some(ticket))?;
        self.shared.wake.notify_one();
        Ok(Pending(receiver))
    }

    /// The node owns `shard`, whose key was created at `created`.
    pub(crate) fn own(&self, shard: Shard, created: mainstay_store::Revision) {
        self.shared.queue.lock().own(shard, created);
    }

    /// The node gives `shard` up.
    pub(crate) fn disown(&self, shard: Shard) {
        let told = self.shared.queue.lock().disown(shard);
        tell(told);
    }

    /// Whether the node may still write records of `shard`.
    pub(crate) fn owns(&self, shard: Shard) -> bool {
        self.shared.queue.lock().owns(shard)
    }

    /// Whether it writes nothing any more: the store failed, or another process of the same name
    /// has its key.
    pub(crate) fn is_lost(&self) -> bool {
        self.shared.queue.lock().is_lost()
    }

    /// The session of this node has ended.
    pub(crate) fn lose(&self, why: &str) {
        let told = self.shared.queue.lock().lose(why);
        tell(told);
        self.shared.wake.notify_one();
    }

    /// Records that wait.
    pub(crate) fn records(&self) -> usize {
        self.shared.queue.lock().records()
    }

    /// Whether a record of `shard` is on its way.
    pub(crate) fn has_of(&self, shard: Shard) -> bool {
        self.shared.queue.lock().has_of(shard)
    }

    /// Writes until it is told to stop, or has lost what it writes with.
    pub(super) async fn run(&self, stop: CancellationToken) {
        let Shared { store, queue, wake, lazy_flush, .. } = &*self.shared;
        let mut flush = false;
        // Runs from when something began to wait, whatever has come to wait since.
        let mut company = std::pin::pin!(sleep(*lazy_flush));
        let mut is_patient = false;
        loop {
            let next = queue.lock().next(flush || stop.is_cancelled());
            match next {
                Next::Send(batch) => {
                    if flush {
                        crash::batch("lazy-waits");
                    }
                    (flush, is_patient) = (false, false);
                    match self.send(batch).await {
                        Sent::Applied => {}
                        // What nobody waits for is lost, as by a crash.
                        Sent::Nothing if stop.is_cancelled() => return,
                        Sent::Nothing | Sent::Open => sleep(ASK_EVERY).await,
                    }
                }
                Next::Ask(batch) => {
                    let answer = store.apply(batch).await;
                    let was_answered = answer.is_ok();
                    let told = queue.lock().resolved(answer);
                    tell(told);
                    if !was_answered {
                        if stop.is_cancelled() {
                            return; // Whoever reads the log next will see.
                        }
                        sleep(ASK_EVERY).await;
                    }
                }
                Next::Idle => {
                    if stop.is_cancelled() {
                        return;
                    }
                    if !is_patient && queue.lock().has_lazy() {
                        company.set(sleep(*lazy_flush));
                        is_patient = true;
                    }
                    tokio::select! {
                        biased;
                        () = wake.notified() => {}
                        () = &mut company, if is_patient => (flush, is_patient) = (true, false),
                        () = stop.cancelled() => {}
                    }
                }
                Next::Lost => return,
            }
        }
    }

    /// Sends a batch, and tells whoever waited for it.
    async fn send(&self, batch: mainstay_store::Batch) -> Sent {
        let Shared { store, queue, figures, surroundings, .. } = &*self.shared;
        let began = surroundings.now();
        let records = queue.lock().in_flight();
        let span = tracing::debug_span!("log.commit", records);
        let answer = match store.apply(batch).instrument(span).await {
            Ok(applied) if applied.succeeded && crash::happens("answer-lost") => {
                Err(Error::OutcomeUnknown)
            }
            answer => answer,
        };
        let applied = answer.as_ref().is_ok_and(|applied| applied.succeeded);
        if applied {
            crash::batch("batch-applied");
            figures.committed(records, surroundings.now().since(began));
        } else if answer.is_ok() {
            figures.fenced();
        }
        let (told, in_flight) = {
            let mut queue = queue.lock();
            (queue.answered(answer), queue.in_flight())
        };
        tell(told);
        match (applied, in_flight) {
            (true, _) => Sent::Applied,
            (false, 0) => Sent::Nothing,
            (false, _) => Sent::Open,
        }
    }
}

/// What became of a batch that was sent.
enum Sent {
    /// It is written.
    Applied,
    /// Nothing of it is, or will be.
    Nothing,
    /// It is sent again, or asked for.
    Open,
}

fn tell(told: Told<Ticket>) {
    for (ticket, outcome) in told {
        // Whoever went away does not want to know.
        drop(ticket.send(outcome));
    }
}
