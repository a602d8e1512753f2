//! Locks, semaphores and leadership of the control plane.
//!
//! ```no_run
//! # async fn f(client: mainstay_client::Client) -> Result<(), mainstay_client::ClientError> {
//! use std::time::Duration;
//!
//! let held = client.lock("sku-1").ttl(Duration::from_secs(10)).acquire().await?;
//! // Before each step that matters; and send the token along with it.
//! held.check()?;
//! held.release().await?;
//! # Ok(())
//! # }
//! ```

mod acquire;
mod held;
mod observe;

use std::time::Duration;

use mainstay_api::lock::{Area, Mode};

use crate::client::Client;
use crate::control::segment;
use crate::error::ClientError;

pub use held::Held;
pub use observe::Observer;

/// What is wanted.
#[derive(Clone, Debug)]
pub(crate) enum Want {
    /// A lock, alone.
    Exclusive,
    /// A lock, together with other readers.
    Shared,
    /// Permits of a semaphore.
    Permits { permits: u32, limit: u32 },
    /// Leadership.
    Leadership { value: String },
}

impl Want {
    pub(crate) const fn area(&self) -> Area {
        match self {
            Self::Exclusive | Self::Shared => Area::Lock,
            Self::Permits { .. } => Area::Semaphore,
            Self::Leadership { .. } => Area::Election,
        }
    }

    const fn mode(&self) -> Mode {
        match self {
            Self::Shared => Mode::Shared,
            Self::Exclusive | Self::Permits { .. } | Self::Leadership { .. } => Mode::Exclusive,
        }
    }
}

/// A request for a lock, permits or leadership, on a session of its own.
#[derive(Clone, Debug)]
#[must_use = "nothing is asked for before `acquire`"]
pub struct LockRequest {
    client: Client,
    name: String,
    want: Want,
    ttl: Option<Duration>,
    wait: Option<Duration>,
    lock_delay: Duration,
}

impl LockRequest {
    pub(crate) const fn new(client: Client, name: String, want: Want) -> Self {
        Self { client, name, want, ttl: None, wait: None, lock_delay: Duration::ZERO }
    }

    /// How long it is held after a renewal is sent that nobody answers, less a margin of a tenth
    /// and at least 500 ms; 2 s to an hour, rounded up to seconds. Must be given: too short loses
    /// it during a pause, too long keeps others waiting for the dead, and only the caller knows
    /// which hurts more.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How long to wait for it; for ever unless told. Zero tries, and overtakes nobody who waits.
    pub const fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Together with others who ask for it so. Means nothing for semaphores and elections.
    pub fn shared(mut self) -> Self {
        if matches!(self.want, Want::Exclusive) {
            self.want = Want::Shared;
        }
        self
    }

    /// If this holder vanishes without giving back a lock, the next one waits so long, at most a
    /// minute: for work sent off under the lock to arrive where nothing checks tokens.
    pub const fn lock_delay(mut self, delay: Duration) -> Self {
        self.lock_delay = delay;
        self
    }

    /// Asks for it, and waits for its turn.
    ///
    /// # Errors
    ///
    /// [`ClientError`]: what was asked for makes no sense, it was not granted in time (`lock-busy`,
    /// `lock-wait-timeout`), or no server answered, each asked in turn.
    ///
    /// # Cancel safety
    ///
    /// Safe: the place in the queue, and the lock if it was granted just then, are given up in the
    /// background.
    pub async fn acquire(self) -> Result<Held, ClientError> {
        check_name(&self.name)?;
        let range = Duration::from_secs(2)..=Duration::from_hours(1);
        let ttl = self.ttl.filter(|ttl| range.contains(ttl));
        let ttl = ttl.ok_or(ClientError::Invalid { what: "ttl", why: "must be 2 s to an hour" })?;
        acquire::acquire(&self, ttl).await
    }
}

fn check_name(name: &str) -> Result<(), ClientError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/-".contains(&byte);
    if (1..=255).contains(&name.len()) && name.bytes().all(legal) {
        return Ok(());
    }
    let why = "must be 1 to 255 of A-Z, a-z, 0-9, `.`, `_`, `:`, `/` and `-`";
    Err(ClientError::Invalid { what: "name of a lock", why })
}

/// Where something is, below `/api/v1`.
fn place_path(area: Area, namespace: &str, name: &str) -> String {
    format!("/{}/{namespace}/{}", area.segment(), segment(name))
}
