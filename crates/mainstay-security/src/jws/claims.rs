//! What a token must say, and to whom.

use std::time::Duration;

use mainstay_core::moment::Moment;

use super::{Algorithm, Object, Refused, Value};

/// How far clocks of issuers may differ from ours.
pub const LEEWAY: Duration = Duration::from_secs(30);

/// How far they may be said to: a minute more of life for every token.
pub const LEEWAY_MAX: Duration = Duration::from_mins(1);

/// Whose tokens are taken, and which of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// `iss`, byte for byte.
    pub issuer: Box<str>,
    /// One of them must be in `aud`.
    pub audiences: Box<[Box<str>]>,
    /// How its tokens are signed.
    pub algorithms: Box<[Algorithm]>,
    /// How far its clock may differ from ours.
    pub leeway: Duration,
    /// Longest time from `iat` to `exp`.
    pub max_life: Option<Duration>,
}

impl Trust {
    /// Trusts `issuer`, with the usual leeway and tokens of any life.
    pub fn new<A: Into<Box<str>>>(
        issuer: impl Into<Box<str>>,
        audiences: impl IntoIterator<Item = A>,
        algorithms: impl IntoIterator<Item = Algorithm>,
    ) -> Self {
        Self {
            issuer: issuer.into(),
            audiences: audiences.into_iter().map(Into::into).collect(),
            algorithms: algorithms.into_iter().collect(),
            leeway: LEEWAY,
            max_life: None,
        }
    }

    /// Checks what `claims` say at `now`; returns when they end, in seconds since 1970.
    pub(super) fn check(&self, claims: &Object, now: Moment) -> Result<f64, Refused> {
        match claims.get("iss").ok_or(Refused::Missing("iss"))? {
            Value::Text(issuer) if *issuer == self.issuer => (),
            Value::Text(_) => return Err(Refused::Issuer),
            _ => return Err(Refused::Type("iss")),
        }
        self.check_audience(claims.get("aud").ok_or(Refused::Missing("aud"))?)?;
        if claims.get("sub").is_some_and(|sub| sub.as_text().is_none()) {
            return Err(Refused::Type("sub"));
        }
        let now = Duration::from_millis(now.unix_millis()).as_secs_f64();
        let leeway = self.leeway.as_secs_f64();
        let expires = number(claims, "exp")?.ok_or(Refused::Missing("exp"))?;
        if expires + leeway <= now {
            return Err(Refused::Expired);
        }
        if number(claims, "nbf")?.is_some_and(|begins| now < begins - leeway) {
            return Err(Refused::NotYet);
        }
        let issued = number(claims, "iat")?;
        if issued.is_some_and(|issued| now + leeway < issued) {
            return Err(Refused::IssuedLater);
        }
        if let Some(max) = self.max_life
            && issued.is_none_or(|issued| max.as_secs_f64() < expires - issued)
        {
            return Err(Refused::LifeTooLong);
        }
        Ok(expires)
    }

    fn check_audience(&self, audience: &Value) -> Result<(), Refused> {
        let is_ours = |name: &str| self.audiences.iter().any(|ours| **ours == *name);
        let named = match audience {
            Value::Text(name) => is_ours(name),
            Value::List(names) => {
                let mut named = false;
                for name in names {
                    named |= is_ours(name.as_text().ok_or(Refused::Type("aud"))?);
                }
                named
            }
            _ => return Err(Refused::Type("aud")),
        };
        if named { Ok(()) } else { Err(Refused::Audience) }
    }
}

fn number(claims: &Object, name: &'static str) -> Result<Option<f64>, Refused> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    value.as_number().map(Some).ok_or(Refused::Type(name))
}
