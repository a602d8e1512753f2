//! What a service looks like: the answer to "who can I call".

use std::fmt;
use std::sync::Arc;

use mainstay_store::Revision;
use serde::Serialize;

use super::instance::{Instance, State};
use crate::health::Health;
use crate::keys::ServiceRef;
use crate::name::InstanceId;

/// One instance, as lists show it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Which it is.
    pub id: InstanceId,
    /// Its record.
    pub instance: Arc<Instance>,
    /// How it is, all things considered: what its record says, what callers report, and critical
    /// when it is down.
    pub health: Health,
    /// When what lists show of it last changed, as far as this node has seen: one that started
    /// later may name a later revision for the same.
    pub revision: Revision,
}

impl Listed {
    /// Whether it is meant to take calls.
    pub fn is_offered(&self) -> bool {
        self.instance.effective_weight() > 0
    }

    /// Whether a balancer may pick it: offered, and not known to be critical.
    pub fn is_usable(&self) -> bool {
        self.is_offered() && self.health.is_usable()
    }

    /// Whether it is offered and passing or warning.
    pub fn is_healthy(&self) -> bool {
        self.is_offered() && self.health.is_healthy()
    }

    /// Whether protection counts it: offered, and has been passing since it registered.
    pub fn is_counted(&self) -> bool {
        self.is_offered() && self.instance.was_passing
    }

    /// Why it is not answered to whoever asks for healthy ones; `None` when it is.
    fn why_not(&self, protected: bool) -> Option<Why> {
        match self.instance.state {
            State::Up if self.instance.weight == 0 => Some(Why::NoWeight),
            State::Up if self.is_healthy() || (protected && self.is_counted()) => None,
            State::Up => Some(Why::Health(self.health)),
            state => Some(Why::State(state)),
        }
    }
}

/// Why an instance is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is not up.
    State(State),
    /// It is neither passing nor warning.
    Health(Health),
    /// Its weight is 0.
    NoWeight,
    /// It is not what was asked for.
    Filter(&'static str),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(state) => f.write_str(state.as_str()),
            Self::Health(health) => f.write_str(health.as_str()),
            Self::NoWeight => f.write_str("weight 0"),
            Self::Filter(what) => write!(f, "another {what} was asked for"),
        }
    }
}

/// That too many went at once, so everybody is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Protected {
    /// Since when, by the wall clock of the node.
    pub since_unix_ms: u64,
    /// Why, for people.
    pub reason: String,
    /// How many of those that count are healthy.
    pub healthy: u32,
    /// How many count.
    pub total: u32,
}

/// Why there is no instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EmptyBecause {
    /// The last one was deregistered, or had drained.
    Deregistered,
    /// Nothing was heard of the last one.
    Expired,
    /// None ever registered.
    NeverRegistered,
}

impl EmptyBecause {
    /// The word used in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deregistered => "deregistered",
            Self::Expired => "expired",
            Self::NeverRegistered => "never registered",
        }
    }
}

/// The instances of a service at one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Of which service.
    pub service: ServiceRef,
    /// When it last changed. It holds all that was written up to then, and nothing older.
    pub revision: Revision,
    /// All of them, whatever their state, by id.
    pub instances: Vec<Listed>,
    /// Set while too many went at once.
    pub protected: Option<Protected>,
    /// Since when the store is away, by the wall clock of the node: this is the last that was
    /// heard of it.
    pub stale_since_unix_ms: Option<u64>,
    /// History was lost in between: this is not the next state after the last one, though it is
    /// right.
    pub resync: bool,
    /// Why there is no instance, when there is none.
    pub empty_because: Option<EmptyBecause>,
}

/// Which instances are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those passing or warning; all that count while the service is protected.
    pub healthy: bool,
    /// Only those of this zone.
    pub zone: Option<String>,
    /// Only those with all of these tags.
    pub tags: Vec<String>,
    /// Only those of this version.
    pub version: Option<String>,
}

impl View {
    /// The instances asked for.
    pub fn answer<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = &'a Listed> {
        self.explain(filter).filter_map(|(listed, why)| why.is_none().then_some(listed))
    }

    /// Every instance, and why it is not among those asked for.
    pub fn explain<'a>(
        &'a self,
        filter: &'a Filter,
    ) -> impl Iterator<Item = (&'a Listed, Option<Why>)> {
        let protected = self.protected.is_some();
        self.instances.iter().map(move |listed| {
            let why = if filter.healthy { listed.why_not(protected) } else { None };
            (listed, why.or_else(|| filter.misses(&listed.instance).map(Why::Filter)))
        })
    }

    /// The instances as a balancer wants them.
    pub fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
        self.instances.iter().map(Endpoint::of)
    }

    /// Why there is no instance, in a word.
    pub fn empty_because(&self) -> Option<&'static str> {
        self.empty_because.map(EmptyBecause::as_str)
    }
}

impl Filter {
    /// What of `instance` is not as asked for.
    fn misses(&self, instance: &Instance) -> Option<&'static str> {
        if self.zone.as_ref().is_some_and(|zone| *zone != instance.zone) {
            return Some("zone");
        }
        if self.version.as_ref().is_some_and(|version| *version != instance.version) {
            return Some("version");
        }
        let has = |tag: &String| instance.tags.contains(tag);
        (!self.tags.iter().all(has)).then_some("tag")
    }
}

/// An instance as a balancer wants it: what the `Resolve` port of calls takes, field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id.
    pub name: Arc<str>,
    /// `host:port`; an IPv6 address in brackets.
    pub address: Arc<str>,
    /// Share relative to the others; 0 is never picked.
    pub weight: u32,
    /// Where it runs.
    pub zone: Arc<str>,
    /// The level its metadata say, `priority`; 0 is asked first.
    pub priority: u32,
    /// Whether state and health allow calls.
    pub usable: bool,
}

impl Endpoint {
    /// `listed` as a balancer wants it.
    pub fn of(listed: &Listed) -> Self {
        let Listed { id, instance, .. } = listed;
        let address = if instance.address.contains(':') {
            format!("[{}]:{}", instance.address, instance.port)
        } else {
            format!("{}:{}", instance.address, instance.port)
        };
        let priority = instance.metadata.get("priority").and_then(|level| level.parse().ok());
        Self {
            name: Arc::from(id.as_str()),
            address: Arc::from(address),
            weight: u32::from(instance.effective_weight()),
            zone: Arc::from(&*instance.zone),
            priority: priority.unwrap_or(0),
            usable: listed.is_usable(),
        }
    }
}
