//! Switches and plans.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::examples;

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Switch {
    /// Lists switches, with who turned each last.
    #[command(after_help = examples("switch list", "switch list --namespace shop -o json"))]
    List(Which),
    /// Shows a switch.
    #[command(after_help = examples("switch show shop/recommend", "switch show shop/recommend -o json"))]
    Show(One),
    /// Sets a switch; with `--type` makes one.
    #[command(after_help = examples("switch set shop/limit 40 --until 2h", "switch set shop/recommend true --type boolean --description 'the row of suggestions'"))]
    Set(Set),
    /// Turns a boolean switch on; a percentage to 100.
    #[command(after_help = examples("switch on shop/recommend", "switch on shop/recommend --until 2h --reason 'INC-7 is over'"))]
    On(Turn),
    /// Turns a boolean switch off; a percentage to 0.
    #[command(after_help = examples("switch off shop/recommend --reason 'INC-7'", "switch off shop/recommend --until 30m"))]
    Off(Turn),
    /// Prints what the switches of a namespace are, and then every change, one JSON document a line.
    #[command(after_help = examples("switch watch", "switch watch --namespace shop"))]
    Watch {
        /// Namespace.
        #[arg(long, value_name = "NAME", default_value = "default")]
        namespace: String,
    },
    /// Lists who changed a switch when and why, newest first.
    #[command(after_help = examples("switch history shop/recommend", "switch history shop/recommend -o jsonl"))]
    History(One),
    /// Shows what differs between two revisions.
    #[command(after_help = examples("switch diff shop/recommend --from 41 --to 42", "switch diff shop/recommend --from 0 --to 1"))]
    Diff(Diff),
    /// Gives a switch the content of an older revision again, as a new one.
    #[command(after_help = examples("switch rollback shop/recommend --to 41 --reason 'INC-7'", "switch rollback shop/gone --to 3 --reason 'removed by mistake'"))]
    Rollback(Rollback),
    /// Removes a switch that nothing refers to.
    #[command(after_help = examples("switch remove shop/recommend --reason 'not used any more'", "switch remove shop/recommend --reason 'gone' --yes"))]
    Remove(Remove),
}

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Plan {
    /// Lists plans.
    #[command(after_help = examples("plan list", "plan list --namespace shop -o name"))]
    List(Which),
    /// Shows a plan, and whether it is active.
    #[command(after_help = examples("plan show shop/sale", "plan show shop/sale -o json"))]
    Show(One),
    /// Makes a plan, or changes one.
    #[command(after_help = examples("plan set shop/sale --switch recommend=false --switch limit=40", "plan set shop/sale -f sale.json --reason 'this year'"))]
    Set(SetPlan),
    /// Shows what activating would change, and changes nothing.
    #[command(after_help = examples("plan rehearse shop/sale", "plan rehearse shop/sale -o json"))]
    Rehearse(One),
    /// Sets all switches of a plan at once, or none.
    #[command(after_help = examples("plan activate shop/sale --reason 'the sale begins'", "plan activate shop/sale --reason 'drill' --dry-run"))]
    Activate(TurnPlan),
    /// Gives each switch back what it was, unless somebody has changed it since.
    #[command(after_help = examples("plan deactivate shop/sale --reason 'it is over'", "plan deactivate shop/sale --force --reason 'INC-7'"))]
    Deactivate {
        #[command(flatten)]
        turn: TurnPlan,
        /// Also those that somebody has changed since.
        #[arg(long)]
        force: bool,
    },
    /// Lists who changed a plan when and why, newest first.
    #[command(after_help = examples("plan history shop/sale", "plan history shop/sale -o jsonl"))]
    History(One),
    /// Shows what differs between two revisions.
    #[command(after_help = examples("plan diff shop/sale --from 1 --to 2", "plan diff shop/sale --from 0 --to 1"))]
    Diff(Diff),
    /// Gives a plan the content of an older revision again, as a new one.
    #[command(after_help = examples("plan rollback shop/sale --to 1 --reason 'as last year'", "plan rollback shop/sale --to 1 --reason 'INC-7'"))]
    Rollback(Rollback),
    /// Removes a plan that is not active.
    #[command(after_help = examples("plan remove shop/sale --reason 'never again'", "plan remove shop/sale --reason 'gone' --yes"))]
    Remove(Remove),
}

/// Which namespace, and where the list begins.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Which {
    /// Only of this namespace.
    #[arg(short, long, value_name = "NAME")]
    pub(in crate::cli) namespace: Option<String>,
    /// Go on after this one: `name` in a namespace, else `namespace/name`.
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) after: Option<String>,
}

/// One switch or plan.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct One {
    /// `name` or `namespace/name`.
    pub(in crate::cli) name: String,
}

/// How a change is made.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct How {
    /// Why; goes into the audit record.
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) reason: Option<String>,
    /// Shows what would change, and changes nothing.
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}

/// What a switch is set to.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Set {
    #[command(flatten)]
    pub(in crate::cli) one: One,
    /// `true`, `false`, a number or a text.
    pub(in crate::cli) value: String,
    /// Makes it: `boolean`, `number`, `string` or `percent`. A type is for life.
    #[arg(long = "type", value_name = "TYPE", value_parser = ["boolean", "number", "string", "percent"])]
    pub(in crate::cli) kind: Option<String>,
    /// What it is once its time is over.
    #[arg(long, value_name = "VALUE")]
    pub(in crate::cli) default: Option<String>,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) description: Option<String>,
    /// Only so long: `15m`, `2h` or RFC 3339.
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) until: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) how: How,
}

/// A switch that is turned.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Turn {
    #[command(flatten)]
    pub(in crate::cli) one: One,
    /// Only so long: `15m`, `2h` or RFC 3339.
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) until: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) how: How,
}

/// What a plan is.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct SetPlan {
    #[command(flatten)]
    pub(in crate::cli) one: One,
    /// A switch and what it is to be, `name=value`; may be repeated.
    #[arg(long = "switch", value_name = "NAME=VALUE", conflicts_with = "file")]
    pub(in crate::cli) switches: Vec<String>,
    /// It ends by itself after so long: `15m`, `2h`.
    #[arg(long, value_name = "SPAN", conflicts_with = "file")]
    pub(in crate::cli) max_active: Option<String>,
    /// What it is for.
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    pub(in crate::cli) description: Option<String>,
    /// The whole content, as JSON.
    #[arg(short, long, value_name = "PATH")]
    pub(in crate::cli) file: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) how: How,
}

/// A plan that is turned.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct TurnPlan {
    #[command(flatten)]
    pub(in crate::cli) one: One,
    #[command(flatten)]
    pub(in crate::cli) how: How,
}

/// Which revisions.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Diff {
    #[command(flatten)]
    pub(in crate::cli) one: One,
    /// The older; 0 is nothing.
    #[arg(long, value_name = "N")]
    pub(in crate::cli) from: u64,
    /// The newer.
    #[arg(long, value_name = "N")]
    pub(in crate::cli) to: u64,
}

/// Which revision comes back.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Rollback {
    #[command(flatten)]
    pub(in crate::cli) one: One,
    /// Its number, as the history shows it.
    #[arg(long, value_name = "N")]
    pub(in crate::cli) to: u64,
    #[command(flatten)]
    pub(in crate::cli) how: How,
}

/// What is removed.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Remove {
    #[command(flatten)]
    pub(in crate::cli) one: One,
    #[command(flatten)]
    pub(in crate::cli) how: How,
}
