//! Real databases in a folder of their own. They end with the test, and also when the test does
//! not get to end them; their logs are kept when it fails.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mysql_async::{Conn, OptsBuilder};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// How long a busy machine may take to start a database.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running server. Nothing here is about what a crash leaves, so they do not wait for the disk.
#[derive(Debug)]
struct Server {
    child: Child,
    log: PathBuf,
    /// The folder of its socket.
    home: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::QUIT).unwrap();
        drop(self.child.wait());
        if !std::thread::panicking() {
            drop(fs::remove_file(&self.log));
        }
    }
}

/// `PostgreSQL`.
#[derive(Debug)]
pub(crate) struct Postgres(Server);

impl Postgres {
    pub(crate) async fn start() -> Self {
        let programs = postgres_programs();
        let home = home("postgres");
        let folder = home.path().join("data");
        let log = log_of("postgres");
        let mut made = as_user("postgres", &programs.join("initdb"));
        made.arg("--pgdata").arg(&folder);
        made.args(["--username=mainstay", "--auth=trust", "--no-sync", "--locale=C"]);
        run(&mut made, &log);
        let mut server = as_user("postgres", &programs.join("postgres"));
        server.arg("-D").arg(&folder).args(["-c", "listen_addresses=", "-c", "fsync=off"]);
        server.arg("-c").arg(format!("unix_socket_directories={}", home.path().display()));
        let server = Self(Server { child: spawn(&mut server, &log), log, home });
        let began = Instant::now();
        while let Err(error) = server.try_connect().await {
            assert!(began.elapsed() < PATIENCE, "{error}; see {}", server.0.log.display());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        server
    }

    pub(crate) async fn connect(&self) -> Client {
        self.try_connect().await.unwrap()
    }

    async fn try_connect(&self) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.0.home.path()).user("mainstay").dbname("postgres");
        let (client, connection) = config.connect(NoTls).await?;
        // Ends with the client.
        tokio::spawn(connection);
        Ok(client)
    }
}

/// `MariaDB`.
#[derive(Debug)]
pub(crate) struct MariaDb(Server);

impl MariaDb {
    pub(crate) async fn start() -> Self {
        let home = home("mysql");
        let folder = home.path().join("data");
        let log = log_of("mariadb");
        let mut made = as_user("mysql", Path::new("mariadb-install-db"));
        // A server that starts removes what it takes for leftovers from the folder of temporary
        // files: it must not be another one's.
        made.env("TMPDIR", home.path());
        made.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        made.arg(format!("--datadir={}", folder.display()));
        run(&mut made, &log);
        let socket = home.path().join("socket");
        let mut server = as_user("mysql", Path::new("mariadbd"));
        server.env("TMPDIR", home.path());
        server.args(["--no-defaults", "--skip-networking", "--innodb-flush-log-at-trx-commit=0"]);
        server.arg(format!("--datadir={}", folder.display()));
        server.arg(format!("--socket={}", socket.display()));
        let server = Self(Server { child: spawn(&mut server, &log), log, home });
        let began = Instant::now();
        let mut first = loop {
            match server.try_connect("mysql").await {
                Ok(connection) => break connection,
                Err(error) => {
                    assert!(began.elapsed() < PATIENCE, "{error}; see {}", server.0.log.display());
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        };
        let made = "CREATE DATABASE shop";
        mysql_async::prelude::Queryable::query_drop(&mut first, made).await.unwrap();
        server
    }

    pub(crate) async fn connect(&self) -> Conn {
        self.try_connect("shop").await.unwrap()
    }

    async fn try_connect(&self, database: &str) -> Result<Conn, mysql_async::Error> {
        let socket = self.0.home.path().join("socket").display().to_string();
        let options = OptsBuilder::default().socket(Some(socket)).user(Some("root"));
        Conn::new(options.db_name(Some(database))).await
    }
}

/// A folder that `user` owns, which databases insist on; anybody may come through to the socket.
fn home(user: &str) -> TempDir {
    let home = TempDir::new().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if geteuid().is_root() {
        let mut chown = Command::new("chown");
        assert!(chown.arg(user).arg(home.path()).status().unwrap().success());
    }
    home
}

/// `program` as `user` if this is root, as whom databases refuse to run. The signal at the death
/// of the test's thread is set after the change of user, which would clear it.
fn as_user(user: &str, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if geteuid().is_root() {
        command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
    }
    command.arg("--").arg(program).current_dir("/").env("PATH", search_path());
    command
}

/// Debian keeps servers where only root looks.
fn search_path() -> String {
    format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default())
}

/// Where Debian keeps the newest `PostgreSQL`.
fn postgres_programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("scripts/test installs it");
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = versions.map(|entry| entry.unwrap().path());
    let has_server = |path: &PathBuf| path.join("bin/postgres").is_file();
    versions.filter(has_server).max_by_key(number).expect("a server is installed").join("bin")
}

fn run(command: &mut Command, log: &Path) {
    let status = spawn(command, log).wait().unwrap();
    assert!(status.success(), "{command:?}: {status}; see {}", log.display());
}

fn spawn(command: &mut Command, log: &Path) -> Child {
    let log = || File::options().create(true).append(true).open(log).unwrap();
    command.stdout(log()).stderr(log()).spawn().expect("scripts/test installs what is needed")
}

/// A file for the log of one more server, below target, where it outlives the test.
fn log_of(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-logs");
    fs::create_dir_all(&logs).unwrap();
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    logs.join(format!("{name}-{}-{number}.log", std::process::id()))
}
