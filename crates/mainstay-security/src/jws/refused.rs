//! Why a token is refused.

use super::Algorithm;

/// Which row of the table of `docs/jwt.md` refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// What a token looks like.
    Form,
    /// How it says that it is signed.
    Algorithm,
    /// With which key.
    Key,
    /// The signature itself.
    Signature,
    /// What must be understood and is not.
    Critical,
    /// What it says.
    Claims,
}

impl Part {
    /// Word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::Algorithm => "alg",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Critical => "crit",
            Self::Claims => "claims",
        }
    }
}

/// Why a token is refused. The text repeats nothing of the token but names that are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// More than 16 KiB.
    #[error("the token is longer than 16 KiB")]
    TooLong,
    /// Not three parts.
    #[error("the token is not of three parts with a point between them")]
    Parts,
    /// A JSON serialisation.
    #[error("the token is a JWS in JSON; only the compact form is taken")]
    JsonSerialisation,
    /// Encrypted (JWE).
    #[error("the token is encrypted (JWE); only signed tokens are taken")]
    Encrypted,
    /// A part that is not strict base64url.
    #[error("the {0} is not base64url without padding")]
    Base64(&'static str),
    /// A part that is not JSON as we read it.
    #[error(
        "the {0} is not JSON in UTF-8 with different names for members, at most 8 levels deep, and \
         nothing after it"
    )]
    Json(&'static str),
    /// A part that is JSON, but no object.
    #[error("the {0} is not a JSON object")]
    NoObject(&'static str),
    /// A member of another type.
    #[error("`{0}` has the wrong type")]
    Type(&'static str),
    /// A member that must be there.
    #[error("`{0}` is missing")]
    Missing(&'static str),

    /// Not signed.
    #[error("`alg` is `none`: the token is not signed")]
    Unsigned,
    /// An algorithm that does not exist here.
    #[error("`alg` is not one that is supported")]
    AlgorithmUnknown,
    /// An algorithm that this issuer does not use.
    #[error("`alg` {0} is not among the `algorithms` of the issuer")]
    AlgorithmNotAllowed(Algorithm),
    /// The key is not for it.
    #[error("the key named by `kid` cannot be used with `alg` {0}")]
    AlgorithmUnfit(Algorithm),

    /// No key of that name: a newer key set may have it.
    #[error("the issuer has no key of this `kid`")]
    KeyUnknown,
    /// No name, and not exactly one key that fits.
    #[error("the token names no `kid`, and not exactly one key of the issuer fits its `alg`")]
    KeyAmbiguous,

    /// A signature of another length than its algorithm and key make.
    #[error("the signature has the wrong length")]
    SignatureLength,
    /// A signature that is not the key's.
    #[error("the signature is not right")]
    Signature,

    /// `crit` is there and must not be empty.
    #[error("`crit` is not a list of names")]
    CriticalEmpty,
    /// `crit` names what the header does not have.
    #[error("`crit` names a header that is not there")]
    CriticalAbsent,
    /// `crit` names what is not understood.
    #[error("`crit` names a header that is not understood")]
    CriticalUnknown,
    /// A payload that is not encoded (RFC 7797).
    #[error("`b64` is not supported")]
    Unencoded,

    /// Of another issuer.
    #[error("`iss` is no issuer that is trusted here")]
    Issuer,
    /// For somebody else.
    #[error("`aud` names none of the `audiences`")]
    Audience,
    /// Too late.
    #[error("the token has expired (`exp`)")]
    Expired,
    /// Too early.
    #[error("the token is not valid yet (`nbf`)")]
    NotYet,
    /// Issued in the future.
    #[error("the token was issued in the future (`iat`)")]
    IssuedLater,
    /// Lives longer than allowed.
    #[error("the token lives longer than `max_life_seconds`, or does not say since when (`iat`)")]
    LifeTooLong,
}

impl Refused {
    /// The row of the table.
    pub const fn part(self) -> Part {
        match self {
            Self::TooLong
            | Self::Parts
            | Self::JsonSerialisation
            | Self::Encrypted
            | Self::Base64(_)
            | Self::Json(_)
            | Self::NoObject(_) => Part::Form,
            Self::Unsigned
            | Self::AlgorithmUnknown
            | Self::AlgorithmNotAllowed(_)
            | Self::AlgorithmUnfit(_) => Part::Algorithm,
            Self::KeyUnknown | Self::KeyAmbiguous => Part::Key,
            Self::SignatureLength | Self::Signature => Part::Signature,
            Self::CriticalEmpty
            | Self::CriticalAbsent
            | Self::CriticalUnknown
            | Self::Unencoded => Part::Critical,
            Self::Type(name) | Self::Missing(name) => part_of_member(name),
            Self::Issuer
            | Self::Audience
            | Self::Expired
            | Self::NotYet
            | Self::IssuedLater
            | Self::LifeTooLong => Part::Claims,
        }
    }
}

/// Members of the header are of its form; the others are claims.
const fn part_of_member(name: &str) -> Part {
    match name.as_bytes() {
        b"alg" => Part::Algorithm,
        b"kid" => Part::Key,
        _ => Part::Claims,
    }
}
