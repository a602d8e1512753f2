//! The keys of an issuer, between those who verify with them and who fetches them.
//!
//! Verifying reads one pointer. The [machine](Jwks) that decides about fetches is behind a lock,
//! which is taken when a token names an unknown key and when a fetch begins or ends.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use mainstay_core::Instant;
use mainstay_security::jwks::{Answer, Asked, Effect, Jwks, State};
use mainstay_security::jws::{Dropped, KeySet};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::figures::JwtFigures;
use crate::config::jwt::{JwtConfig, Source};
use crate::events;

/// Requests that may wait for the keys of one issuer: each holds its head and its connection.
pub const WAITING_MAX: usize = 1_000;

/// How long they wait.
pub const WAIT: Duration = Duration::from_secs(2);

/// The keys of one issuer; see the [module](self).
pub struct Keys {
    issuer: Arc<str>,
    source: Source,
    stale_max: Duration,
    published: ArcSwapOption<Published>,
    inner: Mutex<Inner>,
    waiting: AtomicUsize,
    /// Changes when a fetch has ended.
    settled: watch::Sender<u64>,
    /// Tells who fetches that there is something to do.
    wanted: Arc<Notify>,
    figures: JwtFigures,
}

struct Inner {
    machine: Jwks,
    /// A fetch has begun for the machine, and nobody fetches yet.
    begun: bool,
    last: Last,
}

/// What came of the last fetch.
#[derive(Clone, Debug, Default)]
struct Last {
    /// Why it failed.
    failure: Option<String>,
    /// Keys of it that cannot be used.
    dropped: Vec<Dropped>,
}

/// Keys to verify with.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) keys: Arc<KeySet>,
    /// When they are expired.
    pub(super) until: Instant,
}

/// What a fetch brought.
#[derive(Debug)]
pub struct Fetched {
    /// The keys.
    pub keys: KeySet,
    /// How long the issuer says that they hold.
    pub max_age: Option<Duration>,
}

/// Where the keys of an issuer stand.
#[derive(Clone, Debug)]
pub struct View {
    /// Whose.
    pub issuer: Arc<str>,
    /// Where they come from.
    pub source: Source,
    /// How they stand.
    pub state: State,
    /// How old they are; `None` while there are none.
    pub age: Option<Duration>,
    /// Names and algorithms of those that can be used.
    pub keys: Vec<(Option<Box<str>>, Vec<&'static str>)>,
    /// Those of the last answer that cannot.
    pub dropped: Vec<Dropped>,
    /// Why the last fetch failed; `None` where it did not.
    pub failure: Option<String>,
    /// Until the next fetch; `None` while one is under way.
    pub next: Option<Duration>,
}

/// A place among those who wait for keys; given back when it is dropped.
pub(super) struct Waiting {
    keys: Arc<Keys>,
    settled: watch::Receiver<u64>,
}

/// What to do about a key that is unknown.
pub(super) enum Unknown {
    /// Wait until a fetch has ended, and look again.
    Wait(Waiting),
    /// It came meanwhile: look again.
    Again,
    /// There is none.
    Refuse,
}

impl Keys {
    pub(super) fn new(
        config: &JwtConfig,
        now: Instant,
        wanted: &Arc<Notify>,
        figures: &JwtFigures,
    ) -> Arc<Self> {
        let machine = Jwks::new(now, config.stale_max);
        Arc::new(Self {
            issuer: Arc::from(&*config.trust.issuer),
            source: config.source.clone(),
            stale_max: config.stale_max,
            published: ArcSwapOption::empty(),
            inner: Mutex::new(Inner { machine, begun: false, last: Last::default() }),
            waiting: AtomicUsize::new(0),
            settled: watch::Sender::new(0),
            wanted: Arc::clone(wanted),
            figures: figures.clone(),
        })
    }

    /// Whether these are the keys that `config` means.
    pub(super) fn is_of(&self, config: &JwtConfig) -> bool {
        *self.issuer == *config.trust.issuer
            && self.source == config.source
            && self.stale_max == config.stale_max
    }

    /// Whose they are.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Where they are fetched from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Whether there are any that can be verified with, or were.
    pub fn is_known(&self) -> bool {
        self.published.load().is_some()
    }

    /// Takes over a fetch: one that is due at `now`, or that somebody has asked for. Then it is the
    /// caller's duty to hand in what came ([`ended`](Self::ended)).
    pub fn begin(&self, now: Instant) -> bool {
        let mut inner = self.inner.lock();
        std::mem::take(&mut inner.begun) || inner.machine.poll(now).is_some()
    }

    /// When to look for a fetch next.
    pub fn due(&self) -> Instant {
        let inner = self.inner.lock();
        if inner.begun { Instant::ZERO } else { inner.machine.due() }
    }

    /// Has the keys fetched now, unless a fetch is under way; then that one counts.
    pub fn refresh(&self, now: Instant) {
        let mut inner = self.inner.lock();
        if inner.machine.refresh(now).is_some() {
            inner.begun = true;
            self.wanted.notify_one();
        }
    }

    /// Takes what a fetch brought, or why it failed. `draw` spreads the next one.
    pub fn ended(&self, now: Instant, draw: u64, result: Result<Fetched, String>) {
        let mut inner = self.inner.lock();
        let before = inner.machine.state(now);
        let (answer, last) = match result {
            Ok(Fetched { keys, max_age }) => {
                let dropped = keys.dropped().to_vec();
                (Some(Answer { keys, max_age }), Last { failure: None, dropped })
            }
            Err(failure) => {
                let dropped = std::mem::take(&mut inner.last.dropped);
                (None, Last { failure: Some(failure), dropped })
            }
        };
        let effect = inner.machine.answered(now, draw, answer);
        inner.last = last;
        let word = match effect {
            Some(Effect::Publish { keys, until }) => {
                self.published.store(Some(Arc::new(Published { keys, until })));
                "ok"
            }
            Some(Effect::Useless) => {
                inner.last.failure = Some(USELESS.to_owned());
                "useless"
            }
            None => "failed",
        };
        self.figures.fetched(&self.issuer, word);
        self.tell(before, &inner, now);
        drop(inner);
        self.settled.send_modify(|ended| *ended += 1);
    }

    /// Logs what has changed; a fetch that fails as the one before did is no news.
    fn tell(&self, before: State, inner: &Inner, now: Instant) {
        let state = inner.machine.state(now);
        match &inner.last.failure {
            Some(why) if inner.machine.failures() == 1 || state != before => {
                events::KeysNotFetched { issuer: &self.issuer, state: state.as_str(), why }.emit();
            }
            None if state != before => events::KeysFetched { issuer: &self.issuer }.emit(),
            Some(_) | None => {}
        }
    }

    /// Counts a fetch that is under way as failed: who fetched has gone. Does nothing where none is.
    pub fn give_up(&self, now: Instant) {
        let under_way = {
            let inner = self.inner.lock();
            !inner.begun && inner.machine.due() == Instant::MAX
        };
        if under_way {
            self.ended(now, 0, Err("it was given up".to_owned()));
        }
    }

    /// Waits until a fetch ends that is under way or begins within the wait; a later one where
    /// several do.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is taken.
    pub fn settled(&self) -> impl Future<Output = ()> + use<> {
        // From now on, not from when it is first waited for.
        let mut settled = self.settled.subscribe();
        async move {
            let _changed = settled.changed().await;
        }
    }

    /// Where they stand at `now`.
    pub fn view(&self, now: Instant) -> View {
        let inner = self.inner.lock();
        let named = |key: &mainstay_security::jws::Key| {
            let algorithms =
                key.algorithms().map(mainstay_security::jws::Algorithm::as_str).collect();
            (key.kid().map(Box::from), algorithms)
        };
        let keys = self.published.load();
        let due = if inner.begun { Instant::MAX } else { inner.machine.due() };
        View {
            issuer: Arc::clone(&self.issuer),
            source: self.source.clone(),
            state: inner.machine.state(now),
            age: inner.machine.age(now),
            keys: keys.iter().flat_map(|published| published.keys.iter().map(named)).collect(),
            dropped: inner.last.dropped.clone(),
            failure: inner.last.failure.clone(),
            next: (due != Instant::MAX).then(|| due.since(now)),
        }
    }

    /// Says in the metrics how old they are.
    pub(super) fn look(&self, now: Instant) {
        let age = self.inner.lock().machine.age(now);
        self.figures.aged(&self.issuer, age);
    }

    /// The keys to verify with at `now`; without any, when to come back.
    pub(super) fn published(
        &self,
        now: Instant,
    ) -> Result<arc_swap::Guard<Option<Arc<Published>>>, Duration> {
        let published = self.published.load();
        if published.as_ref().is_some_and(|published| now < published.until) {
            return Ok(published);
        }
        let due = self.due();
        let wait = if due == Instant::MAX { Duration::ZERO } else { due.since(now) };
        Err(wait.max(Duration::from_secs(1)))
    }

    /// A token names the key `kid`, which is unknown at `now`.
    pub(super) fn ask(self: &Arc<Self>, now: Instant, kid: &str) -> Unknown {
        // Before the question: the answer must not come in between.
        let settled = self.settled.subscribe();
        let mut inner = self.inner.lock();
        match inner.machine.ask(now, kid) {
            Asked::Unknown => return Unknown::Refuse,
            Asked::Known => return Unknown::Again,
            Asked::Wait(None) => {}
            Asked::Wait(Some(_fetch)) => {
                inner.begun = true;
                self.wanted.notify_one();
            }
        }
        drop(inner);
        if WAITING_MAX <= self.waiting.fetch_add(1, Ordering::Relaxed) {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Unknown::Refuse;
        }
        Unknown::Wait(Waiting { keys: Arc::clone(self), settled })
    }
}

const USELESS: &str = "the answer has no key that can be used; what was known before stays";

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Waiting {
    /// Waits until a fetch has ended.
    pub(super) async fn over(mut self) {
        let _changed = self.settled.changed().await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.keys.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
