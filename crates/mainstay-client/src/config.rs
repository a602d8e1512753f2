//! Configuration of this program, as the config centre publishes it.
//!
//! A group is followed by one stream with the others of the program. What changed is put together
//! with what is known, so a reader always sees a release as a whole. The last release is kept on
//! disk, and is there at once when the program starts, whether a server answers or not; contents of
//! secrets are not kept, and come when one does.
//!
//! ```
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! use mainstay_client::Client;
//! # let cache = tempfile::tempdir()?;
//!
//! let client = Client::builder(["http://127.0.0.1:7400"]).build()?;
//! // Who it is decides which of a gradual release it gets: the same name after a restart.
//! let config = client.config("pay-1").label("zone", "a").group("payment").cache(cache.path());
//! let config = config.start()?;
//! let payment = config.watch("payment").expect("it is followed");
//! assert!(payment.borrow().is_none(), "nobody has answered, and nothing was kept");
//! // Whoever uses a release, or cannot, says so: operators see who holds what.
//! if let Some(release) = &*payment.borrow() {
//!     config.applied(release);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod following;
mod release;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use mainstay_api::config::Verdict;
use tokio::sync::watch;

use crate::client::Client;
use crate::error::ClientError;
use following::Following;

pub use release::Release;

/// Groups of one client; the server allows no more.
const GROUPS_MAX: usize = 100;

/// Groups that are followed, until their client shuts down. Clones follow the same ones.
#[derive(Clone, Debug)]
pub struct Config {
    following: Arc<Following>,
}

/// How groups are followed.
#[derive(Debug)]
#[must_use = "nothing is followed before `start`"]
pub struct Builder {
    client: Client,
    id: String,
    labels: BTreeMap<String, String>,
    groups: Vec<String>,
    cache: Option<PathBuf>,
    secrets: bool,
}

impl Client {
    /// Follows groups of the config centre as `id`, 1 to 255 bytes that are the same after a
    /// restart.
    pub fn config(&self, id: impl Into<String>) -> Builder {
        Builder {
            client: self.clone(),
            id: id.into(),
            labels: BTreeMap::new(),
            groups: Vec::new(),
            cache: None,
            secrets: false,
        }
    }
}

impl Builder {
    /// What this program is like, for gradual releases; one of at most 64.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// A group to follow, in the client's namespace; one of at most 100.
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.groups.push(name.into());
        self
    }

    /// Keeps the last release of each group below this folder, and begins with those that are
    /// there. None are kept unless told.
    pub fn cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = Some(folder.into());
        self
    }

    /// Asks for the contents of secrets too, which needs the right to.
    pub const fn secrets(mut self) -> Self {
        self.secrets = true;
        self
    }

    /// Begins. Must be called within a tokio runtime; reads the releases that were kept.
    ///
    /// # Errors
    ///
    /// [`ClientError::Invalid`], which says what is wrong; [`ClientError::Stopped`].
    pub fn start(self) -> Result<Config, ClientError> {
        let Self { client, id, labels, mut groups, cache, secrets } = self;
        groups.sort_unstable();
        groups.dedup();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_name = |name: &String| {
            (1..=127).contains(&name.len()) && name.bytes().all(is_plain) && !name.starts_with('.')
        };
        if !(1..=GROUPS_MAX).contains(&groups.len()) || !groups.iter().all(is_name) {
            let why = "must be 1 to 100 names of 1 to 127 of A-Z, a-z, 0-9, `.`, `_` and `-`";
            return Err(ClientError::Invalid { what: "groups", why });
        }
        if !(1..=255).contains(&id.len()) || id.chars().any(char::is_control) {
            let why = "must be 1 to 255 bytes without control characters";
            return Err(ClientError::Invalid { what: "name of a client", why });
        }
        if client.shared.tasks.are_stopped() {
            return Err(ClientError::Stopped);
        }
        let namespace = client.shared.namespace.clone();
        let following = Following::new(namespace, id, labels, secrets, cache, groups);
        let following = Arc::new(following);
        let (of, shared) = (Arc::clone(&following), Arc::clone(&client.shared));
        client.shared.tasks.spawn("config", |stop| async move { of.run(&shared, &stop).await });
        Ok(Config { following })
    }
}

impl Config {
    /// The release in force of a group that is followed, now and from now on; `None` while nobody
    /// has published one, or none is known yet.
    pub fn watch(&self, group: &str) -> Option<watch::Receiver<Option<Arc<Release>>>> {
        self.following.subscribe(group)
    }

    /// Says that a release is in use. Sent in the background, until a server has heard of it.
    pub fn applied(&self, release: &Release) {
        self.following.judged(release, Verdict::Applied);
    }

    /// Says that a release cannot be used, and why; 256 bytes of that are kept. What was in use
    /// before stays in use, which is for the caller to do.
    pub fn rejected(&self, release: &Release, reason: impl Into<String>) {
        self.following.judged(release, Verdict::Rejected { reason: reason.into() });
    }
}
