//! `[store]` and `[registry]`: where agreed state lies, and what holds for instances; and, in
//! [`recipes`], for releases and locks.

mod etcd;
pub mod recipes;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use mainstay_coord::health::targets::Addresses;
use mainstay_coord::registry::{Share, Shares};
use mainstay_resilience::Invalid;
use mainstay_store::embedded::{self, Check};
use mainstay_store_etcd::Options as EtcdOptions;
use schemars::JsonSchema;
use serde::Deserialize;

/// The `[store]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawStore {
    /// `embedded` (one node, in the data directory) or `etcd` (several nodes). Default `embedded`.
    pub backend: Option<Backend>,
    /// How old history is when it goes, in seconds, 1 to 31,536,000. Default 1800.
    pub compact_after_seconds: Option<f64>,
    /// Most revisions kept, 1,000 to 100,000,000. Default 500000.
    pub revisions_max: Option<u64>,
    /// The embedded store.
    pub embedded: RawEmbedded,
    /// etcd.
    pub etcd: RawEtcd,
}

/// Where agreed state lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// In the data directory of this one node.
    #[default]
    Embedded,
    /// In etcd, which several nodes share.
    Etcd,
}

/// The `[store.embedded]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawEmbedded {
    /// Folder of its files; relative to the data directory. Default `store`.
    pub path: Option<PathBuf>,
    /// Most bytes of all records, history included, 1,048,576 to 2^46. Default 2147483648.
    pub bytes_max: Option<u64>,
    /// Bytes of the engine's cache, 1,048,576 to 2^40. Default 16777216.
    pub cache_bytes_max: Option<u64>,
    /// Operations of one commit, 1 to 65,536. Default 1024.
    pub commit_operations_max: Option<u64>,
    /// Bytes of one commit, 65,536 to 268,435,456. Default 4194304.
    pub commit_bytes_max: Option<u64>,
    /// How long a commit waits for as many batches as the last one had, in microseconds, 0 to
    /// 100,000. Default 500.
    pub commit_linger_microseconds: Option<u64>,
    /// Whether the whole file is checked at start: `auto` (after an unclean stop), `always`,
    /// `never`. Default `auto`.
    pub check_on_open: Option<CheckOnOpen>,
}

/// When the file of the store is checked as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckOnOpen {
    /// After an unclean stop.
    #[default]
    Auto,
    /// At each start.
    Always,
    /// At none.
    Never,
}

/// The `[store.etcd]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawEtcd {
    /// Its members, each `http://host:port` or `https://host:port`; 1 to 32.
    pub endpoints: Option<Vec<String>>,
    /// What every key begins with; ends with `/`, at most 256 bytes. Default `/mainstay/v1/`.
    pub prefix: Option<String>,
    /// Who to sign in as. Default nobody.
    pub user: Option<String>,
    /// File with the password; its first line counts.
    pub password_file: Option<PathBuf>,
    /// PEM file with the authorities that are believed; needed with `https`.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the certificate we show; needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM file with its private key.
    pub key_file: Option<PathBuf>,
    /// How long a call may take, in seconds, 0.1 to 60. Default 5.
    pub request_timeout_seconds: Option<f64>,
    /// Whether the elected node compacts history; it affects all users of that etcd. Default true.
    pub compact: Option<bool>,
}

/// The `[registry]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawRegistry {
    /// Ttl of instances that name none, in seconds, 5 to 86,400. Default 15.
    pub ttl_seconds: Option<u32>,
    /// Below which share of healthy instances all are answered, 0 to 1. Default 0.5.
    pub protect_threshold: Option<f64>,
    /// Which share of a service's instances may go for missed beats in a minute, 0 to 1. Default
    /// 0.3.
    pub expire_share_max: Option<f64>,
    /// How long changes are gathered before they are pushed, in milliseconds, 0 to 10,000.
    /// Default 50.
    pub push_merge_milliseconds: Option<u64>,
    /// Health checks sent at once, 1 to 65,536. Default 512.
    pub check_concurrency_max: Option<u32>,
    /// How many callers must report an instance, 1 to 1,000. Default 2.
    pub passive_quorum: Option<u32>,
    /// Networks that checks and registrations may name beyond the usual ones, as CIDR. Default
    /// none.
    pub check_targets_allowed: Option<Vec<String>>,
}

/// `[store]`, resolved.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    raw: RawStore,
    /// Where agreed state lies.
    pub backend: Backend,
    /// How etcd is reached, where that is said; the files it names were read.
    pub etcd: Option<EtcdOptions>,
    compact_after: Duration,
    revisions_max: u64,
}

/// `[registry]`, resolved.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// Ttl of instances that name none.
    pub ttl_seconds: u32,
    /// Shares that hold where a service says nothing.
    pub shares: Shares,
    /// How long changes are gathered.
    pub push_merge: Duration,
    /// Checks sent at once.
    pub check_concurrency_max: usize,
    /// How many callers must report an instance.
    pub passive_quorum: u32,
    /// What checks and registrations may name beyond the usual.
    pub allowed: Vec<IpNet>,
}

impl StoreConfig {
    /// Resolves what was written; adds what is wrong to `faults`.
    pub fn resolve(raw: RawStore, faults: &mut Vec<Invalid>) -> Self {
        let mut reading = Reading(faults);
        let after = reading.within(
            "store.compact_after_seconds",
            raw.compact_after_seconds.unwrap_or(1_800.0),
            (1.0, 31_536_000.0),
        );
        let revisions_max = reading.within(
            "store.revisions_max",
            raw.revisions_max.unwrap_or(500_000),
            (1_000, 100_000_000),
        );
        let embedded = &raw.embedded;
        for (key, value, range) in [
            ("bytes_max", embedded.bytes_max, (1 << 20, 1 << 46)),
            ("cache_bytes_max", embedded.cache_bytes_max, (1 << 20, 1 << 40)),
            ("commit_operations_max", embedded.commit_operations_max, (1, 65_536)),
            ("commit_bytes_max", embedded.commit_bytes_max, (65_536, 1 << 28)),
            ("commit_linger_microseconds", embedded.commit_linger_microseconds, (0, 100_000)),
        ] {
            if let Some(value) = value {
                reading.within(&format!("store.embedded.{key}"), value, range);
            }
        }
        let backend = raw.backend.unwrap_or_default();
        let compact_after = Duration::from_secs_f64(after);
        let is_asked = backend == Backend::Etcd || raw.etcd.endpoints.is_some();
        let etcd = is_asked.then(|| {
            let options = etcd::resolve(&raw.etcd, reading.0);
            match raw.etcd.compact {
                Some(false) => options.never_compact(),
                None | Some(true) => options.compact(compact_after, revisions_max),
            }
        });
        Self { raw, backend, etcd, compact_after, revisions_max }
    }

    /// The same, on another backend.
    #[must_use]
    pub fn with_backend(&self, backend: Backend) -> Self {
        Self { backend, ..self.clone() }
    }

    /// How the embedded store is kept in the data directory `data`.
    pub fn embedded(&self, data: &Path) -> embedded::Options {
        let raw = &self.raw.embedded;
        let path = raw.path.as_deref().unwrap_or_else(|| Path::new("store"));
        let mut options = embedded::Options::new(data.join(path));
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        if let Some(bytes) = raw.bytes_max {
            options.bytes_max = bytes;
        }
        if let Some(bytes) = raw.cache_bytes_max {
            options.cache_bytes_max = size(bytes);
        }
        if let Some(operations) = raw.commit_operations_max {
            options.commit_operations_max = size(operations);
        }
        if let Some(bytes) = raw.commit_bytes_max {
            options.commit_bytes_max = size(bytes);
        }
        if let Some(micros) = raw.commit_linger_microseconds {
            options.commit_linger = Duration::from_micros(micros);
        }
        options.check_on_open = match raw.check_on_open.unwrap_or_default() {
            CheckOnOpen::Auto => Check::Auto,
            CheckOnOpen::Always => Check::Always,
            CheckOnOpen::Never => Check::Never,
        };
        options.compact_after = self.compact_after;
        options.revisions_max = self.revisions_max;
        options
    }
}

impl RegistryConfig {
    /// Resolves what was written; adds what is wrong to `faults`.
    pub fn resolve(raw: RawRegistry, faults: &mut Vec<Invalid>) -> Self {
        let mut reading = Reading(faults);
        let merge = raw.push_merge_milliseconds.unwrap_or(50);
        let checks = raw.check_concurrency_max.unwrap_or(512);
        let defaults = Shares::default();
        let config = Self {
            ttl_seconds: reading.within(
                "registry.ttl_seconds",
                raw.ttl_seconds.unwrap_or(15),
                (5, 86_400),
            ),
            shares: Shares {
                protect_threshold: reading.share(
                    "registry.protect_threshold",
                    raw.protect_threshold,
                    defaults.protect_threshold,
                ),
                expire_share_max: reading.share(
                    "registry.expire_share_max",
                    raw.expire_share_max,
                    defaults.expire_share_max,
                ),
            },
            push_merge: Duration::from_millis(reading.within(
                "registry.push_merge_milliseconds",
                merge,
                (0, 10_000),
            )),
            check_concurrency_max: reading.within(
                "registry.check_concurrency_max",
                checks,
                (1, 65_536),
            ) as usize,
            passive_quorum: reading.within(
                "registry.passive_quorum",
                raw.passive_quorum.unwrap_or(2),
                (1, 1_000),
            ),
            allowed: Vec::new(),
        };
        let mut allowed = Vec::new();
        for text in raw.check_targets_allowed.unwrap_or_default() {
            match text.parse() {
                Ok(net) => allowed.push(net),
                Err(_no_net) => reading.0.push(Invalid::range(
                    "registry.check_targets_allowed",
                    format!("must hold networks such as `10.0.0.0/8`, found `{text}`"),
                )),
            }
        }
        Self { allowed, ..config }
    }

    /// Where callers of a control port on loopback may register, and checks may go.
    pub fn addresses(&self) -> Addresses {
        Addresses { loopback: true, allowed: self.allowed.clone() }
    }
}

/// Reads values and notes those out of range.
pub(crate) struct Reading<'a>(pub(crate) &'a mut Vec<Invalid>);

impl Reading<'_> {
    /// `value` if it lies within its range, else the least that does.
    pub(crate) fn within<T: PartialOrd + Copy + std::fmt::Display>(
        &mut self,
        path: &str,
        value: T,
        (min, max): (T, T),
    ) -> T {
        if min <= value && value <= max {
            return value;
        }
        self.0.push(Invalid::range(path, format!("must be {min} to {max}, found {value}")));
        min
    }

    fn share(&mut self, path: &str, value: Option<f64>, default: Share) -> Share {
        let Some(value) = value else { return default };
        Share::try_from(value).unwrap_or_else(|_out_of_range| {
            self.0.push(Invalid::range(path, format!("must be 0 to 1, found {value}")));
            default
        })
    }
}
