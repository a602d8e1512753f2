//! Whether the log is as new as what databases were told of it.
//!
//! A log that was put back from an old backup does not know what was decided after that. A branch of
//! such a transaction would be taken for one that nobody speaks of, and be rolled back, though
//! others of the same transaction have committed. So each database keeps the number that the log had
//! at a sweep after something was decided to commit; while one has a greater number, or that of
//! another log, this node begins nothing, submits nothing and calls no branch, and an operator has
//! to say that the log is to be gone by all the same.
//!
//! What was decided since the last sweep of a database is not guarded: nobody has told it.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use mainstay_store::Put;

use super::Address;
use super::events::{LogBehind, LogUpToDate};
use super::failure::Failure;
use super::sweep::Sweeper;
use crate::name::{Gid, ResourceName};
use crate::run::VerbError;

/// What a database was told of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which log.
    pub log_id: String,
    /// The number it had.
    pub sequence: u64,
}

/// How the log stands beside what a database was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogStanding {
    /// The database knows nothing newer.
    UpToDate,
    /// The database was told a greater number than the log has.
    Behind {
        /// That of the database.
        told: u64,
        /// That of the log.
        high: u64,
    },
    /// The database was told of another log under the same cluster.
    Another,
}

impl LogStanding {
    /// Of a log that has the number `high`, beside `mark`.
    pub fn of(log_id: &str, high: u64, mark: Option<&Mark>) -> Self {
        match mark {
            Some(mark) if mark.log_id != log_id => Self::Another,
            Some(mark) if high < mark.sequence => Self::Behind { told: mark.sequence, high },
            None | Some(_) => Self::UpToDate,
        }
    }

    /// Why nothing may be begun or called, if so; `resource` says it.
    fn objection(&self, resource: &ResourceName) -> Option<String> {
        match self {
            Self::UpToDate => None,
            Self::Behind { told, high } => Some(format!(
                "database `{resource}` was told {told}, and the log is at {high}: it was put back \
                 from an old backup"
            )),
            Self::Another => {
                Some(format!("database `{resource}` was told of another log of this cluster"))
            }
        }
    }
}

/// Why it is not known how the log stands.
#[derive(Debug, thiserror::Error)]
pub enum NotAttested {
    /// The database does not say.
    #[error("database does not say how far the log was")]
    Database(#[source] Failure),
    /// The log does not.
    #[error("transaction log does not say how far it is")]
    Log(#[source] VerbError),
}

/// What this process knows of how the log stands.
#[derive(Debug, Default)]
pub(super) struct Standings(BTreeMap<ResourceName, LogStanding>);

impl Standings {
    pub(super) fn of(&self, resource: &ResourceName) -> Option<&LogStanding> {
        self.0.get(resource)
    }

    /// Whether each of `resources` has said that it knows nothing newer.
    fn are_heard(&self, resources: &[ResourceName]) -> bool {
        resources.iter().all(|resource| self.of(resource) == Some(&LogStanding::UpToDate))
    }

    /// The same, and whether none objects that was taken out of the settings.
    fn all_up_to_date(&self, resources: &[ResourceName]) -> bool {
        self.are_heard(resources) && self.objection().is_none()
    }

    /// What the first that has an objection says.
    fn objection(&self) -> Option<String> {
        self.0.iter().find_map(|(resource, standing)| standing.objection(resource))
    }

    /// Forgets those that `is_same` does not hold for, unless they object: that a database is taken
    /// out of the settings makes the log no newer.
    fn forget(&mut self, is_same: impl Fn(&ResourceName) -> bool) {
        self.0.retain(|resource, standing| is_same(resource) || *standing != LogStanding::UpToDate);
    }

    /// The log has been raised to `sequence` by an operator: what objected to a smaller number has
    /// to say so again, and what is not among `resources` is not asked any more.
    fn accept(&mut self, sequence: u64, resources: &[ResourceName]) {
        self.0.retain(|resource, standing| {
            let is_met = matches!(standing, LogStanding::Behind { told, .. } if *told <= sequence);
            resources.contains(resource) && !is_met
        });
    }

    /// The greatest number that any is known to have been told.
    fn told(&self) -> u64 {
        let told = |standing: &LogStanding| match standing {
            LogStanding::Behind { told, .. } => Some(*told),
            LogStanding::UpToDate | LogStanding::Another => None,
        };
        self.0.values().filter_map(told).max().unwrap_or(0)
    }
}

/// How much of what this node has decided a number of the log covers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Covered {
    growth: u64,
    sequence: u64,
}

impl Sweeper {
    /// Looks how the log stands beside what `resource` was told, and tells it what has come since.
    ///
    /// It is told nothing before all databases have said that the log is up to date: the number
    /// would be raised above what one was told that has not been heard yet.
    ///
    /// # Errors
    ///
    /// [`NotAttested`]; what was known before stays.
    ///
    /// # Cancel safety
    ///
    /// Safe: what the database is told late is told by the next sweep.
    pub async fn attest(&self, resource: &ResourceName) -> Result<LogStanding, NotAttested> {
        let address = self.resources.address(resource);
        // Before the number of the log is read: other nodes raise that before they tell anybody.
        let mark = self.resources.mark(resource).await.map_err(NotAttested::Database)?;
        let high = self.coordinator.high().await.map_err(NotAttested::Log)?;
        let log_id = &self.coordinator.identity().log_id;
        let standing = LogStanding::of(log_id, high, mark.as_ref());
        self.stands(resource, address.as_ref(), &standing);
        if self.all_up_to_date() {
            let sequence = self.sequence(high).await.map_err(NotAttested::Log)?;
            if mark.map_or(0, |mark| mark.sequence) < sequence {
                self.write(resource, sequence).await.map_err(NotAttested::Database)?;
            }
        }
        Ok(standing)
    }

    /// The number that covers what was decided here; raised if there is something new.
    async fn sequence(&self, high: u64) -> Result<u64, VerbError> {
        let mut covered = self.covered.lock().await;
        let growth = self.coordinator.growth();
        if covered.growth != growth {
            let sequence = self.coordinator.raise_high(0, None).await?;
            *covered = Covered { growth, sequence };
        }
        // Another database's look may have raised it since `high` was read.
        Ok(high.max(covered.sequence))
    }

    async fn write(&self, resource: &ResourceName, sequence: u64) -> Result<(), Failure> {
        let log_id = self.coordinator.identity().log_id.clone();
        self.resources.write_mark(resource, &Mark { log_id, sequence }).await
    }

    /// Notes how the log stands beside what the database at `address` was told, and holds the
    /// coordinator up or lets it go on. It is not noted of one that is elsewhere by now.
    fn stands(&self, resource: &ResourceName, address: Option<&Address>, standing: &LogStanding) {
        let mut standings = self.standings.lock();
        if self.resources.address(resource).as_ref() != address {
            return;
        }
        let before = standings.0.insert(resource.clone(), standing.clone());
        if before.as_ref() == Some(standing) {
            return;
        }
        let name = resource.as_str();
        match standing.objection(resource) {
            Some(why) => LogBehind { resource: name, why: &why }.emit(),
            None if before.is_some() => LogUpToDate { resource: name }.emit(),
            None => {}
        }
        self.coordinator.fall_behind(standings.objection());
    }

    /// How the log stood beside what `resource` was told, when that was looked at last.
    pub fn standing(&self, resource: &ResourceName) -> Option<LogStanding> {
        self.standings.lock().of(resource).cloned()
    }

    /// Whether all databases have said that the log is up to date.
    pub(super) fn all_up_to_date(&self) -> bool {
        self.standings.lock().all_up_to_date(&self.resources.names())
    }

    /// Whether those have in which `gid` has branches. One that has not may have been told that
    /// `gid` was committed, of which the log says nothing.
    pub fn has_heard(&self, gid: &Gid) -> bool {
        let mut own = self.coordinator.resources_of(gid);
        let configured = self.resources.names();
        own.retain(|resource| configured.contains(resource));
        self.standings.lock().are_heard(&own)
    }

    /// Forgets what databases said that `is_same` does not hold for, since they are not there any
    /// more or others took their names. One that objects goes on to object until the database under
    /// its name says otherwise, or an operator accepts the log.
    pub fn forget(&self, is_same: impl Fn(&ResourceName) -> bool) {
        self.standings.lock().forget(is_same);
    }

    /// Goes by the log as it is: its number becomes greater than any that a database was told, and
    /// they are told. `record` is put with it. Returns the number, and which databases did not
    /// answer: those may object again.
    ///
    /// # Errors
    ///
    /// [`VerbError`].
    ///
    /// # Cancel safety
    ///
    /// Whether it was raised is open; accepting it again does no harm.
    pub async fn accept_log(&self, record: Put) -> Result<(u64, Vec<ResourceName>), VerbError> {
        let names = self.resources.names();
        let (mut above, mut silent) = (self.standings.lock().told(), Vec::new());
        // All at once: one that is away answers no sooner than its timeout.
        let marks = join_all(names.iter().map(|resource| self.resources.mark(resource))).await;
        for (resource, mark) in names.iter().zip(marks) {
            match mark {
                Ok(mark) => above = above.max(mark.map_or(0, |mark| mark.sequence)),
                Err(_) => silent.push(resource.clone()),
            }
        }
        let sequence = self.coordinator.raise_high(above, Some(record)).await?;
        {
            let mut standings = self.standings.lock();
            standings.accept(sequence, &names);
            self.coordinator.fall_behind(standings.objection());
        }
        for resource in names {
            if silent.contains(&resource) {
                continue;
            }
            let told = self.write(&resource, sequence).await.is_ok();
            if !told || self.attest(&resource).await.is_err() {
                silent.push(resource);
            }
        }
        Ok((sequence, silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_behind_what_a_database_knows_better() {
        let of = |high, mark: Option<(&str, u64)>| {
            let mark = mark.map(|(log, sequence)| Mark { log_id: log.to_owned(), sequence });
            LogStanding::of("log", high, mark.as_ref())
        };
        assert_eq!(of(0, None), LogStanding::UpToDate, "it was told nothing");
        assert_eq!(of(3, Some(("log", 3))), LogStanding::UpToDate);
        assert_eq!(of(4, Some(("log", 3))), LogStanding::UpToDate, "others have begun work");
        assert_eq!(of(2, Some(("log", 3))), LogStanding::Behind { told: 3, high: 2 });
        assert_eq!(of(9, Some(("other", 3))), LogStanding::Another);
    }

    fn standings<const N: usize>(known: [(&str, LogStanding); N]) -> Standings {
        let named = known.map(|(name, standing)| (named(name), standing));
        Standings(named.into_iter().collect())
    }

    fn named(name: &str) -> ResourceName {
        ResourceName::new(name).unwrap()
    }

    const BEHIND: LogStanding = LogStanding::Behind { told: 7, high: 5 };

    #[test]
    fn a_number_is_raised_once_all_databases_have_been_heard() {
        let all = [named("a"), named("b")];
        let of = |known: &Standings| known.all_up_to_date(&all);
        let fine = LogStanding::UpToDate;
        assert!(!of(&standings([("a", fine.clone())])), "b has not been heard");
        assert!(!of(&standings([("a", fine.clone()), ("b", BEHIND)])));
        assert!(of(&standings([("a", fine.clone()), ("b", fine.clone())])));
        let gone = standings([("a", fine.clone()), ("b", fine.clone()), ("gone", BEHIND)]);
        assert!(!of(&gone), "what it was told is not less since it was taken out");
        let one = standings([("a", fine)]);
        assert!(one.are_heard(&all[..1]) && !one.are_heard(&all), "b may know of a commit");
    }

    #[test]
    fn an_objection_outlives_the_settings_of_its_database() {
        let mut known = standings([("a", LogStanding::UpToDate), ("b", BEHIND)]);
        known.forget(|_| false);
        assert_eq!((known.of(&named("a")), known.of(&named("b"))), (None, Some(&BEHIND)));
        assert!(known.objection().is_some_and(|why| why.contains("`b` was told 7")));
    }

    #[test]
    fn an_operator_meets_the_objections_that_a_number_can_meet() {
        let known = [("a", BEHIND), ("b", LogStanding::Another), ("gone", LogStanding::Another)];
        let mut known = standings(known);
        assert_eq!(known.told(), 7);
        known.accept(8, &[named("a"), named("b")]);
        assert_eq!(known.of(&named("a")), None, "it has to say so again");
        assert_eq!(known.of(&named("b")), Some(&LogStanding::Another), "it was not told yet");
        assert_eq!(known.of(&named("gone")), None);
    }
}
