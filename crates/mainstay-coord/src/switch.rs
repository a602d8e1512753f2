//! Switches: values that people turn while everything runs.
//!
//! A route, a fallback or a call refers to a switch by name. Reading one is local, waits for
//! nothing and never fails: a switch that is not there, is of another type, or was never read is
//! the default that the call names. So a switch can be turned, and the control plane be away, and
//! no call notices more than the turn.
//!
//! A switch has a `value`, until its `until` is over, from when on it is its `default`, also where
//! the server is away; and instances may have a value of their own. A percentage is on for the same
//! callers every time, by a hash of their key.
//!
//! | what | module | decides or acts |
//! |---|---|---|
//! | values, shares of callers, and what a switch is when | [`mainstay_core::switch`] | decides |
//! | what may be written of one | [`content`] | decides |
//! | changing and following | here | acts |

pub mod content;
pub mod error;
pub mod figures;

use mainstay_core::problem::Code;
use mainstay_store::Revision;
use serde_json::{Value, json};

use crate::keys::{RuleKind, RuleRef};
use crate::moment::Moment;
use crate::plan::content::Plan;
use crate::registry::listing::list_all;
use crate::revisions::{
    Edition, Fault, Followed, Kind, Revisions, RuleError, Snapshot, Terms, What, Written,
};
use content::with_value;
use figures::Figures;

pub use error::SwitchError;
pub use mainstay_core::switch::{Percent, RawSwitch, Setting, Switch, SwitchType};

/// Switches, as a kind of object with a history.
pub const SWITCHES: Kind = Kind {
    key: RuleKind::SWITCH,
    path: "/switches",
    shown: |_, content| content,
    check: content::check,
};

/// Tries of a change that is not based on a revision, when others change the same switch.
const TRIES: usize = 16;

/// Who asks what a switch is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asker<'a> {
    /// The instance, whose override counts.
    pub instance: Option<&'a str>,
    /// What percentages go by: a user, an order.
    pub key: Option<&'a str>,
}

/// Switches, as this node knows them. Clones share everything.
#[derive(Clone, Debug)]
pub struct Switches {
    rules: Revisions,
    followed: Followed<Switch>,
    figures: Figures,
}

impl Snapshot<Switch> {
    /// What a switch is at `now`; `None` when it is not there, or was never read.
    pub fn setting(&self, switch: &RuleRef, now: Moment, asker: Asker<'_>) -> Option<&Setting> {
        Some(self.get(switch)?.content.at(now, asker.instance))
    }

    /// Whether a boolean is on, or a percentage is on for this caller; `None` for every other.
    pub fn on(&self, switch: &RuleRef, now: Moment, asker: Asker<'_>) -> Option<bool> {
        match self.setting(switch, now, asker)? {
            Setting::Boolean(on) => Some(*on),
            Setting::Percent(percent) => Some(percent.includes(&switch.to_string(), asker.key)),
            _ => None,
        }
    }
}

impl Switches {
    /// Follows the switches of `rules`, until [`Revisions::shutdown`]. Must be called within a
    /// tokio runtime.
    pub fn start(rules: &Revisions) -> Self {
        let followed = rules.follow(RuleKind::SWITCH, |content| Switch::read(content).ok());
        Self { rules: rules.clone(), followed, figures: Figures::default() }
    }

    /// The copy: what there is, and how to hear of changes.
    pub const fn followed(&self) -> &Followed<Switch> {
        &self.followed
    }

    /// The objects behind the switches: history, differences, lists.
    pub const fn rules(&self) -> &Revisions {
        &self.rules
    }

    /// What has been counted.
    pub const fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Whether a boolean is on, or a percentage is on for this caller; else `default`.
    pub fn is_on(&self, switch: &RuleRef, asker: Asker<'_>, default: bool) -> bool {
        let now = self.rules.moment();
        self.followed.snapshot().on(switch, now, asker).unwrap_or(default)
    }

    /// The number of a switch; `default` when it has none.
    pub fn number(&self, switch: &RuleRef, asker: Asker<'_>, default: f64) -> f64 {
        match self.followed.snapshot().setting(switch, self.rules.moment(), asker) {
            Some(Setting::Number(number)) => *number,
            _ => default,
        }
    }

    /// The text of a switch; `default` when it has none.
    pub fn text(&self, switch: &RuleRef, asker: Asker<'_>, default: &str) -> String {
        match self.followed.snapshot().setting(switch, self.rules.moment(), asker) {
            Some(Setting::String(text)) => text.to_string(),
            _ => default.to_owned(),
        }
    }

    /// Gives a switch this content; answers once this node has it.
    ///
    /// # Errors
    ///
    /// [`SwitchError::Type`] when values are not of the type, or the type is not the one the
    /// switch has; [`RuleError`] as for every object.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open; putting the same content again does no harm.
    pub async fn put(
        &self,
        switch: &RuleRef,
        content: Value,
        terms: &Terms,
    ) -> Result<Written, SwitchError> {
        if let Some(there) = self.rules.head(switch).await?.there()
            && let (Some(was), Some(is)) = (there.content.get("type"), content.get("type"))
            && was != is
        {
            let detail = format!("type is {was}; remove the switch to give it another");
            let faults = vec![Fault::new("type", "switch-type", detail)];
            return Err(SwitchError::Type { switch: switch.clone(), faults });
        }
        let written = self.rules.put(&SWITCHES, switch, content, terms).await;
        self.done(switch, written, terms).await
    }

    /// Sets a switch to `value`, all else as it is; with `until`, only so long.
    ///
    /// # Errors
    ///
    /// As [`put`](Switches::put); [`RuleError::NotFound`].
    ///
    /// # Cancel safety
    ///
    /// As [`put`](Switches::put).
    pub async fn set(
        &self,
        switch: &RuleRef,
        value: &Value,
        until: Option<Moment>,
        terms: &Terms,
    ) -> Result<Written, SwitchError> {
        let mut tries = TRIES;
        loop {
            let head = self.rules.head(switch).await?;
            let there = head.there();
            let there = there.ok_or_else(|| RuleError::not_found(switch, What::Object))?;
            let content = with_value(&there.content, value, until);
            let based =
                Terms { expected: Some(terms.expected.unwrap_or(there.revision)), ..terms.clone() };
            tries -= 1;
            match self.rules.put(&SWITCHES, switch, content, &based).await {
                Err(RuleError::Moved { .. }) if terms.expected.is_none() && tries > 0 => {}
                written => return self.done(switch, written, terms).await,
            }
        }
    }

    /// Removes a switch. `references` are what the caller knows to refer to it (routes, fallbacks);
    /// plans are looked for here.
    ///
    /// # Errors
    ///
    /// [`SwitchError::InUse`], else as [`Revisions::remove`].
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open.
    pub async fn remove(
        &self,
        switch: &RuleRef,
        references: &[String],
        terms: &Terms,
    ) -> Result<Written, SwitchError> {
        let mut references = references.to_vec();
        let plans = RuleKind::PLAN.heads(Some(&switch.namespace));
        for entry in list_all(self.rules.store(), plans).await?.1 {
            let Some(plan) = RuleKind::PLAN.parse(&entry.key) else { continue };
            let edition = Edition::read(&entry.value).filter(|edition| !edition.removed);
            let content = edition.and_then(|edition| Plan::read(&edition.content).ok());
            if content.is_some_and(|content| content.switches.contains_key(&switch.name)) {
                references.push(format!("plan {plan}"));
            }
        }
        if !references.is_empty() {
            return Err(SwitchError::InUse { switch: switch.clone(), references });
        }
        let written = self.rules.remove(&SWITCHES, switch, terms).await;
        self.done(switch, written, terms).await
    }

    /// Gives a switch the content of revision `to` again.
    ///
    /// # Errors
    ///
    /// As [`Revisions::rollback`].
    ///
    /// # Cancel safety
    ///
    /// As [`put`](Switches::put).
    pub async fn rollback(
        &self,
        switch: &RuleRef,
        to: u64,
        terms: &Terms,
    ) -> Result<Written, SwitchError> {
        let written = self.rules.rollback(&SWITCHES, switch, to, terms).await;
        self.done(switch, written, terms).await
    }

    /// What is wrong with a content, without writing anything.
    pub fn validate(content: &Value) -> Vec<Fault> {
        content::check(content)
    }

    /// A content that says nothing but type and value.
    pub fn plain(kind: SwitchType, value: Value) -> Value {
        let mut raw = RawSwitch::default();
        (raw.kind, raw.value) = (Some(kind), Some(value));
        serde_json::to_value(raw).unwrap_or_else(|_| json!({}))
    }

    async fn done(
        &self,
        switch: &RuleRef,
        written: Result<Written, RuleError>,
        terms: &Terms,
    ) -> Result<Written, SwitchError> {
        let written = written.map_err(|error| match error {
            RuleError::Invalid { faults, .. } if is_type_alone(&faults) => {
                SwitchError::Type { switch: switch.clone(), faults }
            }
            error => SwitchError::Rule(error),
        })?;
        if written.changed && !terms.dry_run {
            self.figures.changed();
            self.followed.reached(Revision::new(written.store_revision)).await;
        }
        Ok(written)
    }
}

fn is_type_alone(faults: &[Fault]) -> bool {
    faults.iter().all(|fault| fault.code == Code::SwitchType.as_str())
}
