//! The issuers of one configuration.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use mainstay_core::Instant;
use tokio::sync::Notify;

use super::figures::{Checks, JwtFigures};
use super::keys::Keys;
use super::verdicts::Verdicts;
use crate::config::jwt::JwtConfig;

/// The issuers of one configuration, and what was found of their tokens.
#[derive(Debug)]
pub struct Issuers {
    pub(super) list: Box<[Arc<Issuer>]>,
    /// Fields that claims are told in, of all issuers.
    claims: Box<[HeaderName]>,
    /// Without an issuer there is nothing to be kept.
    pub(super) verdicts: Option<Verdicts>,
    /// Counts tokens of nobody trusted, and where there was none.
    pub(super) nobody: Checks,
}

/// An issuer whose tokens are taken.
#[derive(Debug)]
pub struct Issuer {
    /// What was configured.
    pub config: Arc<JwtConfig>,
    /// Its name, to be shared.
    pub(super) name: Arc<str>,
    /// Its keys.
    pub keys: Arc<Keys>,
    pub(super) checks: Checks,
}

impl Issuers {
    /// Those of `configs`, with the keys that are known of those `before`. `wanted` is told when
    /// keys are to be fetched.
    pub(crate) fn new(
        configs: &[Arc<JwtConfig>],
        before: Option<&Self>,
        now: Instant,
        wanted: &Arc<Notify>,
        figures: &JwtFigures,
    ) -> Self {
        let known = |config: &JwtConfig| {
            let all = before.into_iter().flat_map(|before| before.list.iter());
            all.map(|issuer| &issuer.keys).find(|keys| keys.is_of(config)).cloned()
        };
        let issuer = |config: &Arc<JwtConfig>| {
            let keys = known(config).unwrap_or_else(|| Keys::new(config, now, wanted, figures));
            Arc::new(Issuer {
                config: Arc::clone(config),
                name: Arc::from(&*config.trust.issuer),
                keys,
                checks: figures.checks_of(&config.trust.issuer),
            })
        };
        let mut claims: Vec<HeaderName> = Vec::new();
        for (_, name) in configs.iter().flat_map(|config| config.claims.iter()) {
            if !claims.contains(name) {
                claims.push(name.clone());
            }
        }
        Self {
            list: configs.iter().map(issuer).collect(),
            claims: claims.into(),
            verdicts: (!configs.is_empty()).then(Verdicts::default),
            nobody: figures.checks_of(""),
        }
    }

    /// Whether nobody's tokens are taken.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.list.iter()
    }

    /// Fields in which services are told who is calling, which nobody else may fill.
    pub fn claims(&self) -> &[HeaderName] {
        &self.claims
    }

    /// Says in the metrics how old the keys are.
    pub fn look(&self, now: Instant) {
        for issuer in &self.list {
            issuer.keys.look(now);
        }
    }
}

/// The token that `headers` bear: none without `Authorization`, or with another scheme.
///
/// # Errors
///
/// Where there is more than one field: a service may take another one than we do.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, Several> {
    let mut fields = headers.get_all(http::header::AUTHORIZATION).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(Several);
    }
    let field = field.as_bytes();
    let Some((scheme, rest)) = field.split_at_checked(BEARER.len()) else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case(BEARER) {
        return Ok(None);
    }
    match rest {
        [] => Ok(Some(rest)),
        [b' ', ..] => Ok(Some(rest.trim_ascii_start())),
        _ => Ok(None),
    }
}

/// More than one credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Several;

/// RFC 6750, section 2.1; letter case does not matter (RFC 9110, section 11.1).
const BEARER: &[u8] = b"bearer";
