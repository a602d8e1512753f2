//! The control plane, as a program sees it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use mainstay_api::lock::Owner;

use crate::control::Control;
use crate::error::ClientError;
use crate::lock::{LockRequest, Observer, Want};
use crate::tasks::Tasks;

/// A client of the control plane. Clones are the same client.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) control: Control,
    pub(crate) namespace: String,
    pub(crate) owner: Owner,
    pub(crate) tasks: Tasks,
    /// Transactions whose future was dropped while they were open.
    pub(crate) transactions_dropped: AtomicU64,
}

/// What a client is made with.
#[derive(Clone)]
#[must_use = "nothing is made before `build`"]
pub struct Builder {
    servers: Vec<String>,
    token: Option<String>,
    namespace: String,
    name: Option<String>,
}

impl Client {
    /// A client of the control plane at `servers`, each `http://HOST:PORT`. It keeps to one as long
    /// as that one answers.
    pub fn builder(servers: impl IntoIterator<Item = impl Into<String>>) -> Builder {
        Builder {
            servers: servers.into_iter().map(Into::into).collect(),
            token: None,
            namespace: "default".to_owned(),
            name: None,
        }
    }

    /// Asks for the lock `name`, alone unless told otherwise.
    pub fn lock(&self, name: impl Into<String>) -> LockRequest {
        LockRequest::new(self.clone(), name.into(), Want::Exclusive)
    }

    /// Asks for `permits` of the semaphore `name`, which has `limit` of them.
    pub fn semaphore(&self, name: impl Into<String>, permits: u32, limit: u32) -> LockRequest {
        LockRequest::new(self.clone(), name.into(), Want::Permits { permits, limit })
    }

    /// Stands in the election `name`, proclaiming `value`; what is held is the leadership, and its
    /// token the term.
    pub fn election(&self, name: impl Into<String>, value: impl Into<String>) -> LockRequest {
        LockRequest::new(self.clone(), name.into(), Want::Leadership { value: value.into() })
    }

    /// Observes the election `name`: who leads, and every change of that.
    ///
    /// # Errors
    ///
    /// [`ClientError::Invalid`]: that is no name.
    pub fn observe(&self, name: &str) -> Result<Observer, ClientError> {
        Observer::new(self.clone(), name)
    }

    /// Gives back everything held, and waits for that up to `grace`. Returns how many tasks are
    /// still at it; what they hold ends with their sessions.
    ///
    /// # Cancel safety
    ///
    /// Safe: giving back goes on as long as the runtime does.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        self.shared.tasks.shutdown(grace).await
    }
}

impl Builder {
    /// The bearer token to ask with.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Whose locks are meant; `default` unless told. 1 to 63 of a-z, 0-9 and `-`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// What this program calls itself to those who wait for what it holds, 1 to 255 bytes; the
    /// name of its executable unless told.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the client. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`ClientError::Invalid`], which says what is wrong.
    pub fn build(self) -> Result<Client, ClientError> {
        let Self { servers, token, namespace, name } = self;
        if !is_namespace(&namespace) {
            let why = "must be 1 to 63 of a-z, 0-9 and `-`";
            return Err(ClientError::Invalid { what: "namespace", why });
        }
        let name = name.unwrap_or_else(program);
        if !(1..=255).contains(&name.len()) || name.chars().any(char::is_control) {
            let why = "must be 1 to 255 bytes without control characters";
            return Err(ClientError::Invalid { what: "name", why });
        }
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let owner = Owner { host, pid: std::process::id(), name };
        let control = Control::new(&servers, token.as_deref())?;
        let (tasks, transactions_dropped) = (Tasks::default(), AtomicU64::new(0));
        let shared = Shared { control, namespace, owner, tasks, transactions_dropped };
        Ok(Client { shared: Arc::new(shared) })
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { servers, token: _, namespace, name } = self;
        f.debug_struct("Builder")
            .field("servers", servers)
            .field("namespace", namespace)
            .field("name", name)
            .finish_non_exhaustive()
    }
}

/// Whether a text is the name of a namespace.
pub(crate) fn is_namespace(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(legal)
}

/// The name of the executable.
fn program() -> String {
    let path = std::env::current_exe().ok();
    let name = path.as_deref().and_then(std::path::Path::file_name);
    name.map_or_else(|| "program".to_owned(), |name| name.to_string_lossy().into_owned())
}
