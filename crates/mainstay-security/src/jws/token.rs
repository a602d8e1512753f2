//! A token, from its bytes to a verdict.

use aws_lc_rs::digest::{SHA256, digest};
use mainstay_core::moment::Moment;

use super::json::Invalid;
use super::{Algorithm, Key, KeyId, KeySet, Object, Refused, Trust, Value, base64url};

/// Longest token: heads are limited to 32 KiB, and an issuer that needs more than 16 for what it
/// says of one person should be asked why.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;

/// A token that was read, and is believed in nothing yet.
#[derive(Clone, Debug)]
pub struct Token<'t> {
    algorithm: Algorithm,
    key: Option<Box<str>>,
    claims: Object,
    /// Header and claims as they came, which is what is signed.
    signed: &'t [u8],
    signature: Vec<u8>,
}

/// What a token says, believed.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Whom it is about (`sub`).
    pub subject: Option<Box<str>>,
    /// When it ends (`exp`); what lies beyond what a [`Moment`] can say is its end.
    pub expires: Moment,
    /// Which key proved it.
    pub key: KeyId,
    /// All that it says.
    pub claims: Object,
}

/// Tells tokens apart: SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// That of a token as it came.
    pub fn of(token: &[u8]) -> Self {
        Self(sha256(token))
    }

    /// A number to find a place by. Whoever can choose it must be able to make tokens.
    pub fn place(&self) -> u64 {
        self.0.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }
}

impl<'t> Token<'t> {
    /// Reads a token.
    ///
    /// # Errors
    ///
    /// When it has not the form of one, or names an algorithm that is not there.
    pub fn parse(token: &'t [u8]) -> Result<Self, Refused> {
        let (signed, [header, claims, signature]) = split(token)?;
        let header = object("header", header)?;
        if header.get("enc").is_some() {
            return Err(Refused::Encrypted);
        }
        check_critical(&header)?;
        let algorithm = algorithm(&header)?;
        let key = match header.get("kid") {
            None => None,
            Some(Value::Text(kid)) => Some(kid.clone()),
            Some(_) => return Err(Refused::Type("kid")),
        };
        let claims = object("claims", claims)?;
        let signature = base64url(signature).ok_or(Refused::Base64("signature"))?;
        Ok(Self { algorithm, key, claims, signed, signature })
    }

    /// Who it says has issued it.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_text()
    }

    /// The name of the key that it says proves it.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Believes it, if `trust` and one of `keys` say so at `now`. What costs most comes last.
    ///
    /// # Errors
    ///
    /// Why not. [`Refused::KeyUnknown`] may change with a newer key set, [`Refused::NotYet`] with
    /// time, the others never.
    pub fn verify(self, trust: &Trust, keys: &KeySet, now: Moment) -> Result<Verified, Refused> {
        if !trust.algorithms.contains(&self.algorithm) {
            return Err(Refused::AlgorithmNotAllowed(self.algorithm));
        }
        let expires = trust.check(&self.claims, now)?;
        let key = self.proving(keys)?.id();
        let subject = self.claims.get("sub").and_then(Value::as_text).map(Into::into);
        Ok(Verified { subject, expires: moment(expires), key, claims: self.claims })
    }

    /// The key whose signature it bears.
    fn proving<'k>(&self, keys: &'k KeySet) -> Result<&'k Key, Refused> {
        let algorithm = self.algorithm;
        let Some(kid) = &self.key else {
            let mut fit = keys.iter().filter(|key| key.fits(algorithm));
            return match (fit.next(), fit.next()) {
                (Some(key), None) => {
                    key.verify(algorithm, self.signed, &self.signature).map(|()| key)
                }
                _ => Err(Refused::KeyAmbiguous),
            };
        };
        let mut why = Refused::KeyUnknown;
        // Issuers have one key of a name, as a rule; nothing says that they must.
        for key in keys.iter().filter(|key| key.kid() == Some(kid)) {
            if !key.fits(algorithm) {
                if why == Refused::KeyUnknown {
                    why = Refused::AlgorithmUnfit(algorithm);
                }
                continue;
            }
            match key.verify(algorithm, self.signed, &self.signature) {
                Ok(()) => return Ok(key),
                Err(refused) => why = refused,
            }
        }
        Err(why)
    }
}

/// What is signed, and the three parts.
fn split(token: &[u8]) -> Result<(&[u8], [&[u8]; 3]), Refused> {
    if TOKEN_BYTES_MAX < token.len() {
        return Err(Refused::TooLong);
    }
    if token.trim_ascii_start().starts_with(b"{") {
        return Err(Refused::JsonSerialisation);
    }
    let mut parts = token.split(|&b| b == b'.');
    match [parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next()] {
        [Some(header), Some(claims), Some(signature), None, ..] => {
            let signed = &token[..header.len() + 1 + claims.len()];
            Ok((signed, [header, claims, signature]))
        }
        [.., Some(_), None] => Err(Refused::Encrypted),
        _ => Err(Refused::Parts),
    }
}

fn object(what: &'static str, part: &[u8]) -> Result<Object, Refused> {
    let bytes = base64url(part).ok_or(Refused::Base64(what))?;
    Object::parse(&bytes).map_err(|invalid| match invalid {
        Invalid::Malformed => Refused::Json(what),
        Invalid::NoObject => Refused::NoObject(what),
    })
}

fn algorithm(header: &Object) -> Result<Algorithm, Refused> {
    match header.get("alg") {
        None => Err(Refused::Missing("alg")),
        Some(Value::Text(name)) if name.eq_ignore_ascii_case("none") => Err(Refused::Unsigned),
        Some(Value::Text(name)) => Algorithm::parse(name).ok_or(Refused::AlgorithmUnknown),
        Some(_) => Err(Refused::Type("alg")),
    }
}

/// Nothing that must be understood is (RFC 7515, section 4.1.11); what is wrong is said as exactly
/// as an issuer needs it.
fn check_critical(header: &Object) -> Result<(), Refused> {
    if header.get("b64").is_some() {
        return Err(Refused::Unencoded);
    }
    let Some(critical) = header.get("crit") else { return Ok(()) };
    let names = critical.as_list().filter(|names| !names.is_empty());
    for name in names.ok_or(Refused::CriticalEmpty)? {
        let name = name.as_text().ok_or(Refused::CriticalEmpty)?;
        if header.get(name).is_none() {
            return Err(Refused::CriticalAbsent);
        }
    }
    Err(Refused::CriticalUnknown)
}

fn moment(seconds: f64) -> Moment {
    let span = std::time::Duration::try_from_secs_f64(seconds.max(0.0));
    let millis = span.ok().and_then(|span| u64::try_from(span.as_millis()).ok());
    Moment::from_unix_millis(millis.unwrap_or(u64::MAX))
}

/// SHA-256 of `bytes`.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, bytes).as_ref());
    sum
}
