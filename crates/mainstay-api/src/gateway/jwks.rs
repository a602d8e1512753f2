//! Keys of issuers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The keys of an issuer whose tokens (JWT) are taken, and where they stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IssuerKeys {
    /// What its tokens have in `iss`.
    pub issuer: String,
    /// Where the keys come from: a URL, or a file.
    pub source: String,
    /// `empty` (there never were any), `fresh`, `stale` (they could not be fetched again and hold
    /// on), or `expired`.
    pub state: String,
    /// How old they are.
    pub age_seconds: Option<f64>,
    /// Until they are fetched again; absent while they are.
    pub next_seconds: Option<f64>,
    /// Why the last fetch failed.
    pub failure: Option<String>,
    /// The keys that tokens are verified with.
    pub keys: Vec<IssuerKey>,
    /// Those of the last answer that cannot be used.
    pub dropped: Vec<DroppedKey>,
}

/// A key of an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IssuerKey {
    /// Its name.
    pub kid: Option<String>,
    /// What it may be used with.
    pub algorithms: Vec<String>,
}

/// A key that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DroppedKey {
    /// Which one of the answer, counted from 0.
    pub place: u64,
    /// Its name.
    pub kid: Option<String>,
    /// Why.
    pub why: String,
}
