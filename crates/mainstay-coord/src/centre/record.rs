//! What the config centre writes, as JSON.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::canary::Canary;
use super::item::Format;
use crate::keyring::Sealed;

/// What `cfg/<ns>/<group>/head` holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ConfigHead)]
pub struct Head {
    pub(super) v: u32,
    /// The release everybody gets who does not get the canary.
    pub release: u64,
    /// The highest number ever given; an aborted canary keeps its own.
    pub last: u64,
    /// Who wrote this, so that an unknown outcome can be resolved by reading.
    pub(super) change: String,
    /// The gradual release under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

impl Head {
    /// The head after this one, as a new version of Mainstay would keep it.
    pub(super) fn next(&self, change: &str) -> Self {
        Self { v: 1, change: change.to_owned(), ..self.clone() }
    }

    /// Whether it names `release`.
    pub(super) fn names(&self, release: u64) -> bool {
        release == self.release || self.canary.as_ref().is_some_and(|it| it.release == release)
    }
}

/// What `cfg/<ns>/<group>/rel/<n>` holds: everything of a release but the contents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Release {
    pub(super) v: u32,
    #[serde(rename = "release")]
    pub(super) number: u64,
    /// Of this publication and no other.
    pub(super) id: String,
    pub(super) who: String,
    pub(super) unix_ms: u64,
    #[serde(default)]
    pub(super) note: String,
    pub(super) base: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rollback_of: Option<u64>,
    pub(super) items: BTreeMap<String, Row>,
    /// Data keys, by the release whose secrets they seal, each wrapped by a key of the keyring.
    /// What a release takes over from an older one stays sealed as it was.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) keys: BTreeMap<u64, Sealed>,
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

/// An item of a release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) format: Format,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) secret: bool,
    /// Which content.
    pub(super) blob: String,
    /// How long it is, unsealed.
    pub(super) bytes: usize,
    /// The release that brought it.
    pub(super) since: u64,
    /// Which content is its schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) schema: Option<String>,
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

impl Row {
    /// Whether whoever holds `other` holds this.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.format, self.secret, &self.blob, &self.schema)
            == (other.format, other.secret, &other.blob, &other.schema)
    }
}

/// What `cfg/<ns>/<group>/draft/<item>` holds. Without a row the draft removes the item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Draft {
    pub(super) v: u32,
    pub(super) who: String,
    pub(super) unix_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) row: Option<Row>,
    /// Of a secret: its data key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<Sealed>,
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

/// The record in `value`; `None` when it cannot be read.
pub(super) fn read<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    serde_json::from_slice(value).ok()
}

/// `record` as bytes.
pub(super) fn write(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("text keys and finite numbers are JSON")
}
