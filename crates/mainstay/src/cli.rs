//! The command line: `mainstay <noun> <verb> [NAME] [flags]`.
//!
//! Data goes to stdout, everything else to stderr, and the exit code says what a script needs to
//! know. A verb is a function from its arguments and a [`Session`] to an exit code; it never
//! prints past the session, so tests run whole commands without a process.

mod agreed;
mod arguments;
mod audit;
mod backup;
mod calls;
mod check;
mod config;
mod conformance;
mod deferred;
mod dns;
mod explain;
mod faults;
mod help;
mod keyring;
mod kinds;
mod lock;
mod offline;
mod plan;
pub mod reference;
mod role;
mod rules;
mod run;
mod settings;
mod store;
mod switch;
#[cfg(test)]
mod tests;
mod transaction;
pub mod words;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal as _, Write};

use anstream::{AutoStream, ColorChoice};
use clap::FromArgMatches as _;
use mainstay_coord::keys::RuleKind;

pub use arguments::{Cli, Color, command};
use arguments::{Command, Global};

use crate::child;
use crate::control_client::Control;
use crate::exit::Exit;
use crate::output::{Format, Table, blocks};
use crate::report::{self, Report};
use crate::settings::Errors;

/// What a verb may touch besides its arguments.
pub struct Session<'a> {
    /// For data.
    pub out: &'a mut dyn Write,
    /// For everything else.
    pub err: &'a mut dyn Write,
    /// Whether a person reads `out`.
    pub terminal: bool,
    /// Columns of the terminal, when `out` is one.
    pub columns: Option<usize>,
    /// Reads an environment variable.
    pub variable: fn(&str) -> Option<String>,
    global: Global,
}

impl fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("global", &self.global).finish_non_exhaustive()
    }
}

/// How a command ends: an exit code, or what went wrong.
pub type Ended = Result<u8, Errors>;

/// Runs the process's own arguments; returns its exit code.
pub fn main() -> u8 {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let choice = color(&arguments);
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    let size = rustix::termios::tcgetwinsize(&stdout).ok();
    let columns = size.map(|size| usize::from(size.ws_col)).filter(|&columns| 0 < columns);
    let mut session = Session {
        out: &mut AutoStream::new(stdout, choice),
        err: &mut AutoStream::new(io::stderr(), choice),
        terminal,
        columns,
        variable: |name| std::env::var(name).ok(),
        global: Global::default(),
    };
    run(arguments, &mut session)
}

/// Runs one command line, program name first; returns its exit code.
pub fn run(arguments: Vec<OsString>, session: &mut Session<'_>) -> u8 {
    let parsed = command()
        .try_get_matches_from(&arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return help::answer_parse_error(&arguments, &error, session),
    };
    session.global = cli.global;
    let ended = match cli.command {
        Command::Dev(run) => role::run(run.run, role::How::dev(run.allow_remote), session),
        Command::Server(run) => role::run(run, role::How::SERVER, session),
        Command::Gateway(gateway) => {
            role::run(gateway.run, role::How::gateway(gateway.takeover), session)
        }
        Command::Run(arguments) => run::run(arguments, session),
        Command::Settings { verb } => settings::run(verb, session),
        Command::Route { verb } => calls::route(verb, session),
        Command::Upstream { verb } => rules::run(RuleKind::UPSTREAM, verb, session),
        Command::Fallback { verb } => rules::run(RuleKind::FALLBACK, verb, session),
        Command::Circuit { verb } => calls::circuit(verb, session),
        Command::Limit { verb } => calls::limit(verb, session),
        Command::Service { verb } => agreed::service(verb, session),
        Command::Instance { verb } => agreed::instance(verb, session),
        Command::Lock { verb } => lock::lock(verb, session),
        Command::Leader { verb } => lock::leader(verb, session),
        Command::Transaction { verb } => transaction::run(verb, session),
        Command::Deferred { verb } => deferred::run(verb, session),
        Command::Store { verb } => store::run(verb, session),
        Command::Audit { verb } => audit::run(verb, session),
        Command::Keyring { verb } => keyring::run(verb, session),
        Command::Backup { verb } => backup::run(verb, session),
        Command::Config { verb } => config::run(verb, session),
        Command::Switch { verb } => switch::run(verb, session),
        Command::Plan { verb } => plan::run(verb, session),
        Command::Fault { verb } => faults::run(verb, session),
        Command::Dns { verb } => dns::run(verb, session),
        Command::Explain(arguments) => explain::run(arguments, session),
        Command::Check(arguments) => check::run(arguments, session),
        Command::Version => session.version(),
        Command::Completions { shell } => help::completions(shell, session),
        Command::Help { topic } => help::show(&topic, session),
        Command::Exec { parting, parent, command } => {
            let (code, error) = child::become_command(&command, parting, parent);
            let name = command.first().map(|name| name.to_string_lossy()).unwrap_or_default();
            session.fail(&usage(format!("`{name}` cannot be run: {error}")).into());
            Ok(code)
        }
        Command::Reference { what } => session.print(&reference::render(what)),
    };
    ended.unwrap_or_else(|errors| session.fail(&errors))
}

impl Session<'_> {
    /// Writes data. A reader that went away, as `head` does, is no error.
    #[expect(clippy::unnecessary_wraps, reason = "most verbs end with it, and a verb may fail")]
    fn print(&mut self, text: &str) -> Ended {
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        drop(write!(self.out, "{text}{end}"));
        Ok(Exit::Done.code())
    }

    /// Writes a line beside the data, unless `-q`.
    fn note(&mut self, text: &str) {
        if !self.global.quiet {
            drop(writeln!(self.err, "{text}"));
        }
    }

    /// Writes warnings beside the data, unless `-q`.
    fn warn(&mut self, warnings: &[Report]) {
        if !warnings.is_empty() && !self.global.quiet {
            drop(write!(self.err, "{}", report::render_all(warnings)));
        }
    }

    /// Writes what went wrong; returns the exit code of the first of it.
    fn fail(&mut self, errors: &Errors) -> u8 {
        let text = match self.global.output {
            Some(Format::Json | Format::Jsonl) => {
                format!("{:#}\n", report::document(&errors.reports))
            }
            _ => report::render_all(&errors.reports),
        };
        drop(write!(self.err, "{text}"));
        errors.reports.first().map_or(Exit::Failed, |report| report.exit).code()
    }

    /// Writes a document of the API in the form asked for.
    fn show(&mut self, document: &serde_json::Value, table: &Table<'_>) -> Ended {
        let format = self.global.output.unwrap_or(Format::Table);
        let columns = self.columns.filter(|_| self.terminal);
        let (text, dropped) = table.render(format, document, columns);
        if !dropped.is_empty() {
            self.note(&format!("not shown, too wide: {} (-o wide shows all)", dropped.join(", ")));
        }
        self.print(&text)
    }

    /// Writes one document: all of it for people, a row of `table` as far as there are forms for
    /// programs.
    fn show_one(&mut self, document: &serde_json::Value, table: &Table<'_>) -> Ended {
        if self.is_for_people() {
            self.print(&blocks(&[document]))
        } else {
            self.show(document, table)
        }
    }

    /// Whether a person reads what is written, not a program.
    const fn is_for_people(&self) -> bool {
        matches!(self.global.output, None | Some(Format::Table | Format::Wide))
    }

    /// Prints the events of a stream, a document a line, until it ends or the reader goes away.
    fn follow(&mut self, method: &str, path: &str, body: Option<&serde_json::Value>) -> Ended {
        let control = self.control()?;
        let out = &mut *self.out;
        control.follow(method, path, body, |event| {
            writeln!(out, "{event}").and_then(|()| out.flush()).is_ok()
        })?;
        Ok(Exit::Done.code())
    }

    fn control(&self) -> Result<Control, Errors> {
        Control::find(self.global.control.as_deref(), self.variable)
    }

    fn version(&mut self) -> Ended {
        let version = env!("CARGO_PKG_VERSION");
        match self.global.output {
            Some(Format::Json | Format::Jsonl) => {
                self.print(&format!("{{\"version\":\"{version}\"}}"))
            }
            _ => self.print(&format!("mainstay {version}")),
        }
    }
}

/// What `--color` says, found before the arguments are parsed, because errors of parsing have
/// colours too. Without it: colours on a terminal, unless `NO_COLOR` or `TERM=dumb`.
fn color(arguments: &[OsString]) -> ColorChoice {
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let after = words.iter().position(|word| *word == "--color").and_then(|at| words.get(at + 1));
    let joined = words.iter().find_map(|word| word.strip_prefix("--color="));
    match joined.or_else(|| after.copied()) {
        Some("always") => ColorChoice::Always,
        Some("never") => ColorChoice::Never,
        _ => ColorChoice::Auto,
    }
}

/// An error of the command line.
fn usage(message: impl Into<String>) -> Report {
    Report::error(mainstay_core::problem::Code::Usage, message)
}
