//! Locks and elections: looked at, taken away, and held while a command runs.

use std::ffi::OsString;

use clap::{Args, Subcommand, ValueEnum};

use super::examples;

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Lock {
    /// Lists what is held or waited for.
    #[command(after_help = examples("lock list", "lock list --namespace shop --waiters"))]
    List {
        #[command(flatten)]
        page: Page,
        /// Also who holds each, and how many wait; asks for each of them.
        #[arg(long)]
        waiters: bool,
    },
    /// Shows who holds a lock, and who waits for it.
    #[command(after_help = examples("lock show jobs/nightly", "lock show jobs/nightly -o json"))]
    Show(One),
    /// Runs a command while a lock is held; the command ends when the lock is lost.
    ///
    /// The command has `MAINSTAY_LOCK_NAME` and `MAINSTAY_LOCK_TOKEN`. Exit codes: its own, 128 + n
    /// when signal n ended it, 75 not acquired, 76 lost while it ran, 69 no control plane, 126 and
    /// 127 as a shell.
    #[command(after_help = examples("lock run jobs/nightly -- ./report", "lock run dock --permits 1 --limit 3 --try -- make load"))]
    Run(LockRun),
    /// Takes a lock from its holder, who may still believe in it: only the token fences its writes.
    #[command(after_help = examples("lock release jobs/nightly --token 4711 --reason 'its host is gone'", "lock release jobs/nightly --token 4711 --reason 'INC-7' --yes"))]
    Release {
        #[command(flatten)]
        lock: One,
        /// The token `lock show` shows, so that nobody else is hit.
        #[arg(long, value_name = "N")]
        token: u64,
        /// Why; goes into the audit record.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Leader {
    /// Lists the elections in which somebody leads or stands.
    #[command(after_help = examples("leader list", "leader list --namespace shop -o name"))]
    List(Page),
    /// Shows who leads, and who stands.
    #[command(after_help = examples("leader show scheduler", "leader show scheduler -o json"))]
    Show(One),
    /// Stands for election, and runs a command while it leads.
    ///
    /// As `lock run`, with the term as token; but it stands as long as it takes unless told
    /// otherwise.
    #[command(after_help = examples("leader run scheduler -- ./scheduler", "leader run scheduler --value 10.0.0.7:8080 --ttl 10 -- ./scheduler"))]
    Run(LeaderRun),
    /// Takes the leadership away, so that the next one is elected. The leader may believe in it
    /// until it hears of that: only the term fences its writes.
    #[command(after_help = examples("leader resign scheduler --term 4711 --reason 'its host is gone'", "leader resign scheduler --term 4711 --reason 'INC-7' --yes"))]
    Resign {
        #[command(flatten)]
        election: One,
        /// The term, as token in `leader show`, so that nobody else is hit.
        #[arg(long, value_name = "N")]
        term: u64,
        /// Why; goes into the audit record.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// Part of a list.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Page {
    /// Namespace.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(in crate::cli) namespace: String,
    /// Go on after this name.
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) after: Option<String>,
}

/// One lock or election.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct One {
    /// Its name.
    pub(in crate::cli) name: String,
    /// Namespace.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(in crate::cli) namespace: String,
}

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct LockRun {
    #[command(flatten)]
    pub(in crate::cli) lock: One,
    /// How long to wait for it: `90s`, `15m`, `2h`, or seconds.
    #[arg(long, value_name = "SPAN", default_value = "30s")]
    pub(in crate::cli) wait: String,
    /// Does not wait, and overtakes nobody who does.
    #[arg(long = "try", conflicts_with = "wait")]
    pub(in crate::cli) at_once: bool,
    /// Together with others who hold it so.
    #[arg(long, conflicts_with_all = ["permits", "limit"])]
    pub(in crate::cli) shared: bool,
    /// Holds so many permits of the semaphore of this name, which has `--limit`.
    #[arg(long, value_name = "N", requires = "limit")]
    pub(in crate::cli) permits: Option<u32>,
    /// Permits of the semaphore; the same for everybody.
    #[arg(long, value_name = "N", requires = "permits")]
    pub(in crate::cli) limit: Option<u32>,
    #[command(flatten)]
    pub(in crate::cli) hold: Holding,
}

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct LeaderRun {
    #[command(flatten)]
    pub(in crate::cli) election: One,
    /// How long to stand: `90s`, `15m`, `2h`, or seconds. Default: for ever.
    #[arg(long, value_name = "SPAN")]
    pub(in crate::cli) wait: Option<String>,
    /// Does not wait, and overtakes nobody who does.
    #[arg(long = "try", conflicts_with = "wait")]
    pub(in crate::cli) at_once: bool,
    /// What is proclaimed to those who observe. Default: host and process.
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) value: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) hold: Holding,
}

/// How something is held while a command runs.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Holding {
    /// How long it is held for others after this process is heard of last, 2 s to 1 h.
    #[arg(long, value_name = "SPAN", default_value = "15s")]
    pub(in crate::cli) ttl: String,
    /// What becomes of the command when it is lost.
    #[arg(long, value_name = "WHAT", default_value = "term")]
    pub(in crate::cli) on_lost: OnLost,
    /// How long after SIGTERM what is left of the command is killed.
    #[arg(long, value_name = "SPAN", default_value = "10s")]
    pub(in crate::cli) grace: String,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(in crate::cli) command: Vec<OsString>,
}

/// What becomes of a command when what is held for it is lost, or its holder dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum OnLost {
    /// SIGTERM at once, SIGKILL after the grace.
    Term,
    /// SIGKILL at once.
    Kill,
    /// Nothing: it goes on, and its exit code is passed on.
    Ignore,
}
