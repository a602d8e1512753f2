//! A request that may have to be sent to a substitute, or made later.

use std::sync::Arc;

use http::{HeaderMap, Request};
use http_body::Body;

use crate::context::Context;
use crate::replay::Replay;

/// A request, to be sent again.
#[derive(Debug)]
pub(super) struct Kept<B> {
    method: http::Method,
    uri: http::Uri,
    version: http::Version,
    headers: HeaderMap,
    extensions: http::Extensions,
    pub(super) body: Replay<B>,
}

impl<B: Body> Kept<B> {
    pub(super) fn of(request: &Request<Replay<B>>) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: request.headers().clone(),
            extensions: request.extensions().clone(),
            body: request.body().handle(),
        }
    }

    /// Its head alone, without what this process knows of it.
    pub(super) fn head(&self) -> http::request::Parts {
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = self.method.clone();
        head.uri = self.uri.clone();
        head.headers = self.headers.clone();
        head
    }

    /// The same request as a call of its own.
    pub(super) fn again(&self, context: Arc<Context>, body: Replay<B>) -> Request<Replay<B>> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers.clone();
        *request.extensions_mut() = self.extensions.clone();
        request.extensions_mut().insert(context);
        request
    }
}
