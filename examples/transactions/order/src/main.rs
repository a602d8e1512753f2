//! Order: begins a purchase in each mode of transaction, and takes part in those that others call.
//! Its rows lie in `PostgreSQL`.
//!
//! ```text
//! POST /buy/{saga|tcc|message|xa}   begins it; answers {"outcome", "why"}
//! POST /create /cancel /complete    steps of a saga, called by the coordinator
//! POST /try /confirm /cancel        a branch of try, confirm, cancel
//! ANY  /was-placed                  whether the local part of a message was committed
//! POST /go                          lets what is held go on
//! GET  /books                       orders by state, and what is prepared in the database
//! ```

mod begins;
mod takes_part;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use mainstay_client::barrier::{self, Check};
use mainstay_client::optimistic::Conflicts;
use mainstay_client::registry::Registration;
use mainstay_client::{Client, TxError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_postgres::NoTls;

/// What a customer asks for, and what every branch is sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Purchase {
    /// The name of the order, and of the transaction.
    gid: String,
    customer: String,
    sku: String,
    count: i32,
    cents: i64,
    /// Holds a message before its local commit, and a two-phase commit before its decision, until `/go`.
    #[serde(default)]
    hold: bool,
}

#[derive(Debug)]
struct Order {
    client: Client,
    postgres: String,
    mariadb: String,
    /// Whether something waits for `go`.
    is_held: AtomicBool,
    go: Notify,
}

type Shared = Arc<Order>;

/// Why a purchase, or a branch of one, does not come about.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// The business says no.
    #[error("{0}")]
    Refused(&'static str),
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    #[error(transparent)]
    MariaDb(#[from] mysql_async::Error),
}

/// Statements that met another session are run again by the barrier.
impl Conflicts for Trouble {
    fn is_conflict(&self) -> bool {
        match self {
            Self::Refused(_) => false,
            Self::Postgres(error) => error.is_conflict(),
            Self::MariaDb(error) => error.is_conflict(),
        }
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(why) => barrier::Answer::Refused { why: why.to_owned() }.into_response(),
            // Not known: the coordinator asks again.
            error => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}

impl Order {
    /// A session of its own, as a pool would hand out.
    #[expect(clippy::disallowed_methods, reason = "an example keeps no register of its tasks")]
    async fn connect(&self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.postgres, NoTls).await?;
        // Ends with the client.
        drop(tokio::spawn(connection));
        Ok(client)
    }
}

async fn buy(
    State(order): State<Shared>,
    Path(mode): Path<String>,
    Json(purchase): Json<Purchase>,
) -> Response {
    let came = match mode.as_str() {
        "saga" => begins::saga(&order, &purchase).await,
        "tcc" => begins::tcc(&order, &purchase).await,
        "message" => begins::message(&order, &purchase).await,
        "xa" => begins::xa(&order, &purchase).await,
        _ => return (StatusCode::NOT_FOUND, "modes are saga, tcc, message, xa").into_response(),
    };
    Json(told(came)).into_response()
}

/// What an application can tell its customer: each outcome asks for something else.
fn told(came: Result<(), TxError<Trouble>>) -> Value {
    let (outcome, why) = match came {
        Ok(()) => ("committed", String::new()),
        Err(TxError::Aborted { why, .. }) => ("aborted", why),
        Err(TxError::Business(error)) => ("aborted", error.to_string()),
        // Ask for it by its gid: it may have taken effect.
        Err(error @ TxError::Unknown { .. }) => ("unknown", error.to_string()),
        Err(error @ TxError::Mixed { .. }) => ("mixed", error.to_string()),
        Err(error @ (TxError::Unavailable { .. } | TxError::Refused(_))) => {
            ("not begun", error.to_string())
        }
    };
    json!({ "outcome": outcome, "why": why })
}

async fn books(State(order): State<Shared>) -> Result<Json<Value>, Trouble> {
    let sql = order.connect().await?;
    let counted = "SELECT state, count(*), coalesce(sum(count), 0)::bigint, \
                   coalesce(sum(cents), 0)::bigint FROM purchase GROUP BY state";
    let mut books = json!({});
    for row in sql.query(counted, &[]).await? {
        let (state, orders, articles, cents): (String, i64, i64, i64) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        let sums = json!({ "orders": orders, "articles": articles, "cents": cents });
        books[state] = sums;
    }
    let prepared = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()";
    books["prepared"] = json!(sql.query_one(prepared, &[]).await?.get::<_, i64>(0));
    books["is_held"] = json!(order.is_held.load(Ordering::Relaxed));
    Ok(Json(books))
}

fn routes(order: Shared) -> Router {
    let asked = Arc::clone(&order);
    let was_placed = Check::route(move |check| {
        let order = Arc::clone(&asked);
        async move { check.postgres(&mut order.connect().await?).await }
    });
    Router::new()
        .route("/buy/{mode}", post(buy))
        .route("/create", post(takes_part::place))
        .route("/complete", post(takes_part::complete))
        .route("/try", post(takes_part::place))
        .route("/confirm", post(takes_part::complete))
        .route("/cancel", post(takes_part::cancel))
        .route("/was-placed", was_placed)
        .route("/go", post(async |State(order): State<Shared>| order.go.notify_one()))
        .route("/books", get(books))
        .with_state(order)
}

async fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [port, control, token, postgres, mariadb] = arguments else {
        let usage = "usage: example-transactions-order PORT CONTROL-URL TOKEN-FILE POSTGRES-URL MARIADB-URL";
        return Err(usage.into());
    };
    let listener = TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
    let port = listener.local_addr()?.port();
    let token = std::fs::read_to_string(token)?;
    let client = Client::builder([control]).token(token.trim()).name("order").build()?;
    // Found by the coordinator for as long as this lives, and registered again if it is forgotten.
    let registered = client.register(Registration::new("order", "127.0.0.1", port))?;
    let (postgres, mariadb) = (postgres.clone(), mariadb.clone());
    let order =
        Order { client, postgres, mariadb, is_held: AtomicBool::default(), go: Notify::new() };
    announce(port);
    axum::serve(listener, routes(Arc::new(order))).await?;
    registered.deregister().await?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the script that starts it waits for this line")]
fn announce(port: u16) {
    println!("order:{port} ready");
}

#[expect(clippy::print_stderr, reason = "a command line program says what is wrong")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run(&arguments)),
        Err(error) => Err(error.into()),
    };
    let Err(error) = ended else { return ExitCode::SUCCESS };
    eprintln!("order has ended: {error}");
    ExitCode::FAILURE
}
