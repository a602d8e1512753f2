//! Everything Mainstay keeps, in one file; and back.
//!
//! A backup is a tar in one zstd frame: `manifest.json`, then the parts it lists, in its order.
//!
//! | part | content |
//! |---|---|
//! | `config/…` | the files of the configuration, as they lay on disk |
//! | `keys/keyring.json` | the keyring, sealed with a passphrase; left out without one |
//! | `store.msnap` | everything agreed upon, as of one revision ([`mainstay_store::snapshot::file`]) |
//!
//! Nothing is done by halves. A backup is written under another name and gets its own when it is
//! whole and synced; a restore reads all of it twice, the first time to see that it can be restored.
//!
//! | what | module |
//! |---|---|
//! | the file | [`archive`], [`manifest`] |
//! | taking one | [`taking`] |
//! | checking one | [`verifying`] |
//! | restoring one | [`restoring`] |
//! | taking them by themselves: `[backup]` | [`settings`], [`schedule`] |
//! | a file that is whole or not there | [`whole`] |

pub mod archive;
pub mod figures;
pub mod manifest;
pub mod restoring;
pub mod schedule;
pub mod settings;
pub mod taking;
#[cfg(test)]
mod tests;
pub mod verifying;
pub mod whole;

/// The part with everything agreed upon.
pub const STORE: &str = "store.msnap";

/// The part with the keyring.
pub const KEYRING: &str = "keys/keyring.json";

/// What files of the configuration begin with.
pub const CONFIG: &str = "config/";
