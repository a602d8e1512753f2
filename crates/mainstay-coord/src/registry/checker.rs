//! Sends the checks that are due.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::owner::TICK;
use super::{RegistryError, Shared};
use crate::events::registry::DutyFailed;
use crate::health::rounds::Probe;
use crate::health::send::send;

/// Sends checks until told to stop, so many at once and no more; what is due beyond that waits.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut running = FuturesUnordered::new();
    loop {
        let now = shared.now();
        while running.len() < shared.options.check_concurrency_max.max(1) {
            let Some(probe) = shared.local.lock().rounds.take(now) else { break };
            running.push(check(&shared, probe));
        }
        let next = shared.local.lock().rounds.next();
        // What is looked after may change meanwhile, so it looks again soon in any case.
        let until = now.plus(TICK).min(next.unwrap_or_else(|| now.plus(TICK)).max(now));
        let is_full = shared.options.check_concurrency_max.max(1) <= running.len();
        tokio::select! {
            () = stop.cancelled() => return,
            Some(()) = running.next(), if !running.is_empty() => {}
            () = shared.timer.sleep_until(until), if !is_full => {}
        }
    }
}

async fn check(shared: &Shared, probe: Probe) {
    let began = shared.now();
    let outcome = send(&probe, &shared.options.check_targets).await;
    let now = shared.now();
    shared.figures.checked(probe.check.kind.as_str(), outcome.health, now.since(began));
    let news = shared.local.lock().rounds.finished(now, &probe, outcome);
    let Some(news) = news else { return };
    let at = &news.of.instance;
    // If the write fails, the next result offers it again.
    match shared.set_check(at, (&news.of.check, news.health, &news.output), false).await {
        Ok(()) | Err(RegistryError::InstanceNotFound { .. } | RegistryError::Loading) => {}
        Err(error) => DutyFailed { instance: at, error: &error }.emit(),
    }
}
