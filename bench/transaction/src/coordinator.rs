//! The coordinators under test, each a process of its own on core 0, one at a time.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bench_measure::http::Connection;
use bench_measure::{Used, used};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Mainstay,
    /// The DTM server with its embedded store.
    Dtm,
}

/// Where the binaries are.
#[derive(Clone, Debug)]
pub struct Binaries {
    pub mainstay: PathBuf,
    pub dtm: Option<PathBuf>,
}

pub struct Coordinator {
    pub address: SocketAddr,
    /// Headers of each request; whole lines.
    pub headers: String,
    child: Child,
    folder: PathBuf,
}

impl Binaries {
    pub fn of(&self, kind: Kind) -> Option<&Path> {
        match kind {
            Kind::Mainstay => self.mainstay.exists().then_some(&*self.mainstay),
            Kind::Dtm => self.dtm.as_deref(),
        }
    }
}

impl Coordinator {
    /// Starts one in `folder`, and goes on with what is there.
    /// `settings` are lines of a file of ours; with `syncs` its syncs are written there by strace.
    pub fn start(
        kind: Kind,
        binary: &Path,
        folder: &Path,
        settings: &str,
        syncs: Option<&Path>,
    ) -> Self {
        let folder = folder.join(format!("{kind:?}"));
        fs::create_dir_all(&folder).expect("a folder");
        let binary = fs::canonicalize(binary).expect("a binary");
        let port = free_port();
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]);
        if let Some(file) = syncs {
            let traced = ["strace", "-f", "--seccomp-bpf", "-c", "-S", "calls"];
            command.args(traced).args(["-e", "trace=fsync,fdatasync,sync_file_range", "-o"]);
            command.arg(file);
        }
        command.arg(binary).current_dir(&folder);
        match kind {
            Kind::Mainstay => {
                let config = format!(
                    "server = {{ listen = \"127.0.0.1:{port}\" }}\n[gateway]\nlisten = [\"127.0.0.1:0\"]\n\
                     [dns]\nlisten = \"127.0.0.1:0\"\n{settings}"
                );
                fs::write(folder.join("mainstay.toml"), config).expect("its configuration");
                drop(fs::remove_file(folder.join("data/control.toml")));
                command.args(["dev", "--config", "mainstay.toml", "--data-dir", "data"]);
            }
            Kind::Dtm => {
                command.env("HTTP_PORT", port.to_string()).env("LOG_LEVEL", "error");
                command.env("GRPC_PORT", free_port().to_string());
                command.env("JSON_RPC_PORT", free_port().to_string());
            }
        }
        let log = fs::File::create(folder.join("log")).expect("a log");
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("it starts");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut own = Self { address, headers: String::new(), child, folder };
        own.wait(kind);
        own
    }

    fn wait(&mut self, kind: Kind) {
        let until = Instant::now() + Duration::from_secs(60);
        let token = self.folder.join("data/control.toml");
        let is_ready =
            || TcpStream::connect(self.address).is_ok() && (kind == Kind::Dtm || token.exists());
        while !is_ready() {
            assert!(Instant::now() < until, "{kind:?} does not listen; see {:?}", self.folder);
            std::thread::sleep(Duration::from_millis(10));
        }
        if kind == Kind::Mainstay {
            let text = fs::read_to_string(token).expect("its token");
            let token = text.lines().find_map(|line| line.strip_prefix("token = "));
            let token = token.expect("a token").trim_matches('"').to_owned();
            self.headers = format!("authorization: Bearer {token}\r\n");
        }
    }

    pub fn connection(&self) -> Connection {
        Connection::open(self.address, &format!("{}content-type: application/json\r\n", self.headers))
    }

    pub fn used(&self) -> Used {
        used(self.child.id())
    }

    /// A figure of `/metrics`, the sum over all its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let (status, body) = self.connection().ask("GET", "/metrics", b"");
        assert_eq!(status, 200, "/metrics");
        let text = String::from_utf8_lossy(&body);
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            (rest.starts_with(['{', ' ']))
                .then(|| rest.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()))?
        });
        values.sum()
    }

    /// Ends it as a crash does; what it has on disk stays.
    pub fn kill(mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Ends it in order, so that whoever traces it writes down what was seen.
    pub fn stop(mut self) {
        let below = format!("pkill -TERM -P {0}; kill -TERM {0}", self.child.id());
        drop(Command::new("sh").args(["-c", &below]).status());
        drop(self.child.wait());
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}
