//! A registration as it is written, and as it is meant.

use std::collections::BTreeMap;

use mainstay_store::Revision;
use serde::{Deserialize, Serialize};

use super::error::Invalid;
use super::instance::{CheckStatus, Instance, Kind, State};
use super::own_check::{ConsulService, NewCheck};
use super::service::Settings;
use crate::health::Health;
use crate::health::targets::{AddressRefused, Addresses};
use crate::name::InstanceId;

/// Pairs of metadata of one instance; and of a service.
pub const METADATA_MAX: usize = 64;
/// Longest key of metadata, in bytes.
pub const METADATA_KEY_BYTES_MAX: usize = 128;
/// Longest value of metadata, in bytes.
pub const METADATA_VALUE_BYTES_MAX: usize = 512;
/// Tags of one instance.
pub const TAGS_MAX: usize = 64;
/// Longest tag, zone, version, name of a port: in bytes.
pub const TEXT_BYTES_MAX: usize = 255;
/// Named ports of one instance.
pub const PORTS_MAX: usize = 64;
/// Shortest and longest ttl, in seconds.
pub const TTL_SECONDS: std::ops::RangeInclusive<u32> = 5..=86_400;

/// A registration as written: every field optional, nothing checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawRegistration {
    /// Default `<address>:<port>`.
    pub id: Option<String>,
    /// IP address or host name.
    pub address: Option<String>,
    /// Default 0: none of its own.
    pub port: Option<u16>,
    /// Further ports, by name.
    pub ports: BTreeMap<String, u16>,
    /// Default ephemeral.
    pub kind: Option<Kind>,
    /// Default 1.
    pub weight: Option<u16>,
    /// Where it runs.
    pub zone: Option<String>,
    /// Which build it is.
    pub version: Option<String>,
    /// Labels without a value.
    pub tags: Vec<String>,
    /// Labels with one.
    pub metadata: BTreeMap<String, String>,
    /// `up` (default) or `starting`.
    pub state: Option<State>,
    /// How it is. Default passing; unknown when it has active checks.
    pub status: Option<Health>,
    /// Default as configured, 15 s.
    pub ttl_seconds: Option<u32>,
    /// Default twice the ttl; never for a persistent one.
    pub remove_after_seconds: Option<u32>,
    /// Chosen by the caller, so that sending it again changes nothing.
    pub registration: Option<String>,
}

/// A registration, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    /// Which instance.
    pub id: InstanceId,
    /// Chosen by the caller.
    pub(super) token: Option<String>,
    raw: RawRegistration,
    kind: Kind,
    ttl_seconds: u32,
    remove_after_seconds: Option<u32>,
    of_consul: Option<OfConsul>,
    /// Only while the instance is as it was at this revision.
    pub(super) expected: Option<Revision>,
}

/// What a client of Consul says beside.
#[derive(Clone, Debug, PartialEq)]
struct OfConsul {
    service: Box<ConsulService>,
    checks: Vec<NewCheck>,
    /// Whether checks that are not among these go.
    replaces: bool,
}

/// Why a registration is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    /// A field is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Nobody may be called there.
    #[error(transparent)]
    Address(#[from] AddressRefused),
}

impl Registration {
    /// Checks `raw`; `ttl_seconds` is the default, `addresses` says who may register where.
    ///
    /// # Errors
    ///
    /// [`Refused`], naming the field.
    pub fn new(
        raw: RawRegistration,
        ttl_seconds: u32,
        addresses: &Addresses,
    ) -> Result<Self, Refused> {
        let invalid = |field, problem| Err(Refused::Invalid(Invalid::new(field, problem)));
        let address = raw.address.clone().unwrap_or_default();
        addresses.check(&address)?;
        let port = raw.port.unwrap_or(0);
        let id = raw.id.clone().unwrap_or_else(|| format!("{address}:{port}"));
        let Ok(id) = InstanceId::new(id) else {
            return invalid("id", "must be 1 to 255 bytes without control characters");
        };
        check_texts(&raw)?;
        check_metadata(&raw.metadata)?;
        let kind = raw.kind.unwrap_or_default();
        let ttl_seconds = raw.ttl_seconds.unwrap_or(ttl_seconds);
        if !TTL_SECONDS.contains(&ttl_seconds) {
            return invalid("ttl_seconds", "must be 5 to 86400");
        }
        if !matches!(raw.state, None | Some(State::Up | State::Starting)) {
            return invalid(
                "state",
                "must be `up` or `starting`; drain it or take it into maintenance instead",
            );
        }
        let remove_after_seconds = match (kind, raw.remove_after_seconds) {
            (Kind::Ephemeral, None) => Some(ttl_seconds.saturating_mul(2)),
            (Kind::Ephemeral, Some(after)) if after < ttl_seconds => {
                return invalid("remove_after_seconds", "must be at least `ttl_seconds`");
            }
            (Kind::Persistent, Some(after)) if after < 60 => {
                return invalid(
                    "remove_after_seconds",
                    "must be at least 60 for a persistent instance",
                );
            }
            (Kind::Ephemeral | Kind::Persistent, after) => after,
        };
        let token = raw.registration.clone();
        let (of_consul, expected) = (None, None);
        Ok(Self { id, token, raw, kind, ttl_seconds, remove_after_seconds, of_consul, expected })
    }

    /// The same, only while the instance is as it was at `expected` ([`Revision::NEVER`]: not there),
    /// if that is said.
    #[must_use]
    pub fn only_if(self, expected: Option<Revision>) -> Self {
        Self { expected, ..self }
    }

    /// The same, as a client of Consul registered it, with checks of its own. Those that were there
    /// before go on standing as they stood; those that are not among these stay unless it
    /// `replaces`.
    #[must_use]
    pub fn of_consul(self, service: ConsulService, checks: Vec<NewCheck>, replaces: bool) -> Self {
        let of_consul = OfConsul { service: Box::new(service), checks, replaces };
        Self { of_consul: Some(of_consul), ..self }
    }

    /// Whether it is removed when nothing is heard of it.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// How long it lives from one heartbeat to the next.
    pub const fn ttl_seconds(&self) -> u32 {
        self.ttl_seconds
    }

    /// The record to write. What an operator decided about an instance outlives its restart, so
    /// maintenance of `before` stays.
    pub(super) fn record(
        &self,
        owner: &str,
        registration: &str,
        unix_ms: u64,
        settings: &Settings,
        before: Option<&Instance>,
    ) -> Instance {
        let raw = self.raw.clone();
        let mut record = Instance::blank(owner, registration, unix_ms);
        record.address = raw.address.unwrap_or_default();
        record.port = raw.port.unwrap_or(0);
        record.ports = raw.ports;
        record.kind = self.kind;
        record.weight = raw.weight.unwrap_or(1);
        record.zone = raw.zone.unwrap_or_default();
        record.version = raw.version.unwrap_or_default();
        record.tags = raw.tags;
        record.metadata = raw.metadata;
        record.state = raw.state.unwrap_or_default();
        record.ttl_seconds = self.ttl_seconds;
        record.remove_after_seconds = self.remove_after_seconds;
        let active = settings.checks().iter().filter(|check| check.kind.is_active());
        for check in active {
            let health = raw.status.unwrap_or(Health::Unknown);
            let status = CheckStatus { health, output: String::new(), changed_unix_ms: unix_ms };
            record.checks.insert(check.name.clone(), status);
        }
        if let Some(of_consul) = &self.of_consul {
            of_consul.put(&mut record, before, unix_ms);
        }
        if record.checks.is_empty() {
            record.own = raw.status.unwrap_or(Health::Passing);
        }
        if let Some(before) = before {
            record.maintenance.clone_from(&before.maintenance);
            record.rest.clone_from(&before.rest);
        }
        if record.maintenance.is_some() {
            record.state = State::Down;
        }
        record.settle(unix_ms);
        record
    }
}

impl OfConsul {
    fn put(&self, record: &mut Instance, before: Option<&Instance>, unix_ms: u64) {
        record.consul = Some(self.service.clone());
        let known = before.map_or([].as_slice(), |before| &before.own_checks);
        let stood = |id: &str| {
            let was_own = known.iter().any(|check| check.id == id);
            before.filter(|_| was_own).and_then(|before| before.checks.get(id)).cloned()
        };
        for new in &self.checks {
            // How a check stands that nobody runs is what whoever registered it says.
            let stood = stood(&new.check.id).filter(|_| new.check.run.is_some());
            let status = stood.unwrap_or_else(|| new.status(unix_ms));
            record.checks.insert(new.check.id.clone(), status);
            record.own_checks.push(new.check.clone());
        }
        if self.replaces {
            return;
        }
        for check in known {
            if !record.own_checks.iter().any(|own| own.id == check.id) {
                record.checks.extend(stood(&check.id).map(|status| (check.id.clone(), status)));
                record.own_checks.push(check.clone());
            }
        }
    }
}

fn check_texts(raw: &RawRegistration) -> Result<(), Invalid> {
    let is_long = |text: &str| TEXT_BYTES_MAX < text.len();
    if raw.tags.len() > TAGS_MAX || raw.tags.iter().any(|tag| is_long(tag)) {
        return Err(Invalid::new("tags", "must be at most 64 of at most 255 bytes"));
    }
    if raw.zone.as_deref().is_some_and(is_long) {
        return Err(Invalid::new("zone", "must be at most 255 bytes"));
    }
    if raw.version.as_deref().is_some_and(is_long) {
        return Err(Invalid::new("version", "must be at most 255 bytes"));
    }
    if raw.registration.as_deref().is_some_and(|id| id.is_empty() || is_long(id)) {
        return Err(Invalid::new("registration", "must be 1 to 255 bytes"));
    }
    if raw.ports.len() > PORTS_MAX || raw.ports.keys().any(|name| is_long(name)) {
        return Err(Invalid::new("ports", "must be at most 64 with names of at most 255 bytes"));
    }
    Ok(())
}

/// Checks pairs of metadata against their limits.
pub(super) fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), Invalid> {
    let fits = |(key, value): (&String, &String)| {
        !key.is_empty()
            && key.len() <= METADATA_KEY_BYTES_MAX
            && value.len() <= METADATA_VALUE_BYTES_MAX
    };
    if metadata.len() <= METADATA_MAX && metadata.iter().all(fits) {
        return Ok(());
    }
    let allowed = "must be at most 64 pairs, keys of 1 to 128 bytes, values of at most 512";
    Err(Invalid::new("metadata", allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(json: &str) -> Result<Registration, Refused> {
        Registration::new(serde_json::from_str(json).unwrap(), 15, &Addresses::default())
    }

    #[test]
    fn one_that_says_little_gets_the_defaults() {
        let registration = resolve(r#"{"address": "10.0.0.7", "port": 80}"#).unwrap();
        assert_eq!(registration.id.as_str(), "10.0.0.7:80");
        let record = registration.record("n", "r", 1, &Settings::default(), None);
        assert_eq!((record.weight, record.ttl_seconds), (1, 15));
        assert_eq!((record.state, record.health), (State::Up, Health::Passing));
        assert_eq!(record.remove_after_seconds, Some(30));
        assert!(record.was_passing);
    }

    #[test]
    fn limits_hold_at_n_and_break_at_one_more() {
        let with = |field: &str| resolve(&format!(r#"{{"address": "h", "port": 1, {field}}}"#));
        let list = |n: usize, len: usize| {
            let tags: Vec<_> = (0..n).map(|_| "x".repeat(len)).collect();
            format!("\"tags\": {}", serde_json::to_string(&tags).unwrap())
        };
        let map = |n: usize, key: usize, value: usize| {
            let pairs = (0..n).map(|i| (format!("{i:0>key$}"), "x".repeat(value)));
            let pairs: BTreeMap<_, _> = pairs.collect();
            format!("\"metadata\": {}", serde_json::to_string(&pairs).unwrap())
        };
        for good in [
            list(64, 255),
            map(64, 128, 512),
            r#""ttl_seconds": 5"#.to_owned(),
            r#""ttl_seconds": 86400"#.to_owned(),
            r#""weight": 65535"#.to_owned(),
            r#""kind": "persistent", "remove_after_seconds": 60"#.to_owned(),
            r#""remove_after_seconds": 15"#.to_owned(),
        ] {
            assert!(with(&good).is_ok(), "{good}");
        }
        for (bad, field) in [
            (list(65, 1), "tags"),
            (list(1, 256), "tags"),
            (map(65, 3, 1), "metadata"),
            (map(1, 129, 1), "metadata"),
            (map(1, 1, 513), "metadata"),
            (r#""ttl_seconds": 4"#.to_owned(), "ttl_seconds"),
            (r#""ttl_seconds": 86401"#.to_owned(), "ttl_seconds"),
            (r#""state": "draining""#.to_owned(), "state"),
            (
                r#""kind": "persistent", "remove_after_seconds": 59"#.to_owned(),
                "remove_after_seconds",
            ),
            (r#""remove_after_seconds": 14"#.to_owned(), "remove_after_seconds"),
            (format!("\"id\": {:?}", "x".repeat(256)), "id"),
        ] {
            match with(&bad) {
                Err(Refused::Invalid(invalid)) => assert_eq!(invalid.field(), field, "{bad}"),
                other => panic!("{bad}: {other:?}"),
            }
        }
    }

    #[test]
    fn maintenance_outlives_a_restart_of_the_instance() {
        let registration = resolve(r#"{"address": "h", "port": 1}"#).unwrap();
        let mut before = registration.record("n", "r", 1, &Settings::default(), None);
        before.maintenance = Some("disk".to_owned());
        let after = registration.record("n", "r2", 2, &Settings::default(), Some(&before));
        assert_eq!(after.state, State::Down);
        assert_eq!(after.reason.as_deref(), Some("maintenance: disk"));
    }
}
