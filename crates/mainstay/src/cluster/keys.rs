//! `[security.keyring]`, and the keyring of a node: what wraps its file, and whether it is that of
//! the other nodes.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mainstay_coord::keyring::{self, Keyring, KeyringError, KeyringFile};
use mainstay_coord::{BootClock, Timer as _};
use mainstay_core::problem::Code;
use mainstay_resilience::Invalid;
use mainstay_store::Store;
use schemars::JsonSchema;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::audit::settings::RawRequired;
use crate::jwt::egress::RawEgress;
use crate::report::{Report, causes};
use crate::settings::Errors;

/// The `[security]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawSecurity {
    /// What wraps the keyring on disk.
    pub keyring: RawKeyring,
    /// Whether nothing is changed without the audit log.
    pub audit: RawRequired,
    /// Where connections may go that the configuration asks for.
    pub egress: RawEgress,
}

/// The `[security.keyring]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawKeyring {
    /// File whose content wraps the keyring: 32 to 4,096 bytes, best random, without the line break
    /// at its end; nobody but its owner may use it. Restart only. Default: the keyring lies
    /// unwrapped, in a file of mode 0600.
    pub key_file: Option<PathBuf>,
    /// The same as a credential of systemd: its name in `LoadCredential=` or
    /// `LoadCredentialEncrypted=`. Restart only. Default none.
    pub credential: Option<String>,
}

/// `[security.keyring]`, resolved.
#[derive(Clone, Debug, Default)]
pub struct KeyringConfig {
    key: Option<Place>,
}

#[derive(Clone, Debug)]
enum Place {
    File(PathBuf),
    Credential(String),
}

/// Bytes of what wraps a keyring: as many as its key has, and no more than a key file should.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 32..=4_096;

/// How long a start waits for a store to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

impl KeyringConfig {
    /// Resolves what was written; adds what is wrong to `faults`.
    pub fn resolve(raw: RawKeyring, faults: &mut Vec<Invalid>) -> Self {
        let key = match (raw.key_file, raw.credential) {
            (None, None) => None,
            (Some(path), None) => Some(Place::File(path)),
            (None, Some(name)) => {
                if name.is_empty() || name.contains('/') || name.starts_with('.') {
                    let problem = "must be the name of a credential, without `/`";
                    faults.push(Invalid::range("security.keyring.credential", problem));
                }
                Some(Place::Credential(name))
            }
            (Some(_), Some(_)) => {
                let problem = "one key wraps the keyring: leave out this or `key_file`";
                faults.push(Invalid::range("security.keyring.credential", problem));
                None
            }
        };
        Self { key }
    }

    /// Where the keyring of the data directory `data` lies, with what wraps it. Blocks.
    ///
    /// # Errors
    ///
    /// `keyring-open` when others can use the key file, `keyring-unreadable` when it cannot be read
    /// or has too few bytes.
    pub fn file(&self, data: &Path) -> Result<KeyringFile, Errors> {
        let file = KeyringFile::new(data.join("keyring"));
        let key = match &self.key {
            None => return Ok(file),
            Some(Place::File(path)) => {
                private(path)?;
                read(path)?
            }
            // systemd sees to who may read it.
            Some(Place::Credential(name)) => read(&credentials()?.join(name))?,
        };
        Ok(file.wrapped_with(key.to_vec()))
    }
}

/// Where systemd puts the credentials of this service.
fn credentials() -> Result<PathBuf, Errors> {
    let missing = || {
        let message = "`security.keyring.credential`: no credentials were passed to this process";
        let report = Report::error(Code::KeyringUnreadable, message);
        report.help("start it as a service of systemd with `LoadCredential=`")
    };
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(missing)?;
    Ok(PathBuf::from(folder))
}

fn private(path: &Path) -> Result<(), Errors> {
    let found = std::fs::metadata(path).map_err(|error| unread(path, &error))?;
    let own = rustix::process::geteuid().as_raw();
    let problem = match (found.mode() & 0o077, found.uid()) {
        (0, owner) if owner == own || owner == 0 => return Ok(()),
        (0, owner) => format!("belongs to user {owner}, not {own}, who runs this"),
        (_, _) => {
            let mode = found.mode() & 0o777;
            format!("has mode {mode:04o}: others can use it; run `chmod 0600`")
        }
    };
    Err(Report::error(Code::KeyringOpen, format!("key file {} {problem}", path.display())).into())
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Errors> {
    let bytes = std::fs::read(path).map(Zeroizing::new).map_err(|error| unread(path, &error))?;
    let end = bytes.strip_suffix(b"\n").map_or(bytes.len(), <[u8]>::len);
    let key = Zeroizing::new(bytes.get(..end).unwrap_or_default().to_vec());
    if KEY_BYTES.contains(&key.len()) {
        return Ok(key);
    }
    let (found, path) = (key.len(), path.display());
    let message = format!("key file {path} has {found} bytes; it must have 32 to 4,096");
    let report = Report::error(Code::KeyringUnreadable, message);
    Err(report.help("make one: `(umask 077; head -c 32 /dev/urandom | base64 > FILE)`").into())
}

fn unread(path: &Path, error: &std::io::Error) -> Report {
    let message = format!("key file {} cannot be read: {error}", path.display());
    Report::error(Code::KeyringUnreadable, message)
}

/// The keyring of a node, and where it lies.
#[derive(Debug)]
pub struct Keys {
    /// The keys.
    pub keyring: Keyring,
    /// Where they lie, with what wraps them.
    pub file: KeyringFile,
}

/// Opens the keyring in `file` or makes one, and settles with `store` which keys there are. A store
/// that does not answer is asked when it does.
///
/// # Errors
///
/// `keyring-differs`, `keyring-open`, `keyring-unreadable`.
///
/// # Cancel safety
///
/// A keyring that was made stays.
pub async fn agree(store: &Arc<dyn Store>, file: KeyringFile) -> Result<Keys, Errors> {
    let now = BootClock.unix_millis();
    file.wrap().map_err(|error| refused(&error))?;
    let agreed = keyring::agree(&**store, &file, now);
    let keyring = match tokio::time::timeout(ANSWER_MAX, agreed).await {
        Ok(Err(KeyringError::Store(_))) | Err(_) => {
            tracing::warn!("the store does not answer; its keys are looked at when it does");
            file.open_or_create(now)
        }
        Ok(agreed) => agreed,
    };
    let keyring = keyring.map_err(|error| refused(&error))?;
    Ok(Keys { keyring, file })
}

/// Why a keyring cannot be used, and what to do.
pub fn refused(error: &KeyringError) -> Report {
    let report = Report::error(error.code(), causes(error));
    match error {
        KeyringError::Differs { .. } => report
            .help("on a node that runs: mainstay keyring export FILE --passphrase-file PATH")
            .next("mainstay keyring import FILE --data-dir PATH --passphrase-file PATH"),
        KeyringError::WrongKey => {
            report.help("`security.keyring` names another key than the one that wraps the keyring")
        }
        _ => report,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn config(text: &str) -> (KeyringConfig, Vec<String>) {
        let mut faults = Vec::new();
        let config = KeyringConfig::resolve(toml::from_str(text).unwrap(), &mut faults);
        (config, faults.into_iter().map(|fault| fault.path).collect())
    }

    #[test]
    fn one_key_is_named_or_none() {
        assert_eq!(config("").1, [""; 0]);
        assert_eq!(config("key_file = '/etc/mainstay/key'").1, [""; 0]);
        let wrong = ["security.keyring.credential"];
        assert_eq!(config("credential = '../other'").1, wrong);
        assert_eq!(config("credential = 'a'\nkey_file = 'b'").1, wrong);
    }

    #[test]
    fn a_key_file_is_private_and_long_enough_and_wraps_what_lay_in_the_open() {
        let folder = tempfile::tempdir().unwrap();
        let (data, key) = (folder.path(), folder.path().join("key"));
        let (config, _) = config(&format!("key_file = '{}'", key.display()));
        let code = || config.file(data).unwrap_err().reports[0].code.clone();
        assert_eq!(code(), "keyring-unreadable");
        fs::write(&key, "short\n").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(code(), "keyring-open");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(code(), "keyring-unreadable");
        fs::write(&key, format!("{}\n", "k".repeat(32))).unwrap();
        let plain = KeyringFile::new(data.join("keyring"));
        let before = plain.open_or_create(1).unwrap();
        let wrapped = config.file(data).unwrap();
        wrapped.wrap().unwrap();
        assert_eq!(wrapped.open().unwrap().unwrap().current(), before.current());
        let error = refused(&plain.open().unwrap_err());
        assert!(error.render().contains("security.keyring"), "{}", error.render());
        // The line break at its end does not count.
        fs::write(&key, "k".repeat(32)).unwrap();
        assert!(config.file(data).unwrap().open().is_ok());
        fs::write(&key, "x".repeat(32)).unwrap();
        let error = config.file(data).unwrap().open().unwrap_err();
        assert!(matches!(error, KeyringError::WrongKey));
    }
}
