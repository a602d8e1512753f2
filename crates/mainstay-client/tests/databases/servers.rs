//! Real databases in a folder of their own. They end with the test, and also when the test does
//! not get to end them; their logs are kept when it fails.

use std::ffi::OsString;
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

/// The port of `PostgreSQL` unless it is told.
const PORT: u16 = 5432;

/// How long a busy machine may take to start a database.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running server. Unless a test is about what a crash leaves, it does not wait for the disk.
#[derive(Debug)]
struct Server {
    child: Child,
    user: &'static str,
    command: Vec<OsString>,
    log: PathBuf,
    /// The folder of its socket.
    home: TempDir,
}

impl Server {
    /// Starts `command` as `user`.
    fn start(user: &'static str, command: Vec<OsString>, log: PathBuf, home: TempDir) -> Self {
        let child = spawn(&mut Self::command(user, &command, &home), &log);
        Self { child, user, command, log, home }
    }

    fn command(user: &str, command: &[OsString], home: &TempDir) -> Command {
        let (program, arguments) = command.split_first().unwrap();
        let mut command = as_user(user, Path::new(program));
        // A server that starts removes what it takes for leftovers from the folder of temporary
        // files: it must not be another one's.
        command.args(arguments).env("TMPDIR", home.path());
        command
    }

    /// Ends it as a crash does.
    fn kill(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::KILL).unwrap();
        drop(self.child.wait());
    }

    fn start_again(&mut self) {
        self.child = spawn(&mut Self::command(self.user, &self.command, &self.home), &self.log);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::QUIT).ok(); // One that was killed is gone.
        drop(self.child.wait());
        if !std::thread::panicking() {
            drop(fs::remove_file(&self.log));
        }
    }
}

/// `PostgreSQL`.
#[derive(Debug)]
pub(crate) struct Postgres {
    server: Server,
    /// Names the socket, also where nothing else listens.
    port: u16,
}

impl Postgres {
    pub(crate) async fn start() -> Self {
        Self::start_with(&["-c", "listen_addresses="]).await
    }

    /// The same with more `arguments`, of which the last of a kind counts.
    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        Self::start_on(PORT, arguments).await
    }

    /// The same when `arguments` name a port.
    pub(crate) async fn start_on(port: u16, arguments: &[&str]) -> Self {
        let (home, log) = (home("postgres"), log_of("postgres"));
        let mut made = as_user("postgres", &postgres_programs().join("initdb"));
        made.arg("--pgdata").arg(home.path().join("data"));
        made.args(["--username=mainstay", "--auth=trust", "--no-sync", "--locale=C"]);
        run(&mut made, &log);
        Self::serve(home, log, port, arguments).await
    }

    /// A standby of this one.
    pub(crate) async fn standby(&self, arguments: &[&str]) -> Self {
        let (home, log) = (home("postgres"), log_of("postgres"));
        let mut made = as_user("postgres", &postgres_programs().join("pg_basebackup"));
        made.arg("--pgdata").arg(home.path().join("data")).arg("--host").arg(self.home());
        made.args(["--username=mainstay", "--write-recovery-conf", "--checkpoint=fast"]);
        run(&mut made, &log);
        Self::serve(home, log, PORT, arguments).await
    }

    async fn serve(home: TempDir, log: PathBuf, port: u16, arguments: &[&str]) -> Self {
        let mut command = vec![postgres_programs().join("postgres").into_os_string(), "-D".into()];
        command.push(home.path().join("data").into_os_string());
        let sockets = format!("unix_socket_directories={}", home.path().display());
        command.extend(["-c", "fsync=off", "-c", &sockets].map(OsString::from));
        command.extend(arguments.iter().map(OsString::from));
        let server = Self { server: Server::start("postgres", command, log, home), port };
        server.ready().await;
        server
    }

    /// The folder of its socket.
    pub(crate) fn home(&self) -> &Path {
        self.server.home.path()
    }

    /// Ends it as a crash does, and starts it again.
    pub(crate) async fn crash(&mut self) {
        self.server.kill();
        self.server.start_again();
        let began = Instant::now();
        while let Err(error) = self.try_connect().await {
            assert!(began.elapsed() < PATIENCE, "{error}; see {}", self.server.log.display());
            // What it had forked lives on for a moment, and keeps another one from starting.
            if self.server.child.try_wait().unwrap().is_some() {
                self.server.start_again();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn ready(&self) {
        let began = Instant::now();
        while let Err(error) = self.try_connect().await {
            assert!(began.elapsed() < PATIENCE, "{error}; see {}", self.server.log.display());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn connect(&self) -> Client {
        self.try_connect().await.unwrap()
    }

    async fn try_connect(&self) -> Result<Client, tokio_postgres::Error> {
        self.connect_as("mainstay", "postgres").await
    }

    /// Connects as `user` to `database`.
    pub(crate) async fn connect_as(
        &self,
        user: &str,
        database: &str,
    ) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.home()).port(self.port).user(user).dbname(database);
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
        Self::start_with(&["--skip-networking", "--innodb-flush-log-at-trx-commit=0"]).await
    }

    /// The same with more `arguments`, of which the last of a kind counts.
    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        let (home, log) = (home("mysql"), log_of("mariadb"));
        let folder = format!("--datadir={}", home.path().join("data").display());
        let mut made = as_user("mysql", Path::new("mariadb-install-db"));
        made.env("TMPDIR", home.path());
        made.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        made.arg(&folder);
        run(&mut made, &log);
        let socket = format!("--socket={}", home.path().join("socket").display());
        let mut command =
            ["mariadbd", "--no-defaults", &folder, &socket].map(OsString::from).to_vec();
        command.extend(arguments.iter().map(OsString::from));
        let server = Self(Server::start("mysql", command, log, home));
        let mut first = server.ready().await;
        let made = "CREATE DATABASE shop";
        mysql_async::prelude::Queryable::query_drop(&mut first, made).await.unwrap();
        server
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.home.path().join("socket")
    }

    /// Ends it as a crash does, and starts it again.
    pub(crate) async fn crash(&mut self) {
        self.0.kill();
        self.0.start_again();
        drop(self.ready().await);
    }

    async fn ready(&self) -> Conn {
        let began = Instant::now();
        loop {
            match self.connect_as("root", "mysql").await {
                Ok(connection) => break connection,
                Err(error) => {
                    assert!(began.elapsed() < PATIENCE, "{error}; see {}", self.0.log.display());
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    pub(crate) async fn connect(&self) -> Conn {
        self.connect_as("root", "shop").await.unwrap()
    }

    /// Connects as `user` to `database`.
    pub(crate) async fn connect_as(
        &self,
        user: &str,
        database: &str,
    ) -> Result<Conn, mysql_async::Error> {
        let socket = self.socket().display().to_string();
        let options = OptsBuilder::default().socket(Some(socket)).user(Some(user));
        Conn::new(options.db_name(Some(database))).await
    }
}

/// A folder that `user` owns, which databases insist on; anybody may come through to the socket.
pub(crate) fn home(user: &str) -> TempDir {
    let home = TempDir::new().unwrap();
    hand_over(home.path(), user);
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    home
}

/// Gives a path to `user`, who alone may read it.
pub(crate) fn hand_over(path: &Path, user: &str) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    if geteuid().is_root() {
        let mut chown = Command::new("chown");
        assert!(chown.arg(user).arg(path).status().unwrap().success());
    }
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
