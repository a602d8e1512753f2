//! A new process takes over from the one that serves, without a request failing.
//!
//! The one that serves listens on `control.sock` in its data directory. The new one connects and
//! is sent the listening sockets; when it serves, it says so with one byte, and only then the old
//! one drains. If the new one dies before, the old one goes on as if nothing had been.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use mainstay_core::problem::Code;
use mainstay_proxy::listener::handover;

use super::listeners::Inherited;
use super::system;
use crate::settings::Errors;

const SOCKET: &str = "control.sock";

/// How long the old process waits for the new one to serve, and the new one for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The word that the new process serves.
const SERVING: u8 = b'S';

/// A takeover under way, on the side of the new process.
#[derive(Debug)]
pub(super) struct Takeover {
    old: UnixStream,
}

/// Asks the process on `data_dir` for its sockets.
///
/// # Errors
///
/// When nobody answers there.
pub(super) fn ask(data_dir: &Path) -> Result<(Takeover, Inherited), Errors> {
    let path = data_dir.join(SOCKET);
    let asked = UnixStream::connect(&path).and_then(|stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        let sockets = handover::receive(&stream)?;
        Ok((Takeover { old: stream }, sockets.into_iter().collect()))
    });
    asked.map_err(|error| {
        let what = format!("nobody on `{}` hands its sockets over", data_dir.display());
        system(Code::ControlUnreachable, what, &error)
            .next("start without `--takeover` when no process runs there")
            .into()
    })
}

impl Takeover {
    /// Tells the old process that this one serves; it drains from here on.
    pub(super) fn serving(mut self) -> io::Result<()> {
        self.old.write_all(&[SERVING])
    }
}

/// Hands sockets over to whoever asks, on a thread of its own. `duplicate` gives the sockets,
/// `taken` is called once another process serves them.
///
/// # Errors
///
/// When the socket cannot be made or the thread not started.
pub(super) fn offer(
    data_dir: &Path,
    duplicate: impl Fn() -> io::Result<Vec<(String, Vec<OwnedFd>)>> + Send + 'static,
    taken: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let path = data_dir.join(SOCKET);
    // Left by a process that was killed, or by the one that is being taken over from.
    drop(fs::remove_file(&path));
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    let serve = move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            if hand_over(&stream, &duplicate).is_ok() {
                tracing::info!("another process has taken over");
                taken();
                return;
            }
            tracing::warn!("a takeover was begun and not finished; serving on");
        }
    };
    std::thread::Builder::new().name("takeover".to_owned()).spawn(serve).map(drop)
}

fn hand_over(
    mut stream: &UnixStream,
    duplicate: impl Fn() -> io::Result<Vec<(String, Vec<OwnedFd>)>>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    handover::send(stream, &duplicate()?)?;
    let mut word = [0];
    stream.read_exact(&mut word)?;
    if word == [SERVING] { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
