//! A real etcd of three members, on free loopback ports.

use std::fs::File;
use std::process::{Child, Command};

use rustix::process::Signal;
use tempfile::TempDir;

use super::gateway::{free_port, log_of, send};

/// Three members; killed with the test.
#[derive(Debug)]
pub(crate) struct Etcd {
    _home: TempDir,
    arguments: Vec<Vec<String>>,
    endpoints: Vec<String>,
    members: Vec<Option<Child>>,
}

impl Etcd {
    /// Starts all of them.
    pub(crate) fn start() -> Self {
        let home = TempDir::new().unwrap();
        let ports: Vec<(u16, u16)> = (0..3).map(|_| (free_port(), free_port())).collect();
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let peers: Vec<String> =
            ports.iter().enumerate().map(|(n, (_, peer))| format!("m{n}={}", url(*peer))).collect();
        let arguments = ports.iter().enumerate().map(|(n, (client, peer))| {
            [
                ("name", format!("m{n}")),
                ("data-dir", home.path().join(format!("m{n}")).display().to_string()),
                ("listen-client-urls", url(*client)),
                ("advertise-client-urls", url(*client)),
                ("listen-peer-urls", url(*peer)),
                ("initial-advertise-peer-urls", url(*peer)),
                ("initial-cluster", peers.join(",")),
            ]
            .map(|(name, value)| format!("--{name}={value}"))
            .into()
        });
        let arguments = arguments.collect();
        let endpoints = ports.iter().map(|(client, _)| url(*client)).collect();
        let mut etcd = Self { _home: home, arguments, endpoints, members: vec![None, None, None] };
        (0..3).for_each(|member| etcd.run(member));
        etcd
    }

    /// Starts one, with what it had.
    pub(crate) fn run(&mut self, member: usize) {
        let log = File::create(log_of("etcd")).unwrap();
        let mut command = Command::new("etcd");
        command.args(&self.arguments[member]).stdout(log.try_clone().unwrap()).stderr(log);
        self.members[member] = Some(command.spawn().unwrap());
    }

    /// Kills one.
    pub(crate) fn kill(&mut self, member: usize) {
        let mut child = self.members[member].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends a signal to one.
    pub(crate) fn signal(&self, member: usize, signal: Signal) {
        send(self.members[member].as_ref().unwrap(), signal);
    }

    /// The configuration of a node on it.
    pub(crate) fn config(&self) -> String {
        format!(
            "server = {{ listen = \"127.0.0.1:0\" }}\n[gateway]\nlisten = [\"127.0.0.1:0\"]\n\
             drain_delay_seconds = 0\n[store]\nbackend = \"etcd\"\n[store.etcd]\n\
             endpoints = {:?}\nrequest_timeout_seconds = 3\n",
            self.endpoints
        )
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for child in self.members.iter_mut().flatten() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
