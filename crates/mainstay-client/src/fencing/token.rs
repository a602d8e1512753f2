//! The header.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries fencing tokens.
pub const HEADER: HeaderName = HeaderName::from_static("mainstay-fencing-token");

/// A namespace, `/` and the name of a lock are no longer.
const NAME_BYTES_MAX: usize = 63 + 1 + 255;

/// Tokens of one request. More locks than this are not held for one write, and each is looked up
/// with everybody else waiting.
const TOKENS_MAX: usize = 16;

/// The fencing token of one lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FencingToken {
    name: String,
    token: u64,
}

/// Why there is no such token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`Mainstay-Fencing-Token` must be `NAMESPACE/LOCK=TOKEN`, 1 to 16 of them, not {found:?}")]
pub struct TokenMalformed {
    found: String,
}

impl FencingToken {
    /// The token `token` of the lock called `name`, its namespace included: `shop/sku-1`.
    ///
    /// # Errors
    ///
    /// [`TokenMalformed`] unless `name` is 1 to 319 of A-Z, a-z, 0-9, `.`, `_`, `:`, `/` and `-`,
    /// and `token` is not 0.
    pub fn new(name: impl Into<String>, token: u64) -> Result<Self, TokenMalformed> {
        let name = name.into();
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/-".contains(&byte);
        let is_legal = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(legal);
        if is_legal && token > 0 {
            return Ok(Self { name, token });
        }
        Err(TokenMalformed { found: format!("{name}={token}") })
    }

    /// Whose it is: namespace, `/`, name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number.
    pub const fn token(&self) -> u64 {
        self.token
    }

    /// Puts it on a request, beside those of other locks.
    #[expect(clippy::missing_panics_doc, reason = "checked names are ASCII")]
    pub fn put(&self, headers: &mut HeaderMap) {
        let value = HeaderValue::try_from(self.to_string()).expect("the name is ASCII");
        headers.append(HEADER, value);
    }

    /// Those on a request.
    pub(super) fn all(headers: &HeaderMap) -> Result<Vec<Self>, TokenMalformed> {
        let mut tokens = Vec::new();
        for value in headers.get_all(HEADER) {
            let shown = || String::from_utf8_lossy(value.as_bytes()).into_owned();
            let text = value.to_str().map_err(|_not_ascii| TokenMalformed { found: shown() })?;
            for part in text.split(',') {
                tokens.push(Self::parse(part.trim())?);
                if TOKENS_MAX < tokens.len() {
                    return Err(TokenMalformed { found: shown() });
                }
            }
        }
        Ok(tokens)
    }

    fn parse(text: &str) -> Result<Self, TokenMalformed> {
        let malformed = || TokenMalformed { found: text.to_owned() };
        let (name, number) = text.rsplit_once('=').ok_or_else(malformed)?;
        let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse().ok().filter(|_| is_number).ok_or_else(malformed)?;
        Self::new(name, number)
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.token)
    }
}
