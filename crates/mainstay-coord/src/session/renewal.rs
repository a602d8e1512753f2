//! The task that renews a session: does what [`Belief`](mainstay_core::belief::Belief) says.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::belief::{Loss, Step};
use mainstay_store::{Answer, Batch, Error, Op, Revision};
use tokio_util::sync::CancellationToken;

use super::live::{Hold, HoldState, Shared};
use crate::lock;
use crate::{keys, presence};

/// Renews until the session is lost, or `wanted` or `shutdown` says stop; then ends it.
pub(super) async fn run(shared: &Shared, wanted: &CancellationToken, shutdown: &CancellationToken) {
    let key = keys::session(shared.id);
    let mut gone = std::pin::pin!(presence::gone(&shared.ground, &key, shared.created));
    let mut stopped = std::pin::pin!(async {
        tokio::select! { biased; () = wanted.cancelled() => {}, () = shutdown.cancelled() => {} }
    });
    loop {
        let now = shared.ground.now();
        let step = shared.belief.lock().poll(now);
        shared.report(Some("no answer in time"));
        let until = match step {
            Step::End(_told) => return,
            Step::Wait(until) => until,
            Step::Renew => {
                let timeout = now.plus(shared.belief.lock().terms().try_timeout());
                tokio::select! {
                    biased;
                    () = &mut stopped => return end(shared).await,
                    () = &mut gone => lose(shared, Loss::SessionGone),
                    answer = renew(shared) => take(shared, now, answer),
                    // The belief counts it as failed when it is asked next.
                    () = shared.ground.timer().sleep_until(timeout) => {}
                }
                continue;
            }
        };
        tokio::select! {
            biased;
            () = &mut stopped => return end(shared).await,
            () = &mut gone => lose(shared, Loss::SessionGone),
            () = shared.ground.timer().sleep_until(until) => {}
        }
    }
}

/// Takes the answer to the try that was sent at `sent`.
fn take(shared: &Shared, sent: mainstay_core::Instant, answer: Result<Duration, Error>) {
    let now = shared.ground.now();
    match answer {
        Ok(ttl) => {
            shared.belief.lock().renewed(sent, now, ttl);
            shared.report(None);
        }
        Err(Error::LeaseNotFound { .. }) => lose(shared, Loss::SessionGone),
        Err(Error::Regressed { .. }) => lose(shared, Loss::StoreRegressed),
        Err(error) => {
            shared.belief.lock().failed(now);
            shared.report(Some(&error.to_string()));
        }
    }
}

fn lose(shared: &Shared, loss: Loss) {
    shared.belief.lock().lost(loss);
    shared.report(None);
}

async fn end(shared: &Shared) {
    shared.close();
    // If it cannot be ended now it ends by itself, since nobody renews it.
    drop(shared.ground.sessions().end_trusted(shared.id).await);
}

/// One round: the lease is kept alive, and everything that hangs on it is still there afterwards.
///
/// The second half is not idle: etcd before 3.4.38 can renew a lease that was revoked, and a
/// watch that hangs tells nothing of a lock that was taken away.
async fn renew(shared: &Shared) -> Result<Duration, Error> {
    let store = shared.ground.store();
    let ttl = store.keep_alive(shared.id).await?;
    // What is lost already needs no look, for as long as its holder takes to let go of it.
    let mut holds = shared.holds();
    holds.retain(|hold| hold.state() == HoldState::Held);
    let mut chunks = holds.chunks(CHECKED_AT_ONCE);
    // The session itself is checked even when nothing is held.
    let first = chunks.next().unwrap_or_default();
    for chunk in std::iter::once(first).chain(chunks) {
        let all = chunk.iter().map(|hold| hold.guard());
        let batch = all.fold(Batch::new().when(shared.guard()), Batch::when);
        let keys = chunk.iter().map(|hold| &hold.key);
        let session = keys::session(shared.id);
        let batch = std::iter::once(&session)
            .chain(keys)
            .fold(batch, |batch, key| batch.otherwise(Op::get(key)));
        let applied = store.apply(batch).await?;
        if !applied.succeeded {
            find_lost(shared, chunk, applied.answers).await?;
        }
    }
    Ok(ttl)
}

/// Finds which of `holds` is gone by the `answers` that show the session's key and theirs, and tells
/// its holder; fails when the session itself is.
async fn find_lost(
    shared: &Shared,
    holds: &[Arc<Hold>],
    answers: Vec<Answer>,
) -> Result<(), Error> {
    let mut answers = answers.into_iter();
    if !lives_since(answers.next(), shared.created) {
        return Err(Error::LeaseNotFound { lease: shared.id });
    }
    for (hold, answer) in holds.iter().zip(answers) {
        if !lives_since(answer, hold.created) {
            lock::lost_entry(&shared.ground, hold).await;
        }
    }
    Ok(())
}

/// Whether `answer` shows a key whose life began at `created`.
fn lives_since(answer: impl Into<Option<Answer>>, created: Revision) -> bool {
    let Some(Answer::Range(page)) = answer.into() else { return false };
    page.entries.iter().any(|entry| entry.create_revision == created)
}

/// Holds checked by one batch: as many compares and reads as one may have, less the session's.
const CHECKED_AT_ONCE: usize = mainstay_store::limits::COMPARES_MAX - 1;
