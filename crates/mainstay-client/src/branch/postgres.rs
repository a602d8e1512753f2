//! Branches in `PostgreSQL`, which needs `max_prepared_transactions` above 0.

use mainstay_api::receipt;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use super::{Begun, BranchError, BranchName};

/// Begins a branch on `client`, which is in no transaction: business statements follow on the same
/// session, then [`prepare`]. Until then waits for locks end after 2 s. `written_by` says who does
/// it, for whoever reads the table; what is longer than 64 characters is cut.
///
/// # Errors
///
/// [`BranchError`], after which there is no transaction.
///
/// # Cancel safety
///
/// Not safe: the session may be in a transaction. Call [`give_up`], or drop the client.
pub async fn begin(
    client: &Client,
    name: &BranchName,
    written_by: &str,
) -> Result<Begun, BranchError<Error>> {
    client.batch_execute(&format!("BEGIN; {}", receipt::LOCK_WAIT_POSTGRES)).await?;
    let written_by: String = written_by.chars().take(64).collect();
    let insert = receipt::numbered(receipt::INSERT_DONE);
    let written = client
        .execute_typed(
            &insert,
            &[
                (&name.gid, Type::VARCHAR),
                (&name.branch, Type::VARCHAR),
                (&written_by, Type::VARCHAR),
            ],
        )
        .await;
    let Err(error) = written else { return Ok(Begun::New) };
    give_up(client).await?;
    match error.code() {
        Some(&SqlState::UNIQUE_VIOLATION) => {
            let read = receipt::numbered(receipt::READ_RECEIPT);
            let key = [(&name.gid as _, Type::VARCHAR), (&name.branch as _, Type::VARCHAR)];
            let row = client.query_typed_opt(&read, &key).await?;
            let kind = row.map(|row| row.try_get::<_, String>(0)).transpose()?;
            match kind.as_deref() {
                Some("done") => Ok(Begun::Already),
                _ => Err(BranchError::Ended),
            }
        }
        // Whoever holds the key has prepared it, or is about to.
        Some(&SqlState::LOCK_NOT_AVAILABLE) if is_prepared(client, name).await? => {
            Ok(Begun::Already)
        }
        Some(&SqlState::LOCK_NOT_AVAILABLE) => Err(BranchError::Ongoing),
        _ => Err(error.into()),
    }
}

/// Prepares what was begun, with evidence: when this returns without an error, the database lists
/// the branch, and the vote is yes.
///
/// # Errors
///
/// [`BranchError`]: the vote is no. After [`BranchError::Database`] of a connection that broke it
/// may have been prepared all the same; the coordinator rolls it back then.
///
/// # Cancel safety
///
/// Not safe: whether it is prepared is open, as after a connection that broke.
pub async fn prepare(client: &Client, name: &BranchName) -> Result<(), BranchError<Error>> {
    let statements = receipt::prepare_postgres(&name.postgres());
    match client.simple_query(&statements).await {
        Ok(answers) => {
            let is_row = |answer: &SimpleQueryMessage| matches!(answer, SimpleQueryMessage::Row(_));
            // No error tells it: a transaction that has failed is rolled back, and that is fine
            // with the database.
            answers.iter().any(is_row).then_some(()).ok_or(BranchError::NothingPrepared)
        }
        Err(error) => {
            // Where that fails too the session is over, and what came first says why.
            drop(give_up(client).await);
            Err(error.into())
        }
    }
}

/// Rolls back what was begun; with nothing begun it does nothing.
///
/// # Errors
///
/// What the database said.
///
/// # Cancel safety
///
/// Safe to call again.
pub async fn give_up(client: &Client) -> Result<(), Error> {
    client.batch_execute("ROLLBACK").await
}

async fn is_prepared(client: &Client, name: &BranchName) -> Result<bool, Error> {
    let listed = "SELECT 1 FROM pg_prepared_xacts WHERE gid = $1 AND database = current_database()";
    let row = client.query_typed_opt(listed, &[(&name.postgres(), Type::TEXT)]).await?;
    Ok(row.is_some())
}
