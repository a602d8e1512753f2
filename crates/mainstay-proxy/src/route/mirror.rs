//! A copy of a request, sent to somebody who is only to be watched.

use http::Method;
use mainstay_core::name::ServiceName;
use mainstay_resilience::Invalid;
use mainstay_resilience::invalid::within;
use schemars::JsonSchema;
use serde::Deserialize;

/// The `mirror` of a route as written.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawMirror {
    /// Service that gets the copies; its answers are dropped.
    pub service: ServiceName,
    /// Share of the calls that are copied, 0 to 100 percent, in steps of 0.01. Default 100.
    pub percent: Option<f64>,
    /// Methods that are copied. Default: the safe ones, `GET`, `HEAD` and `OPTIONS`; naming
    /// others means their effects happen twice.
    pub methods: Option<Vec<String>>,
}

/// Who gets copies of a route's calls, and of which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Service that gets the copies.
    pub service: ServiceName,
    /// Share of the calls that are copied, in basis points.
    pub basis_points: u16,
    /// Methods that are copied.
    pub methods: Box<[Method]>,
}

impl Mirror {
    /// Whether a call of `method` is copied, for a `draw` uniform over all of `u64`.
    pub fn copies(&self, method: &Method, draw: u64) -> bool {
        let bucket = (u128::from(draw) * 10_000) >> 64;
        bucket < u128::from(self.basis_points) && self.methods.contains(method)
    }
}

impl TryFrom<RawMirror> for Mirror {
    type Error = Invalid;

    fn try_from(raw: RawMirror) -> Result<Self, Invalid> {
        let percent = within("percent", raw.percent.unwrap_or(100.0), 0.0, 100.0)?;
        let methods = match raw.methods {
            Some(methods) => super::resolve::methods("methods", methods)?,
            None => [Method::GET, Method::HEAD, Method::OPTIONS].into(),
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 10,000 after the check above"
        )]
        let basis_points = (percent * 100.0).round() as u16;
        Ok(Self { service: raw.service, basis_points, methods })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(text: &str) -> Result<Mirror, Invalid> {
        toml::from_str::<RawMirror>(text).expect("a mirror").try_into()
    }

    #[test]
    fn the_share_is_exact_and_only_safe_methods_are_copied() {
        let five = mirror("service = 'next'\npercent = 5").expect("legal");
        let draws = (0..10_000u64).map(|i| i * (u64::MAX / 10_000 + 1));
        assert_eq!(draws.filter(|&draw| five.copies(&Method::GET, draw)).count(), 500);
        assert!(!five.copies(&Method::POST, 0));
        let post = mirror("service = 'next'\nmethods = ['POST']").expect("legal");
        assert!(post.copies(&Method::POST, u64::MAX) && !post.copies(&Method::GET, 0));
        let none = mirror("service = 'next'\npercent = 0").expect("legal");
        assert!(!none.copies(&Method::GET, 0));
    }

    #[test]
    fn a_share_beyond_all_is_refused() {
        for bad in ["percent = 101", "percent = -1", "percent = nan", "methods = ['G T']"] {
            assert!(mirror(&format!("service = 'next'\n{bad}")).is_err(), "{bad}");
        }
    }
}
