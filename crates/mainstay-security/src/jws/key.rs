//! A key of an issuer (JWK, RFC 7517 and 7518), fit for use.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm,
};

use super::key_set::Unusable;
use super::token::sha256;
use super::{Algorithm, Object, Refused, Value, base64url};

/// Where keys come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An address, where only public keys may be.
    Remote,
    /// A file of ours, which may hold a key that is shared with the issuer.
    Local,
}

/// Tells keys apart: by name, what they are for, and their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 32]);

/// A key that signatures are verified with.
pub struct Key {
    id: KeyId,
    kid: Option<Box<str>>,
    /// By each algorithm that it may be used with.
    ways: Vec<(Algorithm, Way)>,
}

/// How a signature is verified.
enum Way {
    Public {
        key: ParsedPublicKey,
        /// Of any signature.
        length: usize,
    },
    // Some 400 bytes, and rare.
    Shared(Box<hmac::Key>),
}

impl Key {
    /// Reads a key.
    pub(super) fn parse(jwk: &Object, origin: Origin) -> Result<Self, Unusable> {
        if PRIVATE.iter().any(|member| jwk.get(member).is_some()) {
            return Err(Unusable::Private);
        }
        check_use(jwk)?;
        let kid = text(jwk, "kid")?.map(Box::from);
        let material = Material::read(jwk, origin)?;
        let possible = material.algorithms();
        let only = match text(jwk, "alg")? {
            None => None,
            Some(name) => Some(Algorithm::parse(name).ok_or(Unusable::Algorithm)?),
        };
        let fit = possible.iter().copied().filter(|fit| only.is_none_or(|only| only == *fit));
        let ways = fit.map(|algorithm| Ok((algorithm, material.way(algorithm)?)));
        let ways = ways.collect::<Result<Vec<_>, Unusable>>()?;
        if ways.is_empty() {
            return Err(Unusable::Algorithm);
        }
        let id = id(kid.as_deref(), &ways, &material);
        Ok(Self { id, kid, ways })
    }

    /// Tells it from others.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Its name.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The algorithms it may be used with.
    pub fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        self.ways.iter().map(|(algorithm, _)| *algorithm)
    }

    /// Whether it may be used with `algorithm`.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithms().any(|fit| fit == algorithm)
    }

    /// Whether `signature` is its own under `signed`.
    pub(super) fn verify(
        &self,
        algorithm: Algorithm,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), Refused> {
        let way = self.ways.iter().find(|(fit, _)| *fit == algorithm);
        let (_, way) = way.ok_or(Refused::AlgorithmUnfit(algorithm))?;
        match way {
            Way::Public { length, .. } if *length != signature.len() => {
                Err(Refused::SignatureLength)
            }
            Way::Public { key, .. } => {
                key.verify_sig(signed, signature).map_err(|_unspecified| Refused::Signature)
            }
            // Compares in constant time, and all of it.
            Way::Shared(key) => {
                hmac::verify(key, signed, signature).map_err(|_unspecified| Refused::Signature)
            }
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms: Vec<Algorithm> = self.algorithms().collect();
        f.debug_struct("Key")
            .field("kid", &self.kid)
            .field("algorithms", &algorithms)
            .finish_non_exhaustive()
    }
}

/// Members of private keys (RFC 7518, section 6).
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// The numbers of a key, checked.
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// With the point as SEC 1 writes it, uncompressed.
    Ec {
        curve: Curve,
        point: Vec<u8>,
    },
    Ed25519(Vec<u8>),
    Shared(Vec<u8>),
}

#[derive(Clone, Copy)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Material {
    fn read(jwk: &Object, origin: Origin) -> Result<Self, Unusable> {
        match text(jwk, "kty")?.ok_or(Unusable::Malformed("kty"))? {
            "RSA" => Self::rsa(jwk),
            "EC" => Self::ec(jwk),
            "OKP" => match text(jwk, "crv")? {
                Some("Ed25519") => Ok(Self::Ed25519(sized(jwk, "x", 32)?)),
                _ => Err(Unusable::Kind),
            },
            "oct" if origin == Origin::Remote => Err(Unusable::SharedRemote),
            "oct" => Self::shared(jwk),
            _ => Err(Unusable::Kind),
        }
    }

    fn rsa(jwk: &Object) -> Result<Self, Unusable> {
        let (n, e) = (natural(jwk, "n")?, natural(jwk, "e")?);
        if !(2_048..=8_192).contains(&bits(&n)) {
            return Err(Unusable::Weak("an RSA modulus has 2,048 to 8,192 bits"));
        }
        let odd = |number: &[u8]| number.last().is_some_and(|low| low % 2 == 1);
        if !odd(&n) {
            return Err(Unusable::Weak("an RSA modulus is odd"));
        }
        if !odd(&e) || e == [1] {
            return Err(Unusable::Weak("an RSA exponent is odd and at least 3"));
        }
        Ok(Self::Rsa { n, e })
    }

    fn ec(jwk: &Object) -> Result<Self, Unusable> {
        let curve = match text(jwk, "crv")? {
            Some("P-256") => Curve::P256,
            Some("P-384") => Curve::P384,
            Some("P-521") => Curve::P521,
            _ => return Err(Unusable::Kind),
        };
        let length = curve.bytes();
        let mut point = vec![4];
        point.extend(sized(jwk, "x", length)?);
        point.extend(sized(jwk, "y", length)?);
        Ok(Self::Ec { curve, point })
    }

    fn shared(jwk: &Object) -> Result<Self, Unusable> {
        let key = bytes(jwk, "k")?;
        // What is public must not become what is shared (RFC 8725, section 2.1).
        let public = [&b"-----BEGIN"[..], b"ssh-", b"ecdsa-"];
        if public.iter().any(|begin| key.trim_ascii_start().starts_with(begin)) {
            return Err(Unusable::Weak("a public key is not a shared one"));
        }
        if key.len() < 32 {
            return Err(Unusable::Weak("a shared key is at least as long as the digest"));
        }
        Ok(Self::Shared(key))
    }

    /// With which it can be used at all.
    fn algorithms(&self) -> &'static [Algorithm] {
        use Algorithm::{Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        match self {
            Self::Rsa { .. } => &[Rs256, Rs384, Rs512, Ps256, Ps384, Ps512],
            Self::Ec { curve: Curve::P256, .. } => &[Algorithm::Es256],
            Self::Ec { curve: Curve::P384, .. } => &[Algorithm::Es384],
            Self::Ec { curve: Curve::P521, .. } => &[Algorithm::Es512],
            Self::Ed25519(_) => &[Algorithm::EdDsa],
            Self::Shared(key) if key.len() < 48 => &[Algorithm::Hs256],
            Self::Shared(key) if key.len() < 64 => &[Algorithm::Hs256, Algorithm::Hs384],
            Self::Shared(_) => &[Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512],
        }
    }

    fn way(&self, algorithm: Algorithm) -> Result<Way, Unusable> {
        let public = |with: &'static dyn VerificationAlgorithm, bytes: &[u8], length| {
            let key = ParsedPublicKey::new(with, bytes);
            key.map(|key| Way::Public { key, length }).map_err(|_rejected| Unusable::Numbers)
        };
        match self {
            Self::Rsa { n, e } => {
                let key = RsaPublicKeyComponents { n, e };
                let with = rsa(algorithm).ok_or(Unusable::Algorithm)?;
                let key = key.to_parsed_public_key(with).map_err(|_rejected| Unusable::Numbers)?;
                Ok(Way::Public { key, length: n.len() })
            }
            Self::Ec { curve, point } => public(curve.with(), point, 2 * curve.bytes()),
            Self::Ed25519(point) => public(&signature::ED25519, point, 64),
            Self::Shared(key) => {
                let with = match algorithm {
                    Algorithm::Hs256 => hmac::HMAC_SHA256,
                    Algorithm::Hs384 => hmac::HMAC_SHA384,
                    Algorithm::Hs512 => hmac::HMAC_SHA512,
                    _ => return Err(Unusable::Algorithm),
                };
                Ok(Way::Shared(Box::new(hmac::Key::new(with, key))))
            }
        }
    }

    fn parts(&self) -> [&[u8]; 2] {
        match self {
            Self::Rsa { n, e } => [n, e],
            Self::Ec { point, .. } => [point, b"ec"],
            Self::Ed25519(point) => [point, b"ed25519"],
            Self::Shared(key) => [key, b"shared"],
        }
    }
}

impl Curve {
    /// Of a coordinate.
    const fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// Raw `r` and `s`; DER is refused by its length.
    fn with(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::P256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::P384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::P521 => &signature::ECDSA_P521_SHA512_FIXED,
        }
    }
}

/// With a salt as long as the digest, where there is one.
fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn check_use(jwk: &Object) -> Result<(), Unusable> {
    if text(jwk, "use")?.is_some_and(|what| what != "sig") {
        return Err(Unusable::Purpose);
    }
    let Some(operations) = jwk.get("key_ops") else { return Ok(()) };
    let operations = operations.as_list().ok_or(Unusable::Malformed("key_ops"))?;
    if operations.iter().any(|operation| operation.as_text() == Some("verify")) {
        Ok(())
    } else {
        Err(Unusable::Purpose)
    }
}

fn text<'o>(jwk: &'o Object, name: &'static str) -> Result<Option<&'o str>, Unusable> {
    match jwk.get(name) {
        None => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(_) => Err(Unusable::Malformed(name)),
    }
}

fn bytes(jwk: &Object, name: &'static str) -> Result<Vec<u8>, Unusable> {
    let text = text(jwk, name)?.ok_or(Unusable::Malformed(name))?;
    base64url(text.as_bytes()).ok_or(Unusable::Malformed(name))
}

/// Bytes of a length that is given: coordinates keep their leading zeros.
fn sized(jwk: &Object, name: &'static str, length: usize) -> Result<Vec<u8>, Unusable> {
    bytes(jwk, name).and_then(|bytes| {
        if bytes.len() == length { Ok(bytes) } else { Err(Unusable::Malformed(name)) }
    })
}

/// A number in as few bytes as it takes (`Base64urlUInt`), and not zero.
fn natural(jwk: &Object, name: &'static str) -> Result<Vec<u8>, Unusable> {
    let number = bytes(jwk, name)?;
    if matches!(*number, [] | [0, ..]) { Err(Unusable::Malformed(name)) } else { Ok(number) }
}

fn bits(number: &[u8]) -> usize {
    let high = number.first().map_or(0, |high| high.leading_zeros() as usize);
    number.len() * 8 - high.min(number.len() * 8)
}

fn id(kid: Option<&str>, ways: &[(Algorithm, Way)], material: &Material) -> KeyId {
    let mut all = Vec::new();
    let algorithms = ways.iter().map(|(algorithm, _)| algorithm.as_str().as_bytes());
    let named = kid.map(str::as_bytes);
    for part in named.into_iter().chain(algorithms).chain(material.parts()) {
        all.extend_from_slice(&(part.len() as u64).to_le_bytes());
        all.extend_from_slice(part);
    }
    all.push(u8::from(kid.is_some()));
    KeyId(sha256(&all))
}
