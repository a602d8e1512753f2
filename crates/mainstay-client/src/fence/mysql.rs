//! Fencing tokens in `MariaDB`, 10.5 and later, and `MySQL` 8.
//!
//! The comparison is made here, not by the database: how many rows a statement affected depends on
//! a flag of the connection.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

use super::{FenceError, checked};

/// Makes the table, unless it is there. Needs the right to create tables, and ends a transaction
/// that is open; the check itself needs to select, insert and update.
///
/// # Errors
///
/// What the database said.
///
/// # Cancel safety
///
/// Whether the table is made is open; calling again does no harm.
pub async fn create_table(connection: &mut Conn) -> Result<(), Error> {
    connection.query_drop(CREATE).await
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
pub async fn check(
    connection: &mut impl Queryable,
    resource: &str,
    token: u64,
) -> Result<(), FenceError<Error>> {
    let number = checked(resource, token)?;
    let seen = seen(connection, resource).await.map_err(FenceError::Database)?;
    if number < seen {
        let seen = u64::try_from(seen).unwrap_or_default();
        return Err(FenceError::Stale { resource: resource.to_owned(), token, seen });
    }
    if seen < number {
        let raised = connection.exec_drop(RAISE, (number, resource)).await;
        raised.map_err(FenceError::Database)?;
    }
    Ok(())
}

/// The highest token seen, locked until the transaction ends.
///
/// The row is only made when it is not there. An insert that meets a row shares a lock on it with
/// every other such insert, and then each waits for the others before it may lock it alone.
async fn seen(connection: &mut impl Queryable, resource: &str) -> Result<i64, Error> {
    let seen: Option<i64> = connection.exec_first(SEEN, (resource,)).await?;
    if let Some(seen) = seen {
        return Ok(seen);
    }
    connection.exec_drop(ENSURE, (resource,)).await?;
    let seen: Option<i64> = connection.exec_first(SEEN, (resource,)).await?;
    // It is there: the insert has made it, or locked the one it met.
    Ok(seen.unwrap_or_default())
}

// Names are compared byte by byte: a collation that ignores case would fence two locks as one.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS mainstay_fence \
    (resource varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY, \
    token bigint NOT NULL) ENGINE = InnoDB";

const ENSURE: &str = "INSERT IGNORE INTO mainstay_fence (resource, token) VALUES (?, 0)";

const SEEN: &str = "SELECT token FROM mainstay_fence WHERE resource = ? FOR UPDATE";

const RAISE: &str = "UPDATE mainstay_fence SET token = ? WHERE resource = ?";
