//! What `svc/<ns>/<service>` holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::Invalid;
use super::instance::Kind;
use super::registration::check_metadata;
use super::share::Share;
use crate::health::check::{CHECKS_MAX, Check, RawCheck};

/// Settings of a service as written: every field optional.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
#[schema(as = ServiceSettings)]
pub struct RawSettings {
    v: u32,
    /// Below which share of healthy instances everybody is answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protect_threshold: Option<Share>,
    /// Which share of the instances may be removed for missed beats in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire_share_max: Option<Share>,
    /// What is checked of each instance.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<RawCheck>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// What its instances are; fixed while it has some.
    pub(super) kind: Kind,
    /// What a newer version wrote.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl RawSettings {
    /// Those of a service whose first instance is of `kind`.
    pub(super) fn of_kind(kind: Kind) -> Self {
        Self { v: 1, kind, ..Self::default() }
    }

    /// As bytes.
    pub(super) fn write(&self) -> Vec<u8> {
        serde_json::to_vec(&Self { v: 1, ..self.clone() }).expect("a map with text keys is JSON")
    }

    /// The settings in `value`; `None` when they cannot be read.
    pub(super) fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    /// Keeps of `before` what an editor does not set: its kind, and what a newer version wrote.
    pub(super) fn over(mut self, before: &Self) -> Self {
        self.kind = before.kind;
        for (key, value) in &before.rest {
            self.rest.entry(key).or_insert_with(|| value.clone());
        }
        self
    }

    /// Refuses members nobody knows; for what comes from a caller, not from the store.
    fn knows_all(&self) -> Result<(), Invalid> {
        match self.rest.keys().next() {
            None => Ok(()),
            Some(_) => Err(Invalid::new("settings", "holds a member nobody knows")),
        }
    }
}

/// Settings of a service, resolved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    raw: RawSettings,
    checks: Vec<Check>,
    defaults: Shares,
}

/// Shares that hold where a service says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Below which share of healthy instances everybody is answered.
    pub protect_threshold: Share,
    /// Which share of the instances may be removed for missed beats in a minute.
    pub expire_share_max: Share,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            protect_threshold: Share::of_ten_thousand(5_000),
            expire_share_max: Share::of_ten_thousand(3_000),
        }
    }
}

impl Settings {
    /// Checks what a caller wrote.
    ///
    /// # Errors
    ///
    /// [`Invalid`], naming the field.
    pub fn new(raw: RawSettings, defaults: Shares) -> Result<Self, Invalid> {
        raw.knows_all()?;
        Self::stored(raw, defaults)
    }

    /// Checks what the store holds; members nobody knows are fine.
    pub(super) fn stored(raw: RawSettings, defaults: Shares) -> Result<Self, Invalid> {
        check_metadata(&raw.metadata)?;
        if raw.checks.len() > CHECKS_MAX {
            return Err(Invalid::new("checks", "must be at most 16"));
        }
        let checks: Vec<Check> =
            raw.checks.iter().map(Check::try_from).collect::<Result<_, _>>()?;
        let mut names: Vec<&str> = checks.iter().map(|check| &*check.name).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(Invalid::new("checks.name", "stands twice"));
        }
        Ok(Self { raw, checks, defaults })
    }

    /// Settings of a service that has none.
    pub(super) fn absent(defaults: Shares) -> Self {
        Self { defaults, ..Self::default() }
    }

    /// Below which share of healthy instances everybody is answered.
    pub fn protect_threshold(&self) -> Share {
        self.raw.protect_threshold.unwrap_or(self.defaults.protect_threshold)
    }

    /// Which share of the instances may be removed for missed beats in a minute.
    pub fn expire_share_max(&self) -> Share {
        self.raw.expire_share_max.unwrap_or(self.defaults.expire_share_max)
    }

    /// What is checked of each instance.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// As written.
    pub const fn raw(&self) -> &RawSettings {
        &self.raw
    }
}
