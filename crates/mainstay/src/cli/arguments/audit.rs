//! Audit records.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::examples;

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Audit {
    /// Lists who changed what, newest first.
    #[command(after_help = examples("audit search --since 1h", "audit search --action 'switch:*' --object shop/checkout -o jsonl"))]
    Search(Search),
    /// Shows one record: who, what, before and after, why.
    #[command(after_help = examples("audit show 00000000000012ab-5f0c8e9d7a6b4c3d", "audit show 00000000000012ab-5f0c8e9d7a6b4c3d -o json"))]
    Show {
        /// Its id, as `audit search -o name` prints it.
        id: String,
    },
    /// Looks through a whole log, and names the first record that is not what it was.
    ///
    /// Needs no server with `--dir`. Exit code 0: all is as it was; 1: tampered with; 7: it cannot
    /// be read.
    #[command(after_help = examples("audit verify --dir /var/lib/mainstay/audit/0001-3f0c9a7be2d41c58 --key audit.key", "audit verify --url http://127.0.0.1:7400 --key audit.key --head /mnt/elsewhere/heads"))]
    Verify(Verify),
    /// Copies the log into a folder, where `audit verify` can look through it.
    #[command(after_help = examples("audit export audit-2026-01", "audit export audit-2026-01 -o json"))]
    Export {
        /// The folder; what is there already must be of the same log.
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
}

/// Which log, and what is known of it from elsewhere.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Verify {
    /// The folder of the log: one in `audit` of a data directory, or what `audit export` wrote.
    /// Default: the log of the server that is asked.
    #[arg(long, value_name = "FOLDER")]
    pub(in crate::cli) dir: Option<PathBuf>,
    /// The log of the server with this control port.
    #[arg(long, value_name = "URL", conflicts_with = "dir")]
    pub(in crate::cli) url: Option<String>,
    /// The key that signs it, or a file with it, kept from before: `name+01234567+base64`. Without
    /// one the keys the log itself names are taken, and whoever wrote the log may have written them
    /// too.
    #[arg(long = "key", value_name = "KEY")]
    pub(in crate::cli) keys: Vec<String>,
    /// A file with heads that were kept elsewhere.
    #[arg(long = "head", value_name = "FILE")]
    pub(in crate::cli) heads: Vec<PathBuf>,
}

/// Which records.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Search {
    /// By this principal.
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) actor: Option<String>,
    /// This action; `switch:*` for all that begin so.
    #[arg(long, value_name = "ACTION")]
    pub(in crate::cli) action: Option<String>,
    /// Upon this object: `namespace/name` or `kind/namespace/name`.
    #[arg(long, value_name = "OBJECT")]
    pub(in crate::cli) object: Option<String>,
    /// That came to this: `done`, `refused` or `failed`.
    #[arg(long, value_name = "WORD", value_parser = ["done", "refused", "failed"])]
    pub(in crate::cli) outcome: Option<String>,
    /// From this address.
    #[arg(long, value_name = "ADDRESS")]
    pub(in crate::cli) source: Option<String>,
    /// With these words somewhere in them.
    #[arg(long, value_name = "WORDS")]
    pub(in crate::cli) words: Option<String>,
    /// Not older: `15m`, `2h` or RFC 3339.
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) since: Option<String>,
    /// Not newer: `15m`, `2h` or RFC 3339.
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) until: Option<String>,
    /// At most so many, up to 1000.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(in crate::cli) limit: usize,
    /// Go on where another page ended.
    #[arg(long, value_name = "CURSOR")]
    pub(in crate::cli) cursor: Option<String>,
}
