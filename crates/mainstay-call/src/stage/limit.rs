//! Refuses what would be too much, before it costs anything.
//!
//! A call may pass several limits. They are asked in the order they are listed, and all must let
//! it through: when one refuses, what the earlier ones counted is given back. A limit that lets a
//! call through later makes it wait here; a caller that gives up meanwhile is not counted.
//!
//! A limit with `on_deny = "fallback"` does not end the call: it marks it, and the fallback stage,
//! which stands next, answers from its steps that need no upstream.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body;
use mainstay_core::{Clock, Instant};
use mainstay_resilience::Failure;
use mainstay_resilience::key::KeyPart;
use mainstay_resilience::limit::OnDeny;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::clock::MonotonicClock;
use crate::context::Context;
use crate::error::{CallError, Refusal};
use crate::limit::{Answer, Fared, Key, Left, Place, SharedLimit, Taken};
use crate::observe::Observer;
use crate::timer::Timer;
use crate::watched::{OnEnd, Watched};

/// Most limits one call may pass.
pub const LIMITS_MAX: usize = 4;

/// Most parts a limit's key may have.
const PARTS_MAX: usize = 8;

/// Reads the parts of limits' keys from requests.
pub trait ReadKey<B>: Clone {
    /// The value of `part`, or `None` when the request does not have it.
    fn read<'a>(&self, request: &'a http::Request<B>, part: &'a KeyPart) -> Option<Cow<'a, str>>;
}

/// Reads headers, the path and the raw query; knows nothing of addresses, routes and principals.
#[derive(Clone, Copy, Debug, Default)]
pub struct FromRequest;

impl<B> ReadKey<B> for FromRequest {
    fn read<'a>(&self, request: &'a http::Request<B>, part: &'a KeyPart) -> Option<Cow<'a, str>> {
        match part {
            KeyPart::Header(name) => {
                let value = request.headers().get(&**name)?;
                Some(String::from_utf8_lossy(value.as_bytes()))
            }
            KeyPart::WholePath => Some(Cow::Borrowed(request.uri().path())),
            KeyPart::Query(name) => {
                let mut pairs = request.uri().query()?.split('&');
                pairs.find_map(|pair| pair.strip_prefix(&**name)?.strip_prefix('=')).map(Cow::from)
            }
            KeyPart::Cookie(name) => {
                let cookies = request.headers().get(http::header::COOKIE)?.to_str().ok()?;
                let mut pairs = cookies.split(';').map(str::trim_start);
                pairs.find_map(|pair| pair.strip_prefix(&**name)?.strip_prefix('=')).map(Cow::from)
            }
            KeyPart::ClientAddress
            | KeyPart::Principal
            | KeyPart::Tenant
            | KeyPart::Service
            | KeyPart::Path(_) => None,
        }
    }
}

/// The limits of one call, to be asked together.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    limits: Arc<[Arc<SharedLimit>]>,
    /// Hash of each limit's key; nothing for one without a key.
    keys: [u128; LIMITS_MAX],
}

/// What a call took from its limits.
pub(crate) type Held = [Option<Taken>; LIMITS_MAX];

impl Asked {
    /// Asks every limit once more, for a call that was delayed. Whatever does not let it through
    /// at once refuses.
    pub(crate) fn once_more(&self, now: Instant) -> Result<Held, Refusal> {
        let mut held = Held::default();
        for (n, limit) in self.limits.iter().enumerate().take(LIMITS_MAX) {
            let key = Key { hash: self.keys[n], values: &[] };
            match limit.ask(now, key, now) {
                Answer::Granted(taken, _) | Answer::GoesAt(_, taken) => held[n] = Some(taken),
                Answer::Denied(refusal) => {
                    refund(&mut held);
                    return Err(*refusal);
                }
                // A place in the queue is given up by dropping it.
                Answer::Queued(_) => return Err(limit.refuse_now()),
            }
        }
        Ok(held)
    }
}

fn refund(held: &mut Held) {
    for taken in held.iter_mut().filter_map(Option::take) {
        taken.refund();
    }
}

/// Makes [`Limit`] services.
#[derive(Clone, Debug)]
pub struct LimitLayer<K> {
    limits: Arc<[Arc<SharedLimit>]>,
    keys: K,
    observer: Arc<dyn Observer>,
}

impl<K> LimitLayer<K> {
    /// Lets calls through that all of `limits` grant, of which the first [`LIMITS_MAX`] are asked.
    pub fn new(
        limits: impl Into<Arc<[Arc<SharedLimit>]>>,
        keys: K,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self { limits: limits.into(), keys, observer }
    }
}

impl<S, K: Clone> Layer<S> for LimitLayer<K> {
    type Service = Limit<S, K>;

    fn layer(&self, inner: S) -> Limit<S, K> {
        Limit { layer: self.clone(), inner }
    }
}

/// Lets through what its limits grant; see the [module](self).
#[derive(Clone, Debug)]
pub struct Limit<S, K> {
    layer: LimitLayer<K>,
    inner: S,
}

impl<S, K, B, R> Service<http::Request<B>> for Limit<S, K>
where
    S: Service<http::Request<B>, Response = http::Response<R>, Error = CallError> + Clone,
    K: ReadKey<B>,
    R: Body,
{
    type Response = http::Response<Watched<R, Holding>>;
    type Error = CallError;
    type Future = LimitFuture<S, S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let context = Context::of(&mut request);
        let limits = Arc::clone(&self.layer.limits);
        let fresh = self.inner.clone();
        let service = std::mem::replace(&mut self.inner, fresh);
        let mut asking = Asking {
            asked: Asked { limits, keys: [0; LIMITS_MAX] },
            held: Held::default(),
            next: 0,
            least: None,
            context,
            observer: Arc::clone(&self.layer.observer),
        };
        let step = asking.begin(&self.layer.keys, &request);
        let mut future = LimitFuture {
            call: None,
            timer: Timer::until(Instant::MAX),
            place: None,
            waiting: Some((service, request)),
            asking,
            refusal: None,
        };
        future.enter(step);
        future
    }
}

/// The way through the limits.
#[derive(Debug)]
struct Asking {
    asked: Asked,
    held: Held,
    /// The limit to ask next.
    next: usize,
    /// What is left of the quota that is nearest to its end.
    least: Option<(Arc<SharedLimit>, Left)>,
    context: Arc<Context>,
    observer: Arc<dyn Observer>,
}

/// Where the way has led.
enum Step {
    /// Through.
    Through,
    /// To a wait until this moment.
    WaitUntil(Instant),
    /// Into a queue.
    Queue(Place),
    /// To a refusal.
    Refused(Box<Refusal>),
}

impl Asking {
    /// Reads the keys and asks as far as it goes without waiting.
    fn begin<B, K: ReadKey<B>>(&mut self, keys: &K, request: &http::Request<B>) -> Step {
        if self.asked.limits.is_empty() {
            return Step::Through;
        }
        let now = MonotonicClock.now();
        for n in 0..self.asked.limits.len().min(LIMITS_MAX) {
            let limit = Arc::clone(&self.asked.limits[n]);
            let policy = limit.policy();
            let mut room: [Cow<'_, str>; PARTS_MAX] = Default::default();
            let count = policy.key.len().min(PARTS_MAX);
            for (value, part) in room.iter_mut().zip(&policy.key) {
                *value = keys.read(request, part).unwrap_or_default();
            }
            let values = room.get(..count).unwrap_or_default();
            let hash = if count == 0 { 0 } else { limit.hash(values) };
            self.asked.keys[n] = hash;
            let step = self.ask(n, Key { hash, values }, now);
            if !matches!(step, Step::Through) {
                // The keys of the limits behind it are needed when the wait is over.
                for later in n + 1..self.asked.limits.len().min(LIMITS_MAX) {
                    self.read_key(later, keys, request);
                }
                return step;
            }
        }
        Step::Through
    }

    fn read_key<B, K: ReadKey<B>>(&mut self, n: usize, keys: &K, request: &http::Request<B>) {
        let limit = &self.asked.limits[n];
        let policy = limit.policy();
        let values: Vec<_> =
            policy.key.iter().map(|part| keys.read(request, part).unwrap_or_default()).collect();
        if !values.is_empty() {
            self.asked.keys[n] = limit.hash(&values);
        }
    }

    /// Goes on after a wait.
    fn go_on(&mut self) -> Step {
        let now = MonotonicClock.now();
        while self.next < self.asked.limits.len().min(LIMITS_MAX) {
            let key = Key { hash: self.asked.keys[self.next], values: &[] };
            let step = self.ask(self.next, key, now);
            if !matches!(step, Step::Through) {
                return step;
            }
        }
        Step::Through
    }

    fn ask(&mut self, n: usize, key: Key<'_>, now: Instant) -> Step {
        let limit = Arc::clone(&self.asked.limits[n]);
        self.next = n + 1;
        let deadline = self.context.deadline().map_or(Instant::MAX, |deadline| deadline.at);
        match limit.ask(now, key, deadline) {
            Answer::Granted(taken, left) => {
                self.held[n] = Some(taken);
                self.note(&limit, left);
                self.observer.limit_decided(limit.name(), "granted");
                Step::Through
            }
            Answer::GoesAt(until, taken) => {
                self.held[n] = Some(taken);
                self.observer.limit_decided(limit.name(), "waited");
                Step::WaitUntil(until)
            }
            Answer::Queued(place) => {
                self.observer.limit_decided(limit.name(), "waited");
                Step::Queue(place)
            }
            Answer::Denied(refusal) => self.denied(&limit, refusal),
        }
    }

    fn denied(&mut self, limit: &Arc<SharedLimit>, refusal: Box<Refusal>) -> Step {
        refund(&mut self.held);
        self.observer.limit_decided(limit.name(), "denied");
        let reset = refusal.retry_after.unwrap_or_default();
        self.least = None;
        self.note(limit, Left { remaining: 0, reset });
        self.tell();
        if limit.policy().on_deny == OnDeny::Fallback {
            self.context.mark_limited(*refusal, self.asked.clone());
            return Step::Through;
        }
        Step::Refused(refusal)
    }

    fn note(&mut self, limit: &Arc<SharedLimit>, left: Left) {
        if limit.policy().headers
            && self.least.as_ref().is_none_or(|(_, least)| left.remaining < least.remaining)
        {
            self.least = Some((Arc::clone(limit), left));
        }
    }

    /// Leaves the quota nearest to its end in the context, for the answer's headers.
    fn tell(&self) {
        if let Some((limit, left)) = &self.least {
            self.context.note_quota(Quota::of(limit, *left));
        }
    }
}

/// A quota as an answer's headers show it.
#[derive(Clone, Debug)]
pub struct Quota {
    limit: Arc<str>,
    max: u64,
    window: Duration,
    remaining: u64,
    reset: Duration,
}

impl Quota {
    fn of(limit: &SharedLimit, left: Left) -> Self {
        let policy = limit.policy();
        let quota = policy.kind.quota();
        Self {
            limit: Arc::clone(limit.name()),
            max: quota.map_or(0, |quota| u64::from(quota.max.get())),
            window: quota.map_or(Duration::ZERO, |quota| quota.window),
            remaining: left.remaining,
            reset: left.reset,
        }
    }

    /// Writes `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10).
    pub fn write(&self, headers: &mut HeaderMap) {
        const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
        const STATE: HeaderName = HeaderName::from_static("ratelimit");
        let Self { limit, max, window, remaining, reset } = self;
        let seconds = |span: &Duration| span.as_secs() + u64::from(span.subsec_nanos() > 0);
        let policy = format!("\"{limit}\";q={max};w={}", seconds(window));
        let state = format!("\"{limit}\";r={remaining};t={}", seconds(reset));
        for (name, value) in [(POLICY, policy), (STATE, state)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
    }
}

pin_project! {
    /// A call on its way through limits.
    #[derive(Debug)]
    pub struct LimitFuture<S, F, B> {
        #[pin]
        call: Option<F>,
        #[pin]
        timer: Timer,
        place: Option<Place>,
        // What is called once the way is free.
        waiting: Option<(S, http::Request<B>)>,
        asking: Asking,
        refusal: Option<Box<Refusal>>,
    }
}

impl<S, F, B> LimitFuture<S, F, B> {
    /// Takes `step`, before the future is first polled.
    fn enter<R>(&mut self, step: Step)
    where
        S: Service<http::Request<B>, Response = R, Error = CallError, Future = F>,
    {
        match step {
            Step::Through => {
                self.asking.tell();
                if let Some((mut service, request)) = self.waiting.take() {
                    self.call = Some(service.call(request));
                }
            }
            Step::WaitUntil(until) => self.timer = Timer::until(until),
            Step::Queue(place) => {
                self.timer = Timer::until(place.until());
                self.place = Some(place);
            }
            Step::Refused(refusal) => self.refusal = Some(refusal),
        }
    }
}

impl<S, F, B, R> Future for LimitFuture<S, F, B>
where
    S: Service<http::Request<B>, Response = http::Response<R>, Error = CallError, Future = F>,
    F: Future<Output = Result<http::Response<R>, CallError>>,
    R: Body,
{
    type Output = Result<http::Response<Watched<R, Holding>>, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Some(call) = this.call.as_mut().as_pin_mut() {
                let result = ready!(call.poll(cx));
                return Poll::Ready(ended(result, std::mem::take(&mut this.asking.held)));
            }
            if let Some(refusal) = this.refusal.take() {
                return Poll::Ready(Err((*refusal).into()));
            }
            let step = if let Some(place) = this.place {
                let mut answer = place.poll_permit(cx);
                if answer.is_pending() {
                    ready!(this.timer.as_mut().poll_elapsed(cx));
                    answer = place.poll_permit(cx);
                }
                let answer = ready!(answer);
                *this.place = None;
                match answer {
                    Ok(taken) => {
                        this.asking.held[this.asking.next - 1] = Some(taken);
                        this.asking.go_on()
                    }
                    Err(refusal) => {
                        let limit = Arc::clone(&this.asking.asked.limits[this.asking.next - 1]);
                        this.asking.denied(&limit, refusal)
                    }
                }
            } else {
                ready!(this.timer.as_mut().poll_elapsed(cx));
                this.asking.go_on()
            };
            match step {
                Step::Through => {
                    this.asking.tell();
                    let Some((mut service, request)) = this.waiting.take() else {
                        return Poll::Pending; // Polled after it was ready.
                    };
                    this.call.set(Some(service.call(request)));
                }
                Step::WaitUntil(until) => this.timer.as_mut().reset(until),
                Step::Queue(place) => {
                    this.timer.as_mut().reset(place.until());
                    *this.place = Some(place);
                }
                Step::Refused(refusal) => *this.refusal = Some(refusal),
            }
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        // Still here: the caller gave up while waiting, and the call was never made.
        refund(&mut self.held);
    }
}

fn ended<R: Body>(
    result: Result<http::Response<R>, CallError>,
    held: Held,
) -> Result<http::Response<Watched<R, Holding>>, CallError> {
    match result {
        Ok(response) => {
            let holds = held.iter().flatten().any(Taken::is_permit);
            let holding = holds.then_some(Holding { held });
            Ok(response.map(|body| Watched::new(body, holding)))
        }
        Err(error) => {
            let fared = match &error {
                CallError::Failed {
                    failure:
                        Failure::RequestTimeout | Failure::ConnectTimeout | Failure::Congestion(_),
                    ..
                } => Fared::Dropped,
                _ => Fared::Unknown,
            };
            for taken in held.into_iter().flatten() {
                taken.ended(fared);
            }
            Err(error)
        }
    }
}

/// Permits of a call whose answer's body is still on its way.
#[derive(Debug)]
pub struct Holding {
    held: Held,
}

impl OnEnd for Holding {
    fn ended(self, _trailers: Option<&HeaderMap>) {
        for taken in self.held.into_iter().flatten() {
            taken.ended(Fared::Well);
        }
    }
}
