//! Requests refused that come from a holder who has lost its lock.
//!
//! Whoever sends a request under a lock puts the fencing token on it, [`FencingToken::put`]; the
//! service that is asked puts a [`FencingLayer`] before what the lock protects:
//!
//! ```text
//! Mainstay-Fencing-Token: shop/sku-1=41
//! ```
//!
//! The layer remembers the highest token of each lock it has heard of and answers a lower one with
//! 412 `fencing-token-stale`. A request under several locks carries a header for each, or a list.
//! One without the header passes.
//!
//! It judges requests as they come in. It does not hold up a higher token until a lower one that
//! was let in before is through, it forgets with the process, and it knows nothing of other
//! instances of the service. Where that is not enough, and the data lies in a database, check there
//! as well: [`fence`](crate::fence).
//!
//! # What it costs
//!
//! One mutex, held for two look-ups. Memory is bounded by [`NAMES_MAX`] locks. Beyond them the lock
//! with the lowest token is forgotten, and no token below that one is taken any more for a lock
//! that is not remembered: tokens of one control plane are revisions of one store, so whoever is
//! refused without need has held its lock longer than anybody who is remembered, and gets a higher
//! token by asking anew. Nothing stale passes because something was forgotten.

mod token;
mod tokens;

#[cfg(test)]
mod tests;

use std::future::{Ready, ready};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::Either;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use mainstay_api::problem::{MEDIA_TYPE, Problem};
use mainstay_core::Effect;
use mainstay_core::problem::Code;
use parking_lot::Mutex;
use tower_layer::Layer;
use tower_service::Service;

use crate::events;

pub use token::{FencingToken, HEADER, TokenMalformed};
use tokens::{Judged, Tokens};

/// Locks remembered unless configured otherwise: at some 200 bytes each 13 MiB, 45 MiB if all
/// names are as long as they may be.
pub const NAMES_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// Refuses requests whose fencing token is lower than one that was here. Clones, and the services
/// they make, share what they remember.
#[derive(Clone, Debug)]
pub struct FencingLayer {
    shared: Arc<Mutex<Tokens>>,
}

/// What a layer has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FencingCounts {
    /// Requests refused because a higher token was here.
    pub stale: u64,
    /// Requests refused because theirs is below what was forgotten.
    pub below_forgotten: u64,
    /// Locks forgotten for want of room.
    pub forgotten: u64,
}

impl FencingLayer {
    /// Remembers the tokens of up to `names_max` locks of one control plane.
    pub fn new(names_max: NonZeroUsize) -> Self {
        Self { shared: Arc::new(Mutex::new(Tokens::new(names_max))) }
    }

    /// What it has done so far.
    pub fn counted(&self) -> FencingCounts {
        self.shared.lock().counted()
    }
}

impl Default for FencingLayer {
    fn default() -> Self {
        Self::new(NAMES_MAX)
    }
}

impl<S> Layer<S> for FencingLayer {
    type Service = Fencing<S>;

    fn layer(&self, inner: S) -> Fencing<S> {
        Fencing { shared: Arc::clone(&self.shared), inner }
    }
}

/// See [`FencingLayer`].
#[derive(Clone, Debug)]
pub struct Fencing<S> {
    shared: Arc<Mutex<Tokens>>,
    inner: S,
}

impl<S, B, A> Service<Request<B>> for Fencing<S>
where
    S: Service<Request<B>, Response = Response<A>>,
    A: From<Bytes>,
{
    type Response = Response<A>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<A>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match judge(&self.shared, request.headers()) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(problem) => Either::Right(ready(Ok(answer(&problem)))),
        }
    }
}

/// Judges every token of a request; it passes with all or with none, and only then do they count.
fn judge(shared: &Mutex<Tokens>, headers: &HeaderMap) -> Result<(), Box<Problem>> {
    if !headers.contains_key(HEADER) {
        return Ok(());
    }
    let tokens = FencingToken::all(headers)
        .map_err(|error| problem(Code::InvalidRequest, error.to_string()))?;
    let judged = shared.lock().judge(&tokens);
    let (token, seen, why) = match judged {
        Judged::Passes => return Ok(()),
        Judged::Stale { token, seen } => (token, seen, "which was here before"),
        Judged::BelowForgotten { token, seen } => {
            (token, seen, "below which this service remembers nothing")
        }
    };
    let (name, number) = (token.name(), token.token());
    events::StaleToken { name, token: number, seen }.emit();
    let detail = format!("token {number} of `{name}` is older than {seen}, {why}");
    Err(problem(Code::FencingTokenStale, detail))
}

fn problem(code: Code, detail: String) -> Box<Problem> {
    Box::new(crate::problem::problem(code, detail, Some(Effect::None)))
}

fn answer<A: From<Bytes>>(problem: &Problem) -> Response<A> {
    let body = serde_json::to_vec(problem).expect("texts and numbers are JSON");
    let mut response = Response::new(A::from(body.into()));
    *response.status_mut() =
        StatusCode::from_u16(problem.status).unwrap_or(StatusCode::PRECONDITION_FAILED);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response
}
