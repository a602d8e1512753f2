//! What was refused, on its way into the outbox.
//!
//! Nobody waits for the record of a refusal, so that refusing stays cheap however many come; they
//! are gathered and put a few at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use mainstay_store::Batch;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

use super::fold::Fold;
use super::record::Record;
use super::{Outbox, Shared};
use crate::events::audit::RefusalsLost;
use crate::patience::Patience;

/// Records on their way at once, 1 KiB each; what comes beyond is counted as lost.
pub(super) const WAITING_MAX: usize = 1_024;

/// How long the first of some waits for the others; with the commit less than a second.
const GATHER: Duration = Duration::from_millis(500);

/// Records of one batch: the longest are 64 KiB, and a batch is at most 1,400,000 bytes.
const BATCH_MAX: usize = 20;

/// Puts what comes until told to stop, and then what has come.
pub(super) async fn run(shared: Arc<Shared>, mut came: Receiver<Record>, stop: CancellationToken) {
    let outbox = Outbox { shared };
    let timer = Arc::clone(&outbox.shared.timer);
    let mut fold = Fold::default();
    loop {
        let due = fold.due();
        let over = async {
            match due {
                Some(due) => timer.sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let first = tokio::select! {
            () = stop.cancelled() => break,
            () = over => None,
            record = came.recv() => record,
        };
        if first.is_some() {
            let until = timer.now().plus(GATHER);
            tokio::select! {
                () = stop.cancelled() => (),
                () = timer.sleep_until(until) => (),
            }
        }
        let now = timer.now();
        let mut own = VecDeque::from(fold.over(now));
        own.extend(first.and_then(|record| fold.take(now, record)));
        while let Ok(record) = came.try_recv() {
            own.extend(fold.take(now, record));
        }
        put_all(&outbox, own).await;
    }
    let now = timer.now();
    let mut left = VecDeque::new();
    while let Ok(record) = came.try_recv() {
        left.extend(fold.take(now, record));
    }
    left.extend(fold.all());
    put_all(&outbox, left).await;
}

async fn put_all(outbox: &Outbox, mut records: VecDeque<Record>) {
    while !records.is_empty() {
        let some: Vec<Record> = records.drain(..records.len().min(BATCH_MAX)).collect();
        if let Err(error) = put(outbox, &some).await {
            outbox.shared.figures.lost(some.len() as u64);
            RefusalsLost { records: some.len(), error: &error }.emit();
        }
    }
}

async fn put(outbox: &Outbox, records: &[Record]) -> Result<(), mainstay_store::Error> {
    let Shared { store, timer, .. } = &*outbox.shared;
    let mut patience = Patience::new(timer.now(), Patience::FOR_CALLERS);
    let mut puts = None;
    loop {
        let done = async {
            if puts.is_none() {
                let at = store.status().await?.revision;
                puts =
                    Some(records.iter().map(|record| outbox.put(at, record)).collect::<Vec<_>>());
            }
            let puts = puts.iter().flatten().cloned();
            store.apply(puts.fold(Batch::new(), Batch::then)).await
        };
        match done.await {
            Ok(_) => return Ok(()),
            // Sent again after an unknown outcome, they are the same records.
            Err(error) => patience.bear(&**timer, error).await?,
        }
    }
}
