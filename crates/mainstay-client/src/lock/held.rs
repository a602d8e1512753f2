//! Proof that something is held.

use std::time::Duration;

use http::Method;
use mainstay_api::lock::{Bind, Bound, Downgrade, Proclaim};
use mainstay_core::belief::{Loss, Standing};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::control::Call;
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
    /// Below `/api/v1`.
    path: String,
    name: String,
    token: u64,
    revision: u64,
}

impl Held {
    pub(super) const fn new(
        session: Session,
        path: String,
        name: String,
        token: u64,
        revision: u64,
    ) -> Self {
        Self { session, path, name, token, revision }
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

    /// Hands it over to the global transaction `gid`, 1 to 128 bytes: it is held until that is
    /// final, whatever becomes of this process, and keeps its token.
    ///
    /// # Errors
    ///
    /// [`ClientError::Lost`] when it was lost before; what the control plane said. Either way it
    /// is not held here any more.
    ///
    /// # Cancel safety
    ///
    /// Not safe: it may be held by the transaction, or given back. Look with `mainstay lock show`.
    pub async fn bind(self, gid: impl Into<String>) -> Result<Bound, ClientError> {
        self.check()?;
        let ask =
            Bind { session: self.session.id().to_owned(), token: self.token, gid: gid.into() };
        // From here on it may be the transaction's, which is no loss.
        let held = self.session.let_go();
        let bound = self.tell("bind", &ask).await;
        if let (Err(_), Some(held)) = (&bound, held) {
            self.session.granted(held);
        }
        // What the session has no more cannot be given back with it.
        let ended = self.session.end().await;
        bound.inspect(|_bound| drop(ended))
    }

    /// Lets others read what is held alone, in one step: nobody gets in between. The token stays.
    ///
    /// # Errors
    ///
    /// [`ClientError::Lost`]; what the control plane said, such as that it is no lock. It is still
    /// held then.
    ///
    /// # Cancel safety
    ///
    /// Whether it happened is open; calling again does no harm.
    pub async fn downgrade(&self) -> Result<(), ClientError> {
        let ask = Downgrade { session: self.session.id().to_owned(), token: self.token };
        self.tell("downgrade", &ask).await
    }

    /// Says something else to those who observe the election that was won, up to 4,096 bytes.
    ///
    /// # Errors
    ///
    /// As [`Held::downgrade`].
    ///
    /// # Cancel safety
    ///
    /// Whether it is proclaimed is open; calling again does no harm.
    pub async fn proclaim(&self, value: impl Into<String>) -> Result<(), ClientError> {
        let (session, token) = (self.session.id().to_owned(), self.token);
        self.tell("proclaim", &Proclaim { session, token, value: value.into() }).await
    }

    /// A change of what is held, made until it is answered or that is lost.
    async fn tell<T: DeserializeOwned>(
        &self,
        verb: &str,
        document: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.check()?;
        let call = Call::new(Method::POST, format!("{}/{verb}", self.path), ANSWER_TIMEOUT);
        self.session.insist(call.document(document)).await
    }
}

/// For the answer to one try: a commit, on a busy server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
