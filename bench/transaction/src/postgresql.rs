//! PostgreSQL on core 0: as a peer under `pgbench`, and as a participant.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bench_measure::{Used, used};
use postgres::{Client, NoTls};

use crate::coordinator::free_port;

pub struct Postgresql {
    pub port: u16,
    child: Child,
    folder: PathBuf,
}

/// A row of `pgbench`.
#[derive(Clone, Copy, Debug)]
pub struct Commits {
    pub per_second: f64,
    pub mean_ms: f64,
    pub cpu_micros: f64,
    pub syncs: f64,
}

/// A commit of one changed row.
pub const PLAIN: &str = "\\set id random(1, 10000)\n\
    UPDATE account SET balance = balance + 1 WHERE id = :id;\n";

/// The same in two phases.
pub const TWO_PHASES: &str = "\\set id random(1, 10000)\n\\set gid random(1, 1000000000000000)\n\
    BEGIN;\nUPDATE account SET balance = balance + 1 WHERE id = :id;\n\
    PREPARE TRANSACTION 'b-:client_id-:gid';\nCOMMIT PREPARED 'b-:client_id-:gid';\n";

impl Postgresql {
    /// The newest that Debian's packages have put here.
    pub fn binaries() -> Option<PathBuf> {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
        let newest = versions.map(|entry| entry.path().join("bin")).max()?;
        newest.join("pgbench").exists().then_some(newest)
    }

    pub fn start(binaries: &Path, folder: &Path) -> Self {
        let folder = folder.join("postgresql");
        fs::create_dir_all(&folder).expect("a folder");
        let folder = fs::canonicalize(folder).expect("a folder");
        // It refuses to run as root.
        let as_root = fs::metadata("/proc/self").is_ok_and(|own| {
            use std::os::unix::fs::MetadataExt as _;
            own.uid() == 0
        });
        let run = |program: PathBuf| {
            let mut command = Command::new("taskset");
            command.args(["-c", "0"]);
            if as_root {
                command.args(["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]);
            }
            command.arg(program).current_dir(&folder).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        if as_root {
            let owned = Command::new("chown").args(["postgres", "."]).current_dir(&folder).status();
            assert!(owned.is_ok_and(|status| status.success()), "the folder is given away");
        }
        let data = folder.join("data");
        let made = run(binaries.join("initdb")).args(["-A", "trust", "-U", "bench", "-D"]).arg(&data).status();
        assert!(made.is_ok_and(|status| status.success()), "initdb");
        let port = free_port();
        let mut command = run(binaries.join("postgres"));
        command.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        command.args(["-c", "unix_socket_directories=", "-c", "max_prepared_transactions=200"]);
        command.args(["-c", "max_connections=200", "-c", "fsync=on"]);
        let child = command.spawn().expect("it starts");
        let own = Self { port, child, folder };
        let until = Instant::now() + Duration::from_secs(60);
        while own.try_client().is_none() {
            assert!(Instant::now() < until, "PostgreSQL does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        let fill = "CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL);\n\
            INSERT INTO account SELECT id, 0 FROM generate_series(1, 10000) id";
        own.client().batch_execute(fill).expect("a table");
        own
    }

    fn try_client(&self) -> Option<Client> {
        let at = format!("host=127.0.0.1 port={} user=bench dbname=postgres", self.port);
        Client::connect(&at, NoTls).ok()
    }

    pub fn client(&self) -> Client {
        self.try_client().expect("PostgreSQL listens")
    }

    pub fn used(&self) -> Used {
        used(self.child.id())
    }

    pub fn syncs(&self) -> i64 {
        // Backends hand their counts on once a second.
        std::thread::sleep(Duration::from_millis(1_200));
        self.client().query_one("SELECT wal_sync FROM pg_stat_wal", &[]).expect("a row").get(0)
    }

    /// Lets `pgbench` do `script`.
    pub fn commits(&self, script: &str, clients: usize, span: Duration) -> Commits {
        let file = self.folder.join("script.sql");
        fs::write(&file, script).expect("a script");
        let (before, synced) = (self.used(), self.syncs());
        let mut command = Command::new("pgbench");
        command.args(["-n", "-h", "127.0.0.1", "-U", "bench", "-p", &self.port.to_string(), "-f"]);
        command.arg(&file).args(["-c", &clients.to_string(), "-T", &span.as_secs().to_string()]);
        let out = command.arg("postgres").output().expect("pgbench");
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "pgbench: {}", String::from_utf8_lossy(&out.stderr));
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a figure");
            let word = line.trim().split([' ', '/']).next().and_then(|word| word.parse::<f64>().ok());
            word.expect("a number")
        };
        let done = number("number of transactions actually processed:");
        let (after, syncs) = (self.used(), self.syncs() - synced);
        Commits {
            per_second: number("tps ="),
            mean_ms: number("latency average ="),
            cpu_micros: (after.cpu_seconds - before.cpu_seconds) * 1e6 / done,
            syncs: syncs as f64 / done,
        }
    }
}

impl Drop for Postgresql {
    fn drop(&mut self) {
        // Below taskset and setpriv, which become it.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.folder));
    }
}
