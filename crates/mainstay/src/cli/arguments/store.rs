//! `store`: the store of agreed state, running or not.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{ConfigFile, examples};

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Store {
    /// Shows how the store stands.
    #[command(after_help = examples("store status", "store status -o json"))]
    Status,
    /// Lists keys with their sizes and revisions; values are not shown.
    #[command(after_help = examples("store range --prefix ins/", "store range --prefix lock/ --at 4711"))]
    Range {
        /// Only keys that begin so.
        #[arg(long, value_name = "TEXT", default_value = "")]
        prefix: String,
        /// As of this revision; default the newest.
        #[arg(long, value_name = "N")]
        at: Option<u64>,
        /// Go on after this key.
        #[arg(long, value_name = "KEY")]
        after: Option<String>,
    },
    /// Prints one number for all there is: equal numbers, equal stores.
    #[command(after_help = examples("store hash", "store hash --content"))]
    Hash {
        /// As of this revision; default the newest.
        #[arg(long, value_name = "N")]
        at: Option<u64>,
        /// Without revisions, to compare stores on different backends.
        #[arg(long)]
        content: bool,
    },
    /// Forgets history up to a revision, for good.
    #[command(after_help = examples("store compact 4711", "store compact 4711 --yes"))]
    Compact {
        /// The oldest revision that can be read afterwards.
        revision: u64,
    },
    /// Shows one key with its value.
    #[command(after_help = examples("store get meta/format", "store get svc/default/web --at 4711 -o json"))]
    Get {
        /// The key.
        key: String,
        /// As of this revision; default the newest.
        #[arg(long, value_name = "N")]
        at: Option<u64>,
    },
    /// Prints each change of keys, without values, until interrupted.
    #[command(after_help = examples("store watch --prefix ins/", "store watch --from 4711 -o jsonl"))]
    Watch {
        /// Only keys that begin so.
        #[arg(long, value_name = "TEXT", default_value = "")]
        prefix: String,
        /// From this revision on; default what comes.
        #[arg(long, value_name = "N")]
        from: Option<u64>,
    },
    /// Reads all of an embedded store that no process has, and checks every record.
    #[command(after_help = examples("store check --data-dir /var/lib/mainstay", "store check --data-dir ./data -o json"))]
    Check(Offline),
    /// Rewrites an embedded store that no process has, without the room it no longer needs.
    #[command(after_help = examples("store shrink --data-dir /var/lib/mainstay", "store shrink --data-dir ./data"))]
    Shrink(Offline),
    /// Copies everything to a store on the other backend, which has to be empty; stop all nodes first.
    #[command(after_help = examples("store copy --from embedded --to etcd --data-dir /var/lib/mainstay", "store copy --from etcd --to embedded --data-dir ./data"))]
    Copy {
        /// Where it is read.
        #[arg(long, value_name = "BACKEND")]
        from: BackendName,
        /// Where it is written.
        #[arg(long, value_name = "BACKEND")]
        to: BackendName,
        #[command(flatten)]
        offline: Offline,
    },
    /// Goes on with the history that etcd has now, after it was restored or begun anew; stop this
    /// node first.
    #[command(after_help = examples("store accept --data-dir /var/lib/mainstay --reason 'etcd restored'", "store accept --data-dir ./data --reason 'INC-7' --yes"))]
    Accept {
        #[command(flatten)]
        offline: Offline,
        /// Why, 3 to 500 characters; it is logged.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// A store that no process has.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Offline {
    /// The data directory of the node.
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) data_dir: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) config: ConfigFile,
}

/// A backend of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum BackendName {
    /// In the data directory.
    Embedded,
    /// In the etcd of `[store.etcd]`.
    Etcd,
}
