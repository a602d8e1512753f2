//! Barriers in `SQLite`. Everything here blocks: call it where blocking is allowed.

use std::time::Duration;

use mainstay_api::barrier as table;
use rusqlite::{
    Connection, Error, ErrorCode, OptionalExtension as _, Transaction, TransactionBehavior,
};

use super::{Barrier, BarrierError, Check, Checked, Passed, skips};

/// Longest wait for whoever writes, as in other databases.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Makes the table of barriers, unless it is there.
///
/// # Errors
///
/// What the database said.
pub fn install_tables(connection: &Connection) -> Result<(), Error> {
    connection.execute_batch(table::TABLE_SQLITE)
}

impl Barrier {
    /// Runs `business` in a transaction of its own on `connection`, which is in none, unless the
    /// operation is not to be done. It writes alone from its first statement, so nothing is ever
    /// repeated; it waits 2 s for others that write, and so does `connection` from then on.
    ///
    /// # Errors
    ///
    /// [`BarrierError`]; the transaction was rolled back.
    pub fn sqlite<T, E>(
        &mut self,
        connection: &mut Connection,
        business: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<Passed<T>, BarrierError<E, Error>> {
        let seq = self.next_seq();
        let Some(transaction) = begin(connection)? else { return Err(BarrierError::Ongoing) };
        let (insert, read) = (self.statements.insert_sqlite, self.statements.reason);
        let (places, own) = self.rows(&seq);
        let mut taken = 0;
        for row in places {
            taken += write(&transaction, insert, row)?;
        }
        let inserted = write(&transaction, insert, own)?;
        let reason_was = reason(&transaction, read, own)?;
        let passage = self.judge(taken, inserted, reason_was.as_deref());
        let passed = match Passed::without(passage) {
            Some(passed) => passed,
            None => {
                let value = business(&transaction).map_err(BarrierError::Business)?;
                // Some errors roll back by themselves.
                let stands = reason(&transaction, read, own)?;
                stands.map(|_| Passed::Ran(value)).ok_or(BarrierError::NothingCommitted)?
            }
        };
        transaction.commit()?;
        skips::count(&passed);
        Ok(passed)
    }
}

impl Check {
    /// Says whether the local part was committed. If it was not, it never will be. Waits up to 2 s
    /// for it.
    ///
    /// # Errors
    ///
    /// What the database said: answer 500, and be asked again.
    pub fn sqlite(&self, connection: &mut Connection) -> Result<Checked, Error> {
        let statements = self.barrier.statements;
        let Some(transaction) = begin(connection)? else { return Ok(Checked::Ongoing) };
        write(&transaction, statements.insert_sqlite, self.row())?;
        let reason = reason(&transaction, statements.reason, self.row())?;
        transaction.commit()?;
        Ok(Checked::judge(reason.as_deref()))
    }
}

/// Begins to write; `None` if others do for too long.
fn begin(connection: &mut Connection) -> Result<Option<Transaction<'_>>, Error> {
    connection.busy_timeout(LOCK_WAIT)?;
    match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(transaction) => Ok(Some(transaction)),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Inserts a row unless it is there; returns how many.
fn write(transaction: &Transaction<'_>, insert: &str, row: [&str; 6]) -> Result<u64, Error> {
    let inserted = transaction.execute(insert, row)?;
    Ok(u64::try_from(inserted).unwrap_or(u64::MAX))
}

/// Why the row stands there.
fn reason(
    transaction: &Transaction<'_>,
    read: &str,
    row: [&str; 6],
) -> Result<Option<String>, Error> {
    let [_, gid, branch, op, seq, _] = row;
    transaction.query_row(read, [gid, branch, op, seq], |row| row.get(0)).optional()
}
