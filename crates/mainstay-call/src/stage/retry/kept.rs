//! The head of a request, kept to be sent again, and the fields that count its attempts.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use mainstay_resilience::retry::{
    arriving_attempt, method_is_idempotent, outgoing_attempt, outgoing_grpc_attempts,
};

use crate::context::Context;
use crate::stage::timeout::is_grpc;

/// Header that tells the next hop which attempt this is; absent on the first.
pub const ATTEMPT_HEADER: HeaderName = HeaderName::from_static("mainstay-attempt");

const GRPC_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The attempt that `headers` say a call arrived as.
pub fn arriving(headers: &HeaderMap) -> u32 {
    let of = |name| headers.get(name).map(HeaderValue::as_bytes);
    arriving_attempt(of(ATTEMPT_HEADER), of(GRPC_ATTEMPTS))
}

/// The head of a request, to be sent again.
#[derive(Debug)]
pub(super) struct Kept {
    method: http::Method,
    uri: http::Uri,
    version: http::Version,
    headers: HeaderMap,
    extensions: Option<http::Extensions>,
    pub(super) idempotent: bool,
    pub(super) arriving: u32,
}

impl Kept {
    pub(super) fn of<B>(request: &http::Request<B>, context: &Context) -> Self {
        let headers = request.headers();
        // Usually the context is the only extension, and is known here anyway.
        let others = request.extensions().len() > 1;
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: headers.clone(),
            extensions: others.then(|| request.extensions().clone()),
            idempotent: context.facts.idempotent
                || method_is_idempotent(request.method().as_str())
                || headers.contains_key(IDEMPOTENCY_KEY),
            // Whoever made the context has read this, unless this layer stands alone.
            arriving: match context.facts.arriving_attempt {
                0 => arriving(headers),
                known => known,
            },
        }
    }

    /// The request for attempt `number`.
    pub(super) fn again<B>(
        &self,
        number: u32,
        context: &Arc<Context>,
        body: B,
    ) -> http::Request<B> {
        let mut request = http::Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers.clone();
        if let Some(extensions) = &self.extensions {
            *request.extensions_mut() = extensions.clone();
        }
        request.extensions_mut().insert(Arc::clone(context));
        let (name, value) = if is_grpc(&self.headers) {
            (GRPC_ATTEMPTS, outgoing_grpc_attempts(number, self.arriving))
        } else {
            (ATTEMPT_HEADER, outgoing_attempt(number, self.arriving))
        };
        if let Some(value) = value.and_then(|v| HeaderValue::from_str(v.as_str()).ok()) {
            request.headers_mut().insert(name, value);
        }
        request
    }
}
