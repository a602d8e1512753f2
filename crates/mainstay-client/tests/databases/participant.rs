//! A participant as a handler of axum, on a real database.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::Request;
use mainstay_client::barrier::{self, Answer, BarrierError, BarrierSkips, Check, Passed};
use mainstay_client::optimistic::Conflicts;
use mainstay_client::{Barrier, Branch};
use tokio::sync::Mutex;
use tokio_postgres::{Client, Error};
use tower::ServiceExt as _;

use crate::servers::{MariaDb, Postgres};

/// Why stock cannot be taken.
#[derive(Debug)]
enum NoStock {
    SoldOut,
    Database(Error),
}

impl From<Error> for NoStock {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl Conflicts for NoStock {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_conflict())
    }
}

impl IntoResponse for NoStock {
    fn into_response(self) -> Response {
        match self {
            Self::SoldOut => Answer::Refused { why: "sold out".to_owned() }.into_response(),
            Self::Database(error) => {
                (http::StatusCode::BAD_GATEWAY, error.to_string()).into_response()
            }
        }
    }
}

type Shared = Arc<Mutex<Client>>;

async fn deduct(
    State(client): State<Shared>,
    branch: Branch,
) -> Result<Passed<()>, BarrierError<NoStock, Error>> {
    let mut client = client.lock().await;
    Barrier::of(&branch)
        .postgres(&mut client, async |sql| {
            let sign = if branch.op() == "compensate" { 1 } else { -1 };
            let changed = "UPDATE stock SET n = n + $1 WHERE n + $1 >= 0";
            match sql.execute(changed, &[&sign]).await? {
                0 => Err(NoStock::SoldOut),
                _ => Ok(()),
            }
        })
        .await
}

/// Calls the participant; returns status and code.
async fn call(router: &Router, headers: &[(&str, &str)], uri: &str) -> (u16, String) {
    let mut request = Request::post(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
    let document: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    (status, document["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_handler_answers_what_its_barrier_says() {
    let server = Postgres::start().await;
    let client = server.connect().await;
    barrier::postgres::install_tables(&client).await.unwrap();
    client.batch_execute("CREATE TABLE stock (n int); INSERT INTO stock VALUES (1)").await.unwrap();
    let router =
        Router::new().route("/deduct", post(deduct)).with_state(Arc::new(Mutex::new(client)));
    let ours = |gid: &'static str, op: &'static str| {
        [
            ("mainstay-gid", gid),
            ("mainstay-branch", "01"),
            ("mainstay-mode", "saga"),
            ("mainstay-op", op),
        ]
    };
    for (gid, op, status, code) in [
        ("first", "action", 200, ""),
        ("first", "action", 200, ""),
        ("second", "action", 409, "branch-refused"),
        ("second", "compensate", 200, ""),
        ("second", "action", 409, "branch-already-ended"),
        ("first", "compensate", 200, ""),
    ] {
        let answer = call(&router, &ours(gid, op), "/deduct").await;
        assert_eq!(answer, (status, code.to_owned()), "{op} of {gid}");
    }
    // As coordinators of DTM ask.
    let dtm = "/deduct?gid=third&trans_type=saga&branch_id=01&op=action";
    assert_eq!(call(&router, &[], dtm).await.0, 200);
    let nobody = call(&router, &[], "/deduct").await;
    assert_eq!(nobody, (422, "invalid-request".to_owned()));
    // A table that is not there is the participant's own fault, which is not told to others.
    let broken = server.connect().await;
    broken.batch_execute("DROP TABLE mainstay_barrier").await.unwrap();
    let answer = call(&router, &ours("fourth", "action"), "/deduct").await;
    assert_eq!(answer, (500, "internal".to_owned()));
}

/// How a call of a message's sender looks.
fn asks(gid: &'static str, op: &'static str) -> [(&'static str, &'static str); 4] {
    [
        ("mainstay-gid", gid),
        ("mainstay-branch", "00"),
        ("mainstay-mode", "message"),
        ("mainstay-op", op),
    ]
}

#[tokio::test]
async fn a_sender_is_asked_at_one_route() {
    let server = Postgres::start().await;
    let mut sender = server.connect().await;
    barrier::postgres::install_tables(&sender).await.unwrap();
    let asked = Arc::new(Mutex::new(server.connect().await));
    let route = Check::route(move |check| {
        let asked = Arc::clone(&asked);
        async move { check.postgres(&mut *asked.lock().await).await }
    });
    let router: Router = Router::new().route("/was-paid", route);
    let mut paid = Barrier::local_part("paid").unwrap();
    let passed = paid.postgres(&mut sender, async |sql| sql.batch_execute("SELECT 1").await).await;
    assert_eq!(passed.unwrap(), Passed::Ran(()));
    // A call of another operation must not stop a local part that is still to come.
    let wrong = call(&router, &asks("late", "action"), "/was-paid").await;
    assert_eq!(wrong, (422, "invalid-request".to_owned()));
    let mut late = Barrier::local_part("late").unwrap();
    let passed = late.postgres(&mut sender, async |sql| sql.batch_execute("SELECT 1").await).await;
    assert_eq!(passed.unwrap(), Passed::Ran(()));
    for (gid, status, code) in
        [("paid", 200, ""), ("late", 200, ""), ("never", 409, "branch-refused")]
    {
        let answer = call(&router, &asks(gid, "msg"), "/was-paid").await;
        assert_eq!(answer, (status, code.to_owned()), "{gid}");
    }
    // As coordinators of DTM ask.
    let dtm = "/was-paid?gid=never&trans_type=msg&branch_id=00&op=msg";
    let request = Request::get(dtm).body(Body::empty()).unwrap();
    assert_eq!(router.clone().oneshot(request).await.unwrap().status(), 409);
    sender.batch_execute("DROP TABLE mainstay_barrier").await.unwrap();
    let answer = call(&router, &asks("paid", "msg"), "/was-paid").await;
    assert_eq!(answer, (500, "internal".to_owned()));
}

/// Says to run alone to a process that this test has started.
const ALONE: &str = "MAINSTAY_TEST_ALONE";

/// Whether nobody else counts in this process. Where others may, the test of this thread is run again
/// in a process of its own.
#[track_caller]
fn is_alone() -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let test = std::thread::current().name().unwrap().to_owned();
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args([&test, "--exact", "--nocapture"]).env(ALONE, "1");
    assert!(again.status().unwrap().success(), "see above");
    false
}

#[tokio::test]
async fn what_is_skipped_is_counted_on_every_database() {
    if !is_alone() {
        return;
    }
    let (postgres, mariadb) = (Postgres::start().await, MariaDb::start().await);
    let mut postgres = postgres.connect().await;
    barrier::postgres::install_tables(&postgres).await.unwrap();
    let mut mariadb = mariadb.connect().await;
    barrier::mysql::install_tables(&mut mariadb).await.unwrap();
    let mut sqlite = rusqlite::Connection::open_in_memory().unwrap();
    barrier::sqlite::install_tables(&sqlite).unwrap();
    for database in ["postgres", "mariadb", "sqlite"] {
        let before = barrier::skips();
        for (gid, op, want) in [
            ("a", "action", Passed::Ran(())),
            ("a", "action", Passed::Duplicate),
            ("b", "compensate", Passed::EmptyRollback),
            ("b", "action", Passed::Hanging),
        ] {
            let branch = Branch::new("saga", gid, "01", op).unwrap();
            let mut barrier = Barrier::of(&branch);
            let passed = match database {
                "postgres" => {
                    barrier.postgres(&mut postgres, async |_| Ok::<_, Error>(())).await.unwrap()
                }
                "mariadb" => barrier
                    .mysql(&mut mariadb, async |_| Ok::<_, mysql_async::Error>(()))
                    .await
                    .unwrap(),
                _ => barrier.sqlite(&mut sqlite, |_| Ok::<_, rusqlite::Error>(())).unwrap(),
            };
            assert_eq!(passed, want, "{op} of {gid} in {database}");
        }
        let BarrierSkips { duplicate, empty_rollback, hanging } = barrier::skips();
        let grown = [
            duplicate - before.duplicate,
            empty_rollback - before.empty_rollback,
            hanging - before.hanging,
        ];
        assert_eq!(grown, [1; 3], "{database}: duplicate, empty rollback, hanging");
    }
}
