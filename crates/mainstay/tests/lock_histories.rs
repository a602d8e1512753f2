//! Histories of a lock whose holders are processes that are killed and that stand still for longer
//! than their lease, and whose server is killed and stands still.
//!
//! What the holders wrote down, all of them together, is what one lock could have done: nobody was
//! sure to hold it while somebody else was, and tokens only rise.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/connection.rs"]
mod connection;
#[path = "support/holder.rs"]
mod holder;
#[path = "support/support.rs"]
mod support;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use holder::{Holder, TTL, Way};
use mainstay_sim::check::locks::{What, calls_are_linearizable};
use rustix::process::Signal;
use support::etcd::Etcd;
use support::gateway::{Gateway, free_port};
use support::members;
use support::namespaces;
use support::wait::{pause, until};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_mins(1);

/// Of all nodes, also when they are started again.
const TOKEN: &str = "0123456789abcdef";

/// A node that keeps its port and its token when it is started again.
fn config(name: &str, home: &Path) -> String {
    let (port, file) = (free_port(), home.join("token"));
    fs::write(&file, TOKEN).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    format!(
        "[server]\nlisten = \"127.0.0.1:{port}\"\nnode = \"{name}\"\ntoken_file = \"{}\"\n",
        file.display()
    )
}

#[test]
fn a_holder() {
    holder::hold_if_asked();
}

/// The holders of a test, and those that were killed.
struct Holders {
    folder: TempDir,
    servers: Vec<SocketAddr>,
    now: Vec<Holder>,
    gone: Vec<Holder>,
}

impl Holders {
    fn start(servers: Vec<SocketAddr>) -> Self {
        let folder = TempDir::new().unwrap();
        let mut all = Self { folder, servers, now: Vec::new(), gone: Vec::new() };
        (0..6).for_each(|_| all.one_more());
        all
    }

    fn one_more(&mut self) {
        let holder = self.another(self.now.len() % 2);
        self.now.push(holder);
    }

    /// Another one; those at even places use the library.
    fn another(&self, parity: usize) -> Holder {
        let number = u32::try_from(self.now.len() + self.gone.len()).unwrap();
        let way = if parity == 0 { Way::Library } else { Way::Http };
        Holder::start(way, number, self.folder.path(), &self.servers, TOKEN)
    }

    fn noted(&self, word: &str) -> usize {
        self.now.iter().chain(&self.gone).map(|holder| holder.noted(word)).sum()
    }

    /// Waits until the lock was granted some more times.
    #[track_caller]
    fn goes_on(&self, when: &str) {
        let before = self.noted("granted");
        until(when, PATIENCE, || before + 12 < self.noted("granted"));
    }

    /// Stops one that holds the lock; which one.
    #[track_caller]
    fn stop_one_that_holds(&self, parity: usize) -> usize {
        let mut stopped = None;
        until("one holds", PATIENCE, || {
            let holds = |at: &usize| at % 2 == parity && self.now[*at].holds();
            let Some(at) = (0..self.now.len()).find(holds) else { return false };
            self.now[at].signal(Signal::STOP);
            pause(Duration::from_millis(20));
            if self.now[at].holds() {
                stopped = Some(at);
            } else {
                self.now[at].signal(Signal::CONT);
            }
            stopped.is_some()
        });
        stopped.unwrap()
    }

    /// One of each kind stands still for longer than its lease, while it holds.
    #[track_caller]
    fn stand_still(&self) {
        for parity in [0, 1] {
            let at = self.stop_one_that_holds(parity);
            let lost = self.now[at].noted("lost");
            pause(TTL);
            self.goes_on("others hold while it stands still");
            self.now[at].signal(Signal::CONT);
            until("it knows that it has lost", PATIENCE, || lost < self.now[at].noted("lost"));
        }
    }

    /// One of each kind dies while it holds, and another one comes.
    #[track_caller]
    fn die(&mut self) {
        for parity in [0, 1] {
            let at = self.stop_one_that_holds(parity);
            self.now[at].kill();
            self.goes_on("a dead holder is not waited for for ever");
            let new = self.another(parity);
            self.gone.push(std::mem::replace(&mut self.now[at], new));
        }
    }

    /// Ends all of them and judges what they saw.
    #[track_caller]
    fn judge(mut self) {
        self.now.iter_mut().for_each(Holder::kill);
        let calls: Vec<_> = self.now.iter().chain(&self.gone).flat_map(Holder::calls).collect();
        let granted = calls.iter().filter(|call| matches!(call.what, What::Acquire(_))).count();
        assert!(100 < granted, "{granted} grants are a dull history");
        let mut tokens: Vec<(i64, u64)> = calls
            .iter()
            .filter_map(|call| match call.what {
                What::Acquire(token) => Some((call.returned, token)),
                What::Release(_) => None,
            })
            .collect();
        tokens.sort_by_key(|(_, token)| *token);
        assert!(tokens.windows(2).all(|pair| pair[0].1 < pair[1].1), "a token came twice");
        calls_are_linearizable(&calls).unwrap();
    }
}

#[test]
fn holders_that_die_or_stand_still_and_a_server_that_does_leave_a_history_of_one_lock() {
    let home = TempDir::new().unwrap();
    let mut node = Gateway::start_server("lock-histories", &config("a", home.path()));
    let mut holders = Holders::start(vec![node.control]);
    holders.goes_on("all is well");
    holders.stand_still();
    holders.die();
    for round in 0..3 {
        node.signal(Signal::KILL);
        node.ended();
        node = node.again(&format!("lock-histories-{round}"), &[]);
        holders.goes_on("the server was killed");
    }
    node.signal(Signal::STOP);
    pause(TTL * 2);
    node.signal(Signal::CONT);
    holders.goes_on("the server stood still");
    holders.stand_still();
    holders.judge();
}

#[test]
fn a_node_that_dies_or_stands_still_beside_another_leaves_a_history_of_one_lock() {
    let etcd = Etcd::start();
    let home = TempDir::new().unwrap();
    let config = |name: &str| {
        let own = config(name, home.path());
        let endpoint = etcd.endpoint();
        format!("{own}[store]\nbackend = \"etcd\"\n[store.etcd]\nendpoints = [\"{endpoint}\"]\n")
    };
    let first = Gateway::start_server("lock-histories-a", &config("a"));
    let second = first.beside("lock-histories-b", &config("b"));
    let mut nodes = [first, second];
    let servers = nodes.iter().map(|node| node.control).collect();
    let mut holders = Holders::start(servers);
    holders.goes_on("all is well");
    holders.stand_still();
    for at in [0, 1] {
        nodes[at].signal(Signal::KILL);
        nodes[at].ended();
        holders.goes_on("one node is enough");
        nodes[at] = nodes[at].again("lock-histories-again", &[]);
        nodes[1 - at].signal(Signal::STOP);
        pause(TTL * 2);
        nodes[1 - at].signal(Signal::CONT);
        holders.goes_on("a node stood still");
    }
    holders.die();
    holders.judge();
}

#[test]
fn members_that_are_cut_off_leave_a_history_of_one_lock() {
    if !namespaces::entered() {
        return;
    }
    let etcd = members::Etcd::start_apart();
    let home = TempDir::new().unwrap();
    let config = |name: &str| {
        let (own, store) = (config(name, home.path()), etcd.config());
        format!("{own}{}", store.split_once("drain_delay_seconds = 0\n").unwrap().1)
    };
    let first = Gateway::start_server("apart-locks-a", &config("a"));
    let second = first.beside("apart-locks-b", &config("b"));
    let mut holders = Holders::start(vec![first.control, second.control]);
    holders.goes_on("all is well");
    for member in 0..3 {
        namespaces::cut(member);
        holders.goes_on("a member that is cut off is not missed");
        namespaces::mend(member);
        pause(Duration::from_secs(2));
    }
    // Longer than the lease: whoever held it then knows that it does no more.
    namespaces::cut(1);
    namespaces::cut(2);
    pause(TTL * 3);
    namespaces::mend(1);
    holders.goes_on("two are enough again");
    namespaces::mend(2);
    holders.stand_still();
    holders.die();
    holders.judge();
}
