//! Whether a plan is active, and what was before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::moment::Moment;
use crate::name::RuleName;

/// Changes of a state it remembers. Nobody looks for one that sixteen others have followed.
const RECENT_MAX: usize = 16;

/// What `plan/<ns>/<plan>/undo` holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanState {
    v: u32,
    /// Its activation, while it is active.
    pub active: Option<Activation>,
    /// How it last ended.
    pub last: Option<Ended>,
    /// Which changes wrote it last, so that an unknown outcome can be read.
    pub(super) recent: Vec<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// An activation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = PlanActivation)]
pub struct Activation {
    /// When.
    pub at: Moment,
    /// By whom.
    pub who: String,
    /// Why.
    pub why: Option<String>,
    /// When it ends by itself.
    pub until: Option<Moment>,
    /// What each switch was, and was set to.
    pub captured: BTreeMap<String, Captured>,
}

/// What a switch was before a plan set it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = PlanCaptured)]
pub struct Captured {
    /// Its value.
    pub value: Value,
    /// Until when it had it.
    pub until: Option<Moment>,
    /// What the plan set it to.
    pub set: Value,
}

/// The end of an activation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = PlanEnded)]
pub struct Ended {
    /// When.
    pub at: Moment,
    /// By whom.
    pub who: String,
    /// Why.
    pub why: Option<String>,
    /// The switches that were left as they were, since somebody had changed them.
    pub kept: Vec<String>,
}

impl PlanState {
    pub(crate) fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    pub(super) fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text keys and numbers are JSON")
    }

    /// Written by `change`.
    pub(super) fn by(mut self, change: &str) -> Self {
        self.v = 1;
        self.recent.push(change.to_owned());
        let over = self.recent.len().saturating_sub(RECENT_MAX);
        self.recent.drain(..over);
        self
    }

    /// Whether it is active and has set `switch`.
    pub(super) fn has(&self, switch: &RuleName) -> bool {
        self.active.as_ref().is_some_and(|active| active.captured.contains_key(switch.as_str()))
    }

    /// When it ends by itself.
    pub(crate) fn until(&self) -> Option<Moment> {
        self.active.as_ref()?.until
    }
}
