//! Barriers in `PostgreSQL`, 13 and later.

use futures_util::future::BoxFuture;
use mainstay_api::{barrier as table, receipt};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, GenericClient, Transaction};

use super::{Barrier, BarrierError, Business, Check, Checked, Passed, is_repeated, skips};
use crate::optimistic::{Conflicts, pause};

/// Makes the tables that participants need, unless they are there: barriers, and receipts of
/// branches that are prepared. Needs the right to create tables; a participant needs to select and
/// insert, and whoever deletes old rows to delete.
///
/// # Errors
///
/// What the database said.
///
/// # Cancel safety
///
/// Whether they are made is open; calling again does no harm.
pub async fn install_tables<C: GenericClient + Sync>(client: &C) -> Result<(), Error> {
    let tables = [
        table::TABLE_POSTGRES,
        receipt::RECEIPT_POSTGRES,
        receipt::INDEX_POSTGRES,
        receipt::COORDINATOR_POSTGRES,
    ];
    client.batch_execute(&tables.join(";")).await
}

impl Barrier {
    /// Runs `business` in a transaction of its own on `client`, which is in none, unless the
    /// operation is not to be done. Waits for locks end after 2 s in it.
    ///
    /// # Errors
    ///
    /// [`BarrierError`]; the transaction was rolled back.
    ///
    /// # Cancel safety
    ///
    /// The transaction is rolled back, unless it was being committed. Calling again does no harm.
    pub fn postgres<'a, T, E, F>(
        &'a mut self,
        client: &'a mut Client,
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
            let mut repeated = 0;
            loop {
                let mut transaction = client.transaction().await?;
                let came = match self.judged_postgres(&transaction, &seq).await {
                    Ok(Some(passed)) => Ok(passed),
                    Ok(None) => match Business::run(&mut business, &mut transaction).await {
                        Ok(value) => self.stands_postgres(&transaction, &seq, value).await,
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
    async fn judged_postgres<T, E>(
        &self,
        transaction: &Transaction<'_>,
        seq: &str,
    ) -> Result<Option<Passed<T>>, BarrierError<E, Error>> {
        let insert = self.statements.insert_postgres;
        let (places, own) = self.rows(seq);
        transaction.batch_execute(receipt::LOCK_WAIT_POSTGRES).await?;
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
            0 => reason(transaction, self.statements.reason, own).await?,
            _ => None,
        };
        Ok(Passed::without(self.judge(taken, inserted, reason.as_deref())))
    }

    /// Looks whether the transaction can still be committed: a commit of one that has failed is a
    /// rollback, without an error.
    async fn stands_postgres<T, E>(
        &self,
        transaction: &Transaction<'_>,
        seq: &str,
        value: T,
    ) -> Result<Passed<T>, BarrierError<E, Error>> {
        match reason(transaction, self.statements.reason, self.rows(seq).1).await {
            Ok(Some(_)) => Ok(Passed::Ran(value)),
            Ok(None) => Err(BarrierError::NothingCommitted),
            Err(error) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => {
                Err(BarrierError::NothingCommitted)
            }
            Err(error) => Err(error.into()),
        }
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
    pub async fn postgres(&self, client: &mut Client) -> Result<Checked, Error> {
        let statements = self.barrier.statements;
        let mut repeated = 0;
        loop {
            let came = async {
                let transaction = client.transaction().await?;
                transaction.batch_execute(receipt::LOCK_WAIT_POSTGRES).await?;
                write(&transaction, statements.insert_postgres, self.row()).await?;
                let reason = reason(&transaction, statements.reason, self.row()).await?;
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

/// Inserts a row unless it is there; returns how many.
async fn write(transaction: &Transaction<'_>, insert: &str, row: [&str; 6]) -> Result<u64, Error> {
    let [mode, gid, branch, op, seq, reason] = &row;
    let values = [mode, gid, branch, op, seq, reason].map(|text| (text as _, Type::VARCHAR));
    transaction.execute_typed(&receipt::numbered(insert), &values).await
}

/// Why the row stands there.
async fn reason(
    transaction: &Transaction<'_>,
    read: &str,
    row: [&str; 6],
) -> Result<Option<String>, Error> {
    let [_, gid, branch, op, seq, _] = &row;
    let key = [gid, branch, op, seq].map(|text| (text as _, Type::VARCHAR));
    let row = transaction.query_typed_opt(&receipt::numbered(read), &key).await?;
    row.map(|row| row.try_get(0)).transpose()
}

fn is_lock_wait(error: &Error) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}
