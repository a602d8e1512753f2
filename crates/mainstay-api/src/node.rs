//! A process and its store.
//!
//! | call | answer |
//! |---|---|
//! | `GET /store/status` | [`StoreStatus`] |
//! | `GET /store/range` | [`StoreKeys`] |
//! | `GET /store/get` | [`StoreValue`] |
//! | `GET /store/watch` | events: `change` [`StoreChanged`], `bookmark` [`At`], `resync`, `problem` |
//! | `GET /store/hash` | [`StoreHash`] |
//! | `GET /dns` | [`Dns`] |
//! | `GET /settings` | [`Settings`] |

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How the store stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreStatus {
    /// `memory`, `embedded` or `etcd`.
    pub backend: String,
    /// Which history it is of, sixteen hexadecimal digits.
    pub store: String,
    /// The node that answers.
    pub node: String,
    /// Whether it takes reads and writes.
    pub state: String,
    /// Its newest revision.
    pub revision: u64,
    /// Up to here history is gone.
    pub compacted: u64,
    /// What it takes on disk.
    pub bytes: Option<u64>,
    /// Leases alive.
    pub leases: Option<u64>,
    /// Watches open.
    pub watchers: Option<u64>,
}

/// A key without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreKey {
    /// The key.
    pub key: String,
    /// Size of its value.
    pub bytes: u64,
    /// The revision that created it.
    pub create_revision: u64,
    /// The revision that changed it last.
    pub mod_revision: u64,
    /// How often it was put since then.
    pub version: u64,
    /// The lease it ends with.
    pub lease: Option<String>,
}

/// A page of keys, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreKeys {
    /// The keys.
    pub items: Vec<StoreKey>,
    /// What to send as `after` for the next page; absent at the end.
    pub next: Option<String>,
    /// How many there are in all.
    pub count: u64,
    /// As of which revision.
    pub revision: u64,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreValue {
    /// The key.
    #[serde(flatten)]
    pub key: StoreKey,
    /// Its value, if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Its value in base64, if it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// As of which revision.
    pub revision: u64,
}

/// What changed at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreChanged {
    /// Which.
    pub revision: u64,
    /// Every change of it.
    pub events: Vec<StoreEvent>,
}

/// One change: of a deleted key nothing but the key is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreEvent {
    /// `put` or `delete`.
    pub kind: String,
    /// The key.
    pub key: String,
    /// Size of its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// How far a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = StreamAt)]
pub struct At {
    /// Nothing up to this revision is missing.
    pub revision: u64,
}

/// One number for all of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreHash {
    /// As of which revision.
    pub revision: u64,
    /// Keys taken into account.
    pub entries: u64,
    /// SHA-256, in hexadecimal.
    pub sha256: String,
}

/// Where names are answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Dns {
    /// The socket.
    pub address: String,
    /// The domain of services.
    pub domain: String,
    /// The domain of clients of Consul, if it is answered.
    pub consul_domain: Option<String>,
    /// How long answers are good.
    pub ttl_seconds: u32,
    /// How long "there is none" is good.
    pub negative_ttl_seconds: u32,
    /// Largest answer over UDP.
    pub udp_payload_bytes_max: u16,
}

/// Every value of the configuration that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Settings {
    /// The values, by path.
    pub items: Vec<Setting>,
    /// Why the last reload was refused; absent when it was not.
    pub last_reload_error: Option<String>,
}

/// One value of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Setting {
    /// Its path: `limit.order-api.max`.
    pub path: String,
    /// The value as TOML; `***` for a secret.
    pub value: String,
    /// Where it stands: `conf.d/20-b.toml:4`.
    pub origin: String,
    /// Where earlier layers say otherwise, latest first.
    pub over: Vec<String>,
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// Keys whose new value is in force.
    pub applied: Vec<String>,
    /// Keys whose new value waits for the next start.
    pub needs_restart: Vec<String>,
}
