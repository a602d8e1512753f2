//! `mainstay run`: a program that is registered for as long as it runs.

use std::ffi::OsString;

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
    /// Path that answers 2xx while it is well; without it, a connection is enough.
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
    /// Which build it is.
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) build: Option<String>,
    /// A label; may be repeated.
    #[arg(long = "tag", value_name = "TEXT")]
    pub(in crate::cli) tags: Vec<String>,
    /// `[sidecar]`, and what holds for services it calls.
    #[command(flatten)]
    pub(in crate::cli) file: ConfigFile,
    /// How long it may take to become well: `90s`, `15m`, `2h`, or seconds.
    #[arg(long, value_name = "SPAN", default_value = "60s")]
    pub(in crate::cli) start: String,
    /// How long calls under way have once it is deregistered, before it is told to end.
    #[arg(long, value_name = "SPAN", default_value = "5s")]
    pub(in crate::cli) drain: String,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(in crate::cli) command: Vec<OsString>,
}
