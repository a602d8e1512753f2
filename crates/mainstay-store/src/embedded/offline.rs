//! What is done to a store that nobody has open: restore, rehearse a restore, shrink, check.
//!
//! What writes writes a whole new file under another name, checks it, and only then gives it the
//! name of the old one. A crash at any point leaves one of the two, whole.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use mainstay_core::ManualClock;

use super::disk::Halt;
use super::engine::{Changes, Check, Engine, Fault, Meta};
use super::high::High;
use super::media::{Directory, Media};
use super::opening::{self, FILE, Fresh, NEW_FILE, OpenError};
use super::options::Options;
use super::ram::Ram;
use super::record::{Position, Record};
use crate::entry::{Entry, LeaseId, Revision};
use crate::key::Range;
use crate::snapshot::SnapshotItem;
use crate::snapshot::file::{Invalid, Reader};
use crate::store::StoreId;

/// What becomes of a store that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Nothing is restored over it.
    Refuse,
    /// It is kept beside the new one, as `mainstay.redb.aside`, or with the next free number behind
    /// that.
    SetAside,
}

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The revision the snapshot is of.
    pub from: Revision,
    /// The revision the store begins with: above everything anybody has seen.
    pub revision: Revision,
    /// Entries restored.
    pub entries: u64,
    /// Entries that were left out.
    pub left_out: u64,
    /// Leases restored; each has its whole ttl once the store serves.
    pub leases: u64,
}

/// Why nothing was restored, or shrunk. What was there is as it was.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The store could not be opened, or another process has it open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is a store already.
    #[error("there is a store already")]
    Exists,
    /// The snapshot cannot be used.
    #[error("the snapshot cannot be used")]
    Snapshot(#[from] Invalid),
    /// The new file could not be written, or is not what was written.
    #[error("the new file could not be written: {0}")]
    Write(String),
}

/// Makes the store in `folder` what a snapshot says.
///
/// Revisions go on a thousand million above the snapshot's and the highest this folder remembers,
/// and history begins there: a watch of before is told that it has to list again, and fencing
/// tokens go on growing. Entries keep their revisions. `keep` says which are restored; what belongs
/// to processes that will register again is better left out.
///
/// # Errors
///
/// [`OfflineError`].
pub fn restore(
    folder: &Path,
    input: impl Read,
    existing: Existing,
    keep: impl FnMut(&Entry) -> bool,
) -> Result<Restored, OfflineError> {
    let _lock = opening::lock(folder)?;
    restore_on(&Directory(folder.to_owned()), input, existing, keep)
}

/// Restores a snapshot into memory and opens it there: what passes can be restored. Takes about the
/// memory that the store would take on disk.
///
/// # Errors
///
/// [`OfflineError`].
pub fn rehearse(
    input: impl Read,
    keep: impl FnMut(&Entry) -> bool,
) -> Result<Restored, OfflineError> {
    let media = Arc::new(Ram::default());
    let restored = restore_on(&*media, input, Existing::Refuse, keep)?;
    // Reads all of it, as a start does.
    opening::open(media, Options::new(""), Arc::new(ManualClock::default()))?;
    Ok(restored)
}

pub(super) fn restore_on(
    media: &dyn Media,
    input: impl Read,
    existing: Existing,
    mut keep: impl FnMut(&Entry) -> bool,
) -> Result<Restored, OfflineError> {
    let is_there = media.exists(FILE).map_err(OpenError::Io)?;
    if is_there && existing == Existing::Refuse {
        return Err(OfflineError::Exists);
    }
    let seen = High::read(media).map_err(OpenError::Io)?;
    let mut reader = Reader::begin(input)?;
    let header = reader.header().clone();
    let highest = seen.map_or(header.revision, |seen| seen.revision.max(header.revision));
    let revision = Revision::new(highest.get() + LEAP);
    let from = header.revision;
    let mut restored = Restored { from, revision, entries: 0, left_out: 0, leases: 0 };
    let mut file = NewFile::begin(media)?;
    let mut sub = 0;
    while let Some(item) = reader.next()? {
        match item {
            SnapshotItem::Lease { id, ttl } => {
                restored.leases += 1;
                file.lease(id, ttl.as_secs())?;
            }
            SnapshotItem::Entry(entry) if keep(&entry) => {
                restored.entries += 1;
                // Old revisions are before the beginning of history, where only order within a
                // key matters; the number of the entry makes each place its own.
                let position = Position { revision: entry.mod_revision, sub };
                sub = sub.checked_add(1).ok_or_else(too_many)?;
                file.record(position, Record::Put(entry))?;
            }
            SnapshotItem::Entry(_) => restored.left_out += 1,
        }
    }
    let fresh = Fresh { store: header.store, revision, compacted: revision };
    file.finish(fresh.meta())?;
    if is_there {
        media.link(FILE, &aside(media).map_err(OpenError::Io)?).map_err(OpenError::Io)?;
    }
    media.rename(NEW_FILE, FILE).map_err(OpenError::Io)?;
    High { store: header.store, revision }.write(media).map_err(OpenError::Io)?;
    Ok(restored)
}

/// Rewrites the store in `folder` without the space that is no longer needed; returns the bytes of
/// its file before and after.
///
/// # Errors
///
/// [`OfflineError`].
pub fn shrink(folder: &Path) -> Result<(u64, u64), OfflineError> {
    let _lock = opening::lock(folder)?;
    shrink_on(Arc::new(Directory(folder.to_owned())))
}

pub(super) fn shrink_on(media: Arc<dyn Media>) -> Result<(u64, u64), OfflineError> {
    let open = |name| {
        let opened = Engine::open(Arc::clone(&media), name, CACHE_BYTES, Check::Auto);
        opened.map(|(engine, _)| engine).map_err(OpenError::from)
    };
    let old = open(FILE)?;
    let before = old.bytes();
    {
        let reading = old.read().map_err(OpenError::from)?;
        let mut file = NewFile::begin(&*media)?;
        for item in reading.records(Revision::NEVER).map_err(OpenError::from)? {
            let (position, record) = item.map_err(OpenError::from)?;
            file.record(position, record)?;
        }
        for (id, ttl) in reading.leases().map_err(OpenError::from)? {
            file.lease(id, ttl)?;
        }
        let mut numbers = Vec::new();
        for what in Meta::ALL {
            let number = reading.meta(what).map_err(OpenError::from)?;
            numbers.extend(number.map(|number| (what, number)));
        }
        file.finish(numbers)?;
        let new = open(NEW_FILE)?;
        let same = same(&reading, &new.read().map_err(OpenError::from)?);
        new.close().map_err(OpenError::from)?;
        if !same.map_err(OpenError::from)? {
            return Err(OfflineError::Write("it is not what the old one is".to_owned()));
        }
    }
    old.close().map_err(OpenError::from)?;
    media.rename(NEW_FILE, FILE).map_err(OpenError::Io)?;
    let new = open(FILE)?;
    let after = new.bytes();
    new.close().map_err(OpenError::from)?;
    Ok((before, after))
}

/// What a store that nobody has open is found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Which history.
    pub store: StoreId,
    /// Its revision.
    pub revision: Revision,
    /// The oldest revision that can be read.
    pub compacted: Revision,
    /// Live entries.
    pub entries: u64,
    /// Live leases.
    pub leases: u64,
    /// Bytes of its file.
    pub bytes: u64,
}

/// Reads all of the store in `folder`: the engine's pages, every record and its checksum, order and
/// completeness of history, and whether it is older than it has already been. Repairs what an
/// unclean end left, as a start does, and changes nothing else.
///
/// # Errors
///
/// [`OpenError`].
pub fn check(folder: &Path) -> Result<Checked, OpenError> {
    let _lock = opening::lock(folder)?;
    let media = Directory(folder.to_owned());
    if !media.exists(FILE).map_err(OpenError::Io)? {
        let missing = format!("there is no `{FILE}`");
        return Err(OpenError::Io(io::Error::new(io::ErrorKind::NotFound, missing)));
    }
    let options = Options { check_on_open: Check::Always, ..Options::new(folder) };
    let (shared, _scrubbed) =
        opening::open(Arc::new(media), options, Arc::new(ManualClock::default()))?;
    let checked = {
        let view = shared.view.read();
        Checked {
            store: shared.store,
            revision: view.revision,
            compacted: view.compacted,
            entries: view.index.range(&Range::all(), view.revision).count() as u64,
            leases: shared.leases.lock().live_count() as u64,
            bytes: shared.engine.bytes(),
        }
    };
    shared.engine.close()?;
    Ok(checked)
}

/// Whether two files hold the same records and leases.
fn same(one: &super::engine::Reading<'_>, two: &super::engine::Reading<'_>) -> Result<bool, Fault> {
    let (mut ones, mut twos) = (one.records(Revision::NEVER)?, two.records(Revision::NEVER)?);
    loop {
        match (ones.next().transpose()?, twos.next().transpose()?) {
            (None, None) => return Ok(one.leases()? == two.leases()?),
            (one, two) if one != two => return Ok(false),
            _ => (),
        }
    }
}

/// A file that is being written, and is nothing before it is finished.
struct NewFile {
    engine: super::engine::Building,
    changes: Changes,
    bytes: u64,
}

impl NewFile {
    fn begin(media: &dyn Media) -> Result<Self, OfflineError> {
        media.remove(NEW_FILE).map_err(OpenError::Io)?;
        let engine = Engine::build(media, NEW_FILE, CACHE_BYTES).map_err(OpenError::from)?;
        Ok(Self { engine, changes: Changes::default(), bytes: 0 })
    }

    fn record(&mut self, position: Position, record: Record) -> Result<(), OfflineError> {
        self.bytes += record.log_bytes();
        self.changes.records.push((position, record));
        self.flush_if(SLICE_BYTES <= self.bytes)
    }

    fn lease(&mut self, id: LeaseId, ttl_seconds: u64) -> Result<(), OfflineError> {
        self.bytes += 16;
        self.changes.leases.push((id, Some(ttl_seconds)));
        self.flush_if(SLICE_BYTES <= self.bytes)
    }

    fn flush_if(&mut self, is_full: bool) -> Result<(), OfflineError> {
        if is_full {
            let changes = std::mem::take(&mut self.changes);
            self.bytes = 0;
            self.engine.commit(&changes).map_err(halted)?;
        }
        Ok(())
    }

    /// Writes the numbers last: without them, it is no store.
    fn finish(mut self, meta: Vec<(Meta, u64)>) -> Result<(), OfflineError> {
        self.changes.meta = meta;
        self.flush_if(true)?;
        self.engine.close().map_err(|fault| OfflineError::Open(fault.into()))
    }
}

fn halted(halt: Halt) -> OfflineError {
    let (Halt::Full(why) | Halt::Failed(why)) = halt;
    OfflineError::Write(why)
}

fn too_many() -> OfflineError {
    OfflineError::Write("there are more than 4,294,967,296 entries".to_owned())
}

/// What revisions leap by: no store writes a thousand million revisions after its last backup
/// without taking another.
const LEAP: u64 = 1_000_000_000;

/// A name that is free for a store that is set aside.
fn aside(media: &dyn Media) -> io::Result<String> {
    let mut name = ASIDE.to_owned();
    let mut number = 1;
    while media.exists(&name)? {
        number += 1;
        name = format!("{ASIDE}-{number}");
    }
    Ok(name)
}

const ASIDE: &str = "mainstay.redb.aside";

const CACHE_BYTES: usize = 16_777_216;

/// Bytes of one commit.
const SLICE_BYTES: u64 = 4_194_304;
