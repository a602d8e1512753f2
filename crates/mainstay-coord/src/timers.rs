//! What the wall clock brings about: switches that go back, plans that end, pasts that are swept.
//!
//! One node has the duty. It looks at its copy of switches and plans, does what is due, and waits
//! for the next moment or the next change. A reader of a switch does not depend on it: it judges
//! `until` by itself. The duty writes it down, so that everybody sees it in the history.
//!
//! The wall clock may be set, so nobody waits longer than a second for it.

use std::sync::Arc;
use std::time::Duration;

use crate::audit::{Actor, Author};
use crate::coordination::Coordination;
use crate::duty::{self, Duty};
use crate::events::rules::{SweepFailed, Swept, TimeUp, TimeUpFailed};
use crate::keys::RuleRef;
use crate::moment::Moment;
use crate::plan::{PlanError, Plans};
use crate::revisions::sweep::Retention;
use crate::revisions::{Kind, Revisions, RuleError, Snapshot, Terms};
use crate::session::Owner;
use crate::switch::{Switch, SwitchError, content};
use crate::tasks::Tasks;

/// Longest wait between two looks at the wall clock while something has a time.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// When a node that has just got the duty sweeps: not while it starts.
const SWEEP_FIRST: Duration = Duration::from_mins(10);

/// How often pasts are swept.
const SWEEP_EVERY: Duration = Duration::from_hours(24);

/// Something whose time is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// A switch goes back to its default; its revision.
    Switch(RuleRef, u64),
    /// A plan ends.
    Plan(RuleRef),
}

/// What is due at `now`, switches first; and whether something else will be, later.
///
/// A switch that is kept elsewhere is left alone: its readers know the time as well.
pub fn due(
    now: Moment,
    switches: &Snapshot<Switch>,
    plans: impl IntoIterator<Item = (RuleRef, Option<Moment>)>,
) -> (Vec<Due>, bool) {
    let (mut due, mut later) = (Vec::new(), false);
    for (rule, kept) in switches.iter() {
        if kept.edition.managed_by.is_some() || kept.content.until().is_none() {
            continue;
        }
        if kept.content.is_over(now) {
            due.push(Due::Switch(rule.clone(), kept.edition.revision));
        } else {
            later = true;
        }
    }
    for (plan, until) in plans {
        match until {
            Some(until) if until <= now => due.push(Due::Plan(plan)),
            Some(_) => later = true,
            None => {}
        }
    }
    (due, later)
}

/// The timers of one node. Dropping it leaves them running until [`Coordination::shutdown`] or
/// [`Timers::shutdown`].
#[derive(Clone, Debug)]
pub struct Timers {
    tasks: Tasks,
}

impl Timers {
    /// Stands for the duties on `ground`, as `owner`, and counts active plans. The past of each of
    /// `kinds` is swept once a day. Must be called within a tokio runtime.
    pub fn start(ground: Coordination, owner: Owner, plans: Plans, kinds: Vec<Kind>) -> Self {
        let tasks = Tasks::default();
        let (swept, sweeper) = (plans.rules().clone(), (ground.clone(), owner.clone()));
        tasks.spawn("rules sweeper", move |stop| async move {
            let (ground, owner) = sweeper;
            let work = || sweep(swept.clone(), kinds.clone());
            duty::run(&ground, Duty::Sweep, owner, stop, work).await;
        });
        let counted = plans.clone();
        tasks.spawn("switch timers", move |stop| async move {
            duty::run(&ground, Duty::Timers, owner, stop, || run(plans.clone())).await;
        });
        tasks.spawn("active plans", move |stop| async move {
            let mut changes = counted.followed().subscribe();
            loop {
                counted.switches().figures().active(counted.active().len());
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = changes.changed() => if changed.is_err() { return },
                }
            }
        });
        Self { tasks }
    }

    /// Gives the duty back. Waits up to `grace`; returns how many tasks are still running.
    ///
    /// # Cancel safety
    ///
    /// Safe: tasks stay told to stop, and calling again waits again.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        self.tasks.shutdown(grace).await
    }
}

/// Does what is due, for ever.
async fn run(plans: Plans) {
    let (switches, timer) = (plans.switches(), plans.rules().timer());
    let mut switch_changes = switches.followed().subscribe();
    let mut plan_changes = plans.followed().subscribe();
    loop {
        switch_changes.mark_unchanged();
        plan_changes.mark_unchanged();
        let now = plans.rules().moment();
        let (due, later) = due(now, &switches.followed().snapshot(), plans.active());
        let has_due = !due.is_empty();
        for what in due {
            act(&plans, &what).await;
        }
        // What failed is tried again after a look; what was done has changed the copy.
        let look = async {
            if later || has_due {
                timer.sleep_until(timer.now().plus(LOOK_EVERY)).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = look => {}
            changed = switch_changes.changed() => if changed.is_err() { return },
            changed = plan_changes.changed() => if changed.is_err() { return },
        }
    }
}

/// Sweeps once a day, for ever; the first time soon after the duty was taken.
async fn sweep(rules: Revisions, kinds: Vec<Kind>) {
    let mut wait = SWEEP_FIRST;
    loop {
        rules.timer().sleep_until(rules.timer().now().plus(wait)).await;
        wait = SWEEP_EVERY;
        for kind in &kinds {
            match rules.sweep(kind, Retention::default(), rules.moment()).await {
                Ok(revisions) => Swept { kind: kind.key, revisions }.emit(),
                Err(error) => {
                    SweepFailed { kind: kind.key, error: &error }.emit();
                    wait = SWEEP_FIRST;
                }
            }
        }
    }
}

async fn act(plans: &Plans, due: &Due) {
    let terms = |why: &str| Terms::new(Author::new(Actor::system("timers")).because(why));
    let (rule, done) = match due {
        Due::Switch(switch, revision) => {
            let kept = plans.switches().followed().snapshot().get(switch).map(Arc::clone);
            let Some(kept) = kept.filter(|kept| kept.edition.revision == *revision) else { return };
            let content = content::over(&kept.edition.content);
            let terms = terms("its time is over").expecting(*revision);
            let done = plans.switches().put(switch, content, &terms).await;
            (
                switch,
                done.map(drop).or_else(|error| match error {
                    // Somebody was faster: another node, or a person.
                    SwitchError::Rule(RuleError::Moved { .. }) => Ok(()),
                    error => Err(Box::new(error) as Box<dyn std::error::Error + Send + Sync>),
                }),
            )
        }
        Due::Plan(plan) => {
            let terms = terms("it was active as long as it may be");
            let done = plans.deactivate_if_over(plan, &terms).await;
            (
                plan,
                done.map(drop).or_else(|error| match error {
                    PlanError::Inactive { .. } => Ok(()),
                    error => Err(Box::new(error) as Box<dyn std::error::Error + Send + Sync>),
                }),
            )
        }
    };
    match done {
        Ok(()) => TimeUp { rule }.emit(),
        Err(error) => TimeUpFailed { rule, error: &*error }.emit(),
    }
}
