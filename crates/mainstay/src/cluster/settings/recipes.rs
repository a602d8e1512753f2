//! `[config_centre]` and `[lock]`: what holds for releases and for locks.

use std::time::Duration;

use mainstay_coord::centre::sweep::Retention;
use mainstay_resilience::Invalid;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Reading;

/// The `[config_centre]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawCentre {
    /// How old a release is when it may go, in days, 1 to 36,500. Restart only. Default 365.
    pub history_days: Option<u32>,
    /// How many releases of a group stay however old they are, 1 to 10,000. Restart only. Default
    /// 100.
    pub history_min: Option<u32>,
}

/// The `[lock]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawLock {
    /// Longest wait for a lock, in seconds, 0 to 600. Restart only. Default 600.
    pub wait_seconds_max: Option<u32>,
    /// How long a lock stays free after its holder has vanished, where the request names no time,
    /// in seconds, 0 to 60. Restart only. Default 0.
    pub lock_delay_seconds: Option<u32>,
    /// Most sessions that programs have open at once, all nodes of the store together, 1 to
    /// 1,000,000. Restart only. Default 100000.
    pub sessions_max: Option<u32>,
}

/// Both, resolved.
#[derive(Clone, Copy, Debug)]
pub struct RecipesConfig {
    /// How many releases are kept.
    pub releases: Retention,
    /// Longest wait for a lock.
    pub lock_wait_max: Duration,
    /// Lock delay of requests that name none.
    pub lock_delay: Duration,
    /// Most sessions of programs.
    pub sessions_max: u64,
}

impl RecipesConfig {
    /// Resolves what was written; adds what is wrong to `faults`.
    pub fn resolve(centre: &RawCentre, lock: &RawLock, faults: &mut Vec<Invalid>) -> Self {
        let mut reading = Reading(faults);
        let defaults = Retention::default();
        let mut seconds = |path: &str, given: Option<u32>, default: u32, max: u32| {
            let seconds = reading.within(path, given.unwrap_or(default), (0, max));
            Duration::from_secs(u64::from(seconds))
        };
        let lock_wait_max = seconds("lock.wait_seconds_max", lock.wait_seconds_max, 600, 600);
        let lock_delay = seconds("lock.lock_delay_seconds", lock.lock_delay_seconds, 0, 60);
        let sessions_max = lock.sessions_max.unwrap_or(100_000);
        let sessions_max = reading.within("lock.sessions_max", sessions_max, (1, 1_000_000)).into();
        let days = centre.history_days.unwrap_or(defaults.days);
        let releases_min = centre.history_min.unwrap_or(defaults.releases_min);
        let releases = Retention {
            days: reading.within("config_centre.history_days", days, (1, 36_500)),
            releases_min: reading.within("config_centre.history_min", releases_min, (1, 10_000)),
        };
        Self { releases, lock_wait_max, lock_delay, sessions_max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_found_and_what_is_missing_is_as_ever() {
        let resolve = |centre: &str, lock: &str| {
            let mut faults = Vec::new();
            let (centre, lock) = (toml::from_str(centre).unwrap(), toml::from_str(lock).unwrap());
            let config = RecipesConfig::resolve(&centre, &lock, &mut faults);
            (config, faults.into_iter().map(|fault| fault.path).collect::<Vec<_>>())
        };
        let (config, faults) = resolve("", "");
        assert_eq!((config.releases, config.lock_wait_max.as_secs()), (Retention::default(), 600));
        assert!(faults.is_empty(), "{faults:?}");
        let (config, _) = resolve("history_days = 7\nhistory_min = 3", "lock_delay_seconds = 5");
        assert_eq!((config.releases.days, config.releases.releases_min), (7, 3));
        assert_eq!(config.lock_delay.as_secs(), 5);
        let (_, faults) = resolve("history_days = 0", "wait_seconds_max = 601");
        assert_eq!(faults, ["lock.wait_seconds_max", "config_centre.history_days"]);
    }
}
