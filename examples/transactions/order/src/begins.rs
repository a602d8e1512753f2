//! The same purchase in each mode.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mainstay_client::TxError;
use mainstay_client::transaction::{OpenTcc, OpenXa, Step, Wait};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts};

use crate::takes_part::insert;
use crate::{Order, Purchase, Trouble};

type Came = Result<(), TxError<Trouble>>;

/// Each step is done at once, and undone if a later one fails.
pub(crate) async fn saga(order: &Order, purchase: &Purchase) -> Came {
    let saga = order
        .client
        .saga("purchase")
        .gid(&purchase.gid)
        .step(Step::on("order").action("/create").compensate("/cancel").body(purchase))
        .step(Step::on("stock").action("/deduct").compensate("/restore").body(purchase))
        .step(Step::on("payment").action("/charge").compensate("/refund").body(purchase))
        .step(Step::on("order").action("/complete").body(purchase));
    saga.submit(Wait::Done).await.map_err(TxError::with_business)?;
    Ok(())
}

/// All reserve; then all reservations are made good, or given up.
pub(crate) async fn tcc(order: &Order, purchase: &Purchase) -> Came {
    let tcc = order.client.tcc("purchase").gid(&purchase.gid).deadline(Duration::from_secs(30));
    tcc.run(async |tcc: OpenTcc<Trouble>| {
        tcc.branch::<()>("order", purchase).await?;
        tcc.branch::<()>("stock", purchase).await?;
        tcc.branch::<()>("payment", purchase).await
    })
    .await
}

/// The order is placed here, and the others are told if and only if that is committed.
pub(crate) async fn message(order: &Order, purchase: &Purchase) -> Came {
    let mut sql = order.connect().await.map_err(|error| TxError::Business(error.into()))?;
    let message = order
        .client
        .message("purchase")
        .gid(&purchase.gid)
        .to("stock", "/ship", purchase)
        .to("payment", "/invoice", purchase)
        .check("order", "/was-placed")
        .deadline(Duration::from_secs(5));
    let sent = message.with_local_postgres(&mut sql, async |sql| {
        insert(&*sql, purchase, "paid").await?;
        held(order, purchase).await;
        Ok::<_, Trouble>(())
    });
    sent.await.map(drop)
}

/// One transaction over both databases: each prepares, then both commit.
pub(crate) async fn xa(order: &Order, purchase: &Purchase) -> Came {
    // Longer than a coordinator takes to come back.
    let xa = order
        .client
        .xa("purchase")
        .gid(&purchase.gid)
        .deadline(Duration::from_secs(90))
        .patience(Duration::from_mins(1));
    xa.run(async |xa: OpenXa<Trouble>| {
        let own = |error| TxError::Business(Trouble::Postgres(error));
        let sql = order.connect().await.map_err(own)?;
        xa.postgres("orders", &sql, async |sql| insert(sql, purchase, "paid").await).await?;
        let own = |error| TxError::Business(Trouble::MariaDb(error));
        let options = Opts::from_url(&order.mariadb).map_err(|error| own(error.into()))?;
        let session = Conn::new(options).await.map_err(own)?;
        xa.mysql("goods", session, async |sql| take(sql, purchase).await).await?;
        held(order, purchase).await;
        Ok(())
    })
    .await
}

/// Waits for `/go` where the script wants something to happen just here.
async fn held(order: &Order, purchase: &Purchase) {
    if purchase.hold {
        order.is_held.store(true, Ordering::Relaxed);
        order.go.notified().await;
        order.is_held.store(false, Ordering::Relaxed);
    }
}

/// Stock and money lie in two databases of one server, so one branch holds both.
async fn take(sql: &mut Conn, purchase: &Purchase) -> Result<(), Trouble> {
    let Purchase { customer, sku, count, cents, .. } = purchase;
    let deduct = "UPDATE stock.article SET available = available - ? \
                  WHERE sku = ? AND available - reserved >= ?";
    sql.exec_drop(deduct, (count, sku, count)).await?;
    if sql.affected_rows() == 0 {
        return Err(Trouble::Refused("sold out"));
    }
    let pay = "UPDATE payment.account SET cents = cents - ? \
               WHERE name = ? AND cents - reserved >= ?";
    sql.exec_drop(pay, (cents, customer, cents)).await?;
    if sql.affected_rows() == 0 {
        return Err(Trouble::Refused("not enough money"));
    }
    let receive = "UPDATE payment.account SET cents = cents + ? WHERE name = 'shop'";
    sql.exec_drop(receive, (cents,)).await?;
    Ok(())
}
