//! The stream of a program's groups, and what is told back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use mainstay_api::config::{Fetched, Held, Item, Report, Update, Verdict, Watch};
use mainstay_api::stream::{CHANGE, SNAPSHOT};
use mainstay_core::Instant;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::Release;
use super::release::next;
use crate::client::Shared;
use crate::control::{Call, segment};
use crate::error::ClientError;
use crate::sse::Event;
use crate::stream::{self, Ended, Stream};
use crate::{clock, events, sheet};

/// Largest file that is read, and longest answer: 512 items of 512 KiB, and what JSON adds.
const BYTES_MAX: usize = 320 << 20;

/// How long a release is not taken that a server offers at an older revision than the one that is
/// known: until one that lags behind has caught up, or it is clear that history was lost.
const OLDER_GRACE: Duration = Duration::from_secs(30);

/// The groups of one program.
#[derive(Debug)]
pub(super) struct Following {
    namespace: String,
    id: String,
    labels: BTreeMap<String, String>,
    secrets: bool,
    cache: Option<PathBuf>,
    groups: BTreeMap<String, Mutex<Group>>,
    /// Something is to be told.
    verdicts: Notify,
    is_away: AtomicBool,
}

/// One group.
#[derive(Debug)]
struct Group {
    /// What is known, and the revision it was decided at.
    known: Option<(u64, Arc<Release>)>,
    /// Since when releases of older revisions are offered.
    older_since: Option<Instant>,
    /// What the program says of which release.
    verdict: Option<(u64, Verdict)>,
    is_told: bool,
    tell: watch::Sender<Option<Arc<Release>>>,
}

/// A release as it is kept.
#[derive(Serialize, Deserialize)]
struct Saved {
    revision: u64,
    fetched: Fetched,
}

impl Following {
    /// Begins with what was kept.
    pub(super) fn new(
        namespace: String,
        id: String,
        labels: BTreeMap<String, String>,
        secrets: bool,
        cache: Option<PathBuf>,
        groups: Vec<String>,
    ) -> Self {
        let group = |name: String| {
            let saved = cache.as_deref().and_then(|folder| saved(folder, &namespace, &name));
            let known = saved.map(|Saved { revision, fetched }| {
                (revision, Arc::new(Release { fetched, is_kept: true }))
            });
            let release = known.as_ref().map(|(_, release)| Arc::clone(release));
            let group = Group {
                known,
                older_since: None,
                verdict: None,
                is_told: true,
                tell: watch::Sender::new(release),
            };
            (name, Mutex::new(group))
        };
        let groups = groups.into_iter().map(group).collect();
        let (verdicts, is_away) = (Notify::new(), AtomicBool::new(false));
        Self { namespace, id, labels, secrets, cache, groups, verdicts, is_away }
    }

    pub(super) fn subscribe(&self, group: &str) -> Option<watch::Receiver<Option<Arc<Release>>>> {
        Some(self.groups.get(group)?.lock().tell.subscribe())
    }

    /// The program says what became of a release.
    pub(super) fn judged(&self, release: &Release, verdict: Verdict) {
        let Some(group) = self.groups.get(release.group()) else { return };
        let mut group = group.lock();
        group.verdict = Some((release.number(), verdict));
        group.is_told = false;
        drop(group);
        self.verdicts.notify_one();
    }

    /// Follows, and tells, until told to stop.
    pub(super) async fn run(&self, client: &Shared, stop: &CancellationToken) {
        let away = |why: &str| {
            if !self.is_away.swap(true, Ordering::Relaxed) {
                events::ConfigAway { why }.emit();
            }
        };
        stream::follow(stop, || self.follow(client), away).await;
    }

    /// Opens a stream and reads it to its end.
    async fn follow(&self, client: &Shared) -> Ended {
        let call = Call::new(Method::POST, "/config/watch".to_owned(), ANSWER_TIMEOUT);
        let mut stream = match Stream::open(&client.control, &call.document(&self.ask())).await {
            Ok(stream) => stream,
            Err(error) => return Ended::Refused(error.to_string()),
        };
        // Its server may be another one, and has not heard what was told before.
        self.groups.values().for_each(|group| group.lock().is_told = false);
        self.verdicts.notify_one();
        let mut has_told = false;
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = self.verdicts.notified() => {
                    if let Err(error) = self.tell(client).await {
                        return Ended::Refused(error.to_string());
                    }
                    continue;
                }
            };
            let Some(event) = event else { return Ended::of(has_told) };
            if let Err(why) = self.take(client, &event).await {
                return Ended::Refused(why);
            }
            has_told = true;
            if self.is_away.swap(false, Ordering::Relaxed) {
                events::ConfigBack.emit();
            }
        }
    }

    /// What to ask for: every group, and what is known of it.
    fn ask(&self) -> Watch {
        let held = |(name, group): (&String, &Mutex<Group>)| {
            let group = group.lock();
            let whole = |(_, release): &&(u64, Arc<Release>)| self.is_whole(&release.fetched);
            let known = group.known.as_ref().filter(whole);
            Held {
                namespace: self.namespace.clone(),
                group: name.clone(),
                release: known.map(|(_, release)| release.number()),
            }
        };
        Watch {
            client: self.id.clone(),
            labels: self.labels.clone(),
            groups: self.groups.iter().map(held).collect(),
            secrets: self.secrets,
        }
    }

    /// Whether nothing is missing that was asked for: secrets are not kept.
    fn is_whole(&self, fetched: &Fetched) -> bool {
        !self.secrets || fetched.items.values().all(|item| item.content.is_some())
    }

    /// Takes an event; fails when it says something that cannot be taken now.
    async fn take(&self, client: &Shared, event: &Event) -> Result<(), String> {
        if ![SNAPSHOT, CHANGE].contains(&event.name.as_str()) {
            return Ok(());
        }
        let Ok(update) = serde_json::from_str::<Update>(&event.data) else { return Ok(()) };
        let name = update.group.rsplit('/').next().unwrap_or_default();
        let Some(group) = self.groups.get(name) else { return Ok(()) };
        let known = {
            let mut group = group.lock();
            if !group.may_take(clock::now(), update.revision) {
                return Err(format!("it offers an older release of `{name}`"));
            }
            group.known.as_ref().map(|(_, release)| Arc::clone(release))
        };
        let known = known.as_deref().map(|release| &release.fetched);
        let fetched = match next(known.filter(|known| self.is_whole(known)), &update) {
            Some(fetched) => fetched,
            None => self.fetch(client, name).await.map_err(|error| error.to_string())?,
        };
        self.keep(name, update.revision, &fetched).await;
        let release = Arc::new(Release { fetched, is_kept: false });
        let mut group = group.lock();
        group.known = Some((update.revision, Arc::clone(&release)));
        group.tell.send_replace(Some(release));
        Ok(())
    }

    /// The release in force, whole.
    async fn fetch(&self, client: &Shared, group: &str) -> Result<Fetched, ClientError> {
        let Self { namespace, id, labels, secrets, .. } = self;
        let labels: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let label = if labels.is_empty() {
            String::new()
        } else {
            format!("&label={}", segment(&labels.join(",")))
        };
        let id = segment(id);
        let path = format!("/config/{namespace}/{group}?client={id}{label}&secrets={secrets}");
        let call = Call::new(Method::GET, path, FETCH_TIMEOUT).answer_bytes_max(BYTES_MAX);
        client.control.ask(&call).await
    }

    /// Keeps a release on disk, without what is secret.
    async fn keep(&self, group: &str, revision: u64, fetched: &Fetched) {
        let Some(folder) = &self.cache else { return };
        let path = path(folder, &self.namespace, group);
        let open = |(name, item): (&String, &Item)| {
            let content = item.content.clone().filter(|_| !item.secret);
            (name.clone(), Item { content, ..item.clone() })
        };
        let items = fetched.items.iter().map(open).collect();
        let saved = Saved { revision, fetched: Fetched { items, ..fetched.clone() } };
        let written = tokio::task::spawn_blocking(move || sheet::save(&path, &saved)).await;
        if let Err(error) = written.map_err(std::io::Error::other).and_then(|written| written) {
            events::CacheUnusable { what: group, why: &error.to_string() }.emit();
        }
    }

    /// Tells what is to be told. What a server refuses is not told again; the rest stays to be.
    async fn tell(&self, client: &Shared) -> Result<(), ClientError> {
        for (name, group) in &self.groups {
            let due = {
                let group = group.lock();
                group.verdict.clone().filter(|_| !group.is_told)
            };
            let Some((release, verdict)) = due else { continue };
            let report = Report {
                client: self.id.clone(),
                labels: self.labels.clone(),
                namespace: self.namespace.clone(),
                group: name.clone(),
                release,
                verdict: verdict.clone(),
            };
            let call = Call::new(Method::POST, "/config/reports".to_owned(), ANSWER_TIMEOUT);
            match client.control.ask::<()>(&call.document(&report)).await {
                Err(error) if error.is_passing() => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let mut group = group.lock();
            // Something else may be to be told meanwhile.
            group.is_told = group.verdict == Some((release, verdict));
        }
        Ok(())
    }
}

impl Group {
    /// Whether a release that was decided at `revision` may be taken at `now`.
    fn may_take(&mut self, now: Instant, revision: u64) -> bool {
        let is_older = self.known.as_ref().is_some_and(|(known, _)| revision < *known);
        if !is_older {
            self.older_since = None;
            return true;
        }
        let since = *self.older_since.get_or_insert(now);
        let is_due = OLDER_GRACE <= now.since(since);
        if is_due {
            self.older_since = None;
        }
        is_due
    }
}

/// Where a release is kept.
fn path(folder: &Path, namespace: &str, group: &str) -> PathBuf {
    // Neither part can hold a separator, or begin with a dot.
    folder.join("config").join(namespace).join(format!("{group}.json"))
}

/// The release that was kept of a group.
fn saved(folder: &Path, namespace: &str, group: &str) -> Option<Saved> {
    let loaded = sheet::load::<Saved>(&path(folder, namespace, group), BYTES_MAX as u64);
    let checked = loaded.and_then(|saved| match saved {
        Some(saved) if saved.fetched.group != format!("{namespace}/{group}") => {
            Err(sheet::damaged("it is of another group"))
        }
        saved => Ok(saved),
    });
    checked.unwrap_or_else(|error| {
        events::CacheUnusable { what: group, why: &error.to_string() }.emit();
        None
    })
}

/// For one answer, or the head of a stream.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// For a whole release: a quarter of a gigabyte at the very most.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_release_is_taken_once_it_is_clear_that_nothing_newer_comes() {
        let at = |seconds| Instant::ZERO.plus(Duration::from_secs(seconds));
        let fetched = Fetched {
            group: "shop/pay".to_owned(),
            release: 5,
            canary: false,
            items: BTreeMap::new(),
        };
        let mut group = Group {
            known: Some((50, Arc::new(Release { fetched, is_kept: true }))),
            older_since: None,
            verdict: None,
            is_told: true,
            tell: watch::Sender::new(None),
        };
        assert!(group.may_take(at(0), 50) && group.may_take(at(0), 51));
        assert!(!group.may_take(at(1), 49) && !group.may_take(at(20), 48));
        assert!(group.may_take(at(21), 52), "it has caught up");
        assert!(!group.may_take(at(22), 49) && !group.may_take(at(51), 49));
        assert!(group.may_take(at(52), 49), "history was lost");
    }
}
