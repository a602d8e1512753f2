//! Instances of services, as the registry knows them.
//!
//! One stream serves up to a thousand services. Who asks is given the list of an earlier run at
//! once, if one was kept, and each later state as it comes; while no server answers, the last one
//! goes on to serve and says that it is old.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mainstay_call::resolve::{Resolve, Snapshot, Watch};
use mainstay_core::name::ServiceName;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::cache::{Cache, Saved};
use super::following::{Following, Key};
use crate::client::{Client, Shared};
use crate::{client, events};

/// How long an unexplained empty list is not believed, unless told otherwise.
pub const EMPTY_GRACE: Duration = Duration::from_secs(30);

/// Services followed at once. A service costs its list and a few hundred bytes; programs ask for a
/// few hundred, and those beyond are told that nobody looks for them.
const SERVICES_MAX: usize = 10_000;

/// Follows services of the registry. Clones follow the same ones. Follows until its client shuts
/// down.
#[derive(Clone)]
pub struct Discovery {
    shared: Arc<Sight>,
}

struct Sight {
    client: Arc<Shared>,
    runtime: Handle,
    cache: Option<Cache>,
    empty_grace: Duration,
    streams: Mutex<Vec<Arc<Following>>>,
}

/// How services are followed.
#[derive(Debug)]
#[must_use = "nothing is followed before `start`"]
pub struct Builder {
    client: Client,
    cache: Option<PathBuf>,
    empty_grace: Duration,
}

impl Client {
    /// Follows services of the registry, in whatever namespace they are.
    pub fn discovery(&self) -> Builder {
        Builder { client: self.clone(), cache: None, empty_grace: EMPTY_GRACE }
    }
}

impl Builder {
    /// Keeps the last list of each service below this folder, and begins with those that are
    /// there. None are kept unless told.
    pub fn cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = Some(folder.into());
        self
    }

    /// How long a list is not believed that is suddenly empty without saying why, or older than
    /// what is known; 30 s unless told.
    pub const fn empty_grace(mut self, grace: Duration) -> Self {
        self.empty_grace = grace;
        self
    }

    /// Begins. Must be called within a tokio runtime, which does the following; who asks need not
    /// be in one.
    pub fn start(self) -> Discovery {
        let shared = Sight {
            client: self.client.shared,
            runtime: Handle::current(),
            cache: self.cache.map(Cache::new),
            empty_grace: self.empty_grace,
            streams: Mutex::default(),
        };
        Discovery { shared: Arc::new(shared) }
    }
}

impl Discovery {
    /// Waits until there is a list of every service that was asked for so far: from a server, or
    /// kept from an earlier run.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn answered(&self) {
        let streams = self.shared.streams.lock().clone();
        for mut watch in streams.iter().flat_map(|stream| stream.watches()) {
            // Ends too when nobody wants to know of the service any more.
            drop(watch.wait_for(|known| 0 < known.revision).await);
        }
    }
}

impl Resolve for Discovery {
    /// Reads a small file the first time a service is asked for, if lists are kept.
    fn watch(&self, namespace: &str, service: &ServiceName) -> Watch {
        let unknown = |why| watch::Sender::new(Arc::new(nobody(why))).subscribe();
        if !client::is_namespace(namespace) {
            return unknown("the namespace is no name");
        }
        let key = Key { namespace: namespace.to_owned(), service: service.clone() };
        let sight = &*self.shared;
        let mut streams = sight.streams.lock();
        if let Some(watch) = streams.iter().find_map(|stream| stream.subscribe(&key)) {
            return watch;
        }
        let followed: usize = streams.iter().map(|stream| stream.len()).sum();
        if SERVICES_MAX <= followed {
            return unknown("this client follows as many services as it can");
        }
        let saved = sight.saved(&key);
        let stream = match streams.iter().find(|stream| stream.has_room(&key)) {
            Some(stream) => Arc::clone(stream),
            None => {
                let stream = sight.open();
                streams.push(Arc::clone(&stream));
                stream
            }
        };
        stream.add(key, saved, sight.empty_grace)
    }
}

impl Sight {
    /// What was kept of a service.
    fn saved(&self, key: &Key) -> Option<Saved> {
        let loaded = self.cache.as_ref()?.load(&key.namespace, &key.service);
        loaded.unwrap_or_else(|error| {
            let service = &key.to_string();
            events::CacheUnusable { what: service, why: &error.to_string() }.emit();
            None
        })
    }

    /// A stream without services.
    fn open(&self) -> Arc<Following> {
        let following = Arc::new(Following::default());
        let (of, client) = (Arc::clone(&following), Arc::clone(&self.client));
        let follow = |stop| async move { of.run(&client, &stop).await };
        self.client.tasks.spawn_on(&self.runtime, "services", follow);
        let (of, cache) = (Arc::clone(&following), self.cache.clone());
        let keep = |stop| async move { of.keep(cache, &stop).await };
        self.client.tasks.spawn_on(&self.runtime, "services on disk", keep);
        following
    }
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services: usize = self.shared.streams.lock().iter().map(|stream| stream.len()).sum();
        f.debug_struct("Discovery").field("services", &services).finish_non_exhaustive()
    }
}

/// No instance, and why.
pub(super) fn nobody(why: &'static str) -> Snapshot {
    Snapshot { empty_because: Some(why), ..Snapshot::default() }
}
