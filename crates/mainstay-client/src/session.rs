//! Sessions of the control plane: what a lock hangs on, kept alive by a task.
//!
//! Each lock has a session of its own, so one belief says how long it is held, and its end gives
//! back everything, whatever became of messages. The belief is
//! [`mainstay_core::belief`]; the task does what it says.

mod keep;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method};
use mainstay_api::lock::{HeldPlace, OpenSession, SessionOpened};
use mainstay_core::belief::{Belief, Loss, Standing, Terms};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::Shared;
use crate::clock;
use crate::control::{Call, Control};
use crate::error::ClientError;
use crate::pause::pause;

/// A session, ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Session {
    state: Arc<State>,
}

/// What the session and its task share.
#[derive(Debug)]
struct State {
    client: Arc<Shared>,
    id: String,
    secret: HeaderValue,
    belief: Mutex<Belief>,
    hold: Mutex<Option<Hold>>,
    loss: watch::Sender<Option<Loss>>,
    /// Nobody wants it any more.
    unwanted: CancellationToken,
    /// What came of giving it back.
    ended: watch::Sender<Option<Result<(), ClientError>>>,
}

/// What hangs on it.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    /// Where it is, below `/api/v1`.
    pub(crate) path: String,
    pub(crate) place: HeldPlace,
    /// The revision of the grant.
    pub(crate) revision: u64,
}

impl Session {
    /// Opens one, and keeps it from then on. Tries each server.
    pub(crate) async fn open(client: Arc<Shared>, ttl: Duration) -> Result<Self, ClientError> {
        if client.tasks.are_stopped() {
            return Err(ClientError::Stopped);
        }
        let ttl_seconds = Duration::from_secs(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0));
        let document =
            OpenSession { ttl_seconds: ttl_seconds.as_secs_f64(), owner: client.owner.clone() };
        let call = Call::new(Method::POST, "/sessions".to_owned(), OPEN_TIMEOUT);
        let call = call.document(&document);
        let mut tries = 0;
        loop {
            // Counted from before it is sent: the store counts from when it hears of it.
            let sent = clock::now();
            tries += 1;
            match client.control.ask::<SessionOpened>(&call).await {
                Ok(opened) => return Self::start(client, &opened, sent),
                // One whose answer was lost ends by itself.
                Err(error) if error.is_passing() && tries <= client.control.servers() => {
                    pause(1, None).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn start(
        client: Arc<Shared>,
        opened: &SessionOpened,
        sent: mainstay_core::Instant,
    ) -> Result<Self, ClientError> {
        let ttl = seconds(opened.ttl_seconds).ok_or_else(odd_answer)?;
        let mut secret = HeaderValue::try_from(&opened.secret).map_err(|_not_text| odd_answer())?;
        secret.set_sensitive(true);
        let state = Arc::new(State {
            client: Arc::clone(&client),
            id: opened.session.clone(),
            secret,
            belief: Mutex::new(Belief::granted(sent, Terms::new(ttl))),
            hold: Mutex::default(),
            loss: watch::Sender::default(),
            unwanted: CancellationToken::new(),
            ended: watch::Sender::default(),
        });
        let kept = Arc::clone(&state);
        client.tasks.spawn("session", |stop| async move { keep::run(&kept, &stop).await });
        Ok(Self { state })
    }

    pub(crate) fn id(&self) -> &str {
        &self.state.id
    }

    pub(crate) fn secret(&self) -> &HeaderValue {
        &self.state.secret
    }

    pub(crate) fn control(&self) -> &Control {
        &self.state.client.control
    }

    /// Something was granted to it.
    pub(crate) fn granted(&self, hold: Hold) {
        *self.state.hold.lock() = Some(hold);
    }

    /// It is about to hold nothing any more, though the session is not lost with it. Returns what
    /// it held.
    pub(crate) fn let_go(&self) -> Option<Hold> {
        self.state.hold.lock().take()
    }

    /// Makes a call about what it holds, until it is answered or the session is lost. Repeating
    /// it must do no harm.
    pub(crate) async fn insist<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        let call = call.secret(&self.state.secret);
        let answered = async {
            let mut tries = 0;
            loop {
                match self.control().ask(&call).await {
                    Err(error) if error.is_passing() => {
                        tries += 1;
                        pause(tries, error.retry_after()).await;
                    }
                    answer => return answer,
                }
            }
        };
        tokio::select! {
            biased;
            loss = self.lost() => Err(ClientError::Lost(loss)),
            answer = answered => answer,
        }
    }

    /// How long it is believed in if nothing more is heard.
    pub(crate) fn valid(&self) -> Result<Duration, Loss> {
        let now = clock::now();
        self.state.belief.lock().check(now).map(|until| until.since(now))
    }

    pub(crate) fn standing(&self) -> Standing {
        self.state.belief.lock().standing()
    }

    /// Waits until it is lost.
    pub(crate) async fn lost(&self) -> Loss {
        let mut loss = self.state.loss.subscribe();
        // The sender lives as long as `self`, so this fails never.
        let told = loss.wait_for(Option::is_some).await.ok().and_then(|told| *told);
        told.unwrap_or(Loss::SessionGone)
    }

    /// Gives back what hangs on it, ends it, and waits for that.
    pub(crate) async fn end(self) -> Result<(), ClientError> {
        let mut ended = self.state.ended.subscribe();
        self.state.unwanted.cancel();
        match ended.wait_for(Option::is_some).await {
            Ok(came) => came.clone().unwrap_or(Err(ClientError::Stopped)),
            Err(_closed) => Err(ClientError::Stopped),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.state.unwanted.cancel();
    }
}

impl State {
    /// A call for this session.
    fn call(&self, method: Method, rest: &str, timeout: Duration) -> Call {
        let path = format!("/sessions/{}{rest}", self.id);
        Call::new(method, path, timeout).secret(&self.secret)
    }

    /// Notes a loss; whoever waits for it is told.
    fn lose(&self, loss: Loss) {
        let mut belief = self.belief.lock();
        belief.lost(loss);
        // The first reason stays.
        if let Standing::Lost(loss) = belief.standing() {
            self.loss.send_if_modified(|told| told.replace(loss).is_none());
        }
    }
}

/// For the answer to a session that is opened: a commit, on a busy server.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Seconds of a document.
fn seconds(number: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number).ok().filter(|span| !span.is_zero())
}

fn odd_answer() -> ClientError {
    let why = "its answer is no session".to_owned();
    ClientError::Unreachable { why, effect: mainstay_core::Effect::Unknown }
}
