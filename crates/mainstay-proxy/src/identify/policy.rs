//! Whose tokens a route takes, and what becomes of a request that brings one, or none.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use mainstay_call::context::Caller;
use mainstay_core::moment::Moment;
use mainstay_core::problem::Code;
use mainstay_core::{Instant, Problem};
use mainstay_security::jws::{Fingerprint, Refused, Token, Value, Verified};

use super::issuers::{Issuer, Issuers, bearer};
use super::keys::{Unknown, Waiting};
use super::verdicts::{KEPT, Verdict};
use crate::config::jwt::FailMode;
use crate::route::{Demand, Route};
use crate::time::wall_clock;

/// Whose tokens a route takes.
#[derive(Debug)]
pub struct Policy {
    issuers: Arc<Issuers>,
    demand: Demand,
    /// By name; empty for all.
    only: Box<[Box<str>]>,
    anonymous: Arc<Caller>,
}

/// What becomes of a request.
pub(super) enum Decision {
    /// It goes on, as this caller's.
    Known(Arc<Verdict>),
    /// It goes on, as anybody's. Whether a token is taken off it that nobody could verify.
    Anonymous { strip: bool },
    /// It does not.
    Denied(Box<Problem>),
    /// It waits for keys.
    Wait(Waiting),
}

/// Why a token is not believed.
enum Why {
    Refused(Refused),
    Other(&'static str),
    Unavailable {
        issuer: Arc<Issuer>,
        retry_after: Duration,
    },
    Wait(Waiting),
    /// Other keys came while the token was looked at.
    Again,
}

impl From<Refused> for Why {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl Policy {
    /// That of `route`; `None` where no token is looked at.
    pub fn of(route: &Route, issuers: &Arc<Issuers>) -> Option<Arc<Self>> {
        if issuers.is_empty() || route.jwt == Demand::Off {
            return None;
        }
        Some(Arc::new(Self {
            issuers: Arc::clone(issuers),
            demand: route.jwt,
            only: route.jwt_issuers.clone(),
            anonymous: Arc::new(Caller {
                kind: "anonymous",
                issuer: Arc::from(""),
                principal: None,
            }),
        }))
    }

    /// Who calls when nobody says.
    pub(super) fn anonymous(&self) -> Arc<Caller> {
        Arc::clone(&self.anonymous)
    }

    /// Decides about a request with `headers` at `now`. Without `patience` nobody waits for keys.
    pub(super) fn decide(&self, headers: &HeaderMap, now: Instant, patience: bool) -> Decision {
        let nobody = &self.issuers.nobody;
        let token = match bearer(headers) {
            Ok(Some(token)) => token,
            Ok(None) if self.demand == Demand::Required => {
                nobody.missing.inc();
                let detail =
                    "the route is for callers who bring a token: `Authorization: Bearer …`";
                return Decision::Denied(Box::new(Problem::new(Code::Unauthenticated, detail)));
            }
            Ok(None) => return Decision::Anonymous { strip: false },
            Err(_several) => {
                nobody.invalid.inc();
                return denied("the request has several `Authorization` fields");
            }
        };
        let fingerprint = Fingerprint::of(token);
        if let Some(verdict) = self.kept(&fingerprint, now) {
            if !self.takes(&verdict.issuer) {
                verdict.issuer.checks.invalid.inc();
                return denied(NOT_HERE);
            }
            verdict.issuer.checks.cached.inc();
            return Decision::Known(verdict);
        }
        match self.verify(token, fingerprint, now, patience) {
            Ok(verdict) => Decision::Known(verdict),
            Err(Why::Refused(refused)) => denied(refused.to_string()),
            Err(Why::Other(why)) => denied(why),
            Err(Why::Wait(waiting)) => Decision::Wait(waiting),
            // Each time keys have come, which they do once a minute at most.
            Err(Why::Again) => self.decide(headers, now, patience),
            Err(Why::Unavailable { issuer, .. })
                if issuer.config.fail_mode == FailMode::PermitAnonymous =>
            {
                Decision::Anonymous { strip: !issuer.config.forward_token }
            }
            Err(Why::Unavailable { retry_after, .. }) => {
                let detail = "the keys of the token's issuer are not known";
                let mut problem = Problem::new(Code::JwksUnavailable, detail);
                problem.retry_after = Some(retry_after);
                Decision::Denied(Box::new(problem))
            }
        }
    }

    /// What was found of the token lately, if its key is still one of the issuer's.
    fn kept(&self, token: &Fingerprint, now: Instant) -> Option<Arc<Verdict>> {
        let verdict = self.issuers.verdicts.as_ref()?.get(token, now)?;
        let published = verdict.issuer.keys.published(now).ok()?;
        let keys = &published.as_ref()?.keys;
        (Arc::ptr_eq(keys, &verdict.keys) || keys.has(verdict.key)).then_some(verdict)
    }

    fn takes(&self, issuer: &Issuer) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| **only == *issuer.name)
    }

    fn verify(
        &self,
        token: &[u8],
        fingerprint: Fingerprint,
        now: Instant,
        patience: bool,
    ) -> Result<Arc<Verdict>, Why> {
        let nobody = |why| {
            self.issuers.nobody.invalid.inc();
            Why::Refused(why)
        };
        let token = Token::parse(token).map_err(nobody)?;
        let Some(named) = token.issuer() else { return Err(nobody(Refused::Missing("iss"))) };
        let mut all = self.issuers.list.iter();
        let issuer = all.find(|issuer| *issuer.name == *named);
        let issuer = issuer.ok_or_else(|| nobody(Refused::Issuer))?;
        let checked = self.believe(token, fingerprint, issuer, now, patience);
        let checks = &issuer.checks;
        match &checked {
            Ok(_) => drop(checks.verified.inc()),
            Err(Why::Refused(_) | Why::Other(_)) => drop(checks.invalid.inc()),
            Err(Why::Unavailable { .. }) => drop(checks.unavailable.inc()),
            // It comes again.
            Err(Why::Wait(_) | Why::Again) => {}
        }
        checked
    }

    fn believe(
        &self,
        token: Token<'_>,
        fingerprint: Fingerprint,
        issuer: &Arc<Issuer>,
        now: Instant,
        patience: bool,
    ) -> Result<Arc<Verdict>, Why> {
        if !self.takes(issuer) {
            return Err(Why::Other(NOT_HERE));
        }
        let published = issuer.keys.published(now);
        let published = published.map_err(|retry_after| {
            let issuer = Arc::clone(issuer);
            Why::Unavailable { issuer, retry_after }
        })?;
        let Some(published) = published.as_ref() else { return Err(Refused::KeyUnknown.into()) };
        let named = token.key().map(Box::<str>::from);
        let clock = moment();
        let verified = match token.verify(&issuer.config.trust, &published.keys, clock) {
            Ok(verified) => verified,
            Err(Refused::KeyUnknown) if patience => {
                return Err(match issuer.keys.ask(now, &named.unwrap_or_default()) {
                    Unknown::Wait(waiting) => Why::Wait(waiting),
                    Unknown::Again => Why::Again,
                    Unknown::Refuse => Refused::KeyUnknown.into(),
                });
            }
            Err(refused) => return Err(refused.into()),
        };
        let fields = fields(&issuer.config.claims, &verified)?;
        let until = now.plus(verified.expires.since(clock).min(KEPT));
        let verdict = Arc::new(Verdict {
            fingerprint,
            issuer: Arc::clone(issuer),
            caller: Arc::new(caller(issuer, &verified)),
            fields,
            key: verified.key,
            keys: Arc::clone(&published.keys),
            until,
        });
        if let Some(verdicts) = self.issuers.verdicts.as_ref().filter(|_| now < until) {
            verdicts.keep(Arc::clone(&verdict));
        }
        Ok(verdict)
    }
}

/// Puts what is known of the caller into what the service gets.
pub(super) fn tell(headers: &mut HeaderMap, verdict: &Verdict) {
    if !verdict.issuer.config.forward_token {
        headers.remove(AUTHORIZATION);
    }
    for (name, value) in &verdict.fields {
        headers.insert(name, value.clone());
    }
}

const NOT_HERE: &str = "the route takes no tokens of this issuer";

fn denied(why: impl Into<Cow<'static, str>>) -> Decision {
    Decision::Denied(Box::new(Problem::new(Code::JwtInvalid, why)))
}

fn caller(issuer: &Issuer, verified: &Verified) -> Caller {
    let principal = verified.subject.as_ref();
    Caller {
        kind: "external",
        issuer: Arc::clone(&issuer.name),
        // No issuer has a space in it, so that no two callers go by the same.
        principal: principal.map(|sub| format!("external/{} {sub}", issuer.name).into()),
    }
}

/// The time of day, which tokens bear. One that is set before 1970 is that.
fn moment() -> Moment {
    let since = wall_clock().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Moment::from_unix_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The claims that services are told, as fields. A claim that is not there has none; a token with
/// one that cannot be told is refused, since to leave it out would be to say something else.
fn fields(
    claims: &[(Box<str>, HeaderName)],
    verified: &Verified,
) -> Result<Box<[(HeaderName, HeaderValue)]>, Why> {
    let mut fields = Vec::with_capacity(claims.len());
    for (claim, name) in claims {
        let Some(value) = verified.claims.get(claim) else { continue };
        let text = text(value).ok_or(Why::Other(UNTELLABLE))?;
        let value = HeaderValue::from_bytes(text.as_bytes());
        fields.push((name.clone(), value.map_err(|_illegal| Why::Other(UNTELLABLE))?));
    }
    Ok(fields.into())
}

const UNTELLABLE: &str = "a claim that services are told cannot stand in a header field";

/// What a claim is in a field. In a list nothing may hold the comma that divides it.
fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Text(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(flag) => Some(Cow::Borrowed(if *flag { "true" } else { "false" })),
        Value::List(list) => {
            let texts = list.iter().map(|item| item.as_text().filter(|text| !text.contains(',')));
            let texts = texts.collect::<Option<Vec<_>>>()?;
            Some(Cow::Owned(texts.join(",")))
        }
        Value::Null | Value::Object(_) => None,
    }
}
