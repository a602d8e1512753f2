//! `backup`: everything Mainstay keeps, in one file.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ConfigFile, examples};

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Backup {
    /// Writes everything that is kept into a file: of the running process, or of a data directory.
    #[command(after_help = examples("backup create monday.backup --passphrase-file pass.txt", "backup create /backups --every 24h --keep 7"))]
    Create(Create),
    /// Reads a whole backup and restores its store into memory.
    #[command(after_help = examples("backup verify monday.backup", "backup verify monday.backup --passphrase-file pass.txt -o json"))]
    Verify {
        /// The backup.
        file: PathBuf,
        #[command(flatten)]
        passphrase: PassphraseFile,
    },
    /// Restores a backup into a data directory that no process has.
    #[command(after_help = examples("backup restore monday.backup --data-dir /var/lib/mainstay --passphrase-file pass.txt", "backup restore monday.backup --data-dir ./data --force --without-keys"))]
    Restore(Restore),
}

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Create {
    /// Where it is written; whole, or not at all. With `--every`, the folder they are put into.
    pub(in crate::cli) file: PathBuf,
    /// Takes one after the other, so far apart (`24h`, a minute at least), until it is ended. A node
    /// does the same by itself with `backup.every_seconds`.
    #[arg(long, value_name = "SPAN", conflicts_with_all = ["data_dir", "force"])]
    pub(in crate::cli) every: Option<String>,
    /// With `--every`: how many are kept, the newest, 1 to 1,000.
    #[arg(long, value_name = "N", requires = "every", default_value_t = 7,
        value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(in crate::cli) keep: u32,
    /// Of this data directory, which no process has, instead of the running process.
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) config: ConfigFile,
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseFile,
    /// Writes over a file that is there.
    #[arg(long)]
    pub(in crate::cli) force: bool,
}

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Restore {
    /// The backup.
    pub(in crate::cli) file: PathBuf,
    /// Where it is restored to.
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) data_dir: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) config: ConfigFile,
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseFile,
    /// Sets the store that is there aside.
    #[arg(long)]
    pub(in crate::cli) force: bool,
    /// Restores without the keys: secrets stay sealed until the keyring is there.
    #[arg(long, conflicts_with = "passphrase_file")]
    pub(in crate::cli) without_keys: bool,
    /// Why, 3 to 500 characters; goes into the audit record.
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) reason: Option<String>,
}

/// What seals or opens the keys of a backup.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct PassphraseFile {
    /// File with the passphrase for the keys, 12 bytes or more on its first line; `-` asks for it.
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) passphrase_file: Option<PathBuf>,
}
