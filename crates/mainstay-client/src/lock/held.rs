//! Proof that something is held.

use std::time::Duration;

use mainstay_core::belief::{Loss, Standing};

use crate::error::ClientError;
use crate::fencing::FencingToken;
use crate::session::Session;

/// Proof that something was granted to this process, and how long it is worth something.
///
/// It cannot be cloned, so a function that takes `&Held` cannot be called without the lock. It is
/// judged by this process' clock and told of by the server, whichever is first: ask
/// [`Held::check`] before each step that matters, or race the work against [`Held::on_lost`]; and
/// send [`Held::token`] along with every write, since a check is old as soon as it is made.
///
/// Dropping it gives the lock back in the background; [`Held::release`] waits for that.
#[derive(Debug)]
#[must_use = "the lock is given back when this is dropped"]
pub struct Held {
    session: Session,
    name: String,
    token: u64,
    revision: u64,
}

impl Held {
    pub(super) const fn new(session: Session, name: String, token: u64, revision: u64) -> Self {
        Self { session, name, token, revision }
    }

    /// What is held: namespace, `/`, name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fencing token: larger than every one before it of the same lock; the term of a leader.
    /// Those of semaphores tell holders apart and fence nothing.
    pub const fn token(&self) -> u64 {
        self.token
    }

    /// The state of the store in which it was granted.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The token as it goes on requests made under the lock.
    #[expect(clippy::missing_panics_doc, reason = "the name was checked when it was asked for")]
    pub fn fencing_token(&self) -> FencingToken {
        FencingToken::new(self.name.clone(), self.token).expect("a granted lock has a legal name")
    }

    /// Whether it is held now.
    ///
    /// # Errors
    ///
    /// [`ClientError::Lost`], from the first moment that this process' clock or the server says so,
    /// and ever after.
    pub fn check(&self) -> Result<(), ClientError> {
        self.session.valid().map(drop).map_err(ClientError::Lost)
    }

    /// How long it is held if nothing is heard of the control plane any more; `None` once it is
    /// lost.
    pub fn remaining(&self) -> Option<Duration> {
        self.session.valid().ok()
    }

    /// Whether the last renewal failed: it still holds, and may want to stop taking on work.
    pub fn is_in_jeopardy(&self) -> bool {
        self.session.standing() == Standing::Jeopardy
    }

    /// Waits until it is lost, and says why.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn on_lost(&self) -> Loss {
        self.session.lost().await
    }

    /// Gives it back, and waits until that is done.
    ///
    /// # Errors
    ///
    /// [`ClientError::Lost`] when it was lost before; what the control plane said, after which it
    /// ends with its session.
    ///
    /// # Cancel safety
    ///
    /// Safe: it goes on in the background, as long as the lock is held.
    pub async fn release(self) -> Result<(), ClientError> {
        self.check()?;
        self.session.end().await
    }
}
