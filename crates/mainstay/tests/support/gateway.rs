//! The real binary in the role `gateway` or `dev`, as a child process.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::wait::{now, pause, until};

/// How long a debug build on a busy machine may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Names the point at which the process is to end, below its home.
const CRASH_AT: &str = "crash-at";

/// Says how wrong the clock on the wall is, below its home.
const CLOCK: &str = "clock";

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holds {
    /// Open sockets.
    pub(crate) sockets: usize,
    /// Open descriptors of every other kind.
    pub(crate) files: usize,
    /// Threads.
    pub(crate) threads: usize,
    /// Memory in RAM, in bytes.
    pub(crate) resident_bytes: usize,
}

/// A running gateway. Killed when dropped; what it wrote stays in `target/test-logs`.
#[derive(Debug)]
pub(crate) struct Gateway {
    child: Child,
    log: PathBuf,
    home: Arc<TempDir>,
    role: &'static str,
    addresses: Vec<SocketAddr>,
    /// The control port.
    pub(crate) control: SocketAddr,
    token: String,
    /// From the start of the process until it said that it is ready.
    pub(crate) started_in: Duration,
}

impl Gateway {
    /// Starts a gateway with `config` and waits until it is ready. `name` names its logs.
    #[track_caller]
    pub(crate) fn start(name: &str, config: &str) -> Self {
        let home = Arc::new(TempDir::new().unwrap());
        fs::write(home.path().join("mainstay.toml"), config).unwrap();
        Self::launch("gateway", name, home, &[])
    }

    /// The same in the role `dev`, which keeps agreed state too.
    #[allow(dead_code, reason = "not every test binary needs state")]
    #[track_caller]
    pub(crate) fn start_dev(name: &str, config: &str) -> Self {
        let home = Arc::new(TempDir::new().unwrap());
        fs::write(home.path().join("mainstay.toml"), config).unwrap();
        Self::launch("dev", name, home, &[])
    }

    /// The same in the role `server`: agreed state, and no gateway.
    #[allow(dead_code, reason = "not every test binary has several nodes")]
    #[track_caller]
    pub(crate) fn start_server(name: &str, config: &str) -> Self {
        let home = Arc::new(TempDir::new().unwrap());
        fs::write(home.path().join("mainstay.toml"), config).unwrap();
        Self::launch("server", name, home, &[])
    }

    /// The same on a directory that has its `mainstay.toml`, and maybe data.
    #[allow(dead_code, reason = "not every test binary prepares one")]
    #[track_caller]
    pub(crate) fn start_server_in(name: &str, home: TempDir) -> Self {
        Self::launch("server", name, Arc::new(home), &[])
    }

    /// Starts another node with `config` on the store of this one, whose keyring it is given.
    #[allow(dead_code, reason = "not every test binary has several nodes")]
    #[track_caller]
    pub(crate) fn beside(&self, name: &str, config: &str) -> Self {
        let home = TempDir::new().unwrap();
        fs::write(home.path().join("mainstay.toml"), config).unwrap();
        fs::create_dir(home.path().join("data")).unwrap();
        // A copy keeps its mode, without which it is refused.
        let keyring = self.home.path().join("data/keyring");
        fs::copy(keyring, home.path().join("data/keyring")).unwrap();
        Self::launch(self.role, name, Arc::new(home), &[])
    }

    /// Starts another one on the data directory of this one, with more arguments.
    #[track_caller]
    pub(crate) fn again(&self, name: &str, arguments: &[&str]) -> Self {
        Self::launch(self.role, name, Arc::clone(&self.home), arguments)
    }

    #[track_caller]
    fn launch(role: &'static str, name: &str, home: Arc<TempDir>, arguments: &[&str]) -> Self {
        let log = log_of(name);
        let out = log.with_extension("out");
        let began = now();
        let config = fs::read_to_string(home.path().join("mainstay.toml")).unwrap();
        // Tests run side by side; those that are about names say where they are answered.
        let dns = (!config.contains("[dns]")).then_some(("MAINSTAY_DNS__LISTEN", "127.0.0.1:0"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_mainstay"))
            .envs(dns)
            .args([role, "-o", "json", "--config"])
            .arg(home.path().join("mainstay.toml"))
            .arg("--data-dir")
            .arg(home.path().join("data"))
            .args(arguments)
            .env_remove("XDG_RUNTIME_DIR")
            .env("CRASH_POINTS_FILE", home.path().join(CRASH_AT))
            .env("CRASH_CLOCK_FILE", home.path().join(CLOCK))
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let ready = loop {
            let said = fs::read_to_string(&out).unwrap();
            if let Some((line, _)) = said.split_once('\n') {
                break line.to_owned();
            }
            let ended = child.try_wait().unwrap();
            assert!(
                ended.is_none() && began.elapsed() < PATIENCE,
                "not ready ({ended:?}); see {}:\n{}",
                log.display(),
                fs::read_to_string(&log).unwrap()
            );
            pause(Duration::from_millis(5));
        };
        let started_in = began.elapsed();
        let ready: serde_json::Value = serde_json::from_str(&ready).expect(&ready);
        let control = ready["control"].as_str().unwrap().trim_start_matches("http://");
        let control = control.parse().unwrap();
        let context = fs::read_to_string(home.path().join("data/control.toml")).unwrap();
        let context: toml::Table = context.parse().unwrap();
        let token = context["token"].as_str().unwrap().to_owned();
        let addresses = ready["gateway_listeners"].as_array().unwrap();
        let addresses = addresses.iter().map(|a| a.as_str().unwrap().parse().unwrap()).collect();
        Self { child, log, home, role, addresses, control, token, started_in }
    }

    /// The status of an answer of the gateway at `path`, for the host `order`.
    #[allow(dead_code, reason = "not every test binary calls through it so")]
    #[track_caller]
    pub(crate) fn status(&self, path: &str) -> u16 {
        let mut stream = TcpStream::connect(self.address(0)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: order\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Where it listens: plain listeners first, then those with TLS.
    pub(crate) fn address(&self, which: usize) -> SocketAddr {
        self.addresses[which]
    }

    /// A directory that lives as long as the gateway.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Replaces the configuration in one step, as an editor does.
    pub(crate) fn configure(&self, config: &str) {
        let new = self.home.path().join("new.txt");
        fs::write(&new, config).unwrap();
        fs::rename(new, self.home.path().join("mainstay.toml")).unwrap();
    }

    /// What its process holds at this moment.
    #[track_caller]
    pub(crate) fn holds(&self) -> Holds {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let (mut sockets, mut files) = (0, 0);
        for entry in fs::read_dir(proc.join("fd")).unwrap() {
            // One that was closed meanwhile is not held.
            let Ok(target) = fs::read_link(entry.unwrap().path()) else { continue };
            let socket = target.to_string_lossy().starts_with("socket:");
            *if socket { &mut sockets } else { &mut files } += 1;
        }
        let threads = fs::read_dir(proc.join("task")).unwrap().count();
        let status = fs::read_to_string(proc.join("status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: usize = resident.trim().trim_end_matches(" kB").parse().unwrap();
        let resident_bytes = kib << 10;
        Holds { sockets, files, threads, resident_bytes }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// It ends as by a kill at the next moment of the name `point`.
    #[allow(dead_code, reason = "not every test binary ends it so")]
    pub(crate) fn crashes_at(&self, point: &str) {
        let new = self.home.path().join("crash-new");
        fs::write(&new, point).unwrap();
        fs::rename(new, self.home.path().join(CRASH_AT)).unwrap();
    }

    /// Its coordinator of transactions takes the time on the wall for so many seconds later than it is,
    /// from when it is started again.
    #[allow(dead_code, reason = "not every test binary has wrong clocks")]
    pub(crate) fn clock_steps(&self, seconds: i64) {
        fs::write(self.home.path().join(CLOCK), seconds.to_string()).unwrap();
    }

    /// Whether it has come to the moment of which it was told.
    #[allow(dead_code, reason = "not every test binary ends it so")]
    pub(crate) fn has_crashed(&self) -> bool {
        !self.home.path().join(CRASH_AT).exists()
    }

    /// Whether its process has ended.
    #[allow(dead_code, reason = "not every test binary ends it so")]
    pub(crate) fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("the gateway ends", PATIENCE, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Waits until it ends, as by a kill, and by no mistake of its own before.
    #[allow(dead_code, reason = "not every test binary kills it")]
    #[track_caller]
    pub(crate) fn was_killed(&mut self) {
        let status = self.ended();
        let log = self.log.display();
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}; see {log}");
        assert_eq!(self.logged("panicked at"), 0, "see {log}");
    }

    /// Where it logs; what it writes to its standard output lies beside it, as `.out`.
    #[allow(dead_code, reason = "not every test binary looks there")]
    pub(crate) fn log_path(&self) -> &Path {
        &self.log
    }

    /// All that it logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// All that it printed so far: the line that says it is ready, then the access log.
    pub(crate) fn printed(&self) -> String {
        fs::read_to_string(self.log.with_extension("out")).unwrap()
    }

    /// How often `words` stand in the log.
    pub(crate) fn logged(&self, words: &str) -> usize {
        self.log().matches(words).count()
    }

    /// A page of the control port.
    #[track_caller]
    pub(crate) fn control(&self, path: &str) -> (u16, String) {
        self.call("GET", path, "")
    }

    /// A call of the control port.
    #[track_caller]
    pub(crate) fn call(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.call_with(method, path, "", body)
    }

    /// The same with more headers, each a whole line.
    #[track_caller]
    pub(crate) fn call_with(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> (u16, String) {
        let headers = format!("connection: close\r\n{headers}");
        let mut stream = self.open(method, path, &headers, body);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The header of a client that has the token as the password of its URL.
    #[allow(dead_code, reason = "not every test binary has such clients")]
    pub(crate) fn basic(&self) -> String {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("any:{}", self.token));
        format!("authorization: Basic {pair}\r\n")
    }

    /// A connection to the control port with a request sent; each of `headers` is a whole line.
    #[track_caller]
    pub(crate) fn open(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.control).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let ask = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
             content-length: {}\r\n{headers}\r\n{body}",
            self.control,
            self.token,
            body.len()
        );
        stream.write_all(ask.as_bytes()).unwrap();
        stream
    }

    /// A command line that talks to it; returns its exit code, what it printed, and what it said
    /// beside that.
    #[allow(dead_code, reason = "not every test binary types commands")]
    #[track_caller]
    pub(crate) fn cli(&self, arguments: &[&str]) -> (i32, String, String) {
        let folder = self.home.path().join("run/mainstay");
        fs::create_dir_all(&folder).unwrap();
        // A copy keeps its mode, without which it is refused.
        fs::copy(self.home.path().join("data/control.toml"), folder.join("dev.toml")).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_mainstay"))
            .args(arguments)
            .current_dir(self.home.path())
            .env("XDG_RUNTIME_DIR", self.home.path().join("run"))
            .env("XDG_DATA_HOME", self.home.path().join("share"))
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    /// The same, which succeeds; returns the document it printed.
    #[allow(dead_code, reason = "not every test binary types commands")]
    #[track_caller]
    pub(crate) fn cli_json(&self, arguments: &[&str]) -> serde_json::Value {
        let (code, out, said) = self.cli(&[arguments, &["-o", "json"]].concat());
        assert_eq!(code, 0, "{arguments:?}: {out}{said}");
        serde_json::from_str(&out).expect(&out)
    }

    /// Where the control port is, and the token it asks for.
    #[allow(dead_code, reason = "not every test binary has a client")]
    pub(crate) fn door(&self) -> (SocketAddr, &str) {
        (self.control, &self.token)
    }

    /// The sum of all samples of a counter whose labels hold `label`.
    #[track_caller]
    pub(crate) fn counted(&self, metric: &str, label: &str) -> u64 {
        let (_, text) = self.control("/metrics");
        let lines = text.lines().filter(|line| line.starts_with(metric) && line.contains(label));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

#[expect(clippy::print_stderr, reason = "beside a failed test, where to look")]
impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let state = self.child.try_wait();
            eprintln!("the gateway ({state:?}) wrote {}", self.log.display());
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Sends `signal` to a child.
pub(crate) fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A new file below `target/test-logs`.
pub(crate) fn log_of(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-logs");
    fs::create_dir_all(&logs).unwrap();
    logs.join(format!(
        "{name}-{}-{}.log",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    ))
}
