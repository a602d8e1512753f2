//! Sessions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::status::Area;

/// The header that carries a session's secret.
pub const SECRET_HEADER: &str = "mainstay-session-secret";

/// Opens a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenSession {
    /// How long it lives after each renewal, 2 to 3,600 s; there is no default, since only the
    /// caller knows whether a pause or a wait hurts more. Rounded up to whole seconds.
    #[schema(minimum = 2, maximum = 3600)]
    pub ttl_seconds: f64,
    /// Whose it is; shown to whoever waits for what it holds.
    pub owner: Owner,
}

/// Whose a session is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The host it runs on, 1 to 255 bytes.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// What it calls itself, 1 to 255 bytes.
    pub name: String,
}

/// A session as it was opened.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionOpened {
    /// Its id, as it goes into paths and documents.
    pub session: String,
    /// To be sent along with every call for it; told once.
    pub secret: String,
    /// How long it lives after each renewal; never less than was asked for.
    pub ttl_seconds: f64,
}

impl std::fmt::Debug for SessionOpened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { session, secret: _, ttl_seconds } = self;
        f.debug_struct("SessionOpened")
            .field("session", session)
            .field("ttl_seconds", ttl_seconds)
            .finish_non_exhaustive()
    }
}

/// A session that lives for its whole ttl again, counted from when the store heard of the renewal:
/// the holder counts from when it sent it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionRenewed {
    /// How long.
    pub ttl_seconds: f64,
}

/// What a session holds, at one revision: the first event of its stream. What the holder believes
/// to hold since before that revision, and is not here, it has lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionSnapshot {
    /// The revision.
    pub revision: u64,
    /// Everything granted to it.
    pub held: Vec<HeldPlace>,
}

/// Something that is held.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct HeldPlace {
    /// What kind of thing.
    pub area: Area,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The token it was granted with.
    pub token: u64,
}

/// What happened to a session, or to something it held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum SessionChange {
    /// One thing was taken from it; the session goes on.
    Lost {
        /// What.
        #[serde(flatten)]
        place: HeldPlace,
        /// Why.
        reason: LossReason,
    },
    /// The session has ended, and with it everything it held. Nothing follows.
    Ended {
        /// Why.
        reason: LossReason,
    },
}

/// Why a holder holds no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LossReason {
    /// It was not renewed in time.
    Expired,
    /// Its session has ended.
    SessionGone,
    /// Somebody with the right to do so took it away.
    Revoked,
    /// The store went back in time.
    StoreRegressed,
}
