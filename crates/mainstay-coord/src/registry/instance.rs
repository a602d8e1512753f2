//! What `ins/<ns>/<service>/<instance>` holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::own_check::{ConsulService, OwnCheck};
use crate::health::Health;
use crate::health::check::Check;

/// An instance as its record tells.
///
/// Whoever changes a record keeps the members it does not know: a newer version wrote them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    v: u32,
    /// IP address or host name.
    pub address: String,
    /// Its port; 0 when it has none of its own.
    pub port: u16,
    /// Further ports, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u16>,
    /// Whether it is removed when nothing is heard of it.
    pub kind: Kind,
    /// Share of the calls, relative to the others; 0 keeps it listed but never picked.
    pub weight: u16,
    /// Where it runs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// Which build it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Labels without a value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Labels with one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// What is meant to be with it.
    pub state: State,
    /// How it is: the worst of its beat and its checks.
    pub health: Health,
    /// Why it is not passing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it said of itself when it registered.
    pub own: Health,
    /// No heartbeat came for its ttl.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_late: bool,
    /// Its checks, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checks: BTreeMap<String, CheckStatus>,
    /// Those of them that are checks of this instance alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own_checks: Vec<OwnCheck>,
    /// What clients of Consul said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consul: Option<Box<ConsulService>>,
    /// Why it is in maintenance, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<String>,
    /// How long it drains, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_seconds: Option<u32>,
    /// Whether it has been passing since it registered. Protection does not count those that
    /// never worked.
    #[serde(default, skip_serializing_if = "is_false")]
    pub was_passing: bool,
    /// It would have been removed, had too many not gone at once.
    #[serde(default, skip_serializing_if = "is_false")]
    pub removal_held: bool,
    /// How long it lives from one heartbeat to the next.
    pub ttl_seconds: u32,
    /// How long after its last sign of life it is removed; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_after_seconds: Option<u32>,
    /// The node that looks after it.
    pub owner: String,
    /// Which registration wrote it: tells whether one whose outcome was unknown got through.
    pub registration: String,
    /// When it registered, by the wall clock of the node: to be shown.
    pub registered_unix_ms: u64,
    /// When its state or health last changed, by the wall clock of the node: to be shown.
    pub changed_unix_ms: u64,
    /// What a newer version wrote.
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Whether an instance is removed when nothing is heard of it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[schema(as = InstanceKind)]
pub enum Kind {
    /// It beats, and goes when it stops.
    #[default]
    Ephemeral,
    /// It stays until it is removed.
    Persistent,
}

impl Kind {
    /// The word used in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ephemeral => "ephemeral",
            Self::Persistent => "persistent",
        }
    }
}

/// What is meant to be with an instance.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It takes calls.
    #[default]
    Up,
    /// Not yet.
    Starting,
    /// No new ones.
    Draining,
    /// None.
    Down,
}

impl State {
    /// The word used in documents and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

/// One check of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckStatus {
    /// How it stands.
    pub health: Health,
    /// What the last result said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// When its status last changed, by the wall clock of the node: to be shown.
    pub changed_unix_ms: u64,
}

impl Instance {
    /// A record in which nothing is set yet but what every one has.
    pub(super) fn blank(owner: &str, registration: &str, unix_ms: u64) -> Self {
        Self {
            v: 1,
            address: String::new(),
            port: 0,
            ports: BTreeMap::new(),
            kind: Kind::default(),
            weight: 1,
            zone: String::new(),
            version: String::new(),
            tags: Vec::new(),
            metadata: BTreeMap::new(),
            state: State::default(),
            health: Health::Passing,
            reason: None,
            own: Health::Passing,
            is_late: false,
            checks: BTreeMap::new(),
            own_checks: Vec::new(),
            consul: None,
            maintenance: None,
            drain_seconds: None,
            was_passing: false,
            removal_held: false,
            ttl_seconds: 15,
            remove_after_seconds: None,
            owner: owner.to_owned(),
            registration: registration.to_owned(),
            registered_unix_ms: unix_ms,
            changed_unix_ms: unix_ms,
            rest: Map::new(),
        }
    }

    /// A node at `address` that has checks: to whom checks are sent it is one more instance.
    pub(crate) fn of_node(address: &str, checks: BTreeMap<String, CheckStatus>) -> Self {
        let (address, kind) = (address.to_owned(), Kind::Persistent);
        Self { address, kind, checks, ..Self::blank("", "", 0) }
    }

    /// The record in `value`; `None` when it cannot be read.
    pub fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    /// As bytes.
    pub(super) fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a map with text keys is JSON")
    }

    /// Brings health, reason and marks into line with beat, checks and maintenance.
    pub(super) fn settle(&mut self, unix_ms: u64) {
        let before = (self.state, self.health);
        let worst = |worst: Health, check: &CheckStatus| worst.worse(check.health);
        let checked = self.checks.values().fold(self.own, worst);
        self.health = if self.is_late { Health::Critical } else { checked };
        self.was_passing |= self.health == Health::Passing;
        self.removal_held &= self.is_late;
        self.reason = self.why();
        if before != (self.state, self.health) {
            self.changed_unix_ms = unix_ms;
        }
    }

    fn why(&self) -> Option<String> {
        if let Some(reason) = &self.maintenance {
            return Some(format!("maintenance: {reason}"));
        }
        if self.is_late {
            return Some(format!("no heartbeat for {} s", self.ttl_seconds));
        }
        if self.health == Health::Passing {
            return None;
        }
        let failing = self.checks.iter().find(|(_, check)| check.health == self.health);
        Some(match failing {
            Some((name, _)) if self.health == Health::Unknown => {
                format!("check `{name}` has no result yet")
            }
            Some((name, check)) => format!("check `{name}` is {}", check.health),
            None => format!("registered as {}", self.own),
        })
    }

    /// Whether it holds results of other checks than `checks` and its own.
    pub(super) fn has_strays(&self, checks: &[Check]) -> bool {
        self.checks.keys().any(|name| !self.is_made(name, checks))
    }

    /// Drops results of other checks than `checks` and its own: nobody would ever bring newer ones.
    pub(super) fn drop_strays(&mut self, checks: &[Check]) {
        let mut statuses = std::mem::take(&mut self.checks);
        statuses.retain(|name, _| self.is_made(name, checks));
        self.checks = statuses;
    }

    fn is_made(&self, name: &str, checks: &[Check]) -> bool {
        let is_own = self.own_checks.iter().any(|own| own.id == name);
        is_own || checks.iter().any(|check| check.name == name)
    }

    /// Whether lists show `other` as they show this: it differs in nothing but outputs of checks
    /// and in which node looks after it.
    pub(super) fn shows_as(&self, other: &Self) -> bool {
        let bare = |instance: &Self| {
            let mut bare = instance.clone();
            bare.checks.values_mut().for_each(|check| check.output.clear());
            bare.owner.clear();
            bare
        };
        self == other || bare(self) == bare(other)
    }

    /// Its place in calls of a balancer: 0 when it is to get none.
    pub const fn effective_weight(&self) -> u16 {
        match self.state {
            State::Up => self.weight,
            State::Starting | State::Draining | State::Down => 0,
        }
    }
}

/// Which instance of a service went last, and why. Lets a list that is empty say so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    v: u32,
    /// The instance.
    pub instance: String,
    /// Where it ran.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// Why it went.
    pub reason: GoneReason,
    /// When, by the wall clock of the node: to be shown.
    pub unix_ms: u64,
}

/// Why an instance went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoneReason {
    /// Somebody said so, or it had drained.
    Deregistered,
    /// Nothing was heard of it.
    Expired,
}

impl GoneReason {
    /// The word used in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deregistered => "deregistered",
            Self::Expired => "expired",
        }
    }
}

impl Gone {
    pub(super) const fn new(
        instance: String,
        zone: String,
        reason: GoneReason,
        unix_ms: u64,
    ) -> Self {
        Self { v: 1, instance, zone, reason, unix_ms }
    }

    pub(super) fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    pub(super) fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text and numbers are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> Instance {
        let mut instance = Instance::blank("n1", "r1", 1);
        instance.settle(1);
        instance
    }

    fn status(health: Health) -> CheckStatus {
        CheckStatus { health, output: String::new(), changed_unix_ms: 0 }
    }

    #[test]
    fn what_a_newer_version_wrote_is_kept() {
        let mut value: Value = serde_json::from_slice(&instance().write()).unwrap();
        value["isolated_by"] = "rule".into();
        let mut read = Instance::read(&serde_json::to_vec(&value).unwrap()).unwrap();
        read.weight = 7;
        let written: Value = serde_json::from_slice(&read.write()).unwrap();
        assert_eq!((&written["isolated_by"], &written["weight"]), (&"rule".into(), &7.into()));
    }

    #[test]
    fn it_is_as_well_as_the_worst_of_its_checks() {
        let mut instance = instance();
        instance.checks.insert("a".to_owned(), status(Health::Warning));
        instance.checks.insert("b".to_owned(), status(Health::Unknown));
        instance.settle(2);
        assert_eq!(instance.health, Health::Unknown);
        assert_eq!(instance.reason.as_deref(), Some("check `b` has no result yet"));
        instance.checks.insert("b".to_owned(), status(Health::Critical));
        instance.settle(3);
        assert_eq!(instance.reason.as_deref(), Some("check `b` is critical"));
        assert_eq!((instance.health, instance.changed_unix_ms), (Health::Critical, 3));
    }

    #[test]
    fn a_late_one_is_critical_until_it_beats() {
        let mut instance = instance();
        (instance.is_late, instance.removal_held) = (true, true);
        instance.settle(2);
        assert_eq!(instance.health, Health::Critical);
        assert_eq!(instance.reason.as_deref(), Some("no heartbeat for 15 s"));
        assert!(instance.removal_held);
        instance.is_late = false;
        instance.settle(3);
        assert_eq!((instance.health, instance.reason), (Health::Passing, None));
        assert!(!instance.removal_held);
    }

    #[test]
    fn output_alone_is_not_shown_in_lists() {
        let mut one = instance();
        one.checks.insert("a".to_owned(), status(Health::Passing));
        let mut other = one.clone();
        other.checks.get_mut("a").unwrap().output = "200 OK".to_owned();
        assert!(one.shows_as(&other) && one != other);
        other.weight = 2;
        assert!(!one.shows_as(&other));
    }
}
