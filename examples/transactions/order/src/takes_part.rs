//! Branches in this service. The barrier writes a row into the same local transaction, and so each
//! operation takes effect once, however often and in whatever order it comes.

use axum::Json;
use axum::extract::State;
use mainstay_client::barrier::{BarrierError, Passed};
use mainstay_client::{Barrier, Branch};

use crate::{Purchase, Shared, Trouble};

type Answer = Result<Passed<()>, BarrierError<Trouble, tokio_postgres::Error>>;

/// The first step: an open order.
pub(crate) async fn place(
    State(order): State<Shared>,
    branch: Branch,
    Json(purchase): Json<Purchase>,
) -> Answer {
    let (mut sql, mut barrier) = (order.connect().await?, Barrier::of(&branch));
    barrier.postgres(&mut sql, async |sql| insert(&*sql, &purchase, "open").await).await
}

/// The last step, and the confirmation.
pub(crate) async fn complete(
    state: State<Shared>,
    branch: Branch,
    purchase: Json<Purchase>,
) -> Answer {
    settle(state, branch, purchase, "paid").await
}

/// What undoes either.
pub(crate) async fn cancel(
    state: State<Shared>,
    branch: Branch,
    purchase: Json<Purchase>,
) -> Answer {
    settle(state, branch, purchase, "cancelled").await
}

async fn settle(
    State(order): State<Shared>,
    branch: Branch,
    Json(purchase): Json<Purchase>,
    to: &'static str,
) -> Answer {
    let (mut sql, mut barrier) = (order.connect().await?, Barrier::of(&branch));
    let settled = barrier.postgres(&mut sql, async |sql| {
        let update = "UPDATE purchase SET state = $2 WHERE gid = $1";
        sql.execute(update, &[&purchase.gid, &to]).await?;
        Ok(())
    });
    settled.await
}

/// Writes an order down; also as the local part of a message, and in a branch of a two-phase commit.
pub(crate) async fn insert(
    sql: &(impl tokio_postgres::GenericClient + Sync),
    purchase: &Purchase,
    state: &str,
) -> Result<(), Trouble> {
    let Purchase { gid, customer, sku, count, cents, .. } = purchase;
    let insert = "INSERT INTO purchase (gid, customer, sku, count, cents, state) \
                  VALUES ($1, $2, $3, $4, $5, $6)";
    sql.execute(insert, &[gid, customer, sku, count, cents, &state]).await?;
    Ok(())
}
