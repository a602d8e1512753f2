//! Messages that are sent if, and only if, a local transaction is committed.
//!
//! The message is prepared, durably; then the local part is committed with a row that says so; then
//! the message is submitted. If nobody submits it, the coordinator asks: that row is the answer, and
//! where it is missing a row in its place stops a local part that is late.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use mainstay_api::transaction::Transaction;

use super::asking::{self, insist, post};
use super::{Message, TxError};
use crate::barrier::{Barrier, BarrierError, Business, Passed};
use crate::client::Shared;
use crate::error::ClientError;
use crate::optimistic::Conflicts;

/// A message that waits for its local part.
#[derive(Debug)]
struct Prepared {
    shared: Arc<Shared>,
    gid: String,
    patience: Duration,
}

impl Message {
    /// Runs `business` in a transaction of its own on `client`, which is in none; the message is
    /// sent if that is committed. [`Passed::Duplicate`] when it was before, under the same gid: the
    /// message is sent, and `business` has not run.
    ///
    /// # Errors
    ///
    /// [`TxError::Business`]: rolled back, and nothing is sent. [`TxError::Unknown`]: whether the
    /// local part was committed is open; the check will tell, and the message follows it.
    /// [`TxError::Mixed`]: it is committed, and an operator aborted the message before it was sent.
    ///
    /// # Cancel safety
    ///
    /// Whether the local part is committed is open; the message follows it, by the check.
    #[cfg(feature = "postgres")]
    pub async fn with_local_postgres<T, E, F>(
        self,
        client: &mut tokio_postgres::Client,
        business: F,
    ) -> Result<Passed<T>, TxError<E>>
    where
        T: Send,
        E: Conflicts + Send,
        F: AsyncFnMut(&mut tokio_postgres::Transaction<'_>) -> Result<T, E> + Send,
        F: for<'r, 's> Business<&'r mut tokio_postgres::Transaction<'s>, T, E>,
    {
        let prepared = self.prepare().await.map_err(TxError::with_business)?;
        let Some((prepared, mut barrier)) = prepared else { return Ok(Passed::Duplicate) };
        let came = barrier.postgres(client, business).await;
        prepared.settle(came).await
    }

    /// The same on `connection`, in `MariaDB` or `MySQL`.
    ///
    /// # Errors
    ///
    /// [`TxError::Business`]: rolled back, and nothing is sent. [`TxError::Unknown`]: whether the
    /// local part was committed is open; the check will tell, and the message follows it.
    /// [`TxError::Mixed`]: it is committed, and an operator aborted the message before it was sent.
    ///
    /// # Cancel safety
    ///
    /// Whether the local part is committed is open; the message follows it, by the check.
    #[cfg(feature = "mysql")]
    pub async fn with_local_mysql<T, E, F>(
        self,
        connection: &mut mysql_async::Conn,
        business: F,
    ) -> Result<Passed<T>, TxError<E>>
    where
        T: Send,
        E: Conflicts + Send,
        F: AsyncFnMut(&mut mysql_async::Transaction<'_>) -> Result<T, E> + Send,
        F: for<'r, 's> Business<&'r mut mysql_async::Transaction<'s>, T, E>,
    {
        let prepared = self.prepare().await.map_err(TxError::with_business)?;
        let Some((prepared, mut barrier)) = prepared else { return Ok(Passed::Duplicate) };
        let came = barrier.mysql(connection, business).await;
        prepared.settle(came).await
    }

    /// None where the message is to be sent already: its local part was committed. The barrier says
    /// the same, but its rows may be purged sooner than the coordinator forgets.
    async fn prepare(self) -> Result<Option<(Prepared, Barrier)>, TxError> {
        if self.begin.check.is_none() {
            let why = "must say who is asked whether the local part was committed";
            return Err(ClientError::Invalid { what: "check", why }.into());
        }
        let (shared, patience) = (Arc::clone(&self.client.shared), self.patience);
        let (gid, begin) = self.document()?;
        let why = "must be 1 to 128 bytes without control characters";
        let barrier = Barrier::local_part(&gid);
        let barrier = barrier.map_err(|_invalid| ClientError::Invalid { what: "gid", why })?;
        let call = post("/transactions".to_owned(), Duration::ZERO).document(&begin);
        let begun: Result<Transaction, _> = insist(&shared, &call, patience).await;
        // Should it have been begun all the same, the check says that there is no local part.
        let begun = begun.map_err(asking::NoAnswer::of_begin)?;
        // What was aborted before under this gid is never sent: there must be no local part.
        let is_decided = asking::outcome(begun)?.summary.decision.is_some();
        Ok((!is_decided).then_some((Prepared { shared, gid, patience }, barrier)))
    }
}

impl Prepared {
    async fn settle<T, E, D: Display>(
        self,
        came: Result<Passed<T>, BarrierError<E, D>>,
    ) -> Result<Passed<T>, TxError<E>> {
        let Self { shared, gid, patience } = self;
        match came {
            Ok(Passed::Hanging) => {
                let why = "it was asked for before its local part was committed".to_owned();
                Err(TxError::Aborted { gid, why })
            }
            Ok(passed) => {
                let submitted = asking::submit(&shared, &gid, asking::decided(), patience).await;
                match submitted {
                    // Aborted by somebody else meanwhile, with its local part committed.
                    Err(TxError::Aborted { .. } | TxError::Mixed { .. }) => {
                        Err(TxError::Mixed { gid })
                    }
                    // The local part says that it is to be sent, and the check will.
                    _ => Ok(passed),
                }
            }
            Err(BarrierError::Business(error)) => {
                let detail = "its local part failed".to_owned();
                asking::abort(&shared, &gid, detail, patience).await;
                Err(TxError::Business(error))
            }
            Err(BarrierError::NothingCommitted) => {
                let why = "a statement of its local part failed, whose error was not returned";
                asking::abort(&shared, &gid, why.to_owned(), patience).await;
                Err(TxError::Aborted { gid, why: why.to_owned() })
            }
            Err(BarrierError::Ongoing) => {
                let why = "another session is at its local part".to_owned();
                Err(TxError::Unknown { gid, why })
            }
            Err(BarrierError::Database(error)) => {
                Err(TxError::Unknown { gid, why: error.to_string() })
            }
        }
    }
}
