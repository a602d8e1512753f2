//! Configuration of the data plane: what was written, and what it means.
//!
//! | table | as written | resolved |
//! |---|---|---|
//! | `[gateway]` | [`RawGateway`] | [`GatewayConfig`] |
//! | `[[gateway.jwt]]` | [`RawJwt`] | [`JwtConfig`] |
//! | `[gateway.limits]` | [`RawGatewayLimits`] | [`GatewayLimits`] |
//! | `[upstream.NAME]` | [`RawUpstream`] | [`UpstreamConfig`] |
//!
//! Routes have their own place, [`route`](crate::route).

pub mod gateway;
pub mod jwt;
pub mod limits;
mod names;
pub mod plane;
pub mod upstream;

use mainstay_resilience::Invalid;

pub use gateway::{GatewayConfig, RawGateway};
pub use jwt::{JwtConfig, RawJwt};
pub use limits::{GatewayLimits, RawGatewayLimits};
pub use plane::{Plane, RawPlane, SHARED_NAMESPACE};
pub use upstream::{RawUpstream, UpstreamConfig};

/// Reads `namespace`: 1 to 63 of `a-z`, `0-9`, `-`; `default` where there is none.
pub(crate) fn namespace(written: Option<String>) -> Result<Box<str>, Invalid> {
    label("namespace", written.unwrap_or_else(|| "default".to_owned()), 63)
}

/// Reads the name of a switch: 1 to 128 of `a-z`, `0-9`, `-`.
pub(crate) fn switch(path: &str, name: String) -> Result<Box<str>, Invalid> {
    label(path, name, 128)
}

fn label(path: &str, text: String, bytes_max: usize) -> Result<Box<str>, Invalid> {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=bytes_max).contains(&text.len()) && text.bytes().all(legal) {
        return Ok(text.into());
    }
    let problem = format!("must be 1 to {bytes_max} of `a-z`, `0-9` and `-`, found `{text}`");
    Err(Invalid::range(path, problem))
}
