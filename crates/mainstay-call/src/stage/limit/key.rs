//! Where the values of limits' keys come from.

use std::borrow::Cow;

use mainstay_resilience::key::KeyPart;

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
