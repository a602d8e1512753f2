//! Fencing tokens in `PostgreSQL`, 13 and later.

use tokio_postgres::{Error, GenericClient};

use super::{FenceError, checked};

/// Makes the table, unless it is there. Needs the right to create tables; the check itself needs
/// to select, insert and update.
///
/// # Errors
///
/// What the database said.
///
/// # Cancel safety
///
/// Whether the table is made is open; calling again does no harm.
pub async fn create_table<C: GenericClient + Sync>(client: &C) -> Result<(), Error> {
    client.batch_execute(CREATE).await
}

/// Lets a write with `token` pass, unless a higher one was here: in the transaction of that write.
/// Until the transaction ends, others who check the same resource wait.
///
/// # Errors
///
/// [`FenceError`], after which the transaction is to be rolled back.
///
/// # Cancel safety
///
/// Not safe: roll back, or drop the transaction, which does.
pub async fn check<C: GenericClient + Sync>(
    client: &C,
    resource: &str,
    token: u64,
) -> Result<(), FenceError<Error>> {
    let number = checked(resource, token)?;
    let taken = client.execute(CHECK, &[&resource, &number]).await;
    if taken.map_err(FenceError::Database)? > 0 {
        return Ok(());
    }
    let row = client.query_one(SEEN, &[&resource]).await.map_err(FenceError::Database)?;
    let seen: i64 = row.try_get(0).map_err(FenceError::Database)?;
    let seen = u64::try_from(seen).unwrap_or_default();
    Err(FenceError::Stale { resource: resource.to_owned(), token, seen })
}

const CREATE: &str = "CREATE TABLE IF NOT EXISTS mainstay_fence \
    (resource varchar(255) PRIMARY KEY, token bigint NOT NULL)";

const CHECK: &str = "INSERT INTO mainstay_fence (resource, token) VALUES ($1, $2) \
    ON CONFLICT (resource) DO UPDATE SET token = excluded.token \
    WHERE mainstay_fence.token <= excluded.token";

const SEEN: &str = "SELECT token FROM mainstay_fence WHERE resource = $1";
