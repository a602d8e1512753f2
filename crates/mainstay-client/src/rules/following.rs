//! The stream of rules and switches, and the last state of it on disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use mainstay_api::rules::{Object, Update};
use mainstay_api::stream::{BOOKMARK, CHANGE, SNAPSHOT};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::known::{Draft, Known};
use crate::client::Shared;
use crate::control::Call;
use crate::sse::Event;
use crate::stream::{self, Ended, Stream};
use crate::{events, sheet};

/// Largest file that is read: as many rules as are followed, of 2.5 KiB each.
const BYTES_MAX: u64 = 256 << 20;

/// What is followed.
#[derive(Debug)]
pub(super) struct Following {
    /// Below `/api/v1`.
    path: String,
    file: Option<PathBuf>,
    known: watch::Sender<Arc<Known>>,
    is_away: AtomicBool,
}

/// A state as it is kept.
#[derive(Serialize, Deserialize)]
struct Saved {
    revision: u64,
    objects: Vec<Object>,
}

impl Following {
    /// Begins with what was kept.
    pub(super) fn new(kinds: &[String], namespace: Option<&str>, cache: Option<&Path>) -> Self {
        let mut query = Vec::new();
        if !kinds.is_empty() {
            query.push(format!("kinds={}", kinds.join(",")));
        }
        query.extend(namespace.map(|namespace| format!("namespace={namespace}")));
        let path = format!("/rules/watch?{}", query.join("&"));
        let file = cache.map(|folder| file(folder, kinds, namespace));
        let known = file.as_deref().and_then(saved).unwrap_or_default();
        let known = watch::Sender::new(Arc::new(known));
        Self { path, file, known, is_away: AtomicBool::new(false) }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<Known>> {
        self.known.subscribe()
    }

    /// Follows until told to stop.
    pub(super) async fn run(&self, client: &Shared, stop: &CancellationToken) {
        let away = |why: &str| {
            if !self.is_away.swap(true, Ordering::Relaxed) {
                events::RulesAway { why }.emit();
            }
            self.confirmed(false);
        };
        stream::follow(stop, || self.follow(client), away).await;
    }

    /// Opens a stream and reads it to its end.
    async fn follow(&self, client: &Shared) -> Ended {
        let last = Some(self.known.borrow().revision()).filter(|revision| 0 < *revision);
        let call = Call::new(Method::GET, self.path.clone(), OPEN_TIMEOUT).last_event_id(last);
        let mut stream = match Stream::open(&client.control, &call).await {
            Ok(stream) => stream,
            Err(error) => return Ended::Refused(error.to_string()),
        };
        let (mut draft, mut has_told) = (Draft::default(), false);
        loop {
            let Some(event) = stream.next().await else { return Ended::of(has_told) };
            if let Err(why) = self.take(&mut draft, &event) {
                return Ended::Refused(why);
            }
            has_told = true;
            if self.is_away.swap(false, Ordering::Relaxed) {
                events::RulesBack.emit();
            }
        }
    }

    fn take(&self, draft: &mut Draft, event: &Event) -> Result<(), String> {
        let is_snapshot = event.name == SNAPSHOT;
        if event.name == BOOKMARK {
            if let Some(revision) = event.id {
                // Nothing that a reader has to hear of.
                self.known.send_if_modified(|known| {
                    Arc::make_mut(known).bookmark(revision);
                    false
                });
            }
            self.confirmed(true);
        } else if is_snapshot || event.name == CHANGE {
            let update: Update = serde_json::from_str(&event.data).map_err(|e| e.to_string())?;
            let known = Arc::clone(&self.known.borrow());
            let next = draft.take(&known, is_snapshot, update);
            if let Some(next) = next.map_err(|error| error.to_string())? {
                self.known.send_replace(Arc::new(next));
            }
        }
        Ok(())
    }

    fn confirmed(&self, is_it: bool) {
        self.known.send_if_modified(|known| {
            let is_news = known.is_old() == is_it;
            if is_news {
                Arc::make_mut(known).confirmed(is_it);
            }
            is_news
        });
    }

    /// Keeps each state on disk, at most once a second; the last one before it stops.
    pub(super) async fn keep(&self, stop: &CancellationToken) {
        let Some(file) = &self.file else { return };
        let mut states = self.known.subscribe();
        let kept = states.borrow().revision();
        let mut disk = Disk { file, kept, is_unusable: false };
        // One may have come before this began.
        states.mark_changed();
        while stop.run_until_cancelled(states.changed()).await.is_some_and(|told| told.is_ok()) {
            disk.save(&mut states).await;
            let (Some(()) | None) = stop.run_until_cancelled(tokio::time::sleep(SAVE_EVERY)).await;
        }
        if states.has_changed().unwrap_or(false) {
            disk.save(&mut states).await;
        }
    }
}

/// Where states are kept.
struct Disk<'f> {
    file: &'f Path,
    /// The revision of the last one that was written.
    kept: u64,
    /// Somebody was told that it cannot be written.
    is_unusable: bool,
}

impl Disk<'_> {
    async fn save(&mut self, states: &mut watch::Receiver<Arc<Known>>) {
        let known = Arc::clone(&states.borrow_and_update());
        let revision = known.revision();
        // One that is old may have come and grown old since the last look.
        if !known.is_loaded() || (known.is_old() && revision == self.kept) {
            return;
        }
        let file = self.file.to_owned();
        let save = move || {
            let objects = known.iter().map(|object| Object::clone(object)).collect();
            sheet::save(&file, &Saved { revision, objects })
        };
        let written = tokio::task::spawn_blocking(save).await.map_err(std::io::Error::other);
        match written.and_then(|written| written) {
            Ok(()) => (self.kept, self.is_unusable) = (revision, false),
            Err(error) if !std::mem::replace(&mut self.is_unusable, true) => {
                events::CacheUnusable { what: "rules", why: &error.to_string() }.emit();
            }
            Err(_as_before) => {}
        }
    }
}

/// Where a state is kept.
fn file(folder: &Path, kinds: &[String], namespace: Option<&str>) -> PathBuf {
    let kinds = if kinds.is_empty() { "all".to_owned() } else { kinds.join("+") };
    // No namespace is called `_`, and none holds a separator.
    folder.join("rules").join(namespace.unwrap_or("_")).join(format!("{kinds}.json"))
}

/// What was kept.
fn saved(file: &Path) -> Option<Known> {
    match sheet::load::<Saved>(file, BYTES_MAX) {
        Ok(saved) => saved.map(|Saved { revision, objects }| Known::kept(revision, objects)),
        Err(error) => {
            events::CacheUnusable { what: "rules", why: &error.to_string() }.emit();
            None
        }
    }
}

/// For the head of the stream: longer than the five seconds in which a server waits for a revision
/// that it has not heard of yet.
const OPEN_TIMEOUT: Duration = Duration::from_secs(8);

/// From one write to the next.
const SAVE_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_state_is_kept_also_if_the_server_is_gone_a_moment_after_it_came() {
        let folder = tempfile::tempdir().unwrap();
        let follow = || Following::new(&[], None, Some(folder.path()));
        let kept = || follow().watch().borrow().revision();
        let (following, stop) = (follow(), CancellationToken::new());
        let tell = |revision| {
            let update = Update { revision, ..Update::default() };
            let next = Draft::default().take(&Known::default(), true, update).unwrap().unwrap();
            following.known.send_replace(Arc::new(next));
        };
        let told = async {
            tell(3);
            while kept() != 3 {
                tokio::task::yield_now().await;
            }
            // It comes and grows old within the second in which nothing is written.
            tell(5);
            following.confirmed(false);
            stop.cancel();
        };
        tokio::join!(following.keep(&stop), told);
        assert_eq!(kept(), 5);
    }
}
