//! The keyring on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Key, Keyring, KeyringError, Label, derive, from_hex, open, seal};
use crate::random;

/// Largest file that is read: about five thousand keys.
const BYTES_MAX: u64 = 1 << 20;

/// Bound to a wrapped keyring.
const PLACE: &[u8] = b"keyring";

/// Where a keyring lies, and what wraps it there.
#[derive(Clone)]
pub struct KeyringFile {
    path: PathBuf,
    wrapping: Option<Zeroizing<Vec<u8>>>,
}

/// The file: keys, or keys wrapped.
#[derive(Serialize, Deserialize)]
struct Sheet {
    v: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<Row>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wrapped: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    id: String,
    state: super::KeyState,
    created_unix_ms: u64,
    secret: Zeroizing<String>,
}

impl KeyringFile {
    /// The keyring at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), wrapping: None }
    }

    /// Wrapped with `key`: what a key file or a credential of the service manager holds. It should
    /// be 32 random bytes; a text that people can remember is none.
    #[must_use]
    pub fn wrapped_with(mut self, key: Vec<u8>) -> Self {
        self.wrapping = Some(Zeroizing::new(key));
        self
    }

    /// Opens the keyring, or makes one where there is none. Blocks.
    ///
    /// # Errors
    ///
    /// [`KeyringError::Open`] when others can read the file or it belongs to another user, and
    /// whatever else is wrong with it.
    pub fn open_or_create(&self, unix_ms: u64) -> Result<Keyring, KeyringError> {
        if let Some(keyring) = self.open()? {
            return Ok(keyring);
        }
        let keyring = Keyring::fresh(unix_ms);
        self.write(&keyring, true)?;
        // Two processes may have tried at once: what is on disk now is the one that counts.
        self.open()?.ok_or(KeyringError::Damaged { why: "it has vanished" })
    }

    /// Opens the keyring; `None` where there is none. Blocks.
    ///
    /// # Errors
    ///
    /// As [`open_or_create`](KeyringFile::open_or_create).
    pub fn open(&self) -> Result<Option<Keyring>, KeyringError> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io("opened", error)),
        };
        // Of the file that was opened, not of whatever lies at the path now.
        let found = file.metadata().map_err(|error| self.io("looked at", error))?;
        self.is_private(found.mode(), found.uid())?;
        if found.len() > BYTES_MAX {
            return Err(KeyringError::Damaged { why: "it is larger than 1 MiB" });
        }
        let mut text = Zeroizing::new(Vec::new());
        file.read_to_end(&mut text).map_err(|error| self.io("read", error))?;
        self.parse(&text).map(Some)
    }

    /// Wraps a file that lies there unwrapped, where a wrapping key is given. Blocks.
    ///
    /// # Errors
    ///
    /// As [`open`](KeyringFile::open) and [`save`](KeyringFile::save).
    pub fn wrap(&self) -> Result<(), KeyringError> {
        let in_the_open = Self { path: self.path.clone(), wrapping: None };
        if self.wrapping.is_some()
            && let Ok(Some(keyring)) = in_the_open.open()
        {
            return self.save(&keyring);
        }
        Ok(())
    }

    /// Writes `keyring` in place of the one that is there. Blocks.
    ///
    /// # Errors
    ///
    /// [`KeyringError::Io`]; what was there before is still there.
    pub fn save(&self, keyring: &Keyring) -> Result<(), KeyringError> {
        self.write(keyring, false)
    }

    fn is_private(&self, mode: u32, owner: u32) -> Result<(), KeyringError> {
        let refused = |problem| Err(KeyringError::Open { path: self.path.clone(), problem });
        let wide = mode & 0o077;
        if wide != 0 {
            let mode = mode & 0o777;
            return refused(format!("has mode {mode:04o}: others can use it; run `chmod 0600`"));
        }
        let own = rustix::process::geteuid().as_raw();
        if owner != own {
            return refused(format!("belongs to user {owner}, not {own}, who runs this"));
        }
        Ok(())
    }

    fn parse(&self, text: &[u8]) -> Result<Keyring, KeyringError> {
        let damaged = |why| KeyringError::Damaged { why };
        let sheet: Sheet =
            serde_json::from_slice(text).map_err(|_syntax| damaged("it is no keyring"))?;
        if sheet.v != 1 {
            return Err(damaged("a newer version wrote it"));
        }
        let rows = match (sheet.keys, sheet.wrapped, &self.wrapping) {
            (Some(rows), None, _) => rows,
            (None, Some(wrapped), Some(wrapping)) => {
                let sealed = from_hex(&wrapped).ok_or_else(|| damaged("it is no keyring"))?;
                let opened = open(&derive(wrapping, Label::Keyring), PLACE, sealed);
                read_rows(&opened.ok_or(KeyringError::WrongKey)?)?
            }
            (None, Some(_), None) => {
                return Err(damaged("it is wrapped, and `security.keyring` names no key"));
            }
            _ => return Err(damaged("it holds no keys")),
        };
        keyring(rows)
    }

    /// Writes beside, then renames or links: after a crash the file is the old or the new one. A
    /// new file never replaces one that came meanwhile.
    fn write(&self, keyring: &Keyring, is_new: bool) -> Result<(), KeyringError> {
        let rows = rows(keyring);
        let sheet = match &self.wrapping {
            None => Sheet { v: 1, keys: Some(rows), wrapped: None },
            Some(wrapping) => {
                let plain = write_rows(&rows);
                let sealed = seal(&derive(wrapping, Label::Keyring), PLACE, &plain);
                Sheet { v: 1, keys: None, wrapped: Some(random::to_hex(&sealed)) }
            }
        };
        let text = Zeroizing::new(serde_json::to_vec(&sheet).expect("text and numbers are JSON"));
        let folder = match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let beside = self.path.with_extension(format!("{}.new", random::hex::<4>()));
        let write = || {
            fs::create_dir_all(folder)?;
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(&text)?;
            file.sync_all()?;
            if is_new {
                match fs::hard_link(&beside, &self.path) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(error);
                    }
                    _linked_or_there => fs::remove_file(&beside)?,
                }
            } else {
                fs::rename(&beside, &self.path)?;
            }
            File::open(folder)?.sync_all()
        };
        write().map_err(|error| {
            // A half-written one is of no use.
            drop(fs::remove_file(&beside));
            self.io("written", error)
        })
    }

    fn io(&self, done: &'static str, source: io::Error) -> KeyringError {
        KeyringError::Io { path: self.path.clone(), done, source }
    }
}

impl std::fmt::Debug for KeyringFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyringFile").field("path", &self.path).finish_non_exhaustive()
    }
}

fn rows(keyring: &Keyring) -> Vec<Row> {
    let states: Vec<super::KeyState> = keyring.keys().map(|(_, state)| state).collect();
    let rows = keyring.keys.iter().zip(states).map(|(key, state)| Row {
        id: key.id.clone(),
        state,
        created_unix_ms: key.created_unix_ms,
        secret: Zeroizing::new(random::to_hex(&*key.secret)),
    });
    rows.collect()
}

fn keyring(rows: Vec<Row>) -> Result<Keyring, KeyringError> {
    let damaged = |why| KeyringError::Damaged { why };
    let is_current = |row: &Row| row.state == super::KeyState::Current;
    let (current, retired): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(is_current);
    if current.len() != 1 {
        return Err(damaged("not exactly one of its keys is current"));
    }
    let key = |row: Row| {
        let bytes = Zeroizing::new(from_hex(&row.secret)?);
        let secret = Zeroizing::new(<[u8; 32]>::try_from(&**bytes).ok()?);
        Some(Key { id: row.id, created_unix_ms: row.created_unix_ms, secret })
    };
    let keys: Option<Vec<Key>> = retired.into_iter().chain(current).map(key).collect();
    let keys = keys.ok_or_else(|| damaged("a key is not 64 hexadecimal digits"))?;
    let mut ids: Vec<&str> = keys.iter().map(|key| &*key.id).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
        return Err(damaged("two of its keys have one id"));
    }
    Ok(Keyring { keys })
}

/// The keys as bytes, to be sealed.
pub(super) fn write_keys(keyring: &Keyring) -> Zeroizing<Vec<u8>> {
    write_rows(&rows(keyring))
}

/// The keys [`write_keys`] wrote.
pub(super) fn read_keys(plain: &[u8]) -> Result<Keyring, KeyringError> {
    keyring(read_rows(plain)?)
}

fn write_rows(rows: &[Row]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(serde_json::to_vec(rows).expect("text and numbers are JSON"))
}

fn read_rows(plain: &[u8]) -> Result<Vec<Row>, KeyringError> {
    serde_json::from_slice(plain)
        .map_err(|_syntax| KeyringError::Damaged { why: "it is no list of keys" })
}
