//! Peers and clients written in Python.
//!
//! Those of a folder live in an environment of their own below the target directory, made once from
//! its `requirements.txt` by whoever comes first.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::child::{beside_no_proxy, ends_well, fetched};
use crate::support::gateway::log_of;

/// A Python server, running as a child until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts `tests/peers/SCRIPT`, which prints its port and ends with its standard input.
    #[track_caller]
    pub(crate) fn start(script: &str, arguments: &[&str]) -> Self {
        let log = log_of(script);
        let mut child = command(script, arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut port).unwrap();
        let port = port.trim().parse::<u16>();
        assert!(port.is_ok(), "see {}", log.display());
        let port = port.unwrap();
        Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A Python client that goes on while the test does something to it.
#[derive(Debug)]
pub(crate) struct Speaking {
    child: Child,
    said: BufReader<ChildStdout>,
    log: PathBuf,
}

impl Speaking {
    /// Starts `tests/peers/SCRIPT`.
    #[track_caller]
    pub(crate) fn start(script: &str, arguments: &[&str]) -> Self {
        let log = log_of(script);
        let mut child = command(script, arguments)
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said, log }
    }

    /// Waits for its next line.
    #[track_caller]
    pub(crate) fn says(&mut self, words: &str) {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), words, "{}", fs::read_to_string(&self.log).unwrap());
    }

    /// Waits until it has ended without a complaint.
    #[track_caller]
    pub(crate) fn ends_well(mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}\n{}", fs::read_to_string(&self.log).unwrap());
    }
}

impl Drop for Speaking {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs `tests/peers/SCRIPT` to its end; it fails by saying why.
#[track_caller]
pub(crate) fn run(script: &str, arguments: &[&str]) {
    ends_well(&mut command(script, arguments));
}

/// `tests/peers/SCRIPT`, not started yet.
#[track_caller]
pub(crate) fn command(script: &str, arguments: &[&str]) -> Command {
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
    let mut command = Command::new(python_of(&peers, "test-python"));
    command.arg(peers.join(script)).args(arguments).env("GRPC_VERBOSITY", "ERROR");
    beside_no_proxy(&mut command);
    command
}

/// A Python that has what `requirements.txt` in `folder` names, in the environment `name`.
#[track_caller]
pub(crate) fn python_of(folder: &Path, name: &str) -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name(name);
    fs::create_dir_all(&home).unwrap();
    let lock = File::create(home.join("lock")).unwrap();
    lock.lock().unwrap();
    let (python, requirements) = (home.join("env/bin/python"), folder.join("requirements.txt"));
    let wanted = fs::read_to_string(&requirements).unwrap();
    let stamp = home.join("installed.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return python;
    }
    ends_well(Command::new("python3").args(["-m", "venv", "--clear"]).arg(home.join("env")));
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
    fetched("packages of the Python package index", pip.arg(requirements));
    fs::write(stamp, wanted).unwrap();
    python
}
