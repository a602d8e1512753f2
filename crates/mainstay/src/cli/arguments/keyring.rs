//! `keyring`: the keys that seal secrets, the same on every node of a store.

use std::path::PathBuf;

use clap::Subcommand;

use super::backup::PassphraseFile;
use super::examples;
use super::store::Offline;

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Keyring {
    /// Lists the keys: which one seals, and how much each still opens.
    #[command(after_help = examples("keyring list", "keyring list -o json"))]
    List,
    /// Writes all keys into a file that only a passphrase opens, for another node of the store.
    #[command(after_help = examples("keyring export keys.json --passphrase-file pass.txt", "keyring export keys.json --passphrase-file - --reason 'a second node'"))]
    Export {
        /// Where it is written; whole, or not at all.
        file: PathBuf,
        #[command(flatten)]
        passphrase: PassphraseFile,
        /// Writes over a file that is there.
        #[arg(long)]
        force: bool,
        /// Why, 3 to 500 characters; goes into the audit record.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Adds the keys of a file to those of a node that is stopped, or not yet started.
    #[command(after_help = examples("keyring import keys.json --data-dir /var/lib/mainstay --passphrase-file pass.txt", "keyring import keys.json --data-dir ./data --passphrase-file -"))]
    Import {
        /// What `keyring export` wrote.
        file: PathBuf,
        #[command(flatten)]
        offline: Offline,
        #[command(flatten)]
        passphrase: PassphraseFile,
        /// Why, 3 to 500 characters; goes into the audit record.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Makes a new key that every node seals with from now on; older ones go on opening.
    #[command(after_help = examples("keyring rotate --reason 'once a year'", "keyring rotate -o json"))]
    Rotate {
        /// Why, 3 to 500 characters; goes into the audit record.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Lets the keyring of a stopped node be that of the store, when the one of before is lost:
    /// what it sealed stays closed.
    #[command(after_help = examples("keyring accept --data-dir /var/lib/mainstay --reason 'INC-7, keyring lost'", "keyring accept --data-dir ./data --reason 'INC-7' --yes"))]
    Accept {
        #[command(flatten)]
        offline: Offline,
        /// Why, 3 to 500 characters; goes into the audit record.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}
