//! Reads the parts of limits' keys from a request on its way through the stages.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::Request;
use mainstay_call::context::Context;
use mainstay_call::stage::limit::ReadKey;
use mainstay_resilience::key::KeyPart;

use crate::key::Facts;
use crate::pipeline::CallBody;
use crate::route::{Captures, Route, View};

/// What the gateway found out about a request, for keys that need more than its headers.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Host asked for.
    pub(crate) host: Box<str>,
    /// Judged path.
    pub(crate) path: Box<str>,
    /// Query.
    pub(crate) query: Option<Box<str>>,
    /// Who asks.
    pub(crate) client: IpAddr,
    /// The route that matched.
    pub(crate) route: Arc<Route>,
    /// What it captured of the path.
    pub(crate) captures: Captures,
    /// The service the call goes to.
    pub(crate) service: Box<str>,
}

/// Reads from the [`Found`] in a request's extensions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keys;

impl ReadKey<CallBody> for Keys {
    fn read<'a>(&self, request: &'a Request<CallBody>, part: &'a KeyPart) -> Option<Cow<'a, str>> {
        let found = request.extensions().get::<Arc<Found>>()?;
        let view = View {
            host: &found.host,
            method: request.method(),
            path: &found.path,
            headers: request.headers(),
            query: found.query.as_deref(),
            client: found.client,
        };
        let context = request.extensions().get::<Arc<Context>>();
        let facts = Facts {
            view: &view,
            route: &found.route,
            captures: &found.captures,
            service: Some(&found.service),
            principal: context.and_then(|context| context.principal()).map(|name| &**name),
            tenant: None,
        };
        facts.read(part).map(|value| Cow::Owned(value.into_owned()))
    }
}
