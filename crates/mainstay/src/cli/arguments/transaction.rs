//! Global transactions: looked at, waited for, and helped on.

use clap::{Args, Subcommand, ValueEnum};

use super::conformance::Conformance;
use super::examples;

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Transaction {
    /// Lists transactions: those that are live, the newest first, then those that have ended.
    #[command(after_help = examples("transaction list --state committing", "transaction list --since 1h -o json"))]
    List(Find),
    /// Lists those that do not get on.
    #[command(after_help = examples("transaction stuck", "tx stuck -o name"))]
    Stuck,
    /// Shows a transaction: its branches, every attempt, what happened when.
    #[command(after_help = examples("transaction show order-1", "transaction show order-1 -o json"))]
    Show(One),
    /// Prints each change of what is live, a line each, until it is interrupted; of one transaction
    /// until it has ended.
    #[command(after_help = examples("transaction watch", "transaction watch order-1 -o json"))]
    Watch {
        /// Only this one.
        gid: Option<String>,
    },
    /// Waits until a transaction has ended; exits with 1 if it ended otherwise.
    #[command(after_help = examples("transaction wait order-1", "transaction wait order-1 --until aborted --for 5m"))]
    Wait {
        #[command(flatten)]
        one: One,
        /// How it is to end.
        #[arg(long, value_name = "OUTCOME", default_value = "committed")]
        until: Outcome,
        /// How long to wait.
        #[arg(long = "for", value_name = "SPAN", default_value = "1m")]
        patience: String,
    },
    /// Tries everything now that waits for another attempt.
    #[command(after_help = examples("transaction retry order-1 --reason 'the bank is back'", "tx retry order-1 --reason 'INC-7'"))]
    Retry(Told),
    /// Calls no branch any more, until it is resumed.
    #[command(after_help = examples("transaction pause order-1 --reason 'the bank asks for it'", "tx pause order-1 --reason 'INC-7'"))]
    Pause(Told),
    /// Calls branches again.
    #[command(after_help = examples("transaction resume order-1 --reason 'the bank is back'", "tx resume order-1 --reason 'INC-7'"))]
    Resume(Told),
    /// Decides to abort: one that is not decided, or a saga that goes forward.
    #[command(after_help = examples("transaction abort order-1 --reason 'sent by mistake'", "tx abort order-1 --reason 'INC-7' --yes"))]
    Abort(Told),
    /// Says how something ended that cannot be ended otherwise; no branch is asked.
    #[command(after_help = examples("transaction resolve order-1 --as aborted --reason 'undone by hand'", "transaction resolve order-1 --as committed --branch 02 --reason 'paid by hand' --yes"))]
    Resolve {
        #[command(flatten)]
        told: Told,
        /// How it ended.
        #[arg(long = "as", value_name = "OUTCOME")]
        outcome: Outcome,
        /// Which branch; default all that have not ended.
        #[arg(long, value_name = "ID")]
        branch: Option<String>,
    },
    /// Delivers once more a message that was given up.
    #[command(after_help = examples("transaction redeliver m-1 --reason 'the receiver is back'", "tx redeliver m-1 --reason 'INC-7'"))]
    Redeliver(Told),
    /// Lists the databases that take part, as the node that is asked sees them.
    #[command(after_help = examples("transaction resources", "tx resources -o json"))]
    Resources,
    /// Lists what a database holds prepared, and what a sweep would make of it.
    #[command(after_help = examples("transaction prepared orders", "tx prepared orders -o wide"))]
    Prepared {
        /// The database.
        resource: String,
    },
    /// Ends what a database holds prepared and the log says has ended. It happens by itself, too.
    #[command(after_help = examples("transaction sweep orders --report-only", "tx sweep orders --reason 'INC-7'"))]
    Sweep {
        /// The database.
        resource: String,
        /// Only say what would be done.
        #[arg(long)]
        report_only: bool,
        /// Why; goes into the audit record.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Deletes old rows of the barrier that participants keep in a database. Those of transactions
    /// that are live stay, and those of transactions that another node owns: ask each.
    #[command(after_help = examples("transaction purge-barrier orders --older-than 720h --reason 'monthly'", "tx purge-barrier orders --older-than 168h --reason 'INC-7' --yes"))]
    PurgeBarrier {
        /// The database.
        resource: String,
        /// How old; an hour at least.
        #[arg(long, value_name = "SPAN")]
        older_than: String,
        /// Why; goes into the audit record.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Goes by the log as it is, after it was put back from a backup that databases know to be old.
    /// What they still hold prepared and the log does not know is rolled back then.
    #[command(after_help = examples("transaction accept-log --reason 'prepared branches were ended by hand'", "tx accept-log --reason 'INC-7' --yes"))]
    AcceptLog {
        /// Why; goes into the audit record.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Examines a participant: calls it in the ways in which calls really arrive (twice, undone
    /// before they came, late, at the same time, refused), and judges what it makes of them. Exits
    /// with 1 if it fails. It does real work there: take a database for tests.
    #[command(after_help = examples("transaction conformance --url http://127.0.0.1:8080/deduct --at compensate=/restore --body '{\"n\": 1}' --database postgresql://shop@127.0.0.1/shop --probe 'SELECT n FROM stock'", "tx conformance --url http://127.0.0.1:8080/seats --mode tcc --dialect dtm --barrier dtm --database mariadb://shop@127.0.0.1/shop -o json"))]
    Conformance(Box<Conformance>),
    /// Sets a database up to take part.
    #[command(after_help = examples("transaction resource check orders", "tx resource init orders --print"))]
    Resource {
        #[command(subcommand)]
        verb: Resource,
    },
}

/// A database that takes part.
#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Resource {
    /// Shows how it stands.
    #[command(after_help = examples("transaction resource show orders", "tx resource show orders -o json"))]
    Show {
        /// The database.
        resource: String,
    },
    /// Looks whether it can take part, now.
    #[command(after_help = examples("transaction resource check orders", "tx resource check orders -o json"))]
    Check {
        /// The database.
        resource: String,
    },
    /// Makes the tables that are not there, with the coordinator's own rights.
    #[command(after_help = examples("transaction resource init orders --print", "transaction resource init orders --reason 'orders takes part'"))]
    Init {
        /// The database.
        resource: String,
        /// Only print the statements, and those that give the coordinator its rights, for whoever
        /// may run them.
        #[arg(long)]
        print: bool,
        /// Why; goes into the audit record.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// One transaction.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct One {
    /// Its gid.
    pub(in crate::cli) gid: String,
}

/// One transaction, and why.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Told {
    /// Its gid.
    pub(in crate::cli) gid: String,
    /// Why; goes into the audit record and the transaction's timeline.
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) reason: Option<String>,
}

/// How something ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Outcome {
    /// It took effect.
    Committed,
    /// It did not.
    Aborted,
}

impl Outcome {
    pub(in crate::cli) const fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Aborted => "aborted",
        }
    }
}

/// Which transactions.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Find {
    /// In this state.
    #[arg(long, value_name = "STATE", value_parser = ["active", "preparing", "querying", "committing", "aborting", "committed", "aborted", "mixed"])]
    pub(in crate::cli) state: Option<String>,
    /// Of this mode.
    #[arg(long, value_name = "MODE", value_parser = ["xa", "tcc", "saga", "message"])]
    pub(in crate::cli) mode: Option<String>,
    /// Of this name.
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) name: Option<String>,
    /// With this label, `name=value`; may be repeated.
    #[arg(long = "label", value_name = "PAIR")]
    pub(in crate::cli) labels: Vec<String>,
    /// That call this service, `host:port` or target.
    #[arg(long, value_name = "TARGET")]
    pub(in crate::cli) target: Option<String>,
    /// Only those that do not get on.
    #[arg(long)]
    pub(in crate::cli) stuck: bool,
    /// Begun so long ago or later: `15m`, `2h` or RFC 3339.
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) since: Option<String>,
    /// At most so many, up to 500.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(in crate::cli) limit: usize,
    /// Go on where another page ended.
    #[arg(long, value_name = "CURSOR")]
    pub(in crate::cli) cursor: Option<String>,
}
