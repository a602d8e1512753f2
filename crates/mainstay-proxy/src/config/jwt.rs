//! Issuers whose tokens tell who is calling: `[[gateway.jwt]]`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};
use mainstay_resilience::Invalid;
use mainstay_resilience::invalid::span;
use mainstay_security::jwks::STALE_MAX;
use mainstay_security::jws::{Algorithm, LEEWAY, LEEWAY_MAX, Trust};
use schemars::JsonSchema;
use serde::Deserialize;

/// One of `[[gateway.jwt]]` as written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawJwt {
    /// What its tokens have in `iss`, byte for byte, 1 to 512 visible ASCII characters.
    pub issuer: Option<String>,
    /// One of these must be in `aud` of a token.
    pub audiences: Option<Vec<String>>,
    /// Address of its key set (JWKS): HTTPS, or HTTP on loopback. Default: `jwks_uri` of the
    /// document at `issuer` + `/.well-known/openid-configuration`.
    pub jwks_url: Option<String>,
    /// File with its key set, in place of an address. Only a file may hold a key for HS256, HS384
    /// and HS512. It is read again every five minutes, and when a token names an unknown key.
    pub jwks_file: Option<PathBuf>,
    /// How its tokens are signed: `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`,
    /// `ES384`, `ES512`, `EdDSA`, and of a `jwks_file` `HS256`, `HS384`, `HS512`. Nothing is taken
    /// for granted.
    pub algorithms: Option<Vec<String>>,
    /// Claims that services are told in header fields, such as `{ sub = "x-user" }`: texts, numbers,
    /// booleans, and lists of texts with commas between. What callers send in these fields is
    /// removed first, on every route. Default none.
    pub claims_to_headers: Option<BTreeMap<String, String>>,
    /// What becomes of requests while the keys are not known: `deny` (503 `jwks-unavailable`), or
    /// `permit-anonymous`. A token that is wrong is refused in any case. Default `deny`.
    pub fail_mode: Option<FailMode>,
    /// Whether services get the token too. Default `false`.
    pub forward_token: Option<bool>,
    /// How far the issuer's clock may differ from ours, in seconds, 0 to 60. Default 30.
    pub leeway_seconds: Option<f64>,
    /// Longest time from `iat` to `exp`, in seconds, 1 to 31,536,000. Default: any.
    pub max_life_seconds: Option<f64>,
    /// How long keys hold that cannot be fetched again, in seconds, 60 to 604,800. Default 86400.
    pub stale_max_seconds: Option<f64>,
}

/// What becomes of requests while the keys are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FailMode {
    /// They are refused.
    #[default]
    Deny,
    /// They pass, as anybody's.
    PermitAnonymous,
}

/// Where a key set lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// At an address.
    Url(Uri),
    /// Where the document at this address says.
    Discovery(Uri),
    /// In a file.
    File(PathBuf),
}

/// An issuer, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtConfig {
    /// Which of its tokens are taken.
    pub trust: Trust,
    /// Where its keys are.
    pub source: Source,
    /// Claims and the fields that services are told them in.
    pub claims: Box<[(Box<str>, HeaderName)]>,
    /// What becomes of requests while the keys are not known.
    pub fail_mode: FailMode,
    /// Whether services get the token too.
    pub forward_token: bool,
    /// How long keys hold that cannot be fetched again.
    pub stale_max: Duration,
}

/// Resolves all issuers; the paths of faults are relative to `[gateway]`.
pub(super) fn resolve(all: Vec<RawJwt>) -> Result<Box<[Arc<JwtConfig>]>, Invalid> {
    let mut resolved: Vec<Arc<JwtConfig>> = Vec::with_capacity(all.len());
    for (at, raw) in all.into_iter().enumerate() {
        let table = format!("jwt[{at}]");
        let jwt = JwtConfig::try_from(raw).map_err(|error| error.within(&table))?;
        if resolved.iter().any(|other| other.trust.issuer == jwt.trust.issuer) {
            let problem = format!("issuer `{}` stands here twice", jwt.trust.issuer);
            return Err(Invalid::contradiction(format!("{table}.issuer"), problem));
        }
        resolved.push(Arc::new(jwt));
    }
    Ok(resolved.into())
}

impl TryFrom<RawJwt> for JwtConfig {
    type Error = Invalid;

    fn try_from(raw: RawJwt) -> Result<Self, Invalid> {
        let issuer = raw.issuer.unwrap_or_default();
        if !(1..=512).contains(&issuer.len()) || !issuer.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Invalid::range("issuer", "must be 1 to 512 visible ASCII characters"));
        }
        let audiences = raw.audiences.unwrap_or_default();
        if audiences.is_empty() || audiences.iter().any(String::is_empty) {
            let problem = "must name at least one audience: without one, tokens for any other \
                           service of the issuer would be taken";
            return Err(Invalid::range("audiences", problem));
        }
        let algorithms = algorithms(raw.algorithms.unwrap_or_default())?;
        let source = source(&issuer, raw.jwks_url, raw.jwks_file)?;
        let symmetric = algorithms.iter().position(|algorithm| algorithm.is_symmetric());
        if let (Some(at), Source::Url(_) | Source::Discovery(_)) = (symmetric, &source) {
            let problem = "needs `jwks_file`: a shared key is never fetched";
            return Err(Invalid::contradiction(format!("algorithms[{at}]"), problem));
        }
        let mut trust = Trust::new(issuer, audiences, algorithms);
        let leeway = raw.leeway_seconds.unwrap_or(LEEWAY.as_secs_f64());
        trust.leeway = span("leeway_seconds", leeway, 0.0, LEEWAY_MAX.as_secs_f64())?;
        let life = |seconds| span("max_life_seconds", seconds, 1.0, 31_536_000.0);
        trust.max_life = raw.max_life_seconds.map(life).transpose()?;
        let stale = raw.stale_max_seconds.unwrap_or(STALE_MAX.as_secs_f64());
        Ok(Self {
            trust,
            source,
            claims: claims(raw.claims_to_headers.unwrap_or_default())?,
            fail_mode: raw.fail_mode.unwrap_or_default(),
            forward_token: raw.forward_token.unwrap_or(false),
            stale_max: span("stale_max_seconds", stale, 60.0, 604_800.0)?,
        })
    }
}

fn algorithms(written: Vec<String>) -> Result<Vec<Algorithm>, Invalid> {
    let all: Vec<&str> = Algorithm::ALL.iter().map(|algorithm| algorithm.as_str()).collect();
    if written.is_empty() {
        let problem = format!("must name at least one of {}", all.join(", "));
        return Err(Invalid::range("algorithms", problem));
    }
    let known = |(at, name): (usize, String)| {
        Algorithm::parse(&name).ok_or_else(|| {
            let problem = format!("must be one of {}, found `{name}`", all.join(", "));
            Invalid::range(format!("algorithms[{at}]"), problem)
        })
    };
    written.into_iter().enumerate().map(known).collect()
}

fn source(issuer: &str, url: Option<String>, file: Option<PathBuf>) -> Result<Source, Invalid> {
    match (url, file) {
        (Some(_), Some(_)) => {
            Err(Invalid::contradiction("jwks_file", "must not stand beside `jwks_url`"))
        }
        (Some(url), None) => address("jwks_url", &url).map(Source::Url),
        (None, Some(file)) if file.as_os_str().is_empty() => {
            Err(Invalid::range("jwks_file", "must name a file"))
        }
        (None, Some(file)) => Ok(Source::File(file)),
        (None, None) => {
            let place = format!("{}{DISCOVERY}", issuer.strip_suffix('/').unwrap_or(issuer));
            let found = address("issuer", &place).map(Source::Discovery);
            found.map_err(|error| Invalid {
                problem: format!("without `jwks_url` and `jwks_file` it {}", error.problem),
                ..error
            })
        }
    }
}

/// Where an issuer says where its keys are (`OpenID` Connect Discovery 1.0, section 4).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// An address that keys may be fetched from: HTTPS, or HTTP where nobody listens on the way.
fn address(path: &str, text: &str) -> Result<Uri, Invalid> {
    let wrong = || {
        let problem =
            "must be a URL such as `https://id.example/keys`; `http` is for loopback only";
        Invalid::range(path, problem)
    };
    let uri: Uri = text.parse().map_err(|_no_uri| wrong())?;
    if is_fetchable(&uri) && !text.contains('#') { Ok(uri) } else { Err(wrong()) }
}

/// Whether keys may be fetched from `uri`, as far as it says itself: what its host stands for is
/// judged when it is connected to.
pub fn is_fetchable(uri: &Uri) -> bool {
    let Some(host) = uri.host() else { return false };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return false;
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        || bare.eq_ignore_ascii_case("localhost");
    match uri.scheme_str() {
        Some("https") => true,
        Some("http") => is_loopback,
        _ => false,
    }
}

fn claims(written: BTreeMap<String, String>) -> Result<Box<[(Box<str>, HeaderName)]>, Invalid> {
    let mut claims: Vec<(Box<str>, HeaderName)> = Vec::with_capacity(written.len());
    for (claim, field) in written {
        let path = format!("claims_to_headers.{claim}");
        let name = HeaderName::from_bytes(field.as_bytes()).map_err(|_illegal| {
            Invalid::range(&path, format!("must be the name of a header field, found `{field}`"))
        })?;
        if is_taken(name.as_str()) {
            let problem = format!("`{name}` has a meaning of its own; choose another field");
            return Err(Invalid::contradiction(path, problem));
        }
        if claims.iter().any(|(_, other)| spelled(other.as_str()) == spelled(name.as_str())) {
            let problem = format!("another claim stands in `{name}` already");
            return Err(Invalid::contradiction(path, problem));
        }
        claims.push((claim.into(), name));
    }
    Ok(claims.into())
}

/// Many servers do not tell `_` from `-`.
fn spelled(name: &str) -> String {
    name.replace('_', "-")
}

/// Fields that somebody else reads: they frame messages, route them, or tell of hops.
fn is_taken(name: &str) -> bool {
    const TAKEN: [&str; 20] = [
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "grpc-timeout",
        "host",
        "keep-alive",
        "proxy-authorization",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-request-id",
    ];
    let name = spelled(name);
    let families = ["mainstay-", "x-mainstay-", "x-forwarded-"];
    TAKEN.contains(&&*name) || families.iter().any(|family| name.starts_with(family))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "issuer = 'https://id.example'\naudiences = ['orders']\n\
                        algorithms = ['ES256']\n";

    fn jwt(text: &str) -> Result<JwtConfig, Invalid> {
        toml::from_str::<RawJwt>(text).expect("a table").try_into()
    }

    #[test]
    fn defaults_are_those_of_the_reference() {
        let config = jwt(GOOD).expect("legal");
        let document = "https://id.example/.well-known/openid-configuration".parse();
        assert_eq!(config.source, Source::Discovery(document.expect("a URL")));
        assert_eq!((config.fail_mode, config.forward_token), (FailMode::Deny, false));
        assert_eq!(config.trust.leeway, Duration::from_secs(30));
        assert_eq!(config.trust.max_life, None);
        assert_eq!(config.stale_max, Duration::from_hours(24));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (text, path) in [
            ("", "issuer"),
            ("issuer = 'https://id.example'", "audiences"),
            ("issuer = 'x'\naudiences = ['']", "audiences"),
            ("issuer = 'x'\naudiences = ['a']", "algorithms"),
            ("issuer = 'x'\naudiences = ['a']\nalgorithms = ['none']", "algorithms[0]"),
            ("issuer = 'x'\naudiences = ['a']\nalgorithms = ['es256']", "algorithms[0]"),
            ("issuer = 'x'\naudiences = ['a']\nalgorithms = ['ES256']", "issuer"),
        ] {
            assert_eq!(jwt(text).expect_err(text).path, path, "{text}");
        }
        for (more, path) in [
            ("jwks_url = 'http://id.example/keys'", "jwks_url"),
            ("jwks_url = 'ftp://id.example/keys'", "jwks_url"),
            ("jwks_url = 'https://a:b@id.example/keys'", "jwks_url"),
            ("jwks_url = '/keys'", "jwks_url"),
            ("jwks_url = 'https://id.example/k'\njwks_file = 'k'", "jwks_file"),
            ("jwks_file = ''", "jwks_file"),
            ("leeway_seconds = 61", "leeway_seconds"),
            ("max_life_seconds = 0", "max_life_seconds"),
            ("stale_max_seconds = 59", "stale_max_seconds"),
            ("claims_to_headers = { sub = 'x user' }", "claims_to_headers.sub"),
            ("claims_to_headers = { sub = 'Authorization' }", "claims_to_headers.sub"),
            ("claims_to_headers = { sub = 'x_mainstay_user' }", "claims_to_headers.sub"),
            ("claims_to_headers = { a = 'x-user', b = 'X_User' }", "claims_to_headers.b"),
        ] {
            let text = format!("{GOOD}{more}");
            assert_eq!(jwt(&text).expect_err(&text).path, path, "{text}");
        }
        let shared = GOOD.replace("ES256", "HS256");
        assert_eq!(jwt(&shared).expect_err("no file").path, "algorithms[0]");
        assert!(jwt(&format!("{shared}jwks_file = 'keys.json'")).is_ok());
        assert!(jwt(&format!("{GOOD}jwks_url = 'http://127.0.0.1:1/k'")).is_ok());
    }

    #[test]
    fn an_issuer_stands_there_once() {
        let one: RawJwt = toml::from_str(GOOD).expect("a table");
        assert_eq!(resolve(vec![one.clone(), one]).expect_err("twice").path, "jwt[1].issuer");
    }
}
