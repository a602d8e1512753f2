//! What the calls taught, over a restart: `<data_dir>/calls.snapshot`.
//!
//! A process that comes back without its circuits sends its full load to a service that an hour of
//! failures had taught it to spare; one without its counters gives every caller a quota anew; one
//! that forgot a `Retry-After` calls an instance that asked not to be. So circuits that know
//! something, what was used of limits with windows of ten seconds or more, and bans are written
//! down within a second of a change, and read at the next start. They say how long a state lasts and not until
//! when, since the next process counts its own time; the wall clock is stamped on the whole, and
//! what is older than [`AGE_MAX`] is ignored: by then the world has moved on.
//!
//! The file is two lines of JSON, a head with version, stamp and checksum, and what was learnt. It is
//! replaced and never changed: written beside, flushed to the disk, renamed, and the folder
//! flushed. A process killed between any two of these leaves the old file or the new one. A file
//! that is damaged all the same is ignored with a warning; nothing here may keep a gateway from
//! starting.

mod keeper;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mainstay_call::circuit::CircuitKey;
use mainstay_call::limit::{KeySecret, LimitSnapshot};
use mainstay_call::machines::Saved;
use mainstay_resilience::circuit::{Mode, Snapshot};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh64::xxh64;

pub use keeper::Keeper;

/// Older files are ignored.
pub const AGE_MAX: Duration = Duration::from_mins(5);

/// Largest file that is read, in bytes: 10,000 instances with three circuits of 700 bytes and 100
/// keyed limits of 400 KB each.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// What there is to keep, and when it was so.
#[derive(Clone, Debug, PartialEq)]
pub struct Calls {
    /// Moment of the wall clock at which the snapshots were taken.
    pub at: SystemTime,
    /// Circuits that know something, limits and bans, each in the order of their keys.
    pub saved: Saved,
}

/// Why a file was ignored. The process starts without it; this is for its log.
#[derive(Debug, thiserror::Error)]
pub enum Ignored {
    /// It could not be read.
    #[error("calls snapshot cannot be read")]
    Unreadable(#[source] io::Error),
    /// It is larger than [`FILE_BYTES_MAX`].
    #[error("calls snapshot is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// It is not what was written.
    #[error("calls snapshot is damaged: {0}")]
    Damaged(&'static str),
    /// Another version of this program wrote it.
    #[error("calls snapshot is of version {0}, not {VERSION}")]
    Version(u32),
    /// It is older than [`AGE_MAX`].
    #[error("calls snapshot is {} s old, more than {}", .0.as_secs(), AGE_MAX.as_secs())]
    TooOld(Duration),
    /// It is from the future by more than [`AGE_MAX`]: one of the two clocks was wrong, and its
    /// true age cannot be known.
    #[error("calls snapshot is from {} s in the future", .0.as_secs())]
    Ahead(Duration),
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
    written_unix_milliseconds: u64,
    /// `XXH64` of the second line without its line end, as hexadecimal digits.
    checksum: String,
}

/// The second line.
#[derive(Serialize, Deserialize)]
struct Body {
    circuits: Vec<Row>,
    limits: Vec<(String, LimitSnapshot)>,
    /// Instances that want to be left alone, and for how many milliseconds.
    bans: Vec<(String, u64)>,
    /// What keys of limits are hashed with.
    secret: Option<KeySecret>,
}

/// A circuit.
#[derive(Serialize, Deserialize)]
struct Row {
    policy: String,
    subject: String,
    snapshot: Snapshot,
}

impl Calls {
    /// What of `saved` is worth keeping, each kind in the order of its keys.
    pub fn new(at: SystemTime, mut saved: Saved) -> Self {
        saved.circuits.retain(|(_, snapshot)| knows_something(snapshot));
        saved.circuits.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        saved.limits.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        saved.bans.sort_unstable();
        Self { at, saved }
    }

    /// Whether there is nothing to keep.
    fn is_empty(&self) -> bool {
        let Saved { circuits, limits, bans, secret: _ } = &self.saved;
        circuits.is_empty() && limits.is_empty() && bans.is_empty()
    }

    /// The file.
    ///
    /// # Panics
    ///
    /// Never: strings and numbers can always be written as JSON.
    pub fn encode(&self) -> Vec<u8> {
        let row = |(key, snapshot): &(CircuitKey, Snapshot)| Row {
            policy: key.policy.to_string(),
            subject: key.subject.to_string(),
            snapshot: writable(snapshot.clone()),
        };
        let Saved { circuits, limits, bans, secret } = &self.saved;
        let left = |left: &Duration| u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let body = Body {
            circuits: circuits.iter().map(row).collect(),
            limits: limits.iter().map(|(name, it)| (name.to_string(), it.clone())).collect(),
            bans: bans.iter().map(|(subject, it)| (subject.to_string(), left(it))).collect(),
            secret: *secret,
        };
        let rows = serde_json::to_vec(&body).expect("strings and numbers can be written");
        let head = Head {
            format: FORMAT.to_owned(),
            version: VERSION,
            written_unix_milliseconds: milliseconds(self.at),
            checksum: format!("{:016x}", xxh64(&rows, 0)),
        };
        let mut bytes = serde_json::to_vec(&head).expect("strings and numbers can be written");
        bytes.push(b'\n');
        bytes.extend_from_slice(&rows);
        bytes.push(b'\n');
        bytes
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`Ignored::Damaged`] and [`Ignored::Version`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Ignored> {
        let mut lines = bytes.split(|&byte| byte == b'\n');
        let (head, rows) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let head: Head =
            serde_json::from_slice(head).map_err(|_unread| Ignored::Damaged("no head"))?;
        if head.format != FORMAT {
            return Err(Ignored::Damaged("of another format"));
        }
        if head.version != VERSION {
            return Err(Ignored::Version(head.version));
        }
        if head.checksum != format!("{:016x}", xxh64(rows, 0)) {
            return Err(Ignored::Damaged("checksum differs"));
        }
        let body: Body = serde_json::from_slice(rows)
            .map_err(|_unread| Ignored::Damaged("not what is kept of calls"))?;
        let at = UNIX_EPOCH + Duration::from_millis(head.written_unix_milliseconds);
        let circuit = |row: Row| {
            (CircuitKey { policy: row.policy.into(), subject: row.subject.into() }, row.snapshot)
        };
        let ban = |(subject, left): (String, u64)| (subject.into(), Duration::from_millis(left));
        let saved = Saved {
            circuits: body.circuits.into_iter().map(circuit).collect(),
            limits: body.limits.into_iter().map(|(name, it)| (name.into(), it)).collect(),
            bans: body.bans.into_iter().map(ban).collect(),
            secret: body.secret,
        };
        Ok(Self { at, saved })
    }

    /// How long ago this was so, at `now`; zero when the clock was set back a little since.
    ///
    /// # Errors
    ///
    /// [`Ignored::TooOld`] and [`Ignored::Ahead`].
    pub fn age(&self, now: SystemTime) -> Result<Duration, Ignored> {
        match now.duration_since(self.at) {
            Ok(age) if AGE_MAX < age => Err(Ignored::TooOld(age)),
            Ok(age) => Ok(age),
            Err(ahead) if AGE_MAX < ahead.duration() => Err(Ignored::Ahead(ahead.duration())),
            Err(_set_back) => Ok(Duration::ZERO),
        }
    }
}

/// The file of one data directory. Only one process uses it at a time.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    folder: PathBuf,
    path: PathBuf,
    beside: PathBuf,
}

impl SnapshotFile {
    /// The file in `data_dir`, which exists.
    pub fn new(data_dir: &Path) -> Self {
        let folder = data_dir.to_owned();
        Self {
            path: folder.join("calls.snapshot"),
            beside: folder.join("calls.snapshot.new"),
            folder,
        }
    }

    /// What was kept, and how long ago at `now`; `None` when there is no file.
    ///
    /// # Errors
    ///
    /// [`Ignored`]: there is a file, and it is of no use.
    pub fn read(&self, now: SystemTime) -> Result<Option<(Calls, Duration)>, Ignored> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(Ignored::Unreadable)?,
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Ignored::Unreadable)?;
        if FILE_BYTES_MAX < bytes.len() as u64 {
            return Err(Ignored::TooLarge);
        }
        let calls = Calls::decode(&bytes)?;
        let age = calls.age(now)?;
        Ok(Some((calls, age)))
    }

    /// Replaces the file. Waits for the disk.
    ///
    /// # Errors
    ///
    /// When the disk does not take it; the old file is then still there.
    pub fn write(&self, calls: &Calls) -> io::Result<()> {
        self.put_beside(&calls.encode())?;
        self.replace()
    }

    /// Writes and flushes the new file; the old one is still in force.
    fn put_beside(&self, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&self.beside)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Puts the new file in force, and sees to it that this lasts.
    fn replace(&self) -> io::Result<()> {
        fs::rename(&self.beside, &self.path)?;
        File::open(&self.folder)?.sync_all()
    }
}

/// Whether a circuit differs from one just made.
fn knows_something(snapshot: &Snapshot) -> bool {
    let Snapshot { mode, mode_left: _, open, openings, opened_total, window } = snapshot;
    *mode != Mode::Auto
        || open.is_some()
        || *openings > 0
        || *opened_total > 0
        || !window.is_empty()
}

/// JSON has no infinity; a figure that is one says nothing that the reason does not.
fn writable(mut snapshot: Snapshot) -> Snapshot {
    if let Some(open) = &mut snapshot.open {
        for figure in [&mut open.cause.observed, &mut open.cause.threshold] {
            if !figure.is_finite() {
                *figure = 0.0;
            }
        }
    }
    snapshot
}

fn milliseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

const FORMAT: &str = "mainstay-calls";
const VERSION: u32 = 2;

#[cfg(test)]
mod tests;
