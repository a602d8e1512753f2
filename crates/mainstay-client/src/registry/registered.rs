//! An instance that is registered for as long as somebody wants it to be.
//!
//! A task registers it, beats, and registers it again when the registry has forgotten it: because
//! the registry lost its state, or took the instance for dead while the network was cut. Nobody has
//! to be there when it starts. Who is not well does not beat, so the registry treats it as one that
//! it does not hear of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use mainstay_api::registry::{Drain, Register, Registered as Answer, Written};
use mainstay_call::draw;
use mainstay_core::Instant;
use mainstay_core::problem::Code;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Registration;
use crate::client::{Client, Shared};
use crate::control::{Call, segment};
use crate::error::ClientError;
use crate::pause::{pause, retry_after};
use crate::{clock, events};

/// An instance that is registered, or about to be. Dropping it deregisters in the background.
#[derive(Debug)]
#[must_use = "dropping it deregisters the instance"]
pub struct Registered {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    client: Arc<Shared>,
    /// `namespace/service` and id, for people.
    name: String,
    /// Below `/api/v1`.
    path: String,
    document: Register,
    standing: watch::Sender<Standing>,
    /// It is on its way out: if the registry forgets it, that is as it should be.
    is_draining: AtomicBool,
    is_well: watch::Sender<bool>,
    /// Nobody wants it any more.
    unwanted: CancellationToken,
    /// What came of deregistering.
    ended: watch::Sender<Option<Result<(), ClientError>>>,
}

/// How a registration stands.
#[derive(Clone, Debug, Default)]
enum Standing {
    /// Nobody has answered yet.
    #[default]
    Pending,
    /// It is known.
    Known,
    /// It was refused; the same may be asked again, and is.
    Refused(ClientError),
    /// It is over.
    Ended,
}

impl Client {
    /// Registers an instance, and keeps it registered until what is returned is dropped or the
    /// client shuts down. Must be called within a tokio runtime. Nothing is waited for:
    /// [`Registered::ready`] does.
    ///
    /// # Errors
    ///
    /// [`ClientError::Invalid`] for names that are none, [`ClientError::Stopped`].
    pub fn register(&self, registration: Registration) -> Result<Registered, ClientError> {
        registration.check()?;
        if self.shared.tasks.are_stopped() {
            return Err(ClientError::Stopped);
        }
        let (namespace, id) = (&self.shared.namespace, registration.name());
        let Registration { service, mut document } = registration;
        // The same for as long as it is wanted, so that a repeated request changes nothing.
        document.registration = Some(format!("{:016x}{:016x}", draw::next(), draw::next()));
        let state = Arc::new(State {
            client: Arc::clone(&self.shared),
            name: format!("{namespace}/{service} {id}"),
            path: format!("/registry/{namespace}/services/{service}/instances/{}", segment(&id)),
            document,
            standing: watch::Sender::default(),
            is_draining: AtomicBool::new(false),
            is_well: watch::Sender::new(true),
            unwanted: CancellationToken::new(),
            ended: watch::Sender::default(),
        });
        let kept = Arc::clone(&state);
        self.shared.tasks.spawn("registration", |stop| async move { run(&kept, &stop).await });
        Ok(Registered { state })
    }
}

impl Registered {
    /// Waits until it is registered.
    ///
    /// # Errors
    ///
    /// The last [`ClientError::Refused`], for a reason that time alone does not mend; it is tried
    /// again all the same, since somebody may mend it. [`ClientError::Stopped`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn ready(&self) -> Result<(), ClientError> {
        let mut standing = self.state.standing.subscribe();
        let is_told = |standing: &Standing| !matches!(standing, Standing::Pending);
        // The sender lives as long as `self`.
        let told = standing.wait_for(is_told).await.map_err(|_closed| ClientError::Stopped)?;
        match &*told {
            Standing::Known => Ok(()),
            Standing::Refused(error) => Err(error.clone()),
            Standing::Pending | Standing::Ended => Err(ClientError::Stopped),
        }
    }

    /// Whether the registry knew it when it was last heard of.
    pub fn is_known(&self) -> bool {
        matches!(&*self.state.standing.borrow(), Standing::Known)
    }

    /// Says whether it is well, as it is unless told. While it is not, the registry hears nothing of
    /// it: it is critical when its ttl is over, and later removed. Once it is well again it beats, or
    /// is registered again, at once.
    pub fn set_well(&self, is_it: bool) {
        self.state.is_well.send_if_modified(|was| std::mem::replace(was, is_it) != is_it);
    }

    /// Takes it out of use: no new calls from now on, and after `seconds`, 0 to 3,600, it is
    /// removed.
    ///
    /// # Errors
    ///
    /// What the control plane said; [`ClientError::Unreachable`] when none of the servers answered.
    ///
    /// # Cancel safety
    ///
    /// Whether it drains is open; calling again does no harm.
    pub async fn drain(&self, seconds: u32) -> Result<(), ClientError> {
        self.state.is_draining.store(true, Ordering::Relaxed);
        let call = self.state.call(Method::POST, "/drain").document(&Drain { seconds });
        let control = &self.state.client.control;
        let mut tries = 0;
        loop {
            tries += 1;
            match control.ask::<Written>(&call).await {
                Ok(Written { .. }) => return Ok(()),
                Err(error) if error.is(Code::InstanceNotFound) => return Ok(()),
                Err(error) if error.is_passing() && tries <= control.servers() => {
                    pause(1, None).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Deregisters it, and waits until that is done.
    ///
    /// # Errors
    ///
    /// What the control plane said last; the instance then goes when its ttl is over.
    ///
    /// # Cancel safety
    ///
    /// Safe: it goes on in the background.
    pub async fn deregister(self) -> Result<(), ClientError> {
        let mut ended = self.state.ended.subscribe();
        self.state.unwanted.cancel();
        match ended.wait_for(Option::is_some).await {
            Ok(came) => came.clone().unwrap_or(Err(ClientError::Stopped)),
            Err(_closed) => Err(ClientError::Stopped),
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.state.unwanted.cancel();
    }
}

impl State {
    fn call(&self, method: Method, rest: &str) -> Call {
        Call::new(method, format!("{}{rest}", self.path), ANSWER_TIMEOUT)
    }

    fn stands(&self, standing: Standing) {
        self.standing.send_replace(standing);
    }

    /// Notes a failure that time alone does not mend.
    fn refused(&self, error: ClientError) {
        if !error.is_passing() {
            let why = &error.to_string();
            events::RegistrationRefused { instance: &self.name, why }.emit();
            self.stands(Standing::Refused(error));
        }
    }

    /// Registers it once; returns how often to beat.
    async fn register(&self) -> Result<Duration, ClientError> {
        let call = self.call(Method::PUT, "").document(&self.document);
        let answer: Answer = self.client.control.ask(&call).await?;
        Ok(Duration::from_secs(u64::from(answer.beat_every_seconds)).max(BEAT_EVERY_MIN))
    }

    async fn beat(&self) -> Result<(), ClientError> {
        self.client.control.ask(&self.call(Method::POST, "/heartbeat")).await
    }
}

/// Registers and beats until nobody wants it any more; then deregisters.
async fn run(state: &State, shutdown: &CancellationToken) {
    let kept = keep(state);
    tokio::select! {
        biased;
        () = state.unwanted.cancelled() => {}
        () = shutdown.cancelled() => {}
        // It has drained.
        () = kept => {}
    }
    let came = deregister(state).await;
    state.stands(Standing::Ended);
    state.ended.send_replace(Some(came));
}

/// Ends only when the registry has removed what drains.
async fn keep(state: &State) {
    let mut tries = 0;
    let mut every = None;
    let mut is_well = state.is_well.subscribe();
    loop {
        // The sender lives as long as `state`.
        drop(is_well.wait_for(|is_it| *is_it).await);
        let wait = match every {
            None => match state.register().await {
                Ok(beat_every) => {
                    events::Registered { instance: &state.name }.emit();
                    state.stands(Standing::Known);
                    (every, tries) = (Some(beat_every), 0);
                    beat_every
                }
                Err(error) => {
                    tries += 1;
                    state.refused(error);
                    retry_after(tries, RETRY_MAX)
                }
            },
            Some(beat_every) => match state.beat().await {
                Ok(()) => {
                    state.stands(Standing::Known);
                    tries = 0;
                    beat_every
                }
                Err(error) if error.is(Code::InstanceNotFound) => {
                    if state.is_draining.load(Ordering::Relaxed) {
                        return;
                    }
                    events::RegistrationForgotten { instance: &state.name }.emit();
                    state.stands(Standing::Pending);
                    every = None;
                    continue;
                }
                Err(error) => {
                    tries += 1;
                    state.refused(error);
                    retry_after(tries, beat_every)
                }
            },
        };
        tokio::time::sleep(wait).await;
    }
}

/// Says that it is gone, until somebody answers or it is gone anyway. Only as it was registered by
/// us: the next process may have registered the same id before this one is heard.
async fn deregister(state: &State) -> Result<(), ClientError> {
    let until: Instant = clock::now().plus(GIVE_UP_AFTER);
    let made = state.document.registration.as_deref().unwrap_or_default();
    let call = state.call(Method::DELETE, &format!("?registration={made}"));
    let mut tries = 0;
    loop {
        let error = match state.client.control.ask::<Written>(&call).await {
            Ok(_written) => return Ok(()),
            Err(error) if error.is(Code::InstanceNotFound) => return Ok(()),
            Err(error) => error,
        };
        tries += 1;
        if !error.is_passing() || until <= clock::now() {
            return Err(error);
        }
        pause(tries, error.retry_after()).await;
    }
}

/// For the answer to one request: a commit, on a busy server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest wait before a registration is tried again.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// However short a server says: more would be a flood, and no ttl is shorter than 5 s.
const BEAT_EVERY_MIN: Duration = Duration::from_secs(1);

/// How long deregistering is tried. The registry finds out by itself within two ttls.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);
