//! Who gets which release while one is given out gradually.
//!
//! A pure function of the group, its head and the client, so that every node, and every client that
//! asks twice, gets the same answer. A client's bucket depends on nothing but its name and the
//! group's: raising the percentage only ever adds clients.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use mainstay_core::switch;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::CentreError;
use super::record::Head;
use crate::keys::GroupRef;
use crate::name::ClientId;

/// Most clients that can be listed. Who needs more wants labels, or a percentage.
pub const CLIENTS_MAX: usize = 1_000;

/// Most labels.
pub const LABELS_MAX: usize = 64;

/// A percentage, in hundredths: 0 to 100, two decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, utoipa::ToSchema)]
#[schema(value_type = f64, minimum = 0, maximum = 100)]
pub struct Percent(u16);

impl Percent {
    /// `hundredths` of a percent, 0 to 10,000; `None` above.
    pub const fn of_hundredths(hundredths: u16) -> Option<Self> {
        if hundredths <= 10_000 { Some(Self(hundredths)) } else { None }
    }

    /// In hundredths of a percent: the first bucket that is not in it.
    pub const fn hundredths(self) -> u16 {
        self.0
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 100.0)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hundredths = f64::deserialize(deserializer)? * 100.0;
        let rounded = hundredths.round();
        let is_one = (0.0..=10_000.0).contains(&rounded) && (rounded - hundredths).abs() < 1e-6;
        if !is_one {
            let problem = "percent must be 0 to 100, with two decimals at most";
            return Err(serde::de::Error::custom(problem));
        }
        // In range, so the cast is exact.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10,000")]
        Ok(Self(rounded as u16))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", f64::from(self.0) / 100.0)
    }
}

/// Who shall get a release first, as a caller writes it. Any of the three is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = ConfigCanary)]
pub struct RawCanary {
    /// Which release; the one under way when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<u64>,
    /// These clients.
    pub clients: BTreeSet<String>,
    /// Clients with all of these labels; none match no client.
    pub labels: BTreeMap<String, String>,
    /// This share of all clients.
    pub percent: Percent,
}

impl RawCanary {
    pub(super) fn check(&self) -> Result<(), CentreError> {
        let at_most = |what: &str, found, max| {
            let what = format!("{what} of the canary");
            if found <= max {
                return Ok(());
            }
            Err(CentreError::TooLarge { what, found, unit: "members", max })
        };
        at_most("clients", self.clients.len(), CLIENTS_MAX)?;
        for client in &self.clients {
            ClientId::new(client.clone())?;
        }
        labels_fit("canary.labels", &self.labels)
    }
}

fn labels_fit(field: &str, labels: &BTreeMap<String, String>) -> Result<(), CentreError> {
    let is_long = |(key, value): (&String, &String)| 128 < key.len() || 512 < value.len();
    if LABELS_MAX < labels.len() || labels.iter().any(is_long) {
        let problem =
            "must be at most 64, with keys of at most 128 and values of at most 512 bytes";
        return Err(CentreError::invalid(field, problem));
    }
    Ok(())
}

/// A gradual release under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ConfigCanaryUnderWay)]
pub struct Canary {
    /// Which release.
    pub release: u64,
    /// These clients get it.
    #[serde(default)]
    pub clients: BTreeSet<String>,
    /// Clients with all of these labels get it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// This share of all clients gets it.
    #[serde(default)]
    pub percent: Percent,
    /// Since when it is under way, by the wall clock.
    #[serde(default)]
    pub since_unix_ms: u64,
}

impl Canary {
    /// Whether `client` gets it.
    pub fn is_for(&self, group: &GroupRef, client: &Client) -> bool {
        let has = |(key, value): (&String, &String)| client.labels.get(key) == Some(value);
        self.clients.contains(client.id.as_str())
            || !self.labels.is_empty() && self.labels.iter().all(has)
            || bucket(group, &client.id) < u64::from(self.percent.hundredths())
    }
}

/// Whoever asks for configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its name, the same after a restart.
    pub id: ClientId,
    /// What it says of itself.
    pub labels: BTreeMap<String, String>,
}

impl Client {
    /// Refuses more labels than a node would keep for each of its clients.
    pub(super) fn check(&self) -> Result<(), CentreError> {
        labels_fit("labels", &self.labels)
    }
}

/// The release `client` gets. Who does not say its name gets what most get.
pub fn effective(group: &GroupRef, head: &Head, client: Option<&Client>) -> u64 {
    match (&head.canary, client) {
        (Some(canary), Some(client)) if canary.is_for(group, client) => canary.release,
        _ => head.release,
    }
}

/// The bucket of a client, 0 to 9,999.
pub fn bucket(group: &GroupRef, client: &ClientId) -> u64 {
    switch::bucket(&group.to_string(), client.as_str())
}
