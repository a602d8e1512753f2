//! Rules of the data plane, and switches, as the control plane keeps them.
//!
//! One stream brings the whole and then what changes, usually within a few milliseconds. The last
//! state is kept on disk and is there at once when the program starts, whether a server answers or
//! not. Programs that only read switches want [`switches`](crate::switches); this is for those that
//! serve by rules, as a gateway does.

mod following;
mod known;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::client::{self, Client};
use crate::error::ClientError;
use following::Following;

pub use known::Known;

/// Rules that are followed, until their client shuts down. Clones follow the same ones.
#[derive(Clone, Debug)]
pub struct Rules {
    following: Arc<Following>,
}

/// How rules are followed.
#[derive(Debug)]
#[must_use = "nothing is followed before `start`"]
pub struct Builder {
    client: Client,
    kinds: Vec<String>,
    namespace: Option<String>,
    cache: Option<PathBuf>,
}

impl Client {
    /// Follows rules and switches: all of them in all namespaces, unless told otherwise.
    pub fn rules(&self) -> Builder {
        Builder { client: self.clone(), kinds: Vec::new(), namespace: None, cache: None }
    }
}

impl Builder {
    /// Those of this kind (`route`, `upstream`, `circuit`, `limit`, `fallback`, `switch`), and of
    /// others that are told.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kinds.push(kind.into());
        self
    }

    /// Only those of this namespace.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Keeps the last state below this folder, and begins with the one that is there. None is kept
    /// unless told.
    pub fn cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = Some(folder.into());
        self
    }

    /// Begins. Must be called within a tokio runtime; reads the state that was kept.
    ///
    /// # Errors
    ///
    /// [`ClientError::Invalid`], which says what is wrong; [`ClientError::Stopped`].
    pub fn start(self) -> Result<Rules, ClientError> {
        let Self { client, mut kinds, namespace, cache } = self;
        kinds.sort_unstable();
        kinds.dedup();
        let is_kind =
            |kind: &String| !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_lowercase());
        if !kinds.iter().all(is_kind) {
            let why = "must be words of a-z";
            return Err(ClientError::Invalid { what: "kinds", why });
        }
        if namespace.as_deref().is_some_and(|name| !client::is_namespace(name)) {
            let why = "must be 1 to 63 of a-z, 0-9 and `-`";
            return Err(ClientError::Invalid { what: "namespace", why });
        }
        let (shared, tasks) = (Arc::clone(&client.shared), &client.shared.tasks);
        if tasks.are_stopped() {
            return Err(ClientError::Stopped);
        }
        let following = Arc::new(Following::new(&kinds, namespace.as_deref(), cache.as_deref()));
        let of = Arc::clone(&following);
        tasks.spawn("rules", |stop| async move { of.run(&shared, &stop).await });
        let of = Arc::clone(&following);
        tasks.spawn("rules on disk", |stop| async move { of.keep(&stop).await });
        Ok(Rules { following })
    }
}

impl Rules {
    /// What is known now, and every later state; of those faster than the reader, the last.
    pub fn watch(&self) -> watch::Receiver<Arc<Known>> {
        self.following.watch()
    }

    /// Waits until something is known: from a server, or kept from an earlier run.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn answered(&self) {
        // The sender lives as long as `self`.
        drop(self.watch().wait_for(|known| known.is_loaded()).await);
    }
}
