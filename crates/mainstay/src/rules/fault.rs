//! Faults of a rule, as the API tells them.

use mainstay_coord::keys::RuleRef;
use mainstay_coord::revisions::Fault;
use mainstay_core::problem::Code;

use super::rule::path;
use crate::report::Report;
use crate::settings::Errors;
use crate::settings::spans::Place;

/// The faults that `rule` would cause; `own` is the name its own places go by. Those of others come
/// last, each with the place it was found at.
pub fn faults(errors: &Errors, rule: &RuleRef, own: &str) -> Vec<Fault> {
    let (mine, others): (Vec<&Report>, Vec<&Report>) =
        errors.reports.iter().partition(|report| is_at(report, own));
    mine.into_iter().chain(others).map(|report| fault(report, rule, own)).collect()
}

/// Whether `report` is about the text called `own`.
fn is_at(report: &Report, own: &str) -> bool {
    report.place.as_ref().and_then(Place::file_name) == Some(own)
}

fn fault(report: &Report, rule: &RuleRef, own: &str) -> Fault {
    let table = path(rule);
    let within = report.path.as_deref().unwrap_or_default();
    let own_path = within.strip_prefix(&*table).map(|rest| rest.trim_start_matches('.'));
    let position = report.place.as_ref().and_then(Place::position);
    let position = position.filter(|_| is_at(report, own));
    let number = |of: usize| u32::try_from(of).ok();
    let detail = match &report.place {
        Some(place) if !is_at(report, own) => format!("{place}: {}", report.message),
        _ => report.message.clone(),
    };
    Fault {
        path: own_path.unwrap_or(within).to_owned(),
        line: position.and_then(|position| number(position.line)),
        column: position.and_then(|position| number(position.column)),
        code: Code::parse(&report.code).unwrap_or(Code::InvalidRule).as_str(),
        detail,
        suggestion: (!report.help.is_empty()).then(|| report.help.join("; ")),
    }
}
