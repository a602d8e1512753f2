//! Two nodes on three members of etcd, of which some are killed, stopped, cut off, or too few.
//!
//! What clients read and write through either node is linearizable, whatever happens; while most
//! members are away nothing is acknowledged, and all goes on by itself when they are back.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/connection.rs"]
mod connection;
#[path = "support/support.rs"]
mod support;

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use connection::Connection;
use mainstay_sim::check::OPEN;
use mainstay_sim::check::pairs::{Call, Pairs, What};
use rustix::process::Signal;

use support::gateway::Gateway;
use support::members::Etcd;
use support::namespaces;
use support::wait::{pause, until};

/// What clients do and see.
#[derive(Default)]
struct Seen {
    order: AtomicI64,
    pairs: Mutex<Pairs>,
    acknowledged: AtomicU64,
    over: AtomicBool,
    /// Where the nodes listen; one that was started anew listens elsewhere.
    nodes: Mutex<Vec<SocketAddr>>,
}

impl Seen {
    fn now(&self) -> i64 {
        self.order.fetch_add(1, Ordering::SeqCst)
    }

    /// Reads and writes three keys, through the other node when one does not answer.
    fn run(&self, client: u32) {
        let mut random = u64::from(client) * 7_919 + 1;
        let mut draw = move |below: u64| {
            // xorshift (Marsaglia, 2003).
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut at = client as usize;
        let mut connection = None;
        while !self.over.load(Ordering::SeqCst) {
            pause(Duration::from_millis(20 + draw(40)));
            let node = self.nodes.lock().unwrap()[at % 2];
            let Some(open) = connection.take().or_else(|| Connection::open(node)) else {
                at += 1;
                continue;
            };
            let (open, fine) = self.once(client, open, draw(3), draw(10));
            // One that has refused may be the one in trouble.
            at += usize::from(!fine);
            connection = open.filter(|_| fine);
        }
    }

    fn once(
        &self,
        client: u32,
        mut open: Connection,
        key: u64,
        kind: u64,
    ) -> (Option<Connection>, bool) {
        let (key, called) = (format!("k{key}"), self.now());
        let path = format!("/v1/kv/{key}");
        let value = u64::try_from(called).unwrap();
        let (what, answer) = match kind {
            0..5 => (What::Read(None), open.ask("GET", &format!("{path}?raw"), "", b"")),
            5..9 => (What::Put(value), open.ask("PUT", &path, "", value.to_string().as_bytes())),
            _ => (What::Delete(None), open.ask("DELETE", &path, "", b"")),
        };
        let fine = matches!(answer, Some((200 | 404, _)));
        let what = match (what, &answer) {
            (What::Read(_), Some((200, body))) => What::Read(Some(body.parse().expect("ours"))),
            (other, _) => other,
        };
        // A refusal of a write may come of an unknown outcome; all of them are taken so.
        let returned = if fine { self.now() } else { OPEN };
        self.pairs.lock().unwrap().add(&key, Call { client, what, called, returned });
        if fine && !matches!(what, What::Read(_)) {
            self.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
        (answer.map(|_| open), fine)
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Nothing is acknowledged while most members are away.
    #[track_caller]
    fn stands_still(&self) {
        pause(Duration::from_secs(5));
        let before = self.acknowledged();
        pause(Duration::from_secs(4));
        assert_eq!(self.acknowledged(), before, "acknowledged by a minority");
    }

    /// Waits until some more writes are acknowledged.
    #[track_caller]
    fn goes_on(&self, when: &str) {
        let before = self.acknowledged();
        until(when, Duration::from_mins(1), || before + 20 < self.acknowledged());
    }
}

#[test]
fn histories_over_two_nodes_and_three_members_are_right_whatever_goes() {
    let mut etcd = Etcd::start();
    let first = Gateway::start_dev("nodes-a", &etcd.config());
    let second = first.beside("nodes-b", &etcd.config());
    let mut nodes = [first, second];
    let seen = Seen::default();
    *seen.nodes.lock().unwrap() = nodes.iter().map(|node| node.control).collect();
    std::thread::scope(|scope| {
        for client in 0..6 {
            let seen = &seen;
            scope.spawn(move || seen.run(client));
        }
        seen.goes_on("all is well");
        // Either node: clients go to the other one.
        for at in [0, 1] {
            nodes[at].signal(Signal::KILL);
            nodes[at].ended();
            seen.goes_on("one node is enough");
            nodes[at] = nodes[at].again("nodes-again", &[]);
            seen.nodes.lock().unwrap()[at] = nodes[at].control;
        }
        // A node that stands still is no worse than one that is gone.
        nodes[0].signal(Signal::STOP);
        pause(Duration::from_secs(3));
        nodes[0].signal(Signal::CONT);
        // Members: one is never missed, be it killed or stopped.
        for member in 0..3 {
            etcd.kill(member);
            seen.goes_on("one member is not missed");
            etcd.run(member);
            pause(Duration::from_secs(2));
        }
        etcd.signal(1, Signal::STOP);
        seen.goes_on("a member that hangs is not missed");
        etcd.signal(1, Signal::CONT);
        pause(Duration::from_secs(2));
        // Most of them away: nothing is acknowledged, and it is said so.
        etcd.kill(0);
        etcd.kill(1);
        seen.stands_still();
        etcd.run(0);
        etcd.run(1);
        seen.goes_on("it recovers by itself");
        seen.over.store(true, Ordering::SeqCst);
    });
    judge(&seen);
}

#[track_caller]
fn judge(seen: &Seen) {
    let pairs = seen.pairs.lock().unwrap();
    assert!(200 < pairs.len(), "{} calls are a dull history", pairs.len());
    pairs.check().unwrap();
}

#[test]
fn histories_over_members_that_are_cut_off_are_right() {
    if !namespaces::entered() {
        return;
    }
    let etcd = Etcd::start_apart();
    let first = Gateway::start_dev("apart-a", &etcd.config());
    let second = first.beside("apart-b", &etcd.config());
    let seen = Seen::default();
    *seen.nodes.lock().unwrap() = vec![first.control, second.control];
    std::thread::scope(|scope| {
        for client in 0..6 {
            let seen = &seen;
            scope.spawn(move || seen.run(client));
        }
        seen.goes_on("all is well");
        for member in 0..3 {
            namespaces::cut(member);
            seen.goes_on("a member that is cut off is not missed");
            namespaces::mend(member);
            pause(Duration::from_secs(2));
        }
        // Three that cannot hear each other, two of which the nodes cannot hear either.
        namespaces::cut(0);
        namespaces::cut(1);
        seen.stands_still();
        namespaces::mend(0);
        seen.goes_on("two are enough again");
        namespaces::mend(1);
        seen.over.store(true, Ordering::SeqCst);
    });
    judge(&seen);
}
