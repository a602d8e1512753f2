//! What a keyed limit is keyed by.

use std::fmt;
use std::num::NonZeroU32;

use crate::Invalid;

/// One part of a key, as written in `key = ["principal", "header:x-tenant"]`.
///
/// Whoever knows the call joins the parts' values and hashes them; a part the call does not have
/// counts as empty, so that calls without it share one quota instead of having none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyPart {
    /// `client_address`: the address of the caller, behind trusted proxies the one they report.
    ClientAddress,
    /// `principal`: who the caller has proved to be.
    Principal,
    /// `tenant`: the tenant of the principal.
    Tenant,
    /// `header:NAME`: a request header, name in lower case.
    Header(String),
    /// `path:NAME`: what the route's path captured under that name.
    Path(String),
    /// `query:NAME`: a parameter of the query.
    Query(String),
    /// `cookie:NAME`: a cookie.
    Cookie(String),
    /// `service`: the service that is called.
    Service,
}

impl KeyPart {
    /// Reads one part.
    ///
    /// # Errors
    ///
    /// [`Invalid`] under `path` when `text` is none of the words above, or a name is missing,
    /// longer than 128 bytes, or holds a byte no such name can hold.
    pub fn parse(path: &str, text: &str) -> Result<Self, Invalid> {
        let (word, name) = match text.split_once(':') {
            Some((word, name)) => (word, Some(name)),
            None => (text, None),
        };
        let part = match (word, name) {
            ("client_address", None) => return Ok(Self::ClientAddress),
            ("principal", None) => return Ok(Self::Principal),
            ("tenant", None) => return Ok(Self::Tenant),
            ("service", None) => return Ok(Self::Service),
            ("header", Some(name)) => Self::Header(name.to_ascii_lowercase()),
            ("path", Some(name)) => Self::Path(name.to_owned()),
            ("query", Some(name)) => Self::Query(name.to_owned()),
            ("cookie", Some(name)) => Self::Cookie(name.to_owned()),
            _ => {
                let known = "`client_address`, `principal`, `tenant`, `service`, `header:NAME`, \
                             `path:NAME`, `query:NAME` or `cookie:NAME`";
                return Err(Invalid::range(path, format!("must be {known}, found {text:?}")));
            }
        };
        let name = name.unwrap_or_default();
        let legal = |b: u8| match part {
            Self::Header(_) | Self::Cookie(_) => is_token(b),
            _ => !b.is_ascii_control(),
        };
        if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(legal) {
            Ok(part)
        } else {
            Err(Invalid::range(
                path,
                format!("must name the {word}, 1 to 128 bytes, after the `:`"),
            ))
        }
    }
}

impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientAddress => f.write_str("client_address"),
            Self::Principal => f.write_str("principal"),
            Self::Tenant => f.write_str("tenant"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Path(name) => write!(f, "path:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Service => f.write_str("service"),
        }
    }
}

/// Another quota for one exact key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The value of each part of the key, in the order of the parts.
    pub key: Vec<String>,
    /// Units per window.
    pub max: NonZeroU32,
    /// Units a bucket holds; other kinds do not look at it.
    pub burst: NonZeroU32,
}

/// Longest name of a header, parameter or cookie, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// Whether `b` may stand in a token (RFC 9110, section 5.6.2).
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}
