//! `dev`, `server` and `gateway`: starting a role, and what it says when it is ready.

use std::io::IsTerminal as _;

use super::arguments::Run;
use super::settings::sources;
use super::{Ended, Session};
use crate::output::Format;
use crate::report::Report;
use crate::role::{self, Ready, Role, Start};

/// Which role, and what only some of them take.
pub(super) struct How {
    role: Role,
    takeover: bool,
    allow_remote: bool,
}

impl How {
    pub(super) const SERVER: Self =
        Self { role: Role::Server, takeover: false, allow_remote: false };

    pub(super) const fn dev(allow_remote: bool) -> Self {
        Self { role: Role::Dev, takeover: false, allow_remote }
    }

    pub(super) const fn gateway(takeover: bool) -> Self {
        Self { role: Role::Gateway, takeover, allow_remote: false }
    }
}

/// Runs a role to its end.
pub(super) fn run(run: Run, how: How, session: &mut Session<'_>) -> Ended {
    logs();
    let Run { file, data_dir, ephemeral, random_ports } = run;
    let How { role, takeover, allow_remote } = how;
    let sources = sources(&file);
    let start = Start { role, sources, data_dir, ephemeral, random_ports, takeover, allow_remote };
    role::run(start, session)
}

/// What changes a state is logged on stderr; `MAINSTAY_LOG` chooses how much.
pub(super) fn logs() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MAINSTAY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let plain = std::env::var_os("NO_COLOR").is_some() || !std::io::stderr().is_terminal();
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(!plain);
    // A second role in one process, as in tests, keeps the first one's.
    drop(subscriber.with_writer(std::io::stderr).try_init());
}

impl Session<'_> {
    /// Whether data is wanted as JSON.
    pub(crate) fn wants_json(&self) -> bool {
        matches!(self.global.output, Some(Format::Json | Format::Jsonl))
    }

    /// Writes warnings beside the data, unless `-q`.
    pub(crate) fn warnings(&mut self, warnings: &[Report]) {
        self.warn(warnings);
    }

    /// Says that a role is ready: one JSON line, or a banner.
    pub(crate) fn ready(&mut self, role: Role, ready: &Ready, json: bool) {
        let text = if json {
            serde_json::to_string(ready).unwrap_or_default()
        } else {
            banner(role, ready)
        };
        drop(writeln!(self.out, "{text}"));
        drop(self.out.flush());
    }
}

fn banner(role: Role, ready: &Ready) -> String {
    let kept = if ready.ephemeral { "data goes with the process" } else { "data kept" };
    let gateway = match &ready.gateway {
        Some(url) => format!("{url}   {} routes", ready.routes),
        None => "no listener".to_owned(),
    };
    let names = match &ready.dns {
        Some(address) => format!("\n  Names    {address}   UDP and TCP"),
        None => String::new(),
    };
    format!(
        "Mainstay {} ready in {:.2} s    {} · one node · {kept} in {}\n\n  \
         Gateway  {gateway}{names}\n  \
         Control  {}   token in {}\n  \
         Next     mainstay route test GET http://localhost/   ·   mainstay circuit list\n",
        ready.version,
        ready.ready_seconds,
        role.as_str(),
        ready.data_dir.display(),
        ready.control,
        ready.data_dir.join("control.toml").display(),
    )
}
