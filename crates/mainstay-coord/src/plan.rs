//! Plans (预案): many switches at once, there and back.
//!
//! A plan names up to 60 switches and what each is to be. Activating it is one batch: all of them
//! or none, and what they were is captured beside the plan. Deactivating gives each back what it
//! was, unless somebody changed it meanwhile; that is kept, and said. Two active plans never have
//! a switch in common, or neither could be undone.
//!
//! What is decided rests on everything the batch compares: the plan, its state, every switch. Other
//! plans are read after the switches: one activated in between has either been seen, or has changed
//! a switch that is compared. Which changes wrote a state last stands in it, so an unknown outcome
//! is read there.
//!
//! | what | module | decides or acts |
//! |---|---|---|
//! | a plan, as written and as meant; its state | [`content`], [`state`] | – |
//! | what activating and deactivating comes to | [`decide`] | decides |
//! | reading what a turn rests on, writing what it comes to | `turn` | acts |

pub mod content;
pub mod decide;
pub mod error;
pub mod state;
mod turn;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::keys::{RuleKind, RuleRef, plans_beside};
use crate::moment::Moment;
use crate::revisions::{Followed, Kind, Revisions, Terms, Written};
use crate::switch::Switches;
use turn::Turn;

pub use content::Plan;
pub use decide::Effect;
pub use error::PlanError;
pub use state::{Activation, PlanState};

/// Plans, as a kind of object with a history.
pub const PLANS: Kind = Kind {
    key: RuleKind::PLAN,
    path: "/plans",
    shown: |_, content| content,
    check: content::check,
};

/// What turning a plan came to, or would come to.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = PlanTurned)]
pub struct Turned {
    /// The plan.
    pub plan: String,
    /// The revision of the store that holds it; of a rehearsal, the one it was decided at.
    pub store_revision: u64,
    /// What became of each switch that was set.
    pub effects: Vec<Effect>,
    /// Switches that were left as they are, since somebody has changed them.
    pub kept: Vec<String>,
    /// When the plan ends by itself.
    pub until: Option<Moment>,
}

/// A plan as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// The plan.
    pub plan: String,
    /// Whether it is active, and how it last ended.
    #[serde(flatten)]
    pub state: PlanState,
}

/// Plans. Clones share everything.
#[derive(Clone, Debug)]
pub struct Plans {
    rules: Revisions,
    switches: Switches,
    followed: Followed<Plan>,
}

impl Plans {
    /// Plans over `switches`, followed until [`Revisions::shutdown`]. Must be called within a tokio
    /// runtime.
    pub fn start(switches: &Switches) -> Self {
        let rules = switches.rules().clone();
        let followed = rules.follow(RuleKind::PLAN, |content| Plan::read(content).ok());
        Self { rules, switches: switches.clone(), followed }
    }

    /// The copy: what there is, and how to hear of changes.
    pub const fn followed(&self) -> &Followed<Plan> {
        &self.followed
    }

    /// The objects behind the plans: reading, history, differences.
    pub const fn rules(&self) -> &Revisions {
        &self.rules
    }

    /// The switches.
    pub const fn switches(&self) -> &Switches {
        &self.switches
    }

    /// Gives a plan this content. An active plan stays as it was activated.
    ///
    /// # Errors
    ///
    /// As [`Revisions::put`].
    ///
    /// # Cancel safety
    ///
    /// As [`Revisions::put`].
    pub async fn put(
        &self,
        plan: &RuleRef,
        content: Value,
        terms: &Terms,
    ) -> Result<Written, PlanError> {
        Ok(self.rules.put(&PLANS, plan, content, terms).await?)
    }

    /// Removes a plan that is not active.
    ///
    /// # Errors
    ///
    /// [`PlanError::Active`], else as [`Revisions::remove`].
    ///
    /// # Cancel safety
    ///
    /// As [`Revisions::remove`].
    pub async fn remove(&self, plan: &RuleRef, terms: &Terms) -> Result<Written, PlanError> {
        loop {
            let (state, written) = self.state(plan).await?;
            if state.active.is_some() {
                return Err(PlanError::Active { plan: plan.clone() });
            }
            let removed = self.rules.remove_while(&PLANS, plan, terms, (plan.undo(), written));
            if let Some(removed) = removed.await? {
                return Ok(removed);
            }
        }
    }

    /// Whether a plan is active, since when, and what it captured.
    ///
    /// # Errors
    ///
    /// [`PlanError::Rule`]: it is not there, or what the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn status(&self, plan: &RuleRef) -> Result<Status, PlanError> {
        self.rules.get(plan).await?;
        let (state, _) = self.state(plan).await?;
        Ok(Status { plan: plan.to_string(), state })
    }

    /// The plans that are active, as this node knows them, and when each ends by itself.
    pub fn active(&self) -> BTreeMap<RuleRef, Option<Moment>> {
        let snapshot = self.followed.snapshot();
        let states = snapshot.beside().iter().filter_map(|(key, value)| {
            let state = PlanState::read(value).filter(|state| state.active.is_some())?;
            Some((plans_beside(key)?, state.until()))
        });
        states.collect()
    }

    /// Activates a plan: sets all of its switches, or none. With `terms.dry_run` it shows what
    /// would happen; `terms.expected` is the revision of the plan.
    ///
    /// # Errors
    ///
    /// [`PlanError`]. After an unknown outcome in it, read [`status`](Plans::status).
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open.
    pub async fn activate(&self, plan: &RuleRef, terms: &Terms) -> Result<Turned, PlanError> {
        self.turn(plan, Turn::On, terms).await
    }

    /// Shows what [`activate`](Plans::activate) would do, and changes nothing.
    ///
    /// # Errors
    ///
    /// Those that `activate` would give.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn rehearse(&self, plan: &RuleRef, terms: &Terms) -> Result<Turned, PlanError> {
        self.turn(plan, Turn::On, &terms.clone().rehearsed()).await
    }

    /// Deactivates a plan: gives each switch back what it was, unless somebody has changed it
    /// since; with `force`, in any case.
    ///
    /// # Errors
    ///
    /// As [`activate`](Plans::activate).
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open.
    pub async fn deactivate(
        &self,
        plan: &RuleRef,
        force: bool,
        terms: &Terms,
    ) -> Result<Turned, PlanError> {
        self.turn(plan, Turn::Off { force }, terms).await
    }
}
