//! The config centre, as its clients use it: following groups, and telling what became of a
//! release.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Follows groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConfigWatch)]
pub struct Watch {
    /// Who follows, the same after a restart: 1 to 255 bytes.
    pub client: String,
    /// What it is like, for gradual releases; at most 64.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Which groups, at most 100.
    pub groups: Vec<Held>,
    /// Contents of secrets too.
    #[serde(default)]
    pub secrets: bool,
}

/// A group, and the release the client has of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConfigHeld)]
pub struct Held {
    /// Its namespace. Default `default`.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Its name.
    pub group: String,
    /// The release the client has; none yet when absent.
    pub release: Option<u64>,
}

/// Another release is in force for the client: an event of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ConfigUpdate)]
pub struct Update {
    /// Of which group: `namespace/group`.
    pub group: String,
    /// The store's revision it was decided at; resumes nothing, but orders.
    pub revision: u64,
    /// Which release.
    pub release: u64,
    /// Whether the client is one of those who get it first.
    pub canary: bool,
    /// The release the changes are counted from; 0 for none, or one that is no longer known.
    pub from: u64,
    /// What changed.
    pub changed: Vec<ItemChange>,
    /// Contents of the items that changed, if they are 64 KiB at most; else they are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<BTreeMap<String, Item>>,
}

/// An item that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ConfigUpdateItem)]
pub struct ItemChange {
    /// Which item.
    pub item: String,
    /// What became of it: `added`, `removed`, `changed`.
    pub change: String,
}

/// A release as a client gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ConfigRelease)]
pub struct Fetched {
    /// Of which group: `namespace/group`.
    pub group: String,
    /// Which release.
    pub release: u64,
    /// Whether the client is one of those who get it first.
    pub canary: bool,
    /// Its items, by name.
    pub items: BTreeMap<String, Item>,
}

/// An item of a release.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ConfigItem)]
pub struct Item {
    /// What the content is written in: `text`, `json`, `yaml`, `toml`, `properties`, `xml`.
    pub format: String,
    /// Whether it is a secret.
    pub secret: bool,
    /// The content; missing of a secret for whoever may not read secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { format, secret, content: _ } = self;
        f.debug_struct("Item")
            .field("format", format)
            .field("secret", secret)
            .finish_non_exhaustive()
    }
}

/// Tells what became of a release at a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ConfigReport)]
pub struct Report {
    /// Who tells.
    pub client: String,
    /// What it is like.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Namespace of the group. Default `default`.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// The group.
    pub group: String,
    /// The release.
    pub release: u64,
    /// What became of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What a client says of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "outcome")]
#[schema(as = ConfigVerdict)]
pub enum Verdict {
    /// It uses it.
    Applied,
    /// It cannot use it.
    Rejected {
        /// Why; the first 256 bytes are kept.
        reason: String,
    },
}

fn default_namespace() -> String {
    "default".to_owned()
}
