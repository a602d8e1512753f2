//! Everything wrong with a configuration, at once.

use std::collections::BTreeSet;

use crate::report::{Report, Severity};
use crate::settings::spans::Place;

/// All faults of all layers: those of lower layers first, in order of their lines.
#[derive(Clone, Debug, Default)]
pub struct Errors {
    /// The faults; at least one is an error.
    pub reports: Vec<Report>,
}

impl From<Report> for Errors {
    fn from(report: Report) -> Self {
        Self { reports: vec![report] }
    }
}

impl Errors {
    /// Splits `reports` into errors, if there is one, and warnings.
    ///
    /// # Errors
    ///
    /// All of them, warnings last, when any is an error.
    pub fn unless_only_warnings(mut reports: Vec<Report>) -> Result<Vec<Report>, Self> {
        reports.sort_by_key(|report| {
            (report.severity, report.layer, report.place.as_ref().and_then(Place::position))
        });
        if reports.iter().any(|report| report.severity == Severity::Error) {
            Err(Self { reports })
        } else {
            Ok(reports)
        }
    }

    /// The files with an error, for the metric `mainstay_settings_reload_failed{file}`.
    pub fn files(&self) -> BTreeSet<&str> {
        let errors = self.reports.iter().filter(|report| report.severity == Severity::Error);
        errors.filter_map(|report| report.place.as_ref()?.file_name()).collect()
    }
}
