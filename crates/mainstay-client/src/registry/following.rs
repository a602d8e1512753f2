//! One stream, and the services that are followed by it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use http::Method;
use mainstay_api::registry::{self as wire, STORE_HEADER, ServiceAt, ServiceView};
use mainstay_api::stream::{BOOKMARK, CHANGE, SNAPSHOT};
use mainstay_call::resolve::{Instance, Snapshot, Watch};
use mainstay_core::name::ServiceName;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::cache::{Cache, Saved};
use super::discovery::nobody;
use super::last_good::LastGood;
use crate::client::Shared;
use crate::control::Call;
use crate::sse::Event;
use crate::stream::{self, Ended, HEAD_TIMEOUT, Stream};
use crate::{clock, events};

/// A service by its names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) namespace: String,
    pub(super) service: ServiceName,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service)
    }
}

/// Services of one stream; the server allows no more.
const SERVICES_MAX: usize = 1_000;

/// Bytes of their names in the request line, which servers limit: 300 of a hundred bytes.
const NAMES_BYTES_MAX: usize = 32 << 10;

/// Bytes of a service in the request line beside its names: two separators and a revision.
const MARK_BYTES: usize = 23;

/// The services of one stream.
#[derive(Debug, Default)]
pub(super) struct Following {
    services: Mutex<BTreeMap<Key, Followed>>,
    /// There are others now: the stream has to be opened anew.
    changed: Notify,
    is_away: AtomicBool,
    is_unkept: AtomicBool,
}

/// One service.
#[derive(Debug)]
struct Followed {
    last: LastGood,
    /// Which history the last list is of.
    store: Option<String>,
    /// No server has confirmed the list since it came.
    is_old: bool,
    is_saved: bool,
    tell: watch::Sender<Arc<Snapshot>>,
}

impl Following {
    /// How many services it has.
    pub(super) fn len(&self) -> usize {
        self.services.lock().len()
    }

    /// Whether one more fits.
    pub(super) fn has_room(&self, key: &Key) -> bool {
        let services = self.services.lock();
        let bytes = |key: &Key| key.namespace.len() + key.service.as_str().len() + MARK_BYTES;
        let all: usize = services.keys().map(bytes).sum();
        services.len() < SERVICES_MAX && all + bytes(key) <= NAMES_BYTES_MAX
    }

    /// A watch of a service it has.
    pub(super) fn subscribe(&self, key: &Key) -> Option<Watch> {
        Some(self.services.lock().get(key)?.tell.subscribe())
    }

    /// A watch of each service it has.
    pub(super) fn watches(&self) -> Vec<Watch> {
        self.services.lock().values().map(|followed| followed.tell.subscribe()).collect()
    }

    /// Adds a service, with what was kept of it.
    pub(super) fn add(&self, key: Key, saved: Option<Saved>, grace: Duration) -> Watch {
        let (store, view) = match saved {
            Some(Saved { store, view }) => (store, Some(Arc::new(view))),
            None => (None, None),
        };
        let known = view.as_deref().map(|view| snapshot(view, true));
        let known = known.unwrap_or_else(|| nobody("no server of the registry has answered yet"));
        let (tell, watch) = watch::channel(Arc::new(known));
        let last = LastGood::new(grace, view);
        let followed = Followed { last, store, is_old: true, is_saved: true, tell };
        self.services.lock().insert(key, followed);
        self.changed.notify_one();
        watch
    }

    /// Follows its services until told to stop.
    pub(super) async fn run(&self, client: &Shared, stop: &CancellationToken) {
        stream::follow(stop, || self.follow(client), |why| self.is_away(why)).await;
    }

    /// Opens a stream and reads it to its end.
    async fn follow(&self, client: &Shared) -> Ended {
        // Those that are asked for one after the other, as a gateway that starts does, come with
        // one stream.
        tokio::time::sleep(GATHER).await;
        // Whoever came meanwhile is asked for now.
        let (Some(()) | None) = self.changed.notified().now_or_never();
        let Some(path) = self.ask() else {
            self.changed.notified().await;
            return Ended::Changed;
        };
        let call = Call::new(Method::GET, path, HEAD_TIMEOUT);
        let mut stream = tokio::select! {
            opened = Stream::open(&client.control, &call) => match opened {
                Ok(stream) => stream,
                Err(error) => return Ended::Refused(error.to_string()),
            },
            () = self.changed.notified() => return Ended::Changed,
        };
        let store = stream.header(STORE_HEADER);
        let mut has_told = false;
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = self.changed.notified() => return Ended::Changed,
            };
            match event {
                Some(event) => has_told |= self.take(&event, store.as_deref()),
                None => return Ended::of(has_told),
            }
        }
    }

    /// What to ask for: every service somebody watches, from where it is known.
    fn ask(&self) -> Option<String> {
        let mut services = self.services.lock();
        services.retain(|_key, followed| 0 < followed.tell.receiver_count());
        // One stream is of one history; lists of another come whole.
        let store = services.values().find_map(|followed| followed.store.clone());
        let mark = |(key, followed): (&Key, &Followed)| {
            let known = followed.last.view().filter(|view| {
                followed.store == store && view.protected.is_none() && !followed.last.is_in_doubt()
            });
            match known.filter(|_| store.is_some()) {
                Some(view) => format!("{key}@{}", view.revision),
                None => key.to_string(),
            }
        };
        let asked: Vec<String> = services.iter().map(mark).collect();
        if asked.is_empty() {
            return None;
        }
        let store = store.map(|store| format!("&store={store}")).unwrap_or_default();
        Some(format!("/registry/watch?services={}{store}", asked.join(",")))
    }

    /// Takes an event; returns whether it told of a service.
    fn take(&self, event: &Event, store: Option<&str>) -> bool {
        match event.name.as_str() {
            SNAPSHOT | CHANGE => {
                let Ok(view) = serde_json::from_str::<ServiceView>(&event.data) else {
                    return false;
                };
                self.told(&view.namespace.clone(), &view.service.clone(), |followed| {
                    followed.offer(view, store)
                })
            }
            BOOKMARK => {
                let Ok(at) = serde_json::from_str::<ServiceAt>(&event.data) else {
                    return false;
                };
                self.told(&at.namespace, &at.service, |_followed| false)
            }
            _ => false,
        }
    }

    /// A server has spoken of a service; `what` says whether there is something to tell.
    fn told(
        &self,
        namespace: &str,
        service: &str,
        what: impl FnOnce(&mut Followed) -> bool,
    ) -> bool {
        let Ok(service) = ServiceName::new(service) else { return false };
        let key = Key { namespace: namespace.to_owned(), service };
        let mut services = self.services.lock();
        let Some(followed) = services.get_mut(&key) else { return false };
        let was_old = std::mem::replace(&mut followed.is_old, false);
        if what(followed) || was_old {
            followed.publish();
        }
        if self.is_away.swap(false, Ordering::Relaxed) {
            events::RegistryBack.emit();
        }
        true
    }

    /// Nobody can be asked.
    fn is_away(&self, why: &str) {
        if !self.is_away.swap(true, Ordering::Relaxed) {
            events::RegistryAway { why }.emit();
        }
        for followed in self.services.lock().values_mut() {
            if !std::mem::replace(&mut followed.is_old, true) {
                followed.publish();
            }
        }
    }

    /// Once a second: believes what was doubted for long enough, and keeps what has changed. Once
    /// more at the end.
    pub(super) async fn keep(&self, cache: Option<Cache>, stop: &CancellationToken) {
        loop {
            let is_over = stop.run_until_cancelled(tokio::time::sleep(KEEP_EVERY)).await.is_none();
            let unsaved = self.settle();
            if let Some(cache) = cache.clone().filter(|_| !unsaved.is_empty()) {
                let save = move || unsaved.iter().try_for_each(|saved| cache.save(saved));
                let saved = tokio::task::spawn_blocking(save).await;
                let failed = saved.map_err(std::io::Error::other).and_then(|saved| saved).err();
                // The next change tries again.
                if self.is_unkept.swap(failed.is_some(), Ordering::Relaxed) != failed.is_some()
                    && let Some(error) = failed
                {
                    events::CacheUnusable { what: "services", why: &error.to_string() }.emit();
                }
            }
            if is_over {
                return;
            }
        }
    }

    /// Believes what is due; returns what is not kept yet.
    fn settle(&self) -> Vec<Saved> {
        let now = clock::now();
        let mut unsaved = Vec::new();
        for followed in self.services.lock().values_mut() {
            if followed.last.settle(now) {
                followed.is_saved = false;
                followed.publish();
            }
            if !std::mem::replace(&mut followed.is_saved, true)
                && let Some(view) = followed.last.view()
            {
                let (store, view) = (followed.store.clone(), ServiceView::clone(view));
                unsaved.push(Saved { store, view });
            }
        }
        unsaved
    }
}

impl Followed {
    /// Takes a list of the history `store`; whether it is believed.
    fn offer(&mut self, mut view: ServiceView, store: Option<&str>) -> bool {
        // Revisions of another history say nothing about which is newer.
        view.resync |= self.store.is_some() && self.store.as_deref() != store;
        let is_taken = self.last.offer(clock::now(), Arc::new(view));
        if is_taken {
            self.store = store.map(str::to_owned);
            self.is_saved = false;
        }
        is_taken
    }

    /// Tells whoever watches, if there is something new.
    fn publish(&self) {
        let Some(view) = self.last.view() else { return };
        let mut next = snapshot(view, self.is_old);
        self.tell.send_if_modified(|known| {
            let revision = std::mem::replace(&mut next.revision, known.revision);
            if **known == next {
                return false;
            }
            // Whoever watches compares revisions, and a list of another history begins anew.
            next.revision = revision.max(known.revision + 1);
            *known = Arc::new(std::mem::take(&mut next));
            true
        });
    }
}

/// A list as balancers want it.
fn snapshot(view: &ServiceView, is_old: bool) -> Snapshot {
    Snapshot {
        revision: view.revision,
        instances: view.instances.iter().map(instance).collect(),
        protected: view.protected.is_some(),
        stale: view.stale || is_old,
        empty_because: view.instances.is_empty().then_some(why_empty(view)),
    }
}

fn why_empty(view: &ServiceView) -> &'static str {
    match view.empty_because.as_deref() {
        Some("deregistered") => "deregistered",
        Some("expired") => "expired",
        Some("never registered") => "never registered",
        _ => "the registry does not say why",
    }
}

pub(super) fn instance(listed: &wire::Instance) -> Instance {
    let address = if listed.address.contains(':') {
        format!("[{}]:{}", listed.address, listed.port)
    } else {
        format!("{}:{}", listed.address, listed.port)
    };
    let priority = listed.metadata.get("priority").and_then(|level| level.parse().ok());
    Instance {
        name: Arc::from(&*listed.id),
        address: Arc::from(address),
        weight: u32::from(listed.effective_weight()),
        zone: Arc::from(&*listed.zone),
        priority: priority.unwrap_or(0),
        usable: listed.is_usable(),
    }
}

/// How long services that come after each other are gathered.
const GATHER: Duration = Duration::from_millis(20);

/// From one look at what has changed to the next.
const KEEP_EVERY: Duration = Duration::from_secs(1);
