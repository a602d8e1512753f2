//! A relay in front of a server, through which nothing may come for a while: as with a network
//! that is cut, no connection is refused or ended, and nobody is told.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::wait::pause;

/// How often a cut relay looks whether it is mended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Passes on what comes, until it is cut.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Relay {
    /// In front of `server`.
    pub(crate) fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = Arc::clone(&cut);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let is_cut = Arc::clone(&is_cut);
                std::thread::spawn(move || {
                    held(&is_cut);
                    let Ok(server) = TcpStream::connect(server) else { return };
                    let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                    let other = Arc::clone(&is_cut);
                    std::thread::spawn(move || pass(from, to, &other));
                    pass(server, client, &is_cut);
                });
            }
        });
        Self { address, cut }
    }

    /// Nothing comes through any more.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    /// What was held comes through, as what is sent again does.
    pub(crate) fn mend(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }
}

/// Waits while it is cut.
fn held(cut: &AtomicBool) {
    while cut.load(Ordering::SeqCst) {
        pause(LOOK_EVERY);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool) {
    from.set_read_timeout(Some(LOOK_EVERY)).unwrap();
    to.set_nodelay(true).unwrap();
    let mut part = [0; 16_384];
    loop {
        held(cut);
        match from.read(&mut part) {
            Ok(0) => break,
            Ok(read) => {
                held(cut);
                if to.write_all(&part[..read]).is_err() {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    held(cut);
    drop(to.shutdown(std::net::Shutdown::Both));
    drop(from.shutdown(std::net::Shutdown::Both));
}
