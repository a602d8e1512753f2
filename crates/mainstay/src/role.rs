//! The long-running roles of the binary: `dev`, `server` and `gateway`.
//!
//! A role reads the whole configuration, opens every socket, and only then says that it is ready:
//! nothing starts half. From then on the workers serve on threads of their own, the control plane
//! answers on one more, and the main thread waits for a signal.

mod control_plane;
mod data_dir;
mod doors;
mod keeping;
mod listeners;
mod node;
mod reach;
mod sampling;
mod shared;
mod signals;
mod takeover;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

pub use data_dir::HeldFolder;
pub(crate) use doors::limits;
pub(crate) use listeners::listen;
pub use node::Node;
pub use shared::Shared;

pub(crate) use keeping::wall_moment;

use crate::cli::Session;
use crate::report::Report;
use crate::settings::{Errors, Sources};

/// Which role, and how it is started.
#[derive(Clone, Debug)]
pub struct Start {
    /// `dev`, `server` or `gateway`.
    pub role: Role,
    /// Where the configuration comes from.
    pub sources: Sources,
    /// Where the role keeps what outlives it; `None` for the default.
    pub data_dir: Option<PathBuf>,
    /// A temporary data directory, removed at the end.
    pub ephemeral: bool,
    /// Every listener on port 0.
    pub random_ports: bool,
    /// Takes the sockets over from the process that runs on the data directory.
    pub takeover: bool,
    /// `dev` may listen where others can reach it.
    pub allow_remote: bool,
}

/// Which role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything, for one developer's machine.
    Dev,
    /// Agreed state and the control plane.
    Server,
    /// The data plane.
    Gateway,
}

impl Role {
    /// The verb that starts it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Server => "server",
            Self::Gateway => "gateway",
        }
    }

    /// Whether it keeps agreed state.
    pub const fn keeps_state(self) -> bool {
        matches!(self, Self::Dev | Self::Server)
    }

    /// Whether it takes calls of services.
    pub const fn takes_calls(self) -> bool {
        matches!(self, Self::Dev | Self::Gateway)
    }
}

/// What a role says of itself when it is ready; one JSON line with `-o json`.
#[derive(Clone, Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the document")]
pub struct Ready {
    /// Version of the binary.
    pub version: &'static str,
    /// From the start of the process.
    pub ready_seconds: f64,
    /// Process.
    pub pid: u32,
    /// Control port.
    pub control: String,
    /// First listener of the gateway.
    pub gateway: Option<String>,
    /// All listeners of the gateway.
    pub gateway_listeners: Vec<SocketAddr>,
    /// Where names are answered, over UDP and TCP; none in the role `gateway`, or when it is off.
    pub dns: Option<String>,
    /// One-time login; none in this version.
    pub login_url: Option<String>,
    /// Where data is kept.
    pub data_dir: PathBuf,
    /// The data directory goes with the process.
    pub ephemeral: bool,
    /// Routes served.
    pub routes: usize,
}

/// Runs a role to its end; returns the exit code.
///
/// # Errors
///
/// [`Errors`] when it cannot start.
pub fn run(start: Start, session: &mut Session<'_>) -> Result<u8, Errors> {
    node::run(start, session)
}

/// The report for something the system refused.
fn system(code: mainstay_core::problem::Code, what: String, error: &std::io::Error) -> Report {
    Report::error(code, format!("{what}: {error}"))
}

/// The report for something that could not be set up.
fn failed(what: &str, error: &std::io::Error) -> Errors {
    let what = format!("{what} cannot be set up");
    system(mainstay_core::problem::Code::Internal, what, error).into()
}
