//! Transactions over several services, begun by a program.
//!
//! | | call | ends |
//! |---|---|---|
//! | saga | [`Client::saga`] | with its last step, or with everything undone that may have been started |
//! | try, confirm, cancel | [`Client::tcc`] | when all are confirmed, or all cancelled |
//! | two-phase commit | [`Client::xa`] | when all branches, in databases and services, are committed, or all rolled back |
//! | message with a local part | [`Client::message`] | when its receivers have it, if the local part was committed |
//! | one way, at least once | [`Client::one_way`] | when its receiver has it |
//!
//! ```no_run
//! # async fn example(
//! #     client: &mainstay_client::Client,
//! #     orders: &tokio_postgres::Client,
//! #     stock: mysql_async::Conn,
//! # ) -> Result<(), mainstay_client::TxError> {
//! use mainstay_client::transaction::{Step, Wait};
//! use serde_json::json;
//!
//! let order = json!({ "sku": "b-1", "count": 2 });
//! let saga = client
//!     .saga("order")
//!     .step(Step::on("stock").action("/deduct").compensate("/restore").body(&order))
//!     .step(Step::on("pay").action("/charge").compensate("/refund").body(&order));
//! saga.submit(Wait::Done).await?;
//!
//! let trip = client.tcc("trip").deadline(std::time::Duration::from_secs(30));
//! trip.run(async |tcc| {
//!     tcc.branch::<()>("air", &json!({ "seat": 7 })).await?; // its /try now; /confirm or /cancel later
//!     tcc.branch::<()>("hotel", &json!({ "nights": 2 })).await
//! })
//! .await?;
//!
//! use mainstay_client::transaction::OpenXa;
//! use mysql_async::prelude::Queryable as _;
//!
//! let transfer = client.xa("transfer").run(async |xa: OpenXa<String>| {
//!     xa.postgres("orders", orders, async |sql| {
//!         let sold = sql.batch_execute("UPDATE orders SET paid = true WHERE id = 7").await;
//!         sold.map_err(|error| error.to_string())
//!     })
//!     .await?;
//!     xa.mysql("stock", stock, async |sql| {
//!         let taken = sql.query_drop("UPDATE stock SET count = count - 1 WHERE sku = 'b-1'").await;
//!         taken.map_err(|error| error.to_string())
//!     })
//!     .await
//! });
//! if let Err(error) = transfer.await {
//!     eprintln!("{error}, effect {:?}", error.effect());
//! }
//!
//! client.one_way("mail", "/send").at_least_once().send(&order).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is known at the end
//!
//! A request without an answer is sent again, also to another server: by its gid it counts once.
//! [`TxError`] says what is known when that did not help either, and only [`TxError::Unknown`]
//! leaves open whether it took effect; what the coordinator has decided goes on without this
//! program. A future that is dropped before the decision aborts its transaction in the background
//! ([`Client::transactions_dropped`] counts them); if the program is gone, the deadline does.

mod asking;
mod error;
mod joining;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod local;
mod message;
mod participant;
mod saga;
mod tcc;
mod xa;

pub use error::TxError;
pub use message::{AtLeastOnce, Message, OneWay};
pub use saga::{Saga, Settled, Step, Wait};
pub use tcc::{OpenTcc, Tcc, TccTargets};
pub use xa::{OpenXa, Xa, XaTargets};

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_api::transaction::{BeginTransaction, Target};
use mainstay_call::draw;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::client::Client;
use crate::clock;
use crate::error::ClientError;

impl Client {
    /// A saga, called `name` for people: steps that are done at once, and undone if a later one
    /// fails.
    pub fn saga(&self, name: impl Into<String>) -> Saga {
        Saga::new(self.clone(), name.into())
    }

    /// A transaction whose branches reserve, and are then all confirmed or all cancelled.
    pub fn tcc(&self, name: impl Into<String>) -> Tcc {
        Tcc::new(self.clone(), name.into())
    }

    /// A two-phase commit over databases of this program, which the coordinator knows, and services
    /// that keep their branches prepared.
    pub fn xa(&self, name: impl Into<String>) -> Xa {
        Xa::new(self.clone(), name.into())
    }

    /// A message that is delivered if, and only if, a local transaction is committed.
    pub fn message(&self, name: impl Into<String>) -> Message {
        Message::new(self.clone(), name.into())
    }

    /// A call of `path` of `service` to which no answer comes back.
    pub fn one_way(&self, service: impl Into<String>, path: impl Into<String>) -> OneWay {
        OneWay::new(self.clone(), at(service, path))
    }

    /// Transactions whose future was dropped before they were decided, since this client was made.
    pub fn transactions_dropped(&self) -> u64 {
        self.shared.transactions_dropped.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// A path of a registered service.
fn at(service: impl Into<String>, path: impl Into<String>) -> Target {
    Target::Service { service: service.into(), path: path.into(), method: None }
}

/// A name nobody has used: made here, so that a begin without an answer can be sent again.
fn new_gid() -> String {
    let draw = u128::from(draw::next()) << 64 | u128::from(draw::next());
    mainstay_core::uuid::v7(clock::wall().unix_millis(), draw)
}

/// A transaction of `mode` that says nothing more yet.
fn begin(mode: &str, name: String) -> BeginTransaction {
    BeginTransaction {
        gid: None,
        mode: mode.to_owned(),
        name: Some(name),
        labels: BTreeMap::new(),
        deadline_seconds: None,
        concurrent: false,
        ordered: false,
        check: None,
        delay_seconds: 0.0,
        give_up_after_seconds: None,
        retry_limit: None,
        call_timeout_seconds: None,
        steps: Vec::new(),
        submit: None,
        wait: None,
        wait_seconds: None,
    }
}

/// What is sent to a branch.
#[derive(Clone, Debug)]
struct Body(Result<Option<Box<RawValue>>, ClientError>);

impl Default for Body {
    fn default() -> Self {
        Self(Ok(None))
    }
}

impl Body {
    /// As JSON; what cannot be written so is refused when it is to be sent.
    fn of(value: &impl Serialize) -> Self {
        let why = "must be a value that can be written as JSON";
        let written = serde_json::value::to_raw_value(value);
        Self(written.map(Some).map_err(|_invalid| ClientError::Invalid { what: "body", why }))
    }

    fn checked(self) -> Result<Option<Box<RawValue>>, ClientError> {
        self.0
    }
}

/// How long it is asked for an answer, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(15);
