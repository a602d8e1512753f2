//! Tells whoever watches a service of its changes.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Shared;

/// Publishes until told to stop.
///
/// Changes are gathered for a moment first: a service that starts a hundred instances is pushed a
/// few times, not a hundred. The first change starts that moment, so none waits longer.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let at = shared.local.lock().publish_at();
        let due = async {
            match at {
                Some(at) => shared.timer.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.news.notified() => {}
            () = due => {}
        }
        if shared.local.lock().has_news() {
            let until = shared.now().plus(shared.options.push_merge);
            tokio::select! {
                () = stop.cancelled() => return,
                () = shared.timer.sleep_until(until) => {}
            }
        }
        let began = shared.now();
        let unix_ms = shared.timer.unix_millis();
        let pushed = shared.local.lock().publish(began, unix_ms, &shared.figures);
        if pushed > 0 {
            shared.figures.pushed(shared.now().since(began));
        }
    }
}
