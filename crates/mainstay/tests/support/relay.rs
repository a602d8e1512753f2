//! A relay in front of a server, through which everything may come late, or nothing for a while: as
//! with a network that is cut, no connection is refused or ended, and nobody is told.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::wait::pause;

/// How often a cut relay looks whether it is mended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Passes on what comes, until it is cut.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    way: Arc<Way>,
}

/// What becomes of what comes.
#[derive(Debug, Default)]
struct Way {
    is_cut: AtomicBool,
    lag_milliseconds: AtomicU64,
}

impl Relay {
    /// In front of `server`.
    pub(crate) fn to(server: SocketAddr) -> Self {
        Self::start(move || TcpStream::connect(server).ok())
    }

    /// In front of the server that has `socket`.
    #[allow(dead_code, reason = "not every test binary has databases")]
    pub(crate) fn to_socket(socket: PathBuf) -> Self {
        Self::start(move || UnixStream::connect(&socket).ok())
    }

    fn start<S: Stream>(connect: impl Fn() -> Option<S> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let relay = Self { address, way: Arc::default() };
        let (way, connect) = (Arc::clone(&relay.way), Arc::new(connect));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (way, connect) = (Arc::clone(&way), Arc::clone(&connect));
                std::thread::spawn(move || {
                    way.holds();
                    // Nobody listens there: whoever called is told by the end of the connection.
                    let Some(server) = connect() else { return };
                    client.set_nodelay(true).unwrap();
                    let (from, to) = (client.other(), server.other());
                    let other = Arc::clone(&way);
                    std::thread::spawn(move || pass(from, to, &other));
                    pass(server, client, &way);
                });
            }
        });
        relay
    }

    /// Nothing comes through any more.
    pub(crate) fn cut(&self) {
        self.way.is_cut.store(true, Ordering::SeqCst);
    }

    /// What was held comes through, as what is sent again does.
    pub(crate) fn mend(&self) {
        self.way.is_cut.store(false, Ordering::SeqCst);
    }

    /// From now on everything comes so late, in either direction.
    #[allow(dead_code, reason = "not every test binary has slow networks")]
    pub(crate) fn lags(&self, by: Duration) {
        let milliseconds = u64::try_from(by.as_millis()).unwrap();
        self.way.lag_milliseconds.store(milliseconds, Ordering::SeqCst);
    }
}

impl Way {
    /// Waits while it is cut.
    fn holds(&self) {
        while self.is_cut.load(Ordering::SeqCst) {
            pause(LOOK_EVERY);
        }
    }
}

/// A connection of either kind.
trait Stream: Read + Write + Send + Sized + 'static {
    /// The same one, for the other direction.
    fn other(&self) -> Self;

    /// Nothing is waited for longer than `limit`.
    fn waits(&self, limit: Duration);

    /// Both directions end.
    fn ends(&self);
}

impl Stream for TcpStream {
    fn other(&self) -> Self {
        self.try_clone().unwrap()
    }

    fn waits(&self, limit: Duration) {
        self.set_read_timeout(Some(limit)).unwrap();
    }

    fn ends(&self) {
        drop(self.shutdown(Shutdown::Both));
    }
}

impl Stream for UnixStream {
    fn other(&self) -> Self {
        self.try_clone().unwrap()
    }

    fn waits(&self, limit: Duration) {
        self.set_read_timeout(Some(limit)).unwrap();
    }

    fn ends(&self) {
        drop(self.shutdown(Shutdown::Both));
    }
}

fn pass(mut from: impl Stream, mut to: impl Stream, way: &Way) {
    from.waits(LOOK_EVERY);
    let mut part = [0; 16_384];
    loop {
        way.holds();
        match from.read(&mut part) {
            Ok(0) => break,
            Ok(read) => {
                pause(Duration::from_millis(way.lag_milliseconds.load(Ordering::SeqCst)));
                way.holds();
                if to.write_all(&part[..read]).is_err() {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    way.holds();
    to.ends();
    from.ends();
}
