//! Updates that are done only if nobody else was there first.
//!
//! Each row has a version. It is read with the row, and the update is done only where the version
//! is still the same: whoever was slower is told, reads again, and decides again. Nothing is
//! locked while people or other services think (Kung and Robinson, "On optimistic methods for
//! concurrency control", TODS 1981).
//!
//! | | |
//! |---|---|
//! | `postgres::update`, `mysql::update` | one conditional update in the caller's transaction |
//! | [`retry`], [`Retry`] | read, change and update again after a conflict, a few times |
//!
//! Nothing here begins or ends a transaction: a conflict at commit is the caller's to see, and
//! [`Conflicts`] tells it from other errors.

#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "postgres")]
pub mod postgres;

use std::time::Duration;

use mainstay_call::draw;
use mainstay_core::problem::Code;

/// A table whose rows have an id and a version. Names are quoted, so they are taken as they are,
/// with their case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table<'a> {
    pub(crate) schema: Option<&'a str>,
    pub(crate) name: &'a str,
    pub(crate) id: &'a str,
    pub(crate) version: &'a str,
}

impl<'a> Table<'a> {
    /// The table `name`, whose rows are found by the column `id` and count their versions, whole
    /// numbers, in a column `version`.
    pub const fn new(name: &'a str, id: &'a str) -> Self {
        Self { schema: None, name, id, version: "version" }
    }

    /// The schema (the database, in `MariaDB`) it lies in, where that is not the connection's own.
    #[must_use]
    pub const fn schema(mut self, schema: &'a str) -> Self {
        self.schema = Some(schema);
        self
    }

    /// The column of versions, where that is not `version`.
    #[must_use]
    pub const fn version(mut self, column: &'a str) -> Self {
        self.version = column;
        self
    }
}

/// What came of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an update that met a conflict has changed nothing"]
pub enum Outcome {
    /// It is done.
    Updated {
        /// The row's version now.
        version: i64,
    },
    /// Somebody else was there first; nothing has changed. Roll back, read again.
    Conflict {
        /// The version that stands there. `None` when the database broke the transaction off
        /// (a deadlock, a serialization failure, a lock not given in time): it accepts nothing but
        /// the rollback, or accepts what it should not.
        current: Option<i64>,
    },
    /// There is no such row, or no longer.
    Gone,
}

/// What came of one attempt of [`retry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt<T> {
    /// It is done, and committed.
    Done(T),
    /// Somebody else was there first; the caller's transaction has been rolled back.
    Conflict,
}

/// An error that can mean that somebody else was there first.
pub trait Conflicts {
    /// Whether it does: the same from the start may work.
    fn is_conflict(&self) -> bool;
}

/// Others were there first, each time. May be repeated; a row that is this busy is better locked
/// before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("somebody else changed it first, {tries} times")]
pub struct TooBusy {
    /// How often it was tried.
    pub tries: u32,
}

impl TooBusy {
    /// The problem a caller is told of.
    pub const fn code(self) -> Code {
        Code::OptimisticConflict
    }
}

/// How often it is tried. With a chance of one in two that somebody else is first, one in 32 has
/// met a conflict five times; more tries help only where the row is too busy for this.
pub const TRIES: u32 = 5;

/// Shortest and longest wait after a conflict. Who collided once must not come back at the same
/// moment; 5 ms is about the time of a commit, and ten of those set most apart.
pub const JITTER: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));

/// Runs `attempt`, which reads, changes and updates in a transaction of its own, until it meets no
/// conflict; [`TRIES`] times, with a random wait of [`JITTER`] in between.
///
/// An attempt that meets a conflict must have rolled back. An error that
/// [is a conflict](Conflicts::is_conflict), such as a commit that cannot be serialized, is tried
/// again as well. Where the compiler cannot see that a future made of closures may move between
/// threads, write the loop yourself, around [`Retry`].
///
/// # Errors
///
/// [`TooBusy`] after the last try, and at the first error that is no conflict that error.
///
/// # Cancel safety
///
/// As that of `attempt`: nothing is kept between tries.
pub async fn retry<T, E: Conflicts + From<TooBusy>>(
    mut attempt: impl AsyncFnMut() -> Result<Attempt<T>, E>,
) -> Result<T, E> {
    let mut retry = Retry::default();
    loop {
        match attempt().await {
            Ok(Attempt::Done(value)) => return Ok(value),
            Ok(Attempt::Conflict) => {}
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error),
        }
        retry.after_conflict().await?;
    }
}

/// Counts the tries of one change, and spaces them.
#[derive(Debug, Default)]
pub struct Retry {
    conflicts: u32,
}

impl Retry {
    /// Waits for a random time of [`JITTER`], after which to try again.
    ///
    /// # Errors
    ///
    /// [`TooBusy`], at once, when that was the last of [`TRIES`].
    ///
    /// # Cancel safety
    ///
    /// Safe; the conflict is counted.
    pub async fn after_conflict(&mut self) -> Result<(), TooBusy> {
        self.conflicts = self.conflicts.saturating_add(1);
        if TRIES <= self.conflicts {
            return Err(TooBusy { tries: self.conflicts });
        }
        pause().await;
        Ok(())
    }
}

/// Waits for a random time of [`JITTER`].
pub(crate) async fn pause() {
    tokio::time::sleep(jitter(draw::next())).await;
}

/// A wait within [`JITTER`], from a draw.
fn jitter(draw: u64) -> Duration {
    let (least, most) = JITTER;
    let span = u64::try_from(most.saturating_sub(least).as_nanos()).unwrap_or(u64::MAX);
    least + Duration::from_nanos(draw % (span + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum Failed {
        Conflict,
        Broken,
        TooBusy(TooBusy),
    }

    impl Conflicts for Failed {
        fn is_conflict(&self) -> bool {
            *self == Self::Conflict
        }
    }

    impl From<TooBusy> for Failed {
        fn from(error: TooBusy) -> Self {
            Self::TooBusy(error)
        }
    }

    /// `script`: `c` a conflict, `s` an error that is one, `x` another error, `.` done. Returns
    /// what came of it and how often it was tried.
    async fn check(script: &str) -> (Result<(), Failed>, usize) {
        let mut steps = script.chars();
        let mut tried = 0;
        let came = retry(async || {
            tried += 1;
            match steps.next() {
                Some('c') => Ok(Attempt::Conflict),
                Some('s') => Err(Failed::Conflict),
                Some('x') => Err(Failed::Broken),
                _ => Ok(Attempt::Done(())),
            }
        });
        (came.await, tried)
    }

    #[tokio::test(start_paused = true)]
    async fn conflicts_are_tried_again_and_other_errors_are_not() {
        assert_eq!(check(".").await, (Ok(()), 1));
        assert_eq!(check("csc.").await, (Ok(()), 4));
        assert_eq!(check("cx.").await, (Err(Failed::Broken), 2));
        assert_eq!(check("ccccs.").await, (Err(Failed::TooBusy(TooBusy { tries: 5 })), 5));
    }

    #[test]
    fn waits_are_spread_over_the_whole_range() {
        assert_eq!(jitter(0), Duration::from_millis(5));
        assert_eq!(jitter(45_000_000), Duration::from_millis(50));
        assert_eq!(jitter(45_000_001), Duration::from_millis(5));
        for draw in (0..1_000).map(|n| n * 0x0101_0101_0101) {
            assert!((JITTER.0..=JITTER.1).contains(&jitter(draw)), "{draw}");
        }
    }
}
