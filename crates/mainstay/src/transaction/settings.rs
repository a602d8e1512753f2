//! `[transaction]`: what the coordinator of global transactions goes by.

mod dtm;
mod resource;

use std::time::Duration;

use mainstay_resilience::Invalid;
use mainstay_txn::Shards;
use mainstay_txn::backoff::Backoff;
use mainstay_txn::limits::{PAYLOAD_BYTES, PAYLOAD_BYTES_MAX};
use mainstay_txn::policy::Policy;
use mainstay_txn::resource::{ResourceSettings, SweepSettings};
use mainstay_txn::retention::Retention;
use mainstay_txn::run::Settings;
use mainstay_txn::schedule::Limits;
use schemars::JsonSchema;
use serde::Deserialize;

use super::targets::{Rule, Rules};
use crate::cluster::settings::{Backend, Reading};
pub use dtm::{BodyMarkers, DtmConfig, RawDtm};
pub use resource::{RawResource, RawTls};

/// The `[transaction]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawTransaction {
    /// Whether this node coordinates global transactions, in the roles `dev` and `server`. Restart
    /// only. Default true.
    pub enabled: Option<bool>,
    /// Parts of the log, a power of two, 1 to 256; counts when the log is made, and never again.
    /// Restart only. Default 64.
    pub shards: Option<u16>,
    /// Batches of the log that may be under way at once, 1 to 64. Restart only. Default 8, with
    /// etcd 4.
    pub log_lanes: Option<u16>,
    /// How long the shards of a node that has vanished stay with it, in seconds, 2 to 60. Restart
    /// only. Default 4.
    pub session_ttl_seconds: Option<u32>,
    /// How long a transaction that names no deadline may stay undecided, in seconds, 1 to 3,600.
    /// Restart only. Default 60.
    pub deadline_default_seconds: Option<u32>,
    /// Longest deadline of a transaction that holds what others wait for (`xa`, `tcc`), in seconds,
    /// 1 to 3,600. Restart only. Default 3600.
    pub lifetime_max_seconds: Option<u32>,
    /// How long a call of a branch may take, in seconds, 0.1 to 300. Restart only. Default 5.
    pub call_timeout_seconds: Option<f64>,
    /// Wait before a branch is called again for the first time, in milliseconds, 10 to 60,000; each
    /// wait doubles the one before. Restart only. Default 500.
    pub backoff_initial_milliseconds: Option<u32>,
    /// Longest such wait, in seconds, 1 to 3,600. Restart only. Default 60.
    pub backoff_max_seconds: Option<u32>,
    /// Failed attempts at one operation after which a transaction counts as stuck, 1 to 1,000.
    /// Restart only. Default 10.
    pub stuck_attempts: Option<u32>,
    /// Time after its decision after which it does, in seconds, 1 to 86,400. Restart only. Default
    /// 600.
    pub stuck_after_seconds: Option<u32>,
    /// Calls of branches under way at once, 1 to 65,536. Restart only. Default 256.
    pub calls_in_flight_max: Option<u32>,
    /// The same to one service, or one host and port, 1 to 65,536. Restart only. Default 32.
    pub calls_per_target_max: Option<u32>,
    /// Records that may wait for each lane of the log, 128 to 1,048,576. Restart only. Default
    /// 8192.
    pub commit_queue_records_max: Option<u32>,
    /// Live transactions of this node, 1 to 10,000,000. Restart only. Default 200000.
    pub live_transactions_max: Option<u32>,
    /// How long a record nobody waits for waits for company, in milliseconds, 1 to 10,000. Restart
    /// only. Default 100.
    pub lazy_flush_milliseconds: Option<u32>,
    /// How long is remembered how transactions ended, in seconds, at least twice
    /// `lifetime_max_seconds`, at most 31,536,000. Restart only. Default 604800.
    pub history_seconds: Option<u32>,
    /// Most of them remembered, 0 to 10,000,000. Restart only. Default 200000, with etcd 100000.
    pub history_count_max: Option<u32>,
    /// Most bytes of them, 0 to 2^40. Restart only. Default 1073741824, with etcd 268435456.
    pub history_bytes_max: Option<u64>,
    /// Largest payload of a branch, in bytes, 0 to 524,288, with etcd 262,144. Restart only. Default
    /// 65536.
    pub payload_bytes_max: Option<u32>,
    /// How long calls under way may take when the process ends, in seconds, 0 to 30. Restart only.
    /// Default 5.
    pub drain_seconds: Option<u32>,
    /// Which branches may be called: `service:NAME`, `service:*` for all that are registered, and
    /// `SCHEME://HOST:PORT`, where the host may be a network such as `10.0.0.0/8` and the port `*`.
    /// Targets on this machine's loopback are allowed as well while the control port listens there.
    /// Restart only. Default `["service:*"]`.
    pub targets_allow: Option<Vec<String>>,
    /// Between two looks at what a database holds prepared, in seconds, give or take a fifth, 1 to
    /// 3,600. Restart only. Default 30.
    pub sweep_interval_seconds: Option<u32>,
    /// How long a prepared branch is left alone that no transaction speaks of, before it is rolled
    /// back, in seconds, 1 to 86,400. Restart only. Default 90.
    pub orphan_grace_seconds: Option<u32>,
    /// How long receipts are kept in databases, in seconds, at least `history_seconds`, at most
    /// 31,536,000. Restart only. Default 604800, or `history_seconds` if that is more.
    pub receipt_retention_seconds: Option<u32>,
    /// Transactions by the protocol of DTM.
    pub dtm: RawDtm,
    /// Databases that take part, up to 64. Tables may be added, changed and removed while the
    /// process runs; one that live transactions have branches in is not removed.
    pub resource: Vec<RawResource>,
}

/// `[transaction]`, resolved.
#[derive(Clone, Debug)]
pub struct TransactionConfig {
    /// Whether this node coordinates.
    pub enabled: bool,
    /// What its coordinator goes by; name and address of the node are not in there yet.
    pub settings: Settings,
    /// How long calls may take when the process ends.
    pub drain: Duration,
    /// Which branches may be called.
    pub targets: Rules,
    /// The door for clients of DTM.
    pub dtm: DtmConfig,
    /// How what databases hold is looked at.
    pub sweeps: SweepSettings,
    /// Databases that take part.
    pub resources: Vec<ResourceSettings>,
}

impl TransactionConfig {
    /// Resolves what was written, for a store of kind `backend`; adds what is wrong to `faults`.
    pub fn resolve(raw: RawTransaction, backend: Backend, faults: &mut Vec<Invalid>) -> Self {
        let mut numbers = Numbers(Reading(faults));
        let mut settings = settings(&raw, backend, &mut numbers);
        let drain = numbers.seconds("drain_seconds", raw.drain_seconds, 5, (0, 30));
        let twice = 2 * settings.policy.lifetime_max;
        if settings.retention.span < twice {
            let found = settings.retention.span.as_secs();
            let least = twice.as_secs();
            faults.push(Invalid::contradiction(
                "transaction.history_seconds",
                format!("must be at least twice `lifetime_max_seconds`, {least}, found {found}"),
            ));
        }
        let sweeps = sweeps(&raw, settings.retention.span, &mut Numbers(Reading(faults)));
        let resources = resource::resolve(&raw.resource, faults);
        let connections = resources.iter().map(|resource| resource.connections).max();
        settings.limits.resource = settings.limits.resource.max(connections.unwrap_or(0));
        let dtm = DtmConfig::resolve(&raw.dtm, settings.policy.lifetime_max, faults);
        settings.policy.dtm_interval_max = dtm.retry_interval_max;
        let mut rules = Vec::new();
        for text in raw.targets_allow.unwrap_or_else(|| vec!["service:*".to_owned()]) {
            match text.parse::<Rule>() {
                Ok(rule) => rules.push(rule),
                Err(problem) => {
                    faults.push(Invalid::range("transaction.targets_allow", problem.to_string()));
                }
            }
        }
        Self {
            enabled: raw.enabled.unwrap_or(true),
            settings,
            drain,
            targets: Rules::new(rules),
            dtm,
            sweeps,
            resources,
        }
    }
}

fn settings(raw: &RawTransaction, backend: Backend, numbers: &mut Numbers<'_>) -> Settings {
    let is_etcd = backend == Backend::Etcd;
    let shards = raw.shards.unwrap_or(64);
    let shards = Shards::new(shards).unwrap_or_else(|| {
        let problem = format!("must be a power of two, 1 to 256, found {shards}");
        numbers.fault("shards", problem);
        Shards::DEFAULT
    });
    let lanes = raw.log_lanes.unwrap_or(if is_etcd { 4 } else { 8 });
    let timeout = raw.call_timeout_seconds.unwrap_or(5.0);
    let timeout = numbers.within("call_timeout_seconds", timeout, (0.1, 300.0));
    let mut count = |key, written: Option<u32>, default: u32, range| {
        numbers.within(key, written.unwrap_or(default), range) as usize
    };
    let limits = Limits {
        all: count("calls_in_flight_max", raw.calls_in_flight_max, 256, (1, 65_536)),
        endpoint: count("calls_per_target_max", raw.calls_per_target_max, 32, (1, 65_536)),
        ..Limits::default()
    };
    let queue = raw.commit_queue_records_max;
    let queue_records_max = count("commit_queue_records_max", queue, 8_192, (128, 1 << 20));
    let live = raw.live_transactions_max;
    let live_max = count("live_transactions_max", live, 200_000, (1, 10_000_000));
    let kept = if is_etcd { 100_000 } else { 200_000 };
    let count_max = count("history_count_max", raw.history_count_max, kept, (0, 10_000_000));
    let bytes = raw.history_bytes_max.unwrap_or(if is_etcd { 1 << 28 } else { 1 << 30 });
    let lazy = raw.lazy_flush_milliseconds;
    Settings {
        shards,
        lanes: numbers.within("log_lanes", lanes, (1, 64)),
        session_ttl: numbers.seconds("session_ttl_seconds", raw.session_ttl_seconds, 4, (2, 60)),
        queue_records_max,
        lazy_flush: numbers.millis("lazy_flush_milliseconds", lazy, 100, (1, 10_000)),
        live_max,
        call_timeout: Duration::from_secs_f64(timeout),
        limits,
        policy: policy(raw, is_etcd, numbers),
        retention: Retention {
            span: numbers.seconds("history_seconds", raw.history_seconds, 604_800, (1, 31_536_000)),
            count_max,
            bytes_max: numbers.within("history_bytes_max", bytes, (0, 1 << 40)),
        },
        ..Settings::new("")
    }
}

fn sweeps(raw: &RawTransaction, history: Duration, numbers: &mut Numbers<'_>) -> SweepSettings {
    let least = u32::try_from(history.as_secs()).unwrap_or(u32::MAX);
    let retention = raw.receipt_retention_seconds;
    let default = least.max(604_800);
    let kept = numbers.seconds("receipt_retention_seconds", retention, default, (1, 31_536_000));
    if kept < history {
        let (found, least) = (kept.as_secs(), history.as_secs());
        numbers.0.0.push(Invalid::contradiction(
            "transaction.receipt_retention_seconds",
            format!("must be at least `history_seconds`, {least}, found {found}"),
        ));
    }
    SweepSettings {
        interval: numbers.seconds(
            "sweep_interval_seconds",
            raw.sweep_interval_seconds,
            30,
            (1, 3_600),
        ),
        orphan_grace: numbers.seconds(
            "orphan_grace_seconds",
            raw.orphan_grace_seconds,
            90,
            (1, 86_400),
        ),
        receipt_retention: kept,
    }
}

fn policy(raw: &RawTransaction, is_etcd: bool, numbers: &mut Numbers<'_>) -> Policy {
    let most = if is_etcd { PAYLOAD_BYTES_MAX / 2 } else { PAYLOAD_BYTES_MAX };
    let payload = raw.payload_bytes_max.map_or(PAYLOAD_BYTES, |bytes| bytes as usize);
    let initial = raw.backoff_initial_milliseconds;
    let initial = numbers.millis("backoff_initial_milliseconds", initial, 500, (10, 60_000));
    let longest = numbers.seconds("backoff_max_seconds", raw.backoff_max_seconds, 60, (1, 3_600));
    let deadline = raw.deadline_default_seconds;
    let stuck = raw.stuck_after_seconds;
    Policy {
        deadline: numbers.seconds("deadline_default_seconds", deadline, 60, (1, 3_600)),
        lifetime_max: numbers.seconds(
            "lifetime_max_seconds",
            raw.lifetime_max_seconds,
            3_600,
            (1, 3_600),
        ),
        payload_bytes_max: numbers.within("payload_bytes_max", payload, (0, most)),
        backoff: Backoff::native(initial, longest),
        stuck_attempts: numbers.within(
            "stuck_attempts",
            raw.stuck_attempts.unwrap_or(10),
            (1, 1_000),
        ),
        stuck_after: numbers.seconds("stuck_after_seconds", stuck, 600, (1, 86_400)),
        ..Policy::default()
    }
}

/// Reads numbers of this table.
struct Numbers<'a>(Reading<'a>);

impl Numbers<'_> {
    fn within<T: PartialOrd + Copy + std::fmt::Display>(
        &mut self,
        key: &str,
        value: T,
        range: (T, T),
    ) -> T {
        self.0.within(&format!("transaction.{key}"), value, range)
    }

    fn seconds(
        &mut self,
        key: &str,
        value: Option<u32>,
        default: u32,
        range: (u32, u32),
    ) -> Duration {
        let seconds = self.within(key, value.unwrap_or(default), range);
        Duration::from_secs(u64::from(seconds))
    }

    fn millis(
        &mut self,
        key: &str,
        value: Option<u32>,
        default: u32,
        range: (u32, u32),
    ) -> Duration {
        let millis = self.within(key, value.unwrap_or(default), range);
        Duration::from_millis(u64::from(millis))
    }

    fn fault(&mut self, key: &str, problem: String) {
        self.0.0.push(Invalid::range(format!("transaction.{key}"), problem));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str, backend: Backend) -> (TransactionConfig, Vec<String>) {
        let mut faults = Vec::new();
        let config =
            TransactionConfig::resolve(toml::from_str(text).unwrap(), backend, &mut faults);
        (config, faults.into_iter().map(|fault| fault.path).collect())
    }

    #[test]
    fn without_a_word_it_is_as_the_reference_says() {
        let (config, faults) = resolve("", Backend::Embedded);
        assert!(faults.is_empty(), "{faults:?}");
        assert!(config.enabled);
        let Settings { policy, retention, limits, lanes, .. } = &config.settings;
        assert_eq!((*policy, *retention), (Policy::default(), Retention::default()));
        assert_eq!((limits.all, limits.endpoint, *lanes), (256, 32, 8));
        let (config, _) = resolve("", Backend::Etcd);
        let Settings { retention, lanes, .. } = &config.settings;
        assert_eq!((retention.count_max, retention.bytes_max, *lanes), (100_000, 1 << 28, 4));
    }

    #[test]
    fn what_is_out_of_range_or_contradicts_is_named() {
        let check = |text: &str, backend, want: &[&str]| {
            let want: Vec<_> = want.iter().map(|key| format!("transaction.{key}")).collect();
            assert_eq!(resolve(text, backend).1, want, "{text}");
        };
        check("shards = 48", Backend::Embedded, &["shards"]);
        check("session_ttl_seconds = 1", Backend::Embedded, &["session_ttl_seconds"]);
        check("payload_bytes_max = 524288", Backend::Embedded, &[]);
        check("payload_bytes_max = 524288", Backend::Etcd, &["payload_bytes_max"]);
        check("history_seconds = 7199", Backend::Embedded, &["history_seconds"]);
        check("history_seconds = 20\nlifetime_max_seconds = 10", Backend::Embedded, &[]);
        check(
            "receipt_retention_seconds = 604799",
            Backend::Embedded,
            &["receipt_retention_seconds"],
        );
        check("orphan_grace_seconds = 0", Backend::Embedded, &["orphan_grace_seconds"]);
        check("targets_allow = ['stock']", Backend::Embedded, &["targets_allow"]);
        check(
            "drain_seconds = 31\nlog_lanes = 0",
            Backend::Embedded,
            &["log_lanes", "drain_seconds"],
        );
    }
}
