//! Verbs that every kind of rule has: routes, upstreams, circuits, limits, fallbacks.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::examples;

/// Nouns that have these verbs.
const NOUNS: [&str; 5] = ["route", "upstream", "circuit", "limit", "fallback"];

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Rule {
    #[command(flatten)]
    Look(Look),
    #[command(flatten)]
    Edit(Edit),
}

/// Looking at what there is.
#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Look {
    /// Lists what files and the store have.
    List {
        /// Only of this namespace.
        #[arg(short, long, value_name = "NAME")]
        namespace: Option<String>,
    },
    /// Shows one, as it is written.
    Show {
        /// `name` or `namespace/name`.
        name: String,
    },
}

/// Changing what the store has, and its history.
#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Edit {
    /// Puts one into the store, new or instead of what is there; in force at once.
    Set(Set),
    /// Says what would be wrong with a content; changes nothing.
    Validate {
        #[command(flatten)]
        content: Content,
    },
    /// Says what one would have done with the calls of the last minutes; limits and circuits only.
    Simulate(Simulate),
    /// Shows what differs between two revisions, or from a file.
    Diff(Difference),
    /// Lists revisions, newest first: who changed it, when, why.
    History {
        /// `name` or `namespace/name`.
        name: String,
        /// The newest revision to list.
        #[arg(long, value_name = "N")]
        from: Option<u64>,
    },
    /// Goes back to what a revision said, by a new revision; brings back what was removed.
    Rollback(Rollback),
    /// Removes one from the store; its history stays.
    Remove(Remove),
}

/// What one shall hold.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Content {
    /// `name` or `namespace/name`.
    pub(in crate::cli) name: String,
    /// File with the table, without its header, as TOML or (`.json`) JSON; `-` or none: stdin.
    #[arg(short, long, value_name = "PATH")]
    pub(in crate::cli) file: Option<PathBuf>,
}

/// Whether a change is only to be looked at.
#[derive(Clone, Copy, Debug, Args)]
pub(in crate::cli) struct Rehearsal {
    /// Shows what would change, and changes nothing.
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// With `--dry-run`: ends with 10 when something would change.
    #[arg(long, requires = "dry_run")]
    pub(in crate::cli) exit_code: bool,
}

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Simulate {
    #[command(flatten)]
    pub(in crate::cli) content: Content,
    /// How far back, in seconds, 1 to 900.
    #[arg(long, value_name = "SECONDS", default_value_t = 900,
        value_parser = clap::value_parser!(u64).range(1..=900))]
    pub(in crate::cli) replay: u64,
}

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Set {
    #[command(flatten)]
    pub(in crate::cli) content: Content,
    /// Revision the content was made from, 0 for none; default the one there is.
    #[arg(long, value_name = "N")]
    pub(in crate::cli) base: Option<u64>,
    /// Why; stands in the history and the audit record.
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) reason: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) rehearsal: Rehearsal,
}

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Difference {
    #[command(flatten)]
    pub(in crate::cli) content: Content,
    /// Revision, 0 for "not there".
    #[arg(long, value_name = "N", requires = "to", conflicts_with = "file")]
    pub(in crate::cli) from: Option<u64>,
    /// Revision.
    #[arg(long, value_name = "N", requires = "from")]
    pub(in crate::cli) to: Option<u64>,
    /// Ends with 10 when something differs.
    #[arg(long)]
    pub(in crate::cli) exit_code: bool,
}

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Rollback {
    /// `name` or `namespace/name`.
    pub(in crate::cli) name: String,
    /// Revision, as `history` lists it.
    #[arg(long, value_name = "N")]
    pub(in crate::cli) to: u64,
    /// Why, 3 to 500 characters; stands in the history and the audit record.
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) reason: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) rehearsal: Rehearsal,
}

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Remove {
    /// `name` or `namespace/name`.
    pub(in crate::cli) name: String,
    /// Why, 3 to 500 characters; stands in the history and the audit record.
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) reason: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) rehearsal: Rehearsal,
}

/// Gives the verbs their examples, in the words of each noun.
pub(super) fn with_examples(mut command: clap::Command) -> clap::Command {
    for noun in NOUNS {
        command = command.mut_subcommand(noun, |command| of_noun(noun, command));
    }
    command
}

fn of_noun(noun: &str, mut command: clap::Command) -> clap::Command {
    let own = if noun == "circuit" { &[][..] } else { &LOOKS[..] };
    for (verb, first, second) in own.iter().chain(&EDITS) {
        let line = |rest: &str| format!("{noun} {verb}{rest}");
        let examples = examples(&line(first), &line(second));
        command = command.mut_subcommand(verb, |command| command.after_help(examples));
    }
    command
}

const LOOKS: [(&str, &str, &str); 2] =
    [("list", "", " -n shop -o name"), ("show", " order", " shop/order > order.toml")];

const EDITS: [(&str, &str, &str); 7] = [
    (
        "set",
        " shop/order -f order.toml --reason 'sale'",
        " order -f order.toml --dry-run --exit-code",
    ),
    ("validate", " shop/order -f order.toml", " order -f order.json -o json"),
    ("simulate", " shop/order -f order.toml", " order -f order.toml --replay 300 -o json"),
    ("diff", " order --from 41 --to 42", " order -f order.toml --exit-code"),
    ("history", " order", " shop/order -o json"),
    (
        "rollback",
        " order --to 41 --reason 'too strict'",
        " order --to 41 --dry-run --reason 'look'",
    ),
    ("remove", " order --reason 'not used any more'", " shop/order --reason 'INC-7' --yes"),
];
