//! A way to a server on which answers get lost.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Passes connections on; clones are the same one. It works as long as the test process lives.
#[derive(Clone, Debug)]
pub(crate) struct Lossy {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    lost: Arc<AtomicUsize>,
    seen: Arc<AtomicUsize>,
}

impl Lossy {
    /// A way to `server`, on which the next `answers` are lost.
    pub(crate) fn start(server: SocketAddr, answers: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let lossy = Self {
            address: listener.local_addr().unwrap(),
            lost: Arc::new(AtomicUsize::new(answers)),
            seen: Arc::default(),
        };
        let passing = lossy.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let passing = passing.clone();
                std::thread::spawn(move || passing.pass(&client, server));
            }
        });
        lossy
    }

    /// Loses the next `answers` too.
    pub(crate) fn lose(&self, answers: usize) {
        self.lost.fetch_add(answers, Ordering::SeqCst);
    }

    /// How many answers were lost.
    pub(crate) fn lost(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }

    fn pass(&self, client: &TcpStream, server: SocketAddr) {
        // Nobody listens there any more: whoever called is told by the end of the connection.
        let Ok(server) = TcpStream::connect(server) else { return };
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        let mut part = [0; 4096];
        loop {
            let read = (&server).read(&mut part).unwrap_or(0);
            let is_lost = |left: usize| left.checked_sub(1);
            if read > 0
                && self.lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_lost).is_ok()
            {
                self.seen.fetch_add(1, Ordering::SeqCst);
                break;
            }
            let part = part.get(..read).unwrap_or_default();
            let mut client = client;
            if read == 0 || client.write_all(part).is_err() {
                break;
            }
        }
        for stream in [client, &server] {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}
