//! An application with a database that takes part in transactions, as a process of its own: it dies
//! between two of its steps where a test says, as by `kill -9`.
//!
//! The test binary starts itself again, as the one test that serves. Money that moves is an entry of
//! the table `entry`, which all modes of transactions write in their own way: behind a barrier, or in
//! a branch that is prepared. A test writes a word into a file to say what becomes of the next step
//! of its name; the file is gone when that has happened.
//!
//! | word | what happens |
//! |---|---|
//! | `before GID OP` | it dies with its work done, and neither committed nor prepared |
//! | `after GID OP` | it dies when that is done, and nobody was told |
//! | `wait GID OP` | it waits between both until the file is gone |

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path as InPath, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::post;
use mainstay_client::barrier::{BarrierError, Passed};
use mainstay_client::branch::{self, Begun, BranchError, BranchName};
use mainstay_client::{Barrier, Branch};
use mysql_async::prelude::Queryable as _;
use rustix::process::{Signal, getpid, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::databases::Connection;
use crate::door::{Door, shown};
use crate::support::gateway::free_port;
use crate::support::wait::until;

const SETUP: &str = "MAINSTAY_TEST_PARTNER";

const PATIENCE: Duration = Duration::from_secs(30);

/// Money that has moved.
pub(crate) const ENTRIES: &str = "CREATE TABLE entry (gid varchar(128) NOT NULL, \
    branch varchar(64) NOT NULL, amount int NOT NULL)";

/// One, running as a child.
pub(crate) struct Partner {
    child: Child,
    setup: String,
    word: PathBuf,
    /// Where it listens, also when it was started again.
    pub(crate) address: SocketAddr,
    _home: TempDir,
}

impl Partner {
    /// Starts one, whose database is behind `door`, by running the test `a_partner` of this binary.
    #[track_caller]
    pub(crate) fn start(door: &Door) -> Self {
        let home = TempDir::new().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let word = home.path().join("word");
        let (kind, socket) = match door {
            Door::Postgres(home) => ("postgresql", home),
            Door::MariaDb(socket) => ("mariadb", socket),
        };
        let setup =
            json!({ "listen": address, "kind": kind, "socket": socket, "word": word }).to_string();
        let child = Self::spawn(&setup, address);
        Self { child, setup, word, address, _home: home }
    }

    #[track_caller]
    fn spawn(setup: &str, address: SocketAddr) -> Child {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["a_partner", "--exact", "--nocapture"])
            .env(SETUP, setup)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        until("the partner listens", PATIENCE, || Connection::open(address).is_some());
        child
    }

    /// Says what becomes of the next step of that name.
    pub(crate) fn comes_to(&self, word: &str) {
        let new = self.word.with_extension("new");
        fs::write(&new, word).unwrap();
        fs::rename(new, &self.word).unwrap();
    }

    /// Nothing becomes of it any more: one that waits goes on.
    pub(crate) fn goes_on(&self) {
        fs::remove_file(&self.word).unwrap();
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has died as it was told.
    #[track_caller]
    pub(crate) fn has_died(&mut self) {
        until("the partner dies", PATIENCE, || self.child.try_wait().unwrap().is_some());
        assert!(!self.word.exists(), "it died by itself");
    }

    /// Starts it again, where it was.
    #[track_caller]
    pub(crate) fn returns(&mut self) {
        self.child = Self::spawn(&self.setup, self.address);
    }

    /// Asks it, as an initiator does; `None` if there is no answer.
    pub(crate) fn ask(&self, path: &str, headers: &str) -> Option<u16> {
        asks(self.address, path, headers)
    }

    /// The same beside this thread.
    pub(crate) fn asking(&self, path: &str) -> JoinHandle<Option<u16>> {
        let (address, path) = (self.address, path.to_owned());
        std::thread::spawn(move || asks(address, &path, ""))
    }

    /// Waits until it waits.
    #[track_caller]
    pub(crate) fn is_waiting(&self) {
        let waiting = waiting(&self.word);
        until("the partner waits", PATIENCE, || waiting.exists());
        fs::remove_file(waiting).unwrap();
    }
}

fn asks(address: SocketAddr, path: &str, headers: &str) -> Option<u16> {
    let headers = format!("connection: close\r\n{headers}");
    let answer = Connection::open(address)?.ask("POST", path, &headers, b"")?;
    Some(answer.0)
}

impl Drop for Partner {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Serves for ever if this process was started to be a partner.
pub(crate) fn serve_if_asked() {
    let Ok(setup) = std::env::var(SETUP) else { return };
    let setup: Value = serde_json::from_str(&setup).unwrap();
    let text = |name: &str| setup[name].as_str().unwrap().to_owned();
    let socket = PathBuf::from(text("socket"));
    let door = match &*text("kind") {
        "postgresql" => Door::Postgres(socket),
        _ => Door::MariaDb(socket),
    };
    let application = Arc::new(Application { door, word: text("word").into() });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(text("listen")).await.unwrap();
        let router = Router::new()
            .route("/operation/{amount}", post(operation))
            .route("/branch/{cluster}/{gid}/{branch}/{amount}", post(resource_branch))
            .with_state(application);
        axum::serve(listener, router).await.unwrap();
    });
}

struct Application {
    door: Door,
    word: PathBuf,
}

/// An operation of a branch, as the coordinator asks for it, or an initiator for `try`.
async fn operation(
    State(application): State<Arc<Application>>,
    InPath(amount): InPath<i64>,
    uri: Uri,
    headers: HeaderMap,
) -> StatusCode {
    let branch = Branch::of_request(&headers, uri.query()).unwrap();
    let amount = match branch.op() {
        "compensate" | "cancel" => -amount,
        "confirm" => 0, // What was tried is there.
        _ => amount,
    };
    StatusCode::from_u16(application.operates(&branch, amount).await).unwrap()
}

/// A branch that is prepared in the database, as an initiator asks for it.
async fn resource_branch(
    State(application): State<Arc<Application>>,
    InPath((cluster, gid, branch, amount)): InPath<(String, String, String, i64)>,
) -> (StatusCode, String) {
    let name = BranchName::new(&cluster, &gid, &branch).unwrap();
    match application.prepares(&name, &gid, &entry(&gid, &branch, amount)).await {
        Ok(()) => (StatusCode::OK, String::new()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

impl Application {
    async fn operates(&self, branch: &Branch, amount: i64) -> u16 {
        let entry = entry(branch.gid(), branch.branch(), amount);
        let (gid, op) = (branch.gid(), branch.op());
        let mut barrier = Barrier::of(branch);
        let answer = match &self.door {
            Door::Postgres(home) => {
                let Ok(mut client) = Door::postgres(home).await else { return 503 };
                let came = barrier.postgres(&mut client, async |sql| {
                    sql.batch_execute(&entry).await?;
                    self.dies_if_told("before", gid, op);
                    Ok::<_, tokio_postgres::Error>(())
                });
                status(&came.await)
            }
            Door::MariaDb(socket) => {
                let Ok(mut connection) = Door::mariadb(socket).await else { return 503 };
                let came = barrier.mysql(&mut connection, async |sql| {
                    sql.query_drop(&entry).await?;
                    self.dies_if_told("before", gid, op);
                    Ok::<_, mysql_async::Error>(())
                });
                status(&came.await)
            }
        };
        self.dies_if_told("after", gid, op);
        answer
    }

    async fn prepares(&self, name: &BranchName, gid: &str, entry: &str) -> Result<(), String> {
        match &self.door {
            Door::Postgres(home) => {
                let client = Door::postgres(home).await?;
                if branch::postgres::begin(&client, name, "partner").await.map_err(why)?
                    == Begun::New
                {
                    client.batch_execute(entry).await.map_err(shown)?;
                    self.dies_if_told("before", gid, "prepare");
                    self.waits(gid, "prepare").await;
                    branch::postgres::prepare(&client, name).await.map_err(why)?;
                }
            }
            Door::MariaDb(socket) => {
                let mut session = Door::mariadb(socket).await?;
                if branch::mysql::begin(&mut session, name, "partner").await.map_err(why)?
                    == Begun::New
                {
                    session.query_drop(entry).await.map_err(shown)?;
                    self.dies_if_told("before", gid, "prepare");
                    self.waits(gid, "prepare").await;
                    branch::mysql::prepare(session, name).await.map_err(why)?;
                }
            }
        }
        self.dies_if_told("after", gid, "prepare");
        Ok(())
    }

    fn is_told(&self, word: &str, gid: &str, op: &str) -> bool {
        fs::read_to_string(&self.word).is_ok_and(|told| told == format!("{word} {gid} {op}"))
    }

    /// Dies here if it was told to.
    fn dies_if_told(&self, word: &str, gid: &str, op: &str) {
        if self.is_told(word, gid, op) && fs::remove_file(&self.word).is_ok() {
            kill_process(getpid(), Signal::KILL).unwrap();
            loop {
                std::thread::park(); // Nothing more happens here.
            }
        }
    }

    /// Waits here for as long as it was told to.
    async fn waits(&self, gid: &str, op: &str) {
        if self.is_told("wait", gid, op) {
            fs::write(waiting(&self.word), "").unwrap();
        }
        while self.is_told("wait", gid, op) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The file that says that it waits.
fn waiting(word: &Path) -> PathBuf {
    word.with_extension("waiting")
}

fn entry(gid: &str, branch: &str, amount: i64) -> String {
    format!("INSERT INTO entry VALUES ('{gid}', '{branch}', {amount})")
}

fn status<E, D>(came: &Result<Passed<()>, BarrierError<E, D>>) -> u16 {
    match came {
        Ok(passed) => passed.http(),
        Err(BarrierError::Ongoing) => 425,
        Err(_other) => 500,
    }
}

fn why<D: std::error::Error>(error: BranchError<D>) -> String {
    error.to_string()
}
