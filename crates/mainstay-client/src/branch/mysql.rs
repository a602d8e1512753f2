//! Branches in `MariaDB`, 10.5 and later.
//!
//! Its sessions hold their branch: whoever gives up on one has to end the session. `Conn` of a pool
//! go back there when they are dropped, which is not enough: after an error, and when the business
//! statements failed, call [`give_up`] and then `disconnect()`.
//!
//! A statement that fails leaves the branch as it was before that statement, and `MariaDB` prepares
//! what is left without a word. So whoever does not return the error of a statement commits the
//! branch without it.

use mainstay_api::receipt;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Error, Row, Value};

use super::{Begun, BranchError, BranchName};

/// A branch is prepared, and its session closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The session that has prepared it, for the vote. Should it live on, the coordinator may end
    /// it if it is allowed to.
    pub session_id: u32,
}

/// Begins a branch on `connection`, which is in no transaction: business statements follow on the
/// same session, then [`prepare`]. Waits for locks end after 2 s from then on. `written_by` says
/// who does it, for whoever reads the table; what is longer than 64 characters is cut.
///
/// # Errors
///
/// [`BranchError`], after which there is no transaction, unless the connection broke. Its lock wait
/// stays: disconnect it if it is of a pool that does not reset its connections.
///
/// # Cancel safety
///
/// Not safe: the session may be in a transaction. Call [`give_up`] and `disconnect()`.
pub async fn begin(
    connection: &mut Conn,
    name: &BranchName,
    written_by: &str,
) -> Result<Begun, BranchError<Error>> {
    connection.query_drop(receipt::LOCK_WAIT_MARIADB).await?;
    if let Err(error) = connection.query_drop(format!("XA START {}", name.xa_literal())).await {
        return match code(&error) {
            Some(XID_EXISTS) if is_prepared(connection, name).await? => Ok(Begun::Already),
            Some(XID_EXISTS) => Err(BranchError::Ongoing),
            _ => Err(error.into()),
        };
    }
    let written_by: String = written_by.chars().take(64).collect();
    let key = (&name.gid, &name.branch, &written_by);
    let Err(error) = connection.exec_drop(receipt::INSERT_DONE, key).await else {
        return Ok(Begun::New);
    };
    give_up(connection, name).await?;
    match code(&error) {
        Some(DUPLICATE_KEY) => {
            let key = (&name.gid, &name.branch);
            let kind: Option<String> = connection.exec_first(receipt::READ_RECEIPT, key).await?;
            match kind.as_deref() {
                Some("done") => Ok(Begun::Already),
                _ => Err(BranchError::Ended),
            }
        }
        Some(LOCK_WAIT) => Err(BranchError::Ongoing),
        _ => Err(error.into()),
    }
}

/// Prepares what was begun, and ends the session, also one of a pool: when this returns without an
/// error, the vote is yes. The server may need a moment to notice that the session has ended, and
/// nobody else can end the branch before; the coordinator tries again.
///
/// # Errors
///
/// [`BranchError::Database`]: the vote is no, and the session has ended. When the connection broke,
/// it may have been prepared all the same; the coordinator rolls it back then.
///
/// # Cancel safety
///
/// Not safe: whether it is prepared is open, as after a connection that broke. One of a pool may go
/// back there and hold the branch, unless the pool resets its connections.
pub async fn prepare(
    mut connection: Conn,
    name: &BranchName,
) -> Result<Prepared, BranchError<Error>> {
    let session_id = connection.id();
    for statement in receipt::prepare_mariadb(&name.xa_literal()) {
        if let Err(error) = connection.query_drop(statement).await {
            drop(give_up(&mut connection, name).await);
            drop(connection.disconnect().await);
            return Err(error.into());
        }
    }
    // It is prepared: how the session ends does not matter to the vote.
    drop(connection.disconnect().await);
    Ok(Prepared { session_id })
}

/// Rolls back what was begun. The session may go on.
///
/// # Errors
///
/// What the database said: call `disconnect()`, which rolls back too.
///
/// # Cancel safety
///
/// Not safe: call `disconnect()`.
pub async fn give_up(connection: &mut Conn, name: &BranchName) -> Result<(), Error> {
    // It may be ended already, or rolled back by a deadlock.
    drop(connection.query_drop(format!("XA END {}", name.xa_literal())).await);
    connection.query_drop(format!("XA ROLLBACK {}", name.xa_literal())).await
}

async fn is_prepared(connection: &mut Conn, name: &BranchName) -> Result<bool, Error> {
    let listed: Vec<Row> = connection.query(receipt::PREPARED_MARIADB).await?;
    let (gtrid, bqual) = receipt::xa_name(&name.cluster, &name.gid, &name.branch);
    // Format, lengths of both parts, both parts, as text.
    let (format, first) = (receipt::FORMAT_ID.to_string(), gtrid.len().to_string());
    let ours = [format, first, bqual.len().to_string(), format!("{gtrid}{bqual}")];
    let ours = ours.map(|text| Value::Bytes(text.into_bytes()));
    let is_it = |row: &Row| (0..4).zip(&ours).all(|(at, value)| row.as_ref(at) == Some(value));
    Ok(listed.iter().any(is_it))
}

fn code(error: &Error) -> Option<u16> {
    match error {
        Error::Server(error) => Some(error.code),
        _ => None,
    }
}

/// `XAER_DUPID`.
const XID_EXISTS: u16 = 1440;
/// `ER_DUP_ENTRY`.
const DUPLICATE_KEY: u16 = 1062;
/// `ER_LOCK_WAIT_TIMEOUT`.
const LOCK_WAIT: u16 = 1205;
