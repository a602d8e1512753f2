//! Barriers in `MariaDB`, 10.5 and later, and `MySQL` 8.

use futures_util::future::BoxFuture;
use mainstay_api::{barrier as table, receipt};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Error, Transaction, TxOpts};

use super::{Barrier, BarrierError, Business, Check, Checked, Passed, is_repeated, skips};
use crate::optimistic::{Conflicts, pause};

/// Makes the tables that participants need, unless they are there: barriers, and receipts of
/// branches that are prepared. Needs the right to create tables, and ends a transaction that is
/// open; a participant needs to select and insert, and whoever deletes old rows to delete.
///
/// # Errors
///
/// What the database said.
///
/// # Cancel safety
///
/// Whether they are made is open; calling again does no harm.
pub async fn install_tables(connection: &mut Conn) -> Result<(), Error> {
    let tables = [table::TABLE_MARIADB, receipt::RECEIPT_MARIADB, receipt::COORDINATOR_MARIADB];
    for statement in tables {
        connection.query_drop(statement).await?;
    }
    Ok(())
}

impl Barrier {
    /// Runs `business` in a transaction of its own on `connection`, which is in none, unless the
    /// operation is not to be done. Waits for locks end after 2 s from then on; a lock that was not
    /// given to `business` in time counts as a deadlock.
    ///
    /// # Errors
    ///
    /// [`BarrierError`]; the transaction was rolled back.
    ///
    /// # Cancel safety
    ///
    /// The transaction is rolled back, unless it was being committed. Calling again does no harm.
    pub fn mysql<'a, T, E, F>(
        &'a mut self,
        connection: &'a mut Conn,
        mut business: F,
    ) -> BoxFuture<'a, Result<Passed<T>, BarrierError<E, Error>>>
    where
        T: Send + 'a,
        E: Conflicts + Send + 'a,
        F: AsyncFnMut(&mut Transaction<'_>) -> Result<T, E> + Send + 'a,
        F: for<'r, 's> Business<&'r mut Transaction<'s>, T, E>,
    {
        Box::pin(async move {
            let seq = self.next_seq();
            connection.query_drop(receipt::LOCK_WAIT_MARIADB).await?;
            let mut repeated = 0;
            loop {
                let mut transaction = connection.start_transaction(TxOpts::default()).await?;
                let came = match self.judged_mysql(&mut transaction, &seq).await {
                    Ok(Some(passed)) => Ok(passed),
                    Ok(None) => match Business::run(&mut business, &mut transaction).await {
                        Ok(value) => self.stands_mysql(&mut transaction, &seq, value).await,
                        Err(error) => Err(BarrierError::Business(error)),
                    },
                    Err(error) => Err(error),
                };
                let came = match came {
                    Ok(passed) => transaction.commit().await.map(|()| passed).map_err(Into::into),
                    Err(error) => {
                        // Where that fails too the session is over, and what came first says why.
                        drop(transaction.rollback().await);
                        Err(error)
                    }
                };
                if !is_repeated(&came, repeated) {
                    return came.inspect(skips::count);
                }
                repeated += 1;
                pause().await;
            }
        })
    }

    /// Writes the rows; `None` if the business statements are to run.
    async fn judged_mysql<T, E>(
        &self,
        transaction: &mut Transaction<'_>,
        seq: &str,
    ) -> Result<Option<Passed<T>>, BarrierError<E, Error>> {
        let insert = self.statements.insert_mariadb;
        let (places, own) = self.rows(seq);
        let inserted = async {
            let mut taken = 0;
            for row in places {
                taken += write(transaction, insert, row).await?;
            }
            Ok((taken, write(transaction, insert, own).await?))
        };
        let (taken, inserted) = inserted.await.map_err(|error| {
            if is_lock_wait(&error) { BarrierError::Ongoing } else { BarrierError::Database(error) }
        })?;
        let reason = match inserted {
            // Nothing was read before: the snapshot is taken now, and has the row.
            0 => reason(transaction, self.statements.reason, own).await?,
            _ => None,
        };
        Ok(Passed::without(self.judge(taken, inserted, reason.as_deref())))
    }

    /// Looks whether it is still the same transaction: after a deadlock there is none, and
    /// statements take effect one by one.
    async fn stands_mysql<T, E>(
        &self,
        transaction: &mut Transaction<'_>,
        seq: &str,
        value: T,
    ) -> Result<Passed<T>, BarrierError<E, Error>> {
        let reason = reason(transaction, self.statements.reason, self.rows(seq).1).await?;
        reason.map(|_| Passed::Ran(value)).ok_or(BarrierError::NothingCommitted)
    }
}

impl Check {
    /// Says whether the local part was committed. If it was not, it never will be. Waits up to 2 s
    /// for it.
    ///
    /// # Errors
    ///
    /// What the database said: answer 500, and be asked again.
    ///
    /// # Cancel safety
    ///
    /// Calling again does no harm.
    pub async fn mysql(&self, connection: &mut Conn) -> Result<Checked, Error> {
        let statements = self.barrier.statements;
        connection.query_drop(receipt::LOCK_WAIT_MARIADB).await?;
        let mut repeated = 0;
        loop {
            let came = async {
                let mut transaction = connection.start_transaction(TxOpts::default()).await?;
                write(&mut transaction, statements.insert_mariadb, self.row()).await?;
                let reason = reason(&mut transaction, statements.reason, self.row()).await?;
                transaction.commit().await.map(|()| Checked::judge(reason.as_deref()))
            };
            let came = came.await;
            if came.as_ref().is_err_and(is_lock_wait) {
                return Ok(Checked::Ongoing);
            }
            if !is_repeated(&came, repeated) {
                return came;
            }
            repeated += 1;
            pause().await;
        }
    }
}

/// Inserts a row unless it is there; returns how many. What was too long would be cut off with a
/// warning: a [`Branch`](super::Branch) has no such texts.
async fn write(
    transaction: &mut Transaction<'_>,
    insert: &str,
    row: [&str; 6],
) -> Result<u64, Error> {
    let [mode, gid, branch, op, seq, reason] = row;
    transaction.exec_drop(insert, (mode, gid, branch, op, seq, reason)).await?;
    Ok(transaction.affected_rows())
}

/// Why the row stands there.
async fn reason(
    transaction: &mut Transaction<'_>,
    read: &str,
    row: [&str; 6],
) -> Result<Option<String>, Error> {
    let [_, gid, branch, op, seq, _] = row;
    transaction.exec_first(read, (gid, branch, op, seq)).await
}

/// `ER_LOCK_WAIT_TIMEOUT`.
fn is_lock_wait(error: &Error) -> bool {
    matches!(error, Error::Server(error) if error.code == 1205)
}
