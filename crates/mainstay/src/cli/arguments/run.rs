//! `mainstay run`: a program that is registered for as long as it runs.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::ConfigFile;

/// How a program is run and registered.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct RunProgram {
    /// Service it is an instance of: `service` or `namespace/service`.
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) service: String,
    /// Port it listens on.
    #[arg(long, value_name = "PORT")]
    pub(in crate::cli) port: u16,
    /// Address at which others reach it.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    pub(in crate::cli) address: String,
    /// Path that answers 2xx once it is well; without it, a connection is enough.
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) health: Option<String>,
    /// Namespace, if `--service` names none.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(in crate::cli) namespace: String,
    /// Its id; default `address:port`.
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) id: Option<String>,
    /// Share of the calls, relative to the others.
    #[arg(long, value_name = "N")]
    pub(in crate::cli) weight: Option<u16>,
    /// Where it runs.
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) zone: Option<String>,
    /// Which build it is.
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) build: Option<String>,
    /// A label; may be repeated.
    #[arg(long = "tag", value_name = "TEXT")]
    pub(in crate::cli) tags: Vec<String>,
    /// File with the token of the control plane; default that of the running one.
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) token_file: Option<PathBuf>,
    /// Where its calls are taken, to be sent to services by name; `off` for nowhere.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub(in crate::cli) outbound: String,
    /// Calls hosts that are no services as DNS finds them.
    #[arg(long)]
    pub(in crate::cli) outbound_any: bool,
    /// Where calls to it are taken; others are then told to call this port.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(in crate::cli) inbound: Option<SocketAddr>,
    /// What holds for services it calls.
    #[command(flatten)]
    pub(in crate::cli) file: ConfigFile,
    /// How long it may take to become well: `90s`, `15m`, `2h`, or seconds.
    #[arg(long, value_name = "SPAN", default_value = "60s")]
    pub(in crate::cli) start: String,
    /// How long calls under way have once it is deregistered, before it is told to end.
    #[arg(long, value_name = "SPAN", default_value = "5s")]
    pub(in crate::cli) drain: String,
    /// How long after SIGTERM what is left of it is killed.
    #[arg(long, value_name = "SPAN", default_value = "25s")]
    pub(in crate::cli) grace: String,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(in crate::cli) command: Vec<OsString>,
}
