//! How a store is opened: lock, repair, read, check, and refuse what has gone back.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Clock;
use mainstay_core::problem::Code;

use super::engine::{Changes, Engine, Fault, Meta, Reading};
use super::high::High;
use super::index::{Index, Place};
use super::media::Media;
use super::options::Options;
use super::record::{Damage, Position, Record};
use super::shared::{Parts, Shared};
use super::view::View;
use crate::entry::{LeaseId, Revision};
use crate::events;
use crate::key::Range;
use crate::lease::Granted;
use crate::leases::Leases;
use crate::store::StoreId;

/// Why a store did not open. It was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the store is in use by {}", holder(*pid))]
    Locked {
        /// That process, if it said which it is.
        pid: Option<u32>,
    },
    /// It is older than it has already been, or another store. To be restored from a snapshot
    /// ([`restore`](super::restore)), so that revisions go on above all that were seen.
    #[error("coordination store went back from revision {seen} to {found}")]
    Regressed {
        /// The highest revision seen.
        seen: Revision,
        /// The revision found.
        found: Revision,
    },
    /// It was written by a newer version.
    #[error("the store has format {found}, and this version knows {FORMAT}")]
    FormatNewer {
        /// Its format.
        found: u64,
    },
    /// It is not what was written.
    #[error("the store is damaged: {what}")]
    Corrupt {
        /// What is wrong, for the operator.
        what: String,
    },
    /// A file could not be read or written.
    #[error("the store's files cannot be used")]
    Io(#[source] io::Error),
}

impl OpenError {
    /// The code of its problem.
    pub const fn code(&self) -> Code {
        match self {
            Self::Locked { .. } => Code::StoreLocked,
            Self::Regressed { .. } => Code::StoreRegressed,
            Self::FormatNewer { .. } => Code::StoreFormatNewer,
            Self::Corrupt { .. } => Code::StoreCorrupt,
            Self::Io(_) => Code::StoreUnavailable,
        }
    }
}

impl From<Fault> for OpenError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Io(error) => Self::Io(error),
            other => Self::Corrupt { what: other.chain() },
        }
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// Holds the folder for this process. The lock ends with the process, however that ends.
pub(super) fn lock(folder: &Path) -> Result<File, OpenError> {
    fs::create_dir_all(folder).map_err(OpenError::Io)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(folder.join("LOCK")).map_err(OpenError::Io)?;
    match file.try_lock() {
        Ok(()) => (),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // Whoever holds it may be about to write; then nobody is named.
            let read = file.read_to_string(&mut text);
            return Err(OpenError::Locked {
                pid: read.ok().and_then(|_| text.trim().parse().ok()),
            });
        }
        Err(TryLockError::Error(error)) => return Err(OpenError::Io(error)),
    }
    file.set_len(0).map_err(OpenError::Io)?;
    writeln!(file, "{}", std::process::id()).map_err(OpenError::Io)?;
    Ok(file)
}

/// Opens the store that lies on `media`, or creates it. Returns also as far as its log is rid of
/// forgotten history.
pub(super) fn open(
    media: Arc<dyn Media>,
    options: Options,
    clock: Arc<dyn Clock>,
) -> Result<(Shared, Revision), OpenError> {
    let seen = High::read(&*media).map_err(OpenError::Io)?;
    if !media.exists(FILE).map_err(OpenError::Io)? {
        if let Some(High { revision, .. }) = seen {
            return Err(OpenError::Regressed { seen: revision, found: Revision::FIRST });
        }
        create(&*media, &options, &Fresh::default())?;
    }
    let (engine, unclean) =
        Engine::open(Arc::clone(&media), FILE, options.cache_bytes_max, options.check_on_open)?;
    let content = read(&engine.read()?)?;
    if let Some(seen) = seen
        && (seen.store != content.store || content.view.revision < seen.revision)
    {
        return Err(OpenError::Regressed { seen: seen.revision, found: content.view.revision });
    }
    if seen.is_none() {
        // Before anything is granted on the strength of a revision.
        let first = High { store: content.store, revision: content.view.revision };
        first.write(&*media).map_err(OpenError::Io)?;
    }
    let Content { store, view, leases: granted, scrubbed } = content;
    let leases = take_up(&view, &granted, &*clock)?;
    let (revision, compacted) = (view.revision, view.compacted);
    events::Opened { revision, compacted, leases: granted.len(), unclean }.emit();
    let parts = Parts { store, options, clock, media, engine, view, leases };
    Ok((Shared::new(parts), scrubbed))
}

/// What a new file begins with.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) store: StoreId,
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
}

impl Default for Fresh {
    fn default() -> Self {
        let store = StoreId::new(RandomState::new().build_hasher().finish());
        Self { store, revision: Revision::FIRST, compacted: Revision::NEVER }
    }
}

impl Fresh {
    /// The numbers to write.
    pub(super) fn meta(&self) -> Vec<(Meta, u64)> {
        vec![
            (Meta::Format, FORMAT),
            (Meta::StoreId, self.store.get()),
            (Meta::Revision, self.revision.get()),
            (Meta::Compacted, self.compacted.get()),
            (Meta::Scrubbed, self.compacted.get()),
        ]
    }
}

/// Writes a new file under another name first, so that it is there whole or not at all.
fn create(media: &dyn Media, options: &Options, fresh: &Fresh) -> Result<(), OpenError> {
    media.remove(NEW_FILE).map_err(OpenError::Io)?;
    let changes = Changes { meta: fresh.meta(), ..Changes::default() };
    let building = Engine::build(media, NEW_FILE, options.cache_bytes_max)?;
    building.commit(&changes).map_err(Fault::Halted)?;
    building.close()?;
    media.rename(NEW_FILE, FILE).map_err(OpenError::Io)
}

/// What is in a file.
struct Content {
    store: StoreId,
    view: View,
    leases: Vec<(LeaseId, u64)>,
    scrubbed: Revision,
}

/// Reads all of a file, and believes nothing.
fn read(reading: &Reading<'_>) -> Result<Content, OpenError> {
    let meta = |what| {
        let missing = || OpenError::Corrupt { what: format!("{what:?} is not written down") };
        reading.meta(what)?.ok_or_else(missing)
    };
    let format = meta(Meta::Format)?;
    if FORMAT < format {
        return Err(OpenError::FormatNewer { found: format });
    }
    let revision = Revision::new(meta(Meta::Revision)?);
    let compacted = Revision::new(meta(Meta::Compacted)?);
    let mut index = Index::default();
    let mut last: Option<Position> = None;
    for item in reading.records(Revision::NEVER)? {
        let (position, record) = item?;
        follows(last, position, compacted).map_err(Fault::from)?;
        let key = match &record {
            Record::Put(entry) => entry.key.clone(),
            Record::Delete(key) => key.clone(),
        };
        index.push(key, Place::of(position, &record));
        last = Some(position);
    }
    // History that is kept is kept whole, so the newest record is of the newest revision.
    let newest = last.map_or(compacted, |last| last.revision.max(compacted));
    if newest.max(Revision::FIRST) != revision {
        let what = format!("the log ends at revision {newest}, not {revision}");
        return Err(OpenError::Corrupt { what });
    }
    Ok(Content {
        store: StoreId::new(meta(Meta::StoreId)?),
        view: View { index, revision, compacted, pins: BTreeMap::new() },
        leases: reading.leases()?,
        scrubbed: Revision::new(meta(Meta::Scrubbed)?),
    })
}

/// Whether a record at `position` may follow one at `last`: where history is kept, nothing may be
/// missing between the two.
fn follows(last: Option<Position>, position: Position, compacted: Revision) -> Result<(), Damage> {
    let is_history = compacted < position.revision;
    let expected = match last {
        Some(last) if last.revision == position.revision => {
            Position { revision: last.revision, sub: last.sub + 1 }
        }
        last => {
            let before = last.map_or(compacted, |last| last.revision.max(compacted));
            Position::start_of(before.max(Revision::FIRST).next())
        }
    };
    if is_history && position != expected {
        return Err(Damage { position, what: "what should stand before it is missing" });
    }
    Ok(())
}

/// Gives every lease its whole ttl, counted from now, and its keys.
fn take_up(
    view: &View,
    granted: &[(LeaseId, u64)],
    clock: &dyn Clock,
) -> Result<Leases, OpenError> {
    let mut leases = Leases::default();
    let now = clock.now();
    for &(id, seconds) in granted {
        leases.insert(now, Granted { id, ttl: Duration::from_secs(seconds) });
    }
    for (key, place) in view.index.range(&Range::all(), view.revision) {
        let Some(lease) = place.life.and_then(|life| life.lease) else { continue };
        if !leases.is_taken(lease) {
            let what = format!("key {key} belongs to lease {lease}, which is not there");
            return Err(OpenError::Corrupt { what });
        }
        leases.attach(key, None, Some(lease));
    }
    Ok(leases)
}

/// The engine's file.
pub(super) const FILE: &str = "mainstay.redb";

/// One that is not yet whole.
pub(super) const NEW_FILE: &str = "mainstay.redb.new";

/// The format of the tables this version writes.
pub(super) const FORMAT: u64 = 1;
