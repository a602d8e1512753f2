//! Whether the log is as new as what databases were told of it.
//!
//! A log that was put back from an old backup does not know what began after that. A branch of such
//! a transaction would be taken for one that nobody speaks of, and be rolled back, though others of
//! the same transaction have committed. So each database keeps the number the log had when work was
//! last begun there; while a database has a greater one, or that of another log, nothing is begun,
//! committed or ended, and an operator has to say that the log is to be gone by all the same.
//!
//! What was begun since the last sweep of a database is not guarded: nobody has told the database.

use std::collections::BTreeMap;

use mainstay_store::Put;

use super::events::{LogBehind, LogUpToDate};
use super::failure::Failure;
use super::sweep::Sweeper;
use crate::name::ResourceName;
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

    /// Why nothing may be begun or ended, if so; `resource` says it.
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

impl Sweeper {
    /// Looks how the log stands beside what `resource` was told, and tells it what has come since.
    ///
    /// # Errors
    ///
    /// [`NotAttested`]; what was known before stays.
    ///
    /// # Cancel safety
    ///
    /// Safe: what the database is told late is told by the next sweep.
    pub async fn attest(&self, resource: &ResourceName) -> Result<LogStanding, NotAttested> {
        // Before the number of the log is read: other nodes raise that before they tell anybody.
        let mark = self.resources.mark(resource).await.map_err(NotAttested::Database)?;
        let high = self.coordinator.high().await.map_err(NotAttested::Log)?;
        let log_id = &self.coordinator.identity().log_id;
        let standing = LogStanding::of(log_id, high, mark.as_ref());
        self.stands(resource, standing.clone());
        if standing == LogStanding::UpToDate {
            let sequence = self.sequence(high).await.map_err(NotAttested::Log)?;
            if mark.map_or(0, |mark| mark.sequence) < sequence {
                self.write(resource, sequence).await.map_err(NotAttested::Database)?;
            }
        }
        Ok(standing)
    }

    /// The number that covers what was begun here; raised if there is something new.
    async fn sequence(&self, high: u64) -> Result<u64, VerbError> {
        let mut covered = self.covered.lock().await;
        let work = self.coordinator.work();
        if *covered == work {
            return Ok(high);
        }
        let sequence = self.coordinator.raise_high(0, None).await?;
        *covered = work;
        Ok(sequence)
    }

    async fn write(&self, resource: &ResourceName, sequence: u64) -> Result<(), Failure> {
        let log_id = self.coordinator.identity().log_id.clone();
        self.resources.write_mark(resource, &Mark { log_id, sequence }).await
    }

    /// Notes how the log stands, and holds the coordinator up or lets it go on.
    fn stands(&self, resource: &ResourceName, standing: LogStanding) {
        let mut standings = self.standings.lock();
        let before = standings.insert(resource.clone(), standing.clone());
        if before.as_ref() == Some(&standing) {
            return;
        }
        let name = resource.as_str();
        match standing.objection(resource) {
            Some(why) => LogBehind { resource: name, why: &why }.emit(),
            None if before.is_some() => LogUpToDate { resource: name }.emit(),
            None => {}
        }
        self.coordinator.fall_behind(objection(&standings));
    }

    /// How the log stood beside what `resource` was told, when that was looked at last.
    pub fn standing(&self, resource: &ResourceName) -> Option<LogStanding> {
        self.standings.lock().get(resource).cloned()
    }

    /// Forgets databases that are not there any more.
    pub fn forget(&self, is_there: impl Fn(&ResourceName) -> bool) {
        let mut standings = self.standings.lock();
        standings.retain(|resource, _| is_there(resource));
        self.coordinator.fall_behind(objection(&standings));
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
        let (mut above, mut silent) = (0, Vec::new());
        for resource in &names {
            match self.resources.mark(resource).await {
                Ok(mark) => above = above.max(mark.map_or(0, |mark| mark.sequence)),
                Err(_) => silent.push(resource.clone()),
            }
        }
        let sequence = self.coordinator.raise_high(above, Some(record)).await?;
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

/// What the first database that has an objection says.
fn objection(standings: &BTreeMap<ResourceName, LogStanding>) -> Option<String> {
    standings.iter().find_map(|(resource, standing)| standing.objection(resource))
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
}
