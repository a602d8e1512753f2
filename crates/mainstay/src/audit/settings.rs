//! `[audit]` and `[security.audit]`: the audit log, and whether nothing is changed without it.

use std::path::PathBuf;
use std::time::Duration;

use mainstay_coord::audit::tally::Limits;
use mainstay_resilience::Invalid;
use schemars::JsonSchema;
use serde::Deserialize;

/// The `[audit]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawAudit {
    /// From one signed head of the audit log to the next, if it has grown, in seconds, 1 to 3,600.
    /// After 1,000 records one is signed anyway. Restart only. Default 10.
    pub head_seconds: Option<u32>,
    /// How old a record is when its text may go, in days, 0 to 36,500; 0 keeps it for ever. Its
    /// hash stays, and a record says that it went. Restart only. Default 400.
    pub retention_days: Option<u32>,
    /// Files that every signed head is written to as well, at most 8; relative to the data
    /// directory. Best somewhere that whoever could change the log cannot. Restart only. Default
    /// none.
    pub head_copies: Option<Vec<PathBuf>>,
}

/// The `[security.audit]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawRequired {
    /// Whether administrative changes are refused while 100,000 audit records (or 64 MiB) wait for
    /// the log. If not, the newest are kept and the oldest are lost, which is counted. Restart only.
    /// Default `true`.
    pub required: Option<bool>,
}

/// Both, resolved.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// From one head to the next.
    pub head_every: Duration,
    /// How old a record is when its text may go; `None` when it never does.
    pub retention: Option<Duration>,
    /// Files heads are written to as well.
    pub head_copies: Vec<PathBuf>,
    /// Whether nothing is changed while records pile up.
    pub is_required: bool,
}

impl AuditConfig {
    /// Resolves what was written; adds what is wrong to `faults`.
    pub fn resolve(raw: RawAudit, required: &RawRequired, faults: &mut Vec<Invalid>) -> Self {
        let mut within = |key: &str, found: u32, (least, most): (u32, u32)| {
            if !(least..=most).contains(&found) {
                let problem = format!("must be {least} to {most}, found {found}");
                faults.push(Invalid::range(format!("audit.{key}"), problem));
            }
            found
        };
        let head_seconds = within("head_seconds", raw.head_seconds.unwrap_or(10), (1, 3_600));
        let days = within("retention_days", raw.retention_days.unwrap_or(400), (0, 36_500));
        let head_copies = raw.head_copies.unwrap_or_default();
        if 8 < head_copies.len() {
            let problem = format!("must be at most 8 files, found {}", head_copies.len());
            faults.push(Invalid::range("audit.head_copies", problem));
        }
        Self {
            head_every: Duration::from_secs(u64::from(head_seconds)),
            retention: (0 < days).then(|| Duration::from_hours(24 * u64::from(days))),
            head_copies,
            is_required: required.required.unwrap_or(true),
        }
    }

    /// What the outbox may hold.
    pub fn limits(&self) -> Limits {
        Limits { is_required: self.is_required, ..Limits::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_found_and_what_is_missing_is_as_ever() {
        let resolve = |text: &str, required: &str| {
            let mut faults = Vec::new();
            let (raw, required) =
                (toml::from_str(text).unwrap(), toml::from_str(required).unwrap());
            let config = AuditConfig::resolve(raw, &required, &mut faults);
            (config, faults.into_iter().map(|fault| fault.path).collect::<Vec<_>>())
        };
        let (config, faults) = resolve("", "");
        assert_eq!((config.head_every.as_secs(), faults.len()), (10, 0));
        assert_eq!(config.retention, Some(Duration::from_hours(9_600)));
        assert!(config.is_required && config.limits().is_required);
        let (config, _) = resolve("retention_days = 0", "required = false");
        assert!(config.retention.is_none() && !config.limits().is_required);
        let (_, faults) = resolve("head_seconds = 0\nretention_days = 36501", "");
        assert_eq!(faults, ["audit.head_seconds", "audit.retention_days"]);
        let (_, faults) = resolve("head_copies = ['1','2','3','4','5','6','7','8','9']", "");
        assert_eq!(faults, ["audit.head_copies"]);
    }
}
