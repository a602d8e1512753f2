//! A real etcd of three members, on free loopback ports, or each in a network of its own.

use std::fs::File;
use std::process::{Child, Command};

use rustix::process::Signal;
use tempfile::TempDir;

use super::gateway::{free_port, log_of, send};
use super::namespaces;

/// Three members; killed with the test.
#[derive(Debug)]
pub(crate) struct Etcd {
    _home: TempDir,
    arguments: Vec<Vec<String>>,
    endpoints: Vec<String>,
    members: Vec<Option<Child>>,
    /// Whether each is in a network of its own.
    apart: bool,
}

impl Etcd {
    /// Starts all of them.
    pub(crate) fn start() -> Self {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        Self::at((0..3).map(|_| (url(free_port()), url(free_port()))).collect(), false)
    }

    /// Starts each in one of the networks of this process.
    pub(crate) fn start_apart() -> Self {
        let url = |member, port: u16| format!("http://{}:{port}", namespaces::address(member));
        Self::at((0..3).map(|member| (url(member, 2379), url(member, 2380))).collect(), true)
    }

    /// Starts all of them: where each is for clients, and where for the others.
    fn at(urls: Vec<(String, String)>, apart: bool) -> Self {
        let home = TempDir::new().unwrap();
        let peers: Vec<String> =
            urls.iter().enumerate().map(|(n, (_, peer))| format!("m{n}={peer}")).collect();
        let arguments = urls.iter().enumerate().map(|(n, (client, peer))| {
            [
                ("name", format!("m{n}")),
                ("data-dir", home.path().join(format!("m{n}")).display().to_string()),
                ("listen-client-urls", client.clone()),
                ("advertise-client-urls", client.clone()),
                ("listen-peer-urls", peer.clone()),
                ("initial-advertise-peer-urls", peer.clone()),
                ("initial-cluster", peers.join(",")),
            ]
            .map(|(name, value)| format!("--{name}={value}"))
            .into()
        });
        let arguments = arguments.collect();
        let endpoints = urls.into_iter().map(|(client, _)| client).collect();
        let members = vec![None, None, None];
        let mut etcd = Self { _home: home, arguments, endpoints, members, apart };
        (0..3).for_each(|member| etcd.run(member));
        etcd
    }

    /// Starts one, with what it had.
    pub(crate) fn run(&mut self, member: usize) {
        let log = File::create(log_of("etcd")).unwrap();
        let mut command =
            if self.apart { namespaces::command(member, "etcd") } else { Command::new("etcd") };
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
