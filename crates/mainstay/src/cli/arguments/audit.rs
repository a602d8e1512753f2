//! Audit records.

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
