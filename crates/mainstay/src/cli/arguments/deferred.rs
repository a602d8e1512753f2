//! Deferred requests: looked at, made again, given up.

use clap::{Args, Subcommand};

use super::examples;

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Deferred {
    /// Lists queues; of one queue, its requests: what waits, then what has ended.
    #[command(after_help = examples("deferred list", "deferred list orders --state dead -o json"))]
    List {
        /// Only this one.
        queue: Option<String>,
        /// Only requests in this state.
        #[arg(long, value_name = "STATE", requires = "queue", value_parser = ["queued", "delivering", "done", "dead"])]
        state: Option<String>,
        /// At most so many, up to 500.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Go on where another page ended.
        #[arg(long, value_name = "CURSOR", requires = "queue")]
        cursor: Option<String>,
    },
    /// Shows a request: how often it was tried, and what was wrong last.
    #[command(after_help = examples("deferred show orders 0123456789abcdef0123456789abcdef", "deferred show orders 0123456789abcdef0123456789abcdef -o json"))]
    Show(One),
    /// Makes a dead request again, under the same receipt; or all dead ones of a queue.
    #[command(after_help = examples("deferred replay orders 0123456789abcdef0123456789abcdef --reason 'order is back'", "deferred replay orders --all --reason 'INC-7'"))]
    Replay {
        /// The queue.
        queue: String,
        /// The receipt.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        receipt: Option<String>,
        /// All that are dead.
        #[arg(long)]
        all: bool,
        /// Why; goes into the audit record.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Gives a request up that waits, or forgets a dead one.
    #[command(after_help = examples("deferred discard orders 0123456789abcdef0123456789abcdef --reason 'paid by hand'", "deferred discard orders 0123456789abcdef0123456789abcdef --reason 'INC-7' --yes"))]
    Discard {
        #[command(flatten)]
        one: One,
        /// Why; goes into the audit record.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// One request.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct One {
    /// The queue.
    pub(in crate::cli) queue: String,
    /// The receipt.
    pub(in crate::cli) receipt: String,
}
