//! Listening sockets, one per worker.
//!
//! Each worker has its own socket on the same address (`SO_REUSEPORT`), so the kernel spreads
//! connections by hash and no worker waits for a lock to accept. A new process takes the sockets
//! over as they are (see [`handover`]): the queue in the kernel goes with them, and nobody who
//! connects meanwhile notices.

pub mod handover;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted, per socket. Linux cuts it to `net.core.somaxconn`
/// (4,096); at 2,000 new connections a second that is two seconds of a stalled worker.
const BACKLOG: i32 = 4_096;

/// The sockets of one address, at least one.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    sockets: Vec<TcpListener>,
}

impl Listener {
    /// Opens `sockets` sockets on `address`. With port 0 the first is given a port and the others
    /// follow it.
    ///
    /// # Errors
    ///
    /// When the address is taken, not ours, or not allowed.
    pub fn bind(address: SocketAddr, sockets: NonZeroUsize) -> io::Result<Self> {
        let first = open(address)?;
        let address = first.local_addr()?;
        let mut all = vec![first];
        for _ in 1..sockets.get() {
            all.push(open(address)?);
        }
        Ok(Self { address, sockets: all })
    }

    /// Takes over sockets that another process listens on, all of one address.
    ///
    /// # Errors
    ///
    /// When there are none, they are no listening TCP sockets, or differ in address.
    pub fn inherit(sockets: Vec<OwnedFd>) -> io::Result<Self> {
        let mut all = Vec::with_capacity(sockets.len());
        let mut address = None;
        for socket in sockets {
            let socket = Socket::from(socket);
            if !socket.is_listener()? {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "socket does not listen"));
            }
            socket.set_nonblocking(true)?;
            let socket = TcpListener::from(socket);
            let own = socket.local_addr()?;
            if *address.get_or_insert(own) != own {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "addresses differ"));
            }
            all.push(socket);
        }
        let address = address.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { address, sockets: all })
    }

    /// Where it listens; the port is never 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Duplicates of the sockets, to hand over.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub fn duplicate(&self) -> io::Result<Vec<OwnedFd>> {
        self.sockets.iter().map(|socket| socket.try_clone().map(OwnedFd::from)).collect()
    }

    /// Deals the sockets out to `workers` workers: every socket to somebody, for nobody would
    /// accept from one left over; and, when there are too few, some to several.
    pub(crate) fn deal(self, workers: usize) -> io::Result<Vec<Vec<TcpListener>>> {
        let mut hands: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        let mut spare = Vec::new();
        for worker in self.sockets.len()..workers {
            spare.push((worker, self.sockets[worker % self.sockets.len()].try_clone()?));
        }
        for (index, socket) in self.sockets.into_iter().enumerate() {
            hands[index % workers].push(socket);
        }
        for (worker, socket) in spare {
            hands[worker].push(socket);
        }
        Ok(hands)
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?; // `[::]` beside `0.0.0.0`, not instead of it.
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it, which saves a call per connection.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// How many connections there are, over all workers and listeners that share it.
#[derive(Debug)]
pub struct Caps {
    open: AtomicUsize,
    refused: AtomicUsize,
    connections_max: AtomicUsize,
    /// 0: no limit, and nothing is counted per address.
    per_address_max: AtomicUsize,
    per_address: Mutex<HashMap<IpAddr, usize>>,
}

/// Counts one connection while it lives.
#[derive(Debug)]
pub struct Counted {
    caps: Arc<Caps>,
    address: Option<IpAddr>,
}

impl Caps {
    /// At most `connections_max` in all, and `per_address_max` of one address (0: no limit).
    pub fn new(connections_max: usize, per_address_max: usize) -> Arc<Self> {
        let (open, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self {
            open,
            refused,
            connections_max: connections_max.into(),
            per_address_max: per_address_max.into(),
            per_address: Mutex::default(),
        })
    }

    /// Other limits, for connections from now on. Of one address only those are counted that came
    /// while there was a limit.
    pub fn set(&self, connections_max: usize, per_address_max: usize) {
        self.connections_max.store(connections_max, Ordering::Relaxed);
        self.per_address_max.store(per_address_max, Ordering::Relaxed);
    }

    /// Connections now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections closed unanswered because a limit was reached.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Counts a connection from `address`, or refuses it. `None`: that comes
    /// [later](Counted::count).
    pub fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Counted> {
        let connections_max = self.connections_max.load(Ordering::Relaxed);
        let below = |open: usize| (open < connections_max).then(|| open + 1);
        if self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let mut counted = Counted { caps: Arc::clone(self), address: None };
        address.is_none_or(|address| counted.count(address)).then_some(counted)
    }
}

impl Counted {
    /// Counts it as one from `address`, once; `false` when there are too many of those.
    pub fn count(&mut self, address: IpAddr) -> bool {
        let per_address_max = self.caps.per_address_max.load(Ordering::Relaxed);
        if per_address_max == 0 {
            return true;
        }
        let mut all = self.caps.per_address.lock();
        let own = all.entry(address).or_default();
        if per_address_max <= *own {
            self.caps.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        *own += 1;
        self.address = Some(address);
        true
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.caps.open.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        let mut all = self.caps.per_address.lock();
        if let Some(own) = all.get_mut(&address) {
            *own -= 1;
            if *own == 0 {
                all.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_count_what_lives_and_forget_what_is_gone() {
        let caps = Caps::new(3, 2);
        let [a, b] = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        let first = caps.admit(Some(a));
        let second = caps.admit(Some(a));
        assert!(first.is_some() && second.is_some());
        assert!(caps.admit(Some(a)).is_none(), "two of one address");
        let third = caps.admit(Some(b));
        assert!(third.is_some() && caps.admit(Some(b)).is_none(), "three in all");
        drop((first, second, third));
        assert_eq!((caps.open(), caps.refused()), (0, 2));
        let mut later = caps.admit(None).unwrap();
        let first = caps.admit(Some(a));
        assert!(later.count(a) && !caps.admit(None).unwrap().count(a), "whenever it is told");
        drop((first, later));
        assert!(caps.per_address.lock().is_empty());
        caps.set(1, 0);
        let only = caps.admit(Some(a));
        assert!(only.is_some() && caps.admit(Some(b)).is_none(), "one in all");
    }

    #[test]
    fn every_socket_is_dealt_and_every_worker_has_one() {
        for (sockets, workers) in [(1, 1), (2, 2), (1, 3), (5, 2), (3, 4)] {
            let sockets = NonZeroUsize::new(sockets).unwrap();
            let listener = Listener::bind(([127, 0, 0, 1], 0).into(), sockets).unwrap();
            let hands = listener.deal(workers).unwrap();
            assert!(hands.iter().all(|hand| !hand.is_empty()), "{sockets} to {workers}");
            let dealt: usize = hands.iter().map(Vec::len).sum();
            assert_eq!(dealt, sockets.get().max(workers), "{sockets} to {workers}");
        }
    }
}
