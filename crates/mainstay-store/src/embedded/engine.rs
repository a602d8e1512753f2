//! The tables on disk, and the only code that knows the engine.
//!
//! | table | key | value |
//! |---|---|---|
//! | `log` | revision, place within it | one [`Record`] |
//! | `leases` | id | granted ttl, seconds |
//! | `meta` | [`Meta`] | a number |
//!
//! Every commit is immediate, so durable when it returns, and in two phases, so that a crash during
//! recovery from a crash cannot bring an older one back.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{RwLock, RwLockReadGuard};
use redb::{
    Builder, Database, Durability, ReadOnlyTable, ReadableDatabase as _, ReadableTable as _,
    TableDefinition,
};

use super::disk::{Disk, Halt, Handle};
use super::media::Media;
use super::record::{Damage, Position, Record};
use crate::entry::{LeaseId, Revision};

const LOG: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("log");
const LEASES: TableDefinition<'_, u64, u64> = TableDefinition::new("leases");
const META: TableDefinition<'_, u64, u64> = TableDefinition::new("meta");

/// Numbers the store keeps about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meta {
    /// Format of the tables.
    Format = 0,
    /// Which history.
    StoreId = 1,
    /// The current revision.
    Revision = 2,
    /// History before this one is forgotten.
    Compacted = 3,
    /// As far as that, what is forgotten is also gone from the log.
    Scrubbed = 4,
}

impl Meta {
    /// All of them.
    pub(super) const ALL: [Self; 5] =
        [Self::Format, Self::StoreId, Self::Revision, Self::Compacted, Self::Scrubbed];
}

/// What one commit writes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) records: Vec<(Position, Record)>,
    pub(super) removals: Vec<Position>,
    /// Granted ttl in seconds; `None` ends the lease.
    pub(super) leases: Vec<(LeaseId, Option<u64>)>,
    pub(super) meta: Vec<(Meta, u64)>,
}

impl Changes {
    pub(super) const fn is_empty(&self) -> bool {
        self.records.is_empty()
            && self.removals.is_empty()
            && self.leases.is_empty()
            && self.meta.is_empty()
    }
}

/// An open file.
struct Open {
    database: Database,
    disk: Arc<Disk>,
}

/// The engine, open until it is closed.
pub(super) struct Engine {
    media: Arc<dyn Media>,
    name: &'static str,
    cache_bytes: usize,
    /// Read by everybody who reads or commits; written only to open the file again.
    open: RwLock<Option<Open>>,
}

impl Engine {
    /// Opens `name`; says also whether it had not been closed.
    pub(super) fn open(
        media: Arc<dyn Media>,
        name: &'static str,
        cache_bytes: usize,
        check: Check,
    ) -> Result<(Self, bool), Fault> {
        let (open, was_unclean) = open(&*media, name, false, cache_bytes, check)?;
        Ok((Self { media, name, cache_bytes, open: RwLock::new(Some(open)) }, was_unclean))
    }

    /// Creates `name`, to be filled.
    pub(super) fn build(
        media: &dyn Media,
        name: &str,
        cache_bytes: usize,
    ) -> Result<Building, Fault> {
        open(media, name, true, cache_bytes, Check::Never).map(|(open, _)| Building(open))
    }

    /// Writes `changes`, durably, all or nothing.
    pub(super) fn commit(&self, changes: &Changes) -> Result<(), Halt> {
        let open = self.open.read();
        let open = open.as_ref().ok_or_else(|| Halt::Failed("it is closed".to_owned()))?;
        commit(open, changes)
    }

    /// Opens the file again after [`Halt::Full`]: as it was before that commit.
    pub(super) fn reopen(&self) -> Result<(), Fault> {
        let mut slot = self.open.write();
        // What the old handle has left to write goes to its shadow, and is gone with it.
        drop(slot.take());
        let (open, _) = open(&*self.media, self.name, false, self.cache_bytes, Check::Never)?;
        *slot = Some(open);
        Ok(())
    }

    /// Begins to read what has been committed so far.
    pub(super) fn read(&self) -> Result<Reading<'_>, Fault> {
        let guard = self.open.read();
        let open = guard.as_ref().ok_or(Fault::Closed)?;
        let snapshot = open.database.begin_read().map_err(Fault::engine)?;
        let log = snapshot.open_table(LOG).map_err(Fault::engine)?;
        Ok(Reading { snapshot, log, _guard: guard })
    }

    /// Bytes of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.open.read().as_ref().map_or(0, |open| open.disk.bytes())
    }

    /// Closes it; what is read meanwhile ends first.
    pub(super) fn close(&self) -> Result<(), Fault> {
        self.open.write().take().map_or(Ok(()), Open::close)
    }
}

/// A file that is being filled.
pub(super) struct Building(Open);

impl Building {
    /// Writes `changes`.
    pub(super) fn commit(&self, changes: &Changes) -> Result<(), Halt> {
        commit(&self.0, changes)
    }

    /// Ends it, without the room it took to grow; all of it is durable then.
    pub(super) fn close(mut self) -> Result<(), Fault> {
        self.0.database.compact().map_err(Fault::engine)?;
        self.0.close()
    }
}

impl Open {
    fn close(self) -> Result<(), Fault> {
        self.database.close().map_err(Fault::engine)?;
        self.disk.halt().map_or(Ok(()), |halt| Err(Fault::Halted(halt)))
    }
}

/// What is in the file as of one commit.
pub(super) struct Reading<'a> {
    log: ReadOnlyTable<&'static [u8], &'static [u8]>,
    snapshot: redb::ReadTransaction,
    /// Keeps the file from being opened again meanwhile.
    _guard: RwLockReadGuard<'a, Option<Open>>,
}

impl Reading<'_> {
    /// The record at `position`, which has to be there.
    pub(super) fn record(&self, position: Position) -> Result<Record, Fault> {
        let key = position.to_bytes();
        let found = self.log.get(key.as_slice()).map_err(Fault::engine)?;
        let found = found.ok_or(Damage { position, what: "it is missing" })?;
        Ok(Record::decode(position, found.value())?)
    }

    /// The records from the first of `from` on, in order of history.
    pub(super) fn records(
        &self,
        from: Revision,
    ) -> Result<impl Iterator<Item = Result<(Position, Record), Fault>>, Fault> {
        let key = Position::start_of(from).to_bytes();
        let found = self.log.range::<&[u8]>(key.as_slice()..).map_err(Fault::engine)?;
        Ok(found.map(|item| {
            let (key, value) = item.map_err(Fault::engine)?;
            let position = Position::from_bytes(key.value()).ok_or(Fault::Malformed)?;
            Ok((position, Record::decode(position, value.value())?))
        }))
    }

    /// The leases that were live, with their ttl in seconds.
    pub(super) fn leases(&self) -> Result<Vec<(LeaseId, u64)>, Fault> {
        let table = self.snapshot.open_table(LEASES).map_err(Fault::engine)?;
        let mut leases = Vec::new();
        for item in table.iter().map_err(Fault::engine)? {
            let (id, ttl) = item.map_err(Fault::engine)?;
            leases.push((LeaseId::new(id.value()).ok_or(Fault::Malformed)?, ttl.value()));
        }
        Ok(leases)
    }

    /// A number the store keeps about itself.
    pub(super) fn meta(&self, what: Meta) -> Result<Option<u64>, Fault> {
        let table = self.snapshot.open_table(META).map_err(Fault::engine)?;
        let found = table.get(what as u64).map_err(Fault::engine)?;
        Ok(found.map(|number| number.value()))
    }
}

/// Whether the engine checks the whole file when it opens it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// After it was not closed.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Why the file cannot be read, or not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Damaged(#[from] Damage),
    #[error("a table holds what cannot be read")]
    Malformed,
    #[error("the file is damaged and could not be repaired as it was")]
    Unsound,
    #[error("{0:?}")]
    Halted(Halt),
    #[error("the file cannot be opened")]
    Io(#[from] io::Error),
    #[error("the engine")]
    Engine(#[source] Box<dyn StdError + Send + Sync>),
    #[error("it is closed")]
    Closed,
}

impl Fault {
    fn engine(error: impl Into<redb::Error>) -> Self {
        Self::Engine(Box::new(error.into()))
    }

    /// The fault and its causes, once each.
    pub(super) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

fn open(
    media: &dyn Media,
    name: &str,
    create: bool,
    cache_bytes: usize,
    check: Check,
) -> Result<(Open, bool), Fault> {
    let disk = Arc::new(Disk::new(media.open(name, create)?)?);
    let repaired = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&repaired);
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    builder.set_check_integrity_on_open(check == Check::Always);
    builder.set_repair_callback(move |_| seen.store(true, Ordering::SeqCst));
    let handle = Handle(Arc::clone(&disk));
    let mut database = builder.create_with_backend(handle).map_err(Fault::engine)?;
    let was_unclean = repaired.load(Ordering::SeqCst);
    if check == Check::Auto && was_unclean && !database.check_integrity().map_err(Fault::engine)? {
        return Err(Fault::Unsound);
    }
    if let Some(halt) = disk.halt() {
        return Err(Fault::Halted(halt));
    }
    Ok((Open { database, disk }, was_unclean))
}

/// What came of a commit is asked of the disk, which the engine believes to be well.
fn commit(open: &Open, changes: &Changes) -> Result<(), Halt> {
    open.disk.begin();
    let written = write(&open.database, changes);
    match (open.disk.halt(), written) {
        (Some(halt), _) => Err(halt),
        (None, Err(error)) => Err(Halt::Failed(error.to_string())),
        (None, Ok(())) => Ok(()),
    }
}

fn write(database: &Database, changes: &Changes) -> Result<(), Box<redb::Error>> {
    let boxed = |error: redb::Error| Box::new(error);
    let mut commit = database.begin_write().map_err(|error| boxed(error.into()))?;
    commit.set_durability(Durability::Immediate).map_err(|error| boxed(error.into()))?;
    commit.set_two_phase_commit(true);
    commit.set_quick_repair(false);
    fill(&commit, changes).map_err(boxed)?;
    super::crash::point(super::crash::Point::Written);
    commit.commit().map_err(|error| boxed(error.into()))
}

fn fill(commit: &redb::WriteTransaction, changes: &Changes) -> Result<(), redb::Error> {
    let mut log = commit.open_table(LOG)?;
    for (position, record) in &changes.records {
        log.insert(position.to_bytes().as_slice(), record.encode(*position).as_slice())?;
    }
    for position in &changes.removals {
        log.remove(position.to_bytes().as_slice())?;
    }
    let mut leases = commit.open_table(LEASES)?;
    for (id, ttl) in &changes.leases {
        match ttl {
            Some(seconds) => leases.insert(id.get(), seconds)?,
            None => leases.remove(id.get())?,
        };
    }
    let mut meta = commit.open_table(META)?;
    for (what, number) in &changes.meta {
        meta.insert(*what as u64, number)?;
    }
    Ok(())
}
