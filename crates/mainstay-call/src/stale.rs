//! The last good answers, for the day there is no better one.
//!
//! This is no HTTP cache: nothing is ever answered from it while the upstream answers. It follows
//! the rules of one (RFC 9111, section 3) where they keep answers from the wrong eyes: what is
//! marked `no-store` or `private`, sets a cookie, or varies by everything is not kept; an answer
//! that varies by headers is given only to calls that have the same ones (section 4.1); and calls
//! with `Authorization` share answers with nobody but the same principal, if with anybody.
//!
//! An answer is copied while it streams to the caller, who waits for nothing, and kept when it has
//! come to its end and is at most [`BODY_BYTES_MAX`] long. The copy is a real one, of the body and
//! of the fields of both heads: a slice of the connection's read buffer would hold all of it. Which answers stay when room runs out is decided
//! by W-TinyLFU (Einziger, Friedman and Manes 2017), as `moka` has it: one sweep over a million
//! paths does not drive out those that are asked for every second.

use std::fmt::{self, Write};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue,
    SET_COOKIE, VARY,
};
use http::{Method, Request, Response, StatusCode};
use mainstay_core::{Clock, Instant};
use mainstay_resilience::fallback::StaleKey;
use moka::sync::Cache;

use crate::clock::MonotonicClock;
use crate::context::Context;
use crate::stage::timeout::is_grpc;

/// `stale_bytes_max` unless given: 64 MiB.
pub const STALE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Longest body that is kept: 1 MiB.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Good answers of all routes. Clones of the `Arc` around it share them.
pub struct StaleStore {
    kept: Cache<Box<str>, Arc<Stored>>,
    /// Credentials are known by two keyed hashes, not by themselves.
    hashers: [RandomState; 2],
}

impl StaleStore {
    /// Keeps at most `bytes_max` bytes of answers, their keys and heads included.
    pub fn new(bytes_max: u64) -> Self {
        let kept = Cache::builder().max_capacity(bytes_max).weigher(weight).build();
        Self { kept, hashers: [RandomState::new(), RandomState::new()] }
    }

    /// Answers kept, roughly: what was written or driven out a moment ago may not be counted yet.
    pub fn len(&self) -> u64 {
        self.kept.entry_count()
    }

    /// Whether nothing is kept, as far as [`StaleStore::len`] knows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes kept, as roughly.
    pub fn bytes(&self) -> u64 {
        self.kept.weighted_size()
    }

    /// Counts and drives out what is due: after it, [`StaleStore::len`] and [`StaleStore::bytes`]
    /// are exact. The store does this by itself every now and then.
    pub fn settle(&self) {
        self.kept.run_pending_tasks();
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.kept.invalidate_all();
    }

    /// The answer kept for `question` under `key`, if it is at most `max_age` old at `now`.
    pub(crate) fn answer(
        &self,
        question: &Question,
        key: StaleKey,
        max_age: Duration,
        now: Instant,
    ) -> Option<Kept> {
        let stored = self.kept.get(question.key(key)?)?;
        let age = stored.age.saturating_add(now.since(stored.at));
        if max_age < age || !stored.suits(&question.headers) {
            return None;
        }
        let mut headers = stored.headers.clone();
        headers.insert(AGE, HeaderValue::from(age.as_secs()));
        Some(Kept { headers, body: stored.body.clone() })
    }

    fn hash(&self, value: &[u8]) -> u128 {
        let [a, b] = &self.hashers;
        u128::from(a.hash_one(value)) << 64 | u128::from(b.hash_one(value))
    }
}

impl fmt::Debug for StaleStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (len, bytes) = (self.len(), self.bytes());
        f.debug_struct("StaleStore").field("len", &len).field("bytes", &bytes).finish()
    }
}

/// An answer from the store, with its `Age`.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// One answer that was good.
#[derive(Debug)]
struct Stored {
    /// When it ended here.
    at: Instant,
    /// How old it was then.
    age: Duration,
    headers: HeaderMap,
    /// The request's headers that it depends on.
    vary: Box<[(HeaderName, Box<[HeaderValue]>)]>,
    body: Bytes,
}

impl Stored {
    /// Whether a request with `headers` would have got this answer too.
    fn suits(&self, headers: &HeaderMap) -> bool {
        self.vary.iter().all(|(name, values)| headers.get_all(name).iter().eq(values))
    }

    fn weight(&self) -> usize {
        /// The parts of fixed size, and what the cache itself needs for an entry.
        const FIXED: usize = 512;
        /// What a field needs besides its text: its place in the map, and how its text is held.
        const FIELD: usize = 128;
        let field =
            |name: &HeaderName, value: &HeaderValue| FIELD + name.as_str().len() + value.len();
        let headers = self.headers.iter().map(|(name, value)| field(name, value));
        let vary =
            self.vary.iter().flat_map(|(name, values)| values.iter().map(|v| field(name, v)));
        FIXED + headers.sum::<usize>() + vary.sum::<usize>() + self.body.len()
    }
}

#[expect(clippy::borrowed_box, reason = "the cache hands out its keys so")]
fn weight(key: &Box<str>, stored: &Arc<Stored>) -> u32 {
    u32::try_from(key.len() + stored.weight()).unwrap_or(u32::MAX)
}

/// What identifies the answers to a call.
#[derive(Debug)]
pub(crate) struct Question {
    /// By [`StaleKey`]: `request`, `principal`.
    keys: [Option<Box<str>>; 2],
    headers: HeaderMap,
}

/// Which keys a policy's steps look for, by [`StaleKey`].
pub(crate) type Wanted = [bool; 2];

/// The place of `key` in a [`Wanted`].
pub(crate) const fn place(key: StaleKey) -> usize {
    match key {
        StaleKey::Request => 0,
        StaleKey::Principal => 1,
    }
}

impl Question {
    /// The question `request` asks of `route`; `None` when no answer to it is ever kept.
    pub(crate) fn of<B>(
        store: &StaleStore,
        request: &Request<B>,
        route: &str,
        context: &Context,
        wanted: Wanted,
    ) -> Option<Self> {
        let headers = request.headers();
        let readable = matches!(*request.method(), Method::GET | Method::HEAD);
        if !readable || is_grpc(headers) || says(headers, &["no-store"]) {
            return None;
        }
        let credential = headers.get(AUTHORIZATION);
        let mut keys = [None, None];
        if wanted[place(StaleKey::Request)] && credential.is_none() {
            keys[0] = Some(key(request, route, format_args!("")));
        }
        if wanted[place(StaleKey::Principal)] {
            keys[1] = Some(match (context.principal(), credential) {
                (Some(principal), _) => key(request, route, format_args!("={principal}")),
                (None, Some(credential)) => {
                    let hash = store.hash(credential.as_bytes());
                    key(request, route, format_args!("#{hash:x}"))
                }
                (None, None) => key(request, route, format_args!("")),
            });
        }
        let asked = keys.iter().any(Option::is_some);
        asked.then(|| Self { keys, headers: headers.clone() })
    }

    fn key(&self, key: StaleKey) -> Option<&str> {
        self.keys[place(key)].as_deref()
    }
}

/// Route, method, whose, host and target. Of these only the third can hold the separator, so that
/// no two calls have the same key by accident or by design.
fn key<B>(request: &Request<B>, route: &str, whose: fmt::Arguments<'_>) -> Box<str> {
    let host = request.headers().get(HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let host = String::from_utf8_lossy(host);
    let (method, uri) = (request.method(), request.uri());
    let mut key = String::with_capacity(160);
    // A string takes whatever is written to it.
    let _infallible = write!(key, "{route}\n{method}\n{whose}\n{host}\n{uri}");
    key.into_boxed_str()
}

/// An answer that is being copied, to be kept when it is complete.
#[derive(Debug)]
pub(crate) struct Keeping {
    store: Arc<StaleStore>,
    question: Box<Question>,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Keeping {
    /// Begins to copy `response`, if it is one that may be kept.
    pub(crate) fn begin<R>(
        store: &Arc<StaleStore>,
        question: Box<Question>,
        response: &Response<R>,
    ) -> Option<Box<Self>> {
        let headers = response.headers();
        let declared = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        let length: usize = declared.unwrap_or(0);
        let kept = response.status() == StatusCode::OK
            && length <= BODY_BYTES_MAX
            && !says(headers, &["no-store", "private"])
            && !headers.contains_key(SET_COOKIE)
            && !varied(headers).any(|name| name == "*");
        kept.then(|| {
            let body = Vec::with_capacity(length);
            let (store, headers) = (Arc::clone(store), headers.clone());
            Box::new(Self { store, question, headers, body })
        })
    }

    /// Copies one part of the body; false when it has become too long to be kept.
    #[must_use]
    pub(crate) fn copy(&mut self, part: &[u8]) -> bool {
        let fits = self.body.len() + part.len() <= BODY_BYTES_MAX;
        if fits {
            self.body.extend_from_slice(part);
        }
        fits
    }

    /// Keeps the answer, which has come to its end.
    pub(crate) fn complete(self) {
        let Self { store, question, mut headers, body } = self;
        let Question { keys, headers: asked } = *question;
        let age = headers.remove(AGE).and_then(|v| v.to_str().ok()?.parse().ok());
        let vary = varied(&headers)
            .filter_map(|name| HeaderName::try_from(name).ok())
            .map(|name| {
                let values = asked.get_all(&name).iter().map(own).collect();
                (name, values)
            })
            .collect();
        let stored = Arc::new(Stored {
            at: MonotonicClock.now(),
            age: Duration::from_secs(age.unwrap_or(0)),
            vary,
            headers: own_all(&headers),
            body: Bytes::from(body.into_boxed_slice()),
        });
        for key in keys.into_iter().flatten() {
            store.kept.insert(key, Arc::clone(&stored));
        }
    }
}

/// A copy of `headers` that holds nothing but its own bytes.
fn own_all(headers: &HeaderMap) -> HeaderMap {
    let mut own_fields = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        // What is a name already is one again.
        if let Ok(name) = HeaderName::from_bytes(name.as_str().as_bytes()) {
            own_fields.append(name, own(value));
        }
    }
    own_fields
}

/// A copy of `value` that holds nothing but its own bytes.
fn own(value: &HeaderValue) -> HeaderValue {
    // What is a value already is one again.
    let mut copy = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
    copy.set_sensitive(value.is_sensitive());
    copy
}

/// Whether `Cache-Control` holds one of `directives`, with an argument or without.
fn says(headers: &HeaderMap, directives: &[&str]) -> bool {
    let values = headers.get_all(CACHE_CONTROL).iter();
    let parts = values.flat_map(|value| value.as_bytes().split(|&b| b == b','));
    let mut names = parts.map(|part| {
        let name = part.split(|&b| b == b'=').next().unwrap_or_default();
        name.trim_ascii()
    });
    names.any(|name| directives.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes())))
}

/// The names in `Vary`. One that cannot be read counts as `*`.
fn varied(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(VARY).iter();
    let names = values.flat_map(|value| value.to_str().unwrap_or("*").split(','));
    names.map(str::trim).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_holds_no_buffer_of_a_connection() {
        let buffer = Bytes::from(b"x-made-by shop-42 accept-language zh-CN".repeat(100));
        let text = |from, to| HeaderValue::from_maybe_shared(buffer.slice(from..to)).unwrap();
        let mut request = Request::new(());
        request.headers_mut().insert("accept-language", text(34, 39));
        let mut response = Response::new(());
        response.headers_mut().append("x-made-by", text(10, 17));
        response.headers_mut().append("x-made-by", text(0, 9));
        response.headers_mut().insert(VARY, text(18, 33));
        assert!(!buffer.is_unique());

        let store = Arc::new(StaleStore::new(STALE_BYTES_MAX));
        let context = Context::new(Instant::ZERO, crate::context::Facts::default());
        let question = || Question::of(&store, &request, "all", &context, [true, false]).unwrap();
        let keeping = Keeping::begin(&store, Box::new(question()), &response).unwrap();
        keeping.complete();
        let now = MonotonicClock.now();
        let answer = store.answer(&question(), StaleKey::Request, Duration::MAX, now).unwrap();
        let made: Vec<_> = answer.headers.get_all("x-made-by").iter().collect();
        assert_eq!(made, ["shop-42", "x-made-by"]);
        store.settle();
        // Four fields' texts and the key, at the least.
        assert!(store.bytes() > 100, "{}", store.bytes());
        drop((request, response));
        assert!(buffer.is_unique(), "a buffer is held");
    }
}
