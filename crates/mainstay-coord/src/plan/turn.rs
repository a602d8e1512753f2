//! Turning a plan on and off.

use std::collections::BTreeMap;

use mainstay_store::{Batch, Compare, Error, Get, Put, Revision};
use serde_json::{Map, Value, json};

use super::decide::{self, By, Decided, Heads};
use super::{Plan, PlanError, PlanState, Plans, Turned};
use crate::audit::{Record, Target};
use crate::keys::{RuleKind, RuleRef, plans_beside};
use crate::name::RuleName;
use crate::patience::Patience;
use crate::random;
use crate::registry::listing::list_all;
use crate::revisions::{Head, Object, RuleError, Terms, What, puts};

/// Which way a plan is turned.
#[derive(Clone, Copy, Debug)]
pub(super) enum Turn {
    On,
    Off {
        force: bool,
    },
    /// Off, if its time is over.
    Over,
}

/// Everything a turn rests on.
struct Ground {
    plan: Head,
    content: Option<Plan>,
    state: PlanState,
    state_written: Revision,
    heads: Heads,
    read_at: Revision,
}

impl Plans {
    /// Deactivates a plan whose time is over; one that was activated anew since is left alone.
    pub(crate) async fn deactivate_if_over(
        &self,
        plan: &RuleRef,
        terms: &Terms,
    ) -> Result<Turned, PlanError> {
        self.turn(plan, Turn::Over, terms).await
    }

    pub(super) async fn turn(
        &self,
        plan: &RuleRef,
        turn: Turn,
        terms: &Terms,
    ) -> Result<Turned, PlanError> {
        self.rules.outbox().admit(&terms.author).map_err(RuleError::from)?;
        let change = random::hex::<16>();
        let timer = self.rules.timer();
        let mut patience = Patience::new(timer.now(), Patience::FOR_CALLERS);
        // What a batch of unknown outcome would have come to.
        let mut open: Option<Decided> = None;
        loop {
            let attempt = async {
                let (state, written) = self.state(plan).await?;
                if let Some(decided) = open.as_ref().filter(|_| state.recent.contains(&change)) {
                    return Ok(Some(turned(plan, decided, written)));
                }
                let ground = self.ground(plan, turn, state, written).await?;
                let by = By { terms, at: self.rules.moment(), change: &change };
                let decided = self.decide(plan, turn, &ground, by).await?;
                if terms.dry_run {
                    return Ok(Some(turned(plan, &decided, ground.read_at)));
                }
                let applied =
                    self.rules.store().apply(self.batch(plan, turn, &ground, &decided, by));
                let applied = applied.await;
                if matches!(applied, Err(Error::OutcomeUnknown)) {
                    open = Some(decided.clone());
                }
                let applied = applied?;
                Ok(applied.succeeded.then(|| turned(plan, &decided, applied.revision)))
            };
            match attempt.await {
                Ok(Some(turned)) => {
                    self.done(&turned, terms).await;
                    return Ok(turned);
                }
                Ok(None) => {}
                Err(PlanError::Rule(RuleError::Store(error))) => {
                    patience.bear(timer, error).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the plan, then the switches it is about. The state was read before both: the batch
    /// compares all of them.
    async fn ground(
        &self,
        plan: &RuleRef,
        turn: Turn,
        state: PlanState,
        state_written: Revision,
    ) -> Result<Ground, PlanError> {
        let head = self.rules.head(plan).await?;
        let content = head.there().map(|there| Plan::read(&there.content));
        let unreadable = |_| RuleError::Unreadable { rule: plan.clone() };
        let content = content.transpose().map_err(unreadable)?;
        let names: Vec<_> = match (turn, &state.active) {
            (Turn::On, _) => {
                content.iter().flat_map(|plan| plan.switches.keys().cloned()).collect()
            }
            (Turn::Off { .. } | Turn::Over, Some(active)) => {
                let names = active.captured.keys().cloned();
                names.filter_map(|name| RuleName::new(name).ok()).collect()
            }
            (Turn::Off { .. } | Turn::Over, None) => Vec::new(),
        };
        let (mut heads, mut read_at) = (Heads::new(), head.read_at);
        for name in names {
            let switch = self.rules.head(&decide::switch(plan, &name)).await?;
            read_at = switch.read_at;
            heads.insert(name, switch);
        }
        Ok(Ground { plan: head, content, state, state_written, heads, read_at })
    }

    async fn decide(
        &self,
        plan: &RuleRef,
        turn: Turn,
        ground: &Ground,
        by: By<'_>,
    ) -> Result<Decided, PlanError> {
        let there = ground.plan.there();
        let found = there.map_or(0, |there| there.revision);
        if let Some(expected) = by.terms.expected.filter(|expected| *expected != found) {
            let current = there.map(|there| Box::new(Object::new(plan, there)));
            let rule = plan.clone();
            return Err(RuleError::Moved { rule, expected, found, current }.into());
        }
        match turn {
            Turn::Off { force } => {
                decide::deactivation(plan, &ground.state, &ground.heads, force, by)
            }
            Turn::Over => {
                let until = ground.state.until().filter(|until| *until <= by.at);
                until.ok_or_else(|| PlanError::Inactive { plan: plan.clone() })?;
                decide::deactivation(plan, &ground.state, &ground.heads, false, by)
            }
            Turn::On => {
                let content = ground.content.as_ref();
                let content = content.ok_or_else(|| RuleError::not_found(plan, What::Object))?;
                let decided = decide::activation(plan, content, &ground.state, &ground.heads, by)?;
                decide::misfits(plan, content, &ground.heads)?;
                decide::conflict(plan, content, &self.states(plan).await?)?;
                Ok(decided)
            }
        }
    }

    /// One batch: compares everything that was read, and writes everything that was decided.
    fn batch(
        &self,
        plan: &RuleRef,
        turn: Turn,
        ground: &Ground,
        decided: &Decided,
        by: By<'_>,
    ) -> Batch {
        let mut batch = Batch::new()
            .when(Compare::unchanged_since(&plan.head(), ground.plan.written))
            .when(Compare::unchanged_since(&plan.undo(), ground.state_written));
        for (name, head) in &ground.heads {
            let switch = decide::switch(plan, name);
            batch = batch.when(Compare::unchanged_since(&switch.head(), head.written));
        }
        for (switch, edition) in &decided.editions {
            let [head, revision] = puts(switch, edition);
            batch = batch.then(head).then(revision);
        }
        let action = match turn {
            Turn::On => "plan:activate",
            Turn::Off { .. } | Turn::Over => "plan:deactivate",
        };
        let revision = ground.plan.there().map(|there| there.revision);
        let target = Target {
            kind: plan.kind.to_string(),
            id: plan.to_string(),
            revision_before: revision,
            revision_after: revision,
        };
        let (before, after) = told(decided);
        let record = Record::done(by.at, action, target, &by.terms.author).changed(before, after);
        batch
            .then(Put::new(plan.undo(), decided.state.write()))
            .then(self.rules.outbox().put(ground.read_at, &record))
    }

    pub(super) async fn state(&self, plan: &RuleRef) -> Result<(PlanState, Revision), PlanError> {
        let got = self.rules.store().get(Get::new(plan.undo())).await?;
        let Some(entry) = got.entry else { return Ok((PlanState::default(), Revision::NEVER)) };
        let state = PlanState::read(&entry.value);
        let state = state.ok_or_else(|| RuleError::Unreadable { rule: plan.clone() })?;
        Ok((state, entry.mod_revision))
    }

    /// The states of all plans of the namespace.
    async fn states(&self, plan: &RuleRef) -> Result<BTreeMap<RuleRef, PlanState>, PlanError> {
        let range = RuleKind::PLAN.heads(Some(&plan.namespace));
        let (_, entries) = list_all(self.rules.store(), range).await?;
        let states = entries
            .iter()
            .filter_map(|entry| Some((plans_beside(&entry.key)?, PlanState::read(&entry.value)?)));
        Ok(states.collect())
    }

    async fn done(&self, turned: &Turned, terms: &Terms) {
        if terms.dry_run {
            return;
        }
        self.switches.figures().changed_by_plan(turned.effects.len());
        let revision = Revision::new(turned.store_revision);
        tokio::join!(self.switches.followed().reached(revision), self.followed.reached(revision));
    }
}

fn turned(plan: &RuleRef, decided: &Decided, revision: Revision) -> Turned {
    Turned {
        plan: plan.to_string(),
        store_revision: revision.get(),
        effects: decided.effects.clone(),
        kept: decided.kept.clone(),
        until: decided.state.until(),
    }
}

/// What the record says: each switch with the revision it got.
fn told(decided: &Decided) -> (Value, Value) {
    let (mut before, mut after) = (Map::new(), Map::new());
    for ((_, edition), effect) in decided.editions.iter().zip(&decided.effects) {
        let name = effect.switch.clone();
        let line = |value: &Value, revision: u64| json!({ "value": value, "revision": revision });
        before.insert(name.clone(), line(&effect.from, edition.revision - 1));
        after.insert(name, line(&effect.to, edition.revision));
    }
    let after = json!({ "switches": after, "kept": decided.kept });
    (json!({ "switches": before }), after)
}
