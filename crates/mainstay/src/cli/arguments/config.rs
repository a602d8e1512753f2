//! The config centre.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::examples;

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Config {
    /// Lists groups, with the release in force.
    #[command(after_help = examples("config list", "config list --namespace shop -o name"))]
    List {
        /// Namespace.
        #[arg(long, value_name = "NAME", default_value = "default")]
        namespace: String,
    },
    /// Prints an item, or lists the items of a group.
    #[command(after_help = examples("config get shop/payment", "config get shop/payment app.yaml --client pay-5"))]
    Get(Get),
    /// Keeps a draft of an item; `config release` publishes it.
    #[command(after_help = examples("config set shop/payment app.yaml -f app.yaml", "config set shop/payment password -f - --secret"))]
    Set(Set),
    /// Keeps a draft that removes an item; with `--draft` forgets the draft instead.
    #[command(after_help = examples("config remove shop/payment app.yaml --reason 'not used any more'", "config remove shop/payment app.yaml --draft --reason 'half done'"))]
    Remove(Remove),
    /// Publishes the drafts of a group; or starts, widens, promotes or aborts a gradual release.
    #[command(after_help = examples("config release shop/payment --note 'higher limit'", "config release shop/payment --percent 10 --clients pay-3,pay-6"))]
    Release(Release),
    /// Shows what differs between two releases; without them, what the drafts would change.
    #[command(after_help = examples("config diff shop/payment", "config diff shop/payment --from 1 --to 2"))]
    Diff {
        #[command(flatten)]
        group: Group,
        /// The older; 0 is nothing.
        #[arg(long, value_name = "N", requires = "to")]
        from: Option<u64>,
        /// The newer.
        #[arg(long, value_name = "N", requires = "from")]
        to: Option<u64>,
    },
    /// Lists releases: who, when, why; newest first.
    #[command(after_help = examples("config history shop/payment", "config history shop/payment --before 100"))]
    History {
        #[command(flatten)]
        group: Group,
        /// Only those before this release.
        #[arg(long, value_name = "N")]
        before: Option<u64>,
    },
    /// Publishes the content of an older release again, as a new one; aborts a gradual release.
    #[command(after_help = examples("config rollback shop/payment --to 2 --reason 'INC-7'", "config rollback payment --to 1 --reason 'as before'"))]
    Rollback {
        #[command(flatten)]
        group: Group,
        /// Its number, as the history shows it.
        #[arg(long, value_name = "N")]
        to: u64,
        /// Why; goes into the history and the audit record.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Lists who holds which release.
    #[command(after_help = examples("config holders shop/payment", "config holders shop/payment -o json"))]
    Holders(Group),
    /// Prints the release in force and then every change, one JSON document a line.
    #[command(after_help = examples("config watch shop/payment", "config watch shop/payment shop/order --client pay-5"))]
    Watch(Watch),
    /// Publishes the files of a folder as the whole of a group.
    #[command(after_help = examples("config import shop/payment conf", "config import shop/payment conf --note 'from the repository' --dry-run"))]
    Import(Import),
    /// Writes the items of a group to files of a folder.
    #[command(after_help = examples("config export shop/payment conf", "config export shop/payment conf --secrets"))]
    Export(Export),
    /// Wraps all data keys by the newest key of the keyring.
    #[command(after_help = examples("config rewrap", "config rewrap --reason 'the keyring was rotated'"))]
    Rewrap {
        /// Why; goes into the audit records.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// One group.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Group {
    /// `group` or `namespace/group`.
    pub(in crate::cli) group: String,
}

/// What is read, and as whom.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Get {
    #[command(flatten)]
    pub(in crate::cli) group: Group,
    /// Only this item, and only its content.
    pub(in crate::cli) item: Option<String>,
    /// As this client gets it.
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) client: Option<String>,
    /// A label of that client, `key=value`; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", requires = "client")]
    pub(in crate::cli) labels: Vec<String>,
    /// Contents of secrets too.
    #[arg(long)]
    pub(in crate::cli) secrets: bool,
}

/// What a draft says.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Set {
    #[command(flatten)]
    pub(in crate::cli) group: Group,
    /// Name of the item.
    pub(in crate::cli) item: String,
    /// Its content.
    #[arg(conflicts_with = "file", required_unless_present = "file")]
    pub(in crate::cli) content: Option<String>,
    /// Read the content from a file; `-` is standard input.
    #[arg(short, long, value_name = "PATH")]
    pub(in crate::cli) file: Option<PathBuf>,
    /// `text`, `json`, `yaml`, `toml`, `properties` or `xml`; by the name's ending unless given.
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json", "yaml", "toml", "properties", "xml"])]
    pub(in crate::cli) format: Option<String>,
    /// Keep it sealed.
    #[arg(long)]
    pub(in crate::cli) secret: bool,
    /// A JSON Schema the content must satisfy.
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) schema: Option<PathBuf>,
    /// Why; goes into the audit record.
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) reason: Option<String>,
}

/// Which item goes.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Remove {
    #[command(flatten)]
    pub(in crate::cli) group: Group,
    /// Name of the item.
    pub(in crate::cli) item: String,
    /// Forget its draft; what is published stays.
    #[arg(long)]
    pub(in crate::cli) draft: bool,
    /// Why; goes into the audit record.
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) reason: Option<String>,
}

/// What is published, and for whom.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Release {
    #[command(flatten)]
    pub(in crate::cli) group: Group,
    /// Why; stands in the history.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(in crate::cli) note: String,
    /// First for these clients, joined by commas.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub(in crate::cli) clients: Vec<String>,
    /// First for clients with all of these labels, `key=value` joined by commas.
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    pub(in crate::cli) labels: Vec<String>,
    /// First for this share of the clients; raising it only adds some.
    #[arg(long, value_name = "P")]
    pub(in crate::cli) percent: Option<f64>,
    /// Says anew who gets the gradual release that is under way.
    #[arg(long, conflicts_with_all = ["promote", "abort"])]
    pub(in crate::cli) widen: bool,
    /// Gives the gradual release to everybody.
    #[arg(long, conflicts_with_all = ["clients", "labels", "percent", "abort"])]
    pub(in crate::cli) promote: bool,
    /// Takes the gradual release back.
    #[arg(long, conflicts_with_all = ["clients", "labels", "percent"])]
    pub(in crate::cli) abort: bool,
    /// Shows what would change, and changes nothing.
    #[arg(long, conflicts_with_all = ["widen", "promote", "abort"])]
    pub(in crate::cli) dry_run: bool,
    /// Why; goes into the audit record.
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) reason: Option<String>,
}

/// What is followed.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Watch {
    /// Groups: `group` or `namespace/group`.
    #[arg(required = true, value_name = "GROUP")]
    pub(in crate::cli) groups: Vec<String>,
    /// As this client gets them.
    #[arg(long, value_name = "ID", default_value = "mainstay-cli")]
    pub(in crate::cli) client: String,
}

/// Where a group is read from.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Import {
    #[command(flatten)]
    pub(in crate::cli) group: Group,
    /// Folder; each file directly in it is an item.
    pub(in crate::cli) folder: PathBuf,
    /// Why; stands in the history.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(in crate::cli) note: String,
    /// Shows what would change, and changes nothing.
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Why; goes into the audit record.
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) reason: Option<String>,
}

/// Where a group is written to.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Export {
    #[command(flatten)]
    pub(in crate::cli) group: Group,
    /// Folder; made if need be. A file that is there is not overwritten.
    pub(in crate::cli) folder: PathBuf,
    /// Contents of secrets too, in files for their owner alone.
    #[arg(long)]
    pub(in crate::cli) secrets: bool,
}
