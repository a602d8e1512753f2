//! A service as a process of its own, so that it can be killed and stopped for real.
//!
//! The test binary starts itself again, as the one test that serves; the address comes by the
//! environment. Python would do, but costs more CPU than the gateway under test.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::gateway::{free_port, send};
use crate::support::wait::{pause, until};

const LISTEN: &str = "MAINSTAY_TEST_BACKEND";

/// A service, running as a child.
#[derive(Debug)]
pub(crate) struct Backend {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Backend {
    /// Starts one by running the test `a_backend` of this binary.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], free_port())))
    }

    /// Starts one at a certain address.
    #[track_caller]
    pub(crate) fn at(address: SocketAddr) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["a_backend", "--exact", "--nocapture"])
            .env(LISTEN, address.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        until("the backend listens", Duration::from_secs(10), || {
            TcpStream::connect(address).is_ok()
        });
        Self { child, address }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// From now on every answer has `status` and comes after `delay`.
    #[track_caller]
    pub(crate) fn behave(&self, status: u16, delay: Duration) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let path = format!("/behave/{status}/{}", delay.as_millis());
        write!(stream, "GET {path} HTTP/1.1\r\nhost: b\r\n\r\n").unwrap();
        let mut said = String::new();
        BufReader::new(stream).read_line(&mut said).unwrap();
        assert!(said.contains(" 200 "), "{said}");
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Serves for ever if this process was started to be a backend.
pub(crate) fn serve_if_asked() {
    let Ok(address) = std::env::var(LISTEN) else { return };
    let listener = TcpListener::bind(address).unwrap();
    let behaviour = Arc::new((AtomicU64::new(200), AtomicU64::new(USUAL_MILLISECONDS)));
    for stream in listener.incoming().flatten() {
        let behaviour = Arc::clone(&behaviour);
        std::thread::spawn(move || serve(&stream, &behaviour));
    }
}

/// How long an answer takes when nothing is wrong.
pub(crate) const USUAL_MILLISECONDS: u64 = 20;

fn serve(mut stream: &TcpStream, (status, delay): &(AtomicU64, AtomicU64)) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        reader.read_line(&mut first).ok().filter(|bytes| *bytes > 0)?;
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        }
        let path = first.split(' ').nth(1)?;
        let mut answer = status.load(Ordering::Relaxed);
        if let Some((new_status, new_delay)) =
            path.strip_prefix("/behave/").and_then(|rest| rest.split_once('/'))
        {
            status.store(new_status.parse().ok()?, Ordering::Relaxed);
            delay.store(new_delay.parse().ok()?, Ordering::Relaxed);
            answer = 200;
        } else {
            pause(Duration::from_millis(delay.load(Ordering::Relaxed)));
        }
        let whole = format!("HTTP/1.1 {answer} X\r\ncontent-length: 3\r\n\r\nok\n");
        stream.write_all(whole.as_bytes()).ok()?;
    }
}
