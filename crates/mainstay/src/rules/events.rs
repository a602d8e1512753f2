//! What rules tell their operator.

use mainstay_coord::keys::RuleRef;

use crate::settings::Errors;

/// The process serves by other rules than before.
#[derive(Debug)]
pub(super) struct Applied<'a> {
    /// Paths of values that changed: `limit.order-api.max`.
    pub(super) changed: &'a [String],
}

impl Applied<'_> {
    /// Reports it: one log line at `info`.
    pub(super) fn emit(self) {
        tracing::info!(changed = ?self.changed, "rules applied");
    }
}

/// A rule does not fit what else there is, so it is not in force as it is written.
#[derive(Debug)]
pub(super) struct Unfit<'a> {
    pub(super) rule: &'a RuleRef,
    pub(super) revision: u64,
    /// The revision that is in force instead.
    pub(super) in_force: Option<u64>,
    pub(super) why: &'a str,
}

impl Unfit<'_> {
    /// Reports it: one log line at `error`.
    pub(super) fn emit(self) {
        let Self { rule, revision, in_force, why } = self;
        let kind = rule.kind.as_str();
        tracing::error!(kind, %rule, revision, in_force, why, "rule does not fit");
    }
}

/// A rule is not in force because a file uses its name.
#[derive(Debug)]
pub(super) struct Shadowed<'a> {
    pub(super) rule: &'a RuleRef,
    /// Where the file says otherwise.
    pub(super) place: &'a str,
}

impl Shadowed<'_> {
    /// Reports it: one log line at `warn`.
    pub(super) fn emit(self) {
        let Self { rule, place } = self;
        tracing::warn!(kind = rule.kind.as_str(), %rule, place, "a file uses the name of a rule");
    }
}

/// A rule was removed, and others that are in force stand on it.
#[derive(Debug)]
pub(super) struct Lingers<'a> {
    pub(super) rule: &'a RuleRef,
}

impl Lingers<'_> {
    /// Reports it: one log line at `warn`.
    pub(super) fn emit(self) {
        let rule = self.rule;
        tracing::warn!(kind = rule.kind.as_str(), %rule, "a removed rule stays in force: others use it");
    }
}

/// No rule can be applied; what was in force stays.
#[derive(Debug)]
pub(super) struct Refused<'a> {
    pub(super) errors: &'a Errors,
}

impl Refused<'_> {
    /// Reports it: a log line at `error` for each fault, and one that says what it means.
    pub(super) fn emit(self) {
        for report in &self.errors.reports {
            tracing::error!("{}", report.render().trim_end());
        }
        tracing::error!("rules not applied; those before stay in force");
    }
}
