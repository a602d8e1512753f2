//! A command that is run for somebody, in a process group of its own.
//!
//! The command is started by way of this binary (`mainstay exec`), which asks the kernel for a
//! signal when its parent dies and then becomes the command. So one who is killed without warning
//! does not leave behind a command that nobody holds anything for; and the way there is safe code,
//! which what runs between `fork` and `exec` is not.
//!
//! A group in the background may not read the terminal: a command that tries is stopped, as it is
//! under `timeout`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::ExitStatus;
use std::time::Duration;

use clap::ValueEnum;
use rustix::process::{
    Pid, Signal, getppid, kill_process_group, set_parent_process_death_signal,
    test_kill_process_group,
};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// What a command is sent when the one who runs it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Parting {
    /// SIGTERM.
    Term,
    /// SIGKILL.
    Kill,
    /// Nothing: it goes on.
    Ignore,
}

impl Parting {
    const fn signal(self) -> Option<Signal> {
        match self {
            Self::Term => Some(Signal::TERM),
            Self::Kill => Some(Signal::KILL),
            Self::Ignore => None,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Term => "term",
            Self::Kill => "kill",
            Self::Ignore => "ignore",
        }
    }
}

/// A running command, and whatever it has started in its group.
#[derive(Debug)]
pub struct Group {
    child: Child,
    id: Pid,
}

impl Group {
    /// Starts `command`, a program and its arguments, with `variables` beside those of this
    /// process. Must be called from a thread that lives as long as the command may: the kernel
    /// takes the end of that thread for the end of the parent. A program that cannot be run is
    /// told of by its exit code, 126 or 127.
    ///
    /// # Errors
    ///
    /// What the system said when it could not start a process at all.
    pub fn start(
        command: &[OsString],
        variables: &[(&str, String)],
        parting: Parting,
    ) -> io::Result<Self> {
        // The running binary, also when another one has taken its place meanwhile.
        let child = Command::new("/proc/self/exe")
            .args(["exec", "--parting", parting.as_str(), "--parent"])
            .arg(std::process::id().to_string())
            .arg("--")
            .args(command)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .process_group(0)
            .spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let id = id.ok_or_else(|| io::Error::other("the system gave the process no id"))?;
        Ok(Self { child, id })
    }

    /// Sends `signal` to the whole group. One that has ended is sent nothing.
    pub fn signal(&self, signal: Signal) {
        // The only other answer is that there is no such group.
        let _sent_if_there = kill_process_group(self.id, signal);
    }

    /// Waits until the command ends; returns its exit code, or 128 + the signal that ended it. What
    /// it left in its group goes on.
    ///
    /// # Errors
    ///
    /// What the system said.
    ///
    /// # Cancel safety
    ///
    /// Safe: the next call returns the same.
    pub async fn wait(&mut self) -> io::Result<u8> {
        self.child.wait().await.map(code)
    }

    /// Asks the whole group to end, and ends what is left of it after `grace`; signals go on being
    /// passed on. Returns as [`Group::wait`] does.
    ///
    /// # Errors
    ///
    /// What the system said.
    ///
    /// # Cancel safety
    ///
    /// Not safe: the group was asked to end, and nobody ends what does not. Call it again.
    pub async fn end(&mut self, grace: Duration, passed_on: &mut PassedOn) -> io::Result<u8> {
        self.signal(Signal::TERM);
        let mut patience = std::pin::pin!(tokio::time::sleep(grace));
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut ended = None;
        while ended.is_none() || !self.is_gone() {
            tokio::select! {
                code = self.wait(), if ended.is_none() => ended = Some(code?),
                _ = look.tick() => {}
                signal = passed_on.next() => self.signal(signal),
                () = &mut patience => {
                    self.signal(Signal::KILL);
                    break;
                }
            }
        }
        match ended {
            Some(code) => Ok(code),
            None => self.wait().await,
        }
    }

    /// Whether nobody is left in it.
    fn is_gone(&self) -> bool {
        test_kill_process_group(self.id).is_err_and(|error| error == rustix::io::Errno::SRCH)
    }
}

/// From one look whether a group has ended to the next: only the kernel knows, and tells nobody.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// An exit code as shells give it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// The signals that are passed on to a command instead of ending this process.
#[derive(Debug)]
pub struct PassedOn {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl PassedOn {
    /// Takes them from now on. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    ///
    /// # Cancel safety
    ///
    /// Safe: one that arrives meanwhile is told next time.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hangup.recv() => Signal::HUP,
        }
    }
}

/// Becomes `command`, which is sent what `parting` says when the process `parent` dies. Returns
/// only when that fails: the exit code of a shell, and why.
pub fn become_command(command: &[OsString], parting: Parting, parent: i32) -> (u8, io::Error) {
    if let Some(signal) = parting.signal() {
        if let Err(error) = set_parent_process_death_signal(Some(signal)) {
            return (CANNOT_RUN, error.into());
        }
        // It may have died before it was asked for.
        if getppid().map(Pid::as_raw_nonzero).map(std::num::NonZero::get) != Some(parent) {
            return (CANNOT_RUN, io::Error::other("whoever started it is gone"));
        }
    }
    let (program, arguments) = match command {
        [program, arguments @ ..] => (program.as_os_str(), arguments),
        [] => (OsStr::new(""), &[][..]),
    };
    let error = std::process::Command::new(program).args(arguments).exec();
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
    (code, error)
}

/// As a shell says that it cannot run a program.
const CANNOT_RUN: u8 = 126;

/// As a shell says that there is no such program.
const NOT_FOUND: u8 = 127;
