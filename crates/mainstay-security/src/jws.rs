//! Signed tokens: JWT (RFC 7519) in the compact form of JWS (RFC 7515), read without leniency.
//!
//! What a token may look like, what a key must be and what claims must say is one table in
//! `docs/jwt.md`; each of its rows is a module here and a [`Part`] of a [`Refused`]. A library
//! that reads tokens for everybody has to be lenient somewhere. This one is for a gateway in front
//! of services that may read the same token again, so it refuses whatever two readers could take
//! for different things: a member that is there twice, bits that decode to nothing, a header that
//! must be understood and is not.
//!
//! Only keys of the issuer count. What a token says of where its key is to be found (`jku`, `x5u`,
//! `jwk`, `x5c`) is not looked at.
//!
//! ```
//! use mainstay_core::moment::Moment;
//! use mainstay_security::jws::{Algorithm, KeySet, Origin, Token, Trust};
//!
//! let keys = KeySet::parse(br#"{"keys":[]}"#, Origin::Remote).expect("a key set");
//! let trust = Trust::new("https://id.example", ["orders"], [Algorithm::Es256]);
//! let verdict = Token::parse(b"a.b.c").and_then(|token| {
//!     token.verify(&trust, &keys, Moment::from_unix_millis(0))
//! });
//! assert!(verdict.is_err());
//! ```

mod algorithm;
mod claims;
mod json;
mod key;
mod key_set;
mod refused;
#[cfg(test)]
mod tests;
mod token;

pub use algorithm::Algorithm;
pub use claims::{LEEWAY, LEEWAY_MAX, Trust};
pub use json::{Object, Value};
pub use key::{Key, KeyId, Origin};
pub use key_set::{Dropped, KEYS_MAX, KeySet, SET_BYTES_MAX, SetInvalid, Unusable};
pub use refused::{Part, Refused};
pub use token::{Fingerprint, TOKEN_BYTES_MAX, Token, Verified};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Decodes base64url without padding. White space, padding, other alphabets and bits that no byte
/// is made of are refused, so that one text is one sequence of bytes and the other way round.
fn base64url(text: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}
