//! A real etcd of one member, on free loopback ports.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::gateway::{free_port, log_of, send};
use super::wait::until;

/// A running etcd. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Etcd {
    child: Child,
    ports: (u16, u16),
    _home: TempDir,
}

impl Etcd {
    /// Starts one and waits until it serves.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::on((free_port(), free_port()), "first")
    }

    /// Ends this one and starts another, empty, at its address.
    #[allow(dead_code, reason = "not every test binary replaces one")]
    #[track_caller]
    pub(crate) fn replaced(mut self) -> Self {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        Self::on(self.ports, "second")
    }

    fn on(ports: (u16, u16), token: &str) -> Self {
        let home = TempDir::new().unwrap();
        let (client, peer) =
            (format!("http://127.0.0.1:{}", ports.0), format!("http://127.0.0.1:{}", ports.1));
        let log = File::create(log_of("etcd")).unwrap();
        let child = Command::new("etcd")
            .args(["--name", "m", "--data-dir"])
            .arg(home.path().join("m"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("m={peer}"), "--initial-cluster-token", token])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd is installed: Debian's package is `etcd-server`");
        let etcd = Self { child, ports, _home: home };
        until("etcd serves", Duration::from_secs(30), || etcd.run(&["endpoint", "health"]));
        etcd
    }

    /// Sends it a signal.
    #[allow(dead_code, reason = "not every test binary stops one")]
    pub(crate) fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// Runs `etcdctl` against it.
    pub(crate) fn run(&self, arguments: &[&str]) -> bool {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoint()]).args(arguments);
        command.output().is_ok_and(|output| output.status.success())
    }

    /// Where it is.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.0)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
