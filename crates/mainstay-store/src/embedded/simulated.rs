//! A medium in memory that loses, tears and reorders what was not synced, and fails on demand; and
//! a store on it whose commits are made by whoever holds it, in the thread that calls.
//!
//! For the tests of this crate and for simulations. With the committer a value instead of a thread,
//! what happens depends on nothing but what is called, in which order: a seed can be played again.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use mainstay_core::Clock;
use parking_lot::Mutex;
use redb::StorageBackend;

use super::committer::Committer;
use super::media::Media;
use super::options::{Options, Ticks};
use super::{Embedded, OpenError};

/// Files in memory. Clones are the same files.
#[derive(Clone, Debug, Default)]
pub struct Simulated(Arc<Mutex<Files>>);

#[derive(Debug, Default)]
struct Files {
    engine: BTreeMap<String, Content>,
    small: BTreeMap<String, Vec<u8>>,
    faults: Faults,
    /// Handles of before a crash write nowhere.
    generation: u64,
    writes: u64,
}

/// The committer of a store, in the hands of whoever calls.
#[must_use = "a store whose commits nobody makes never answers"]
pub struct Commits(Committer);

impl Commits {
    /// Commits what is queued, as one group as far as one may take it; returns how many it
    /// answered.
    pub fn turn(&mut self) -> usize {
        self.0.turn()
    }
}

impl fmt::Debug for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commits").finish_non_exhaustive()
    }
}

/// What goes wrong from now on.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Every write that would grow the file past this many bytes finds no room.
    pub room: Option<u64>,
    /// Every write finds no room, wherever it goes.
    pub no_room: bool,
    /// Syncs fail.
    pub sync: bool,
    /// Syncs fail once these bytes were written somewhere.
    pub poison: Option<&'static [u8]>,
    /// Writes fail.
    pub write: bool,
    /// The power fails after so many more writes: they seem to work, and are lost.
    pub power_after: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    /// What survives.
    durable: Vec<u8>,
    /// What is read.
    current: Vec<u8>,
    /// Not yet synced.
    pending: Vec<Pending>,
}

#[derive(Clone, Debug)]
enum Pending {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Simulated {
    /// Opens the store that lies here, or creates it. Nothing is committed but by
    /// [`Commits::turn`], and time is looked at only by [`Embedded::tick`].
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn start(
        &self,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<(Embedded, Commits), OpenError> {
        let options = Options { ticks: Ticks::ByHand, ..options };
        let (store, committer) = Embedded::assemble(Arc::new(self.clone()), options, clock)?;
        Ok((store, Commits(committer)))
    }

    /// What goes wrong from now on.
    pub fn fail(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// Whether the power has failed.
    pub fn is_dark(&self) -> bool {
        self.0.lock().is_dark()
    }

    /// The power fails, and comes back: of what was not synced, `choose` says for each sector of
    /// each write whether it got to the disk.
    pub fn crash(&self, mut choose: impl FnMut() -> bool) {
        let mut files = self.0.lock();
        files.generation += 1;
        files.faults = Faults::default();
        for content in files.engine.values_mut() {
            for pending in std::mem::take(&mut content.pending) {
                match pending {
                    Pending::Length(len) => {
                        if choose() {
                            content.durable.resize(at(len), 0);
                        }
                    }
                    Pending::Write(offset, data) => {
                        for (number, sector) in data.chunks(SECTOR).enumerate() {
                            if choose() {
                                let start = at(offset) + number * SECTOR;
                                write_at(&mut content.durable, start, sector);
                            }
                        }
                    }
                }
            }
            content.current = content.durable.clone();
        }
    }
}

#[cfg(test)]
impl Simulated {
    /// Nothing is read or written until `act` is done.
    pub(super) fn meanwhile<T>(&self, act: impl FnOnce() -> T) -> T {
        let _files = self.0.lock();
        act()
    }

    /// A copy of the files as they are, for comparing.
    pub(super) fn durable(&self, name: &str) -> Vec<u8> {
        self.0.lock().engine.get(name).map(|content| content.durable.clone()).unwrap_or_default()
    }

    /// Changes one byte of a file.
    pub(super) fn damage(&self, name: &str, at: usize) {
        let mut files = self.0.lock();
        let content = files.engine.get_mut(name).expect("the file is there");
        content.durable[at] ^= 0xff;
        content.current[at] ^= 0xff;
    }

    /// Replaces the engine's files by those of `other`, but not the small ones.
    pub(super) fn take_engine_from(&self, other: &Self) {
        let engine = other.0.lock().engine.clone();
        self.0.lock().engine = engine;
    }

    /// Other files, with the same content.
    pub(super) fn copy(&self) -> Self {
        let files = self.0.lock();
        let (engine, small) = (files.engine.clone(), files.small.clone());
        Self(Arc::new(Mutex::new(Files { engine, small, ..Files::default() })))
    }

    /// Writes so far.
    pub(super) fn writes(&self) -> u64 {
        self.0.lock().writes
    }
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).expect("files in memory fit into it")
}

fn write_at(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    let end = at + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(data);
}

impl Files {
    fn is_dark(&self) -> bool {
        self.faults.power_after == Some(0)
    }

    /// Counts a write; whether the power is still on after it.
    fn count(&mut self) -> bool {
        self.writes += 1;
        match &mut self.faults.power_after {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }
}

impl Media for Simulated {
    fn open(&self, name: &str, create: bool) -> io::Result<Box<dyn StorageBackend>> {
        let mut files = self.0.lock();
        if create {
            files.engine.insert(name.to_owned(), Content::default());
        } else if !files.engine.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let generation = files.generation;
        let name = Mutex::new(name.to_owned());
        Ok(Box::new(Open { files: Arc::clone(&self.0), name, generation }))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.0.lock().engine.contains_key(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.0.lock();
        if files.is_dark() {
            return Ok(());
        }
        let content = files.engine.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.engine.insert(to.to_owned(), content);
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.0.lock();
        if files.is_dark() {
            return Ok(());
        }
        let content = files.engine.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
        files.engine.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().engine.remove(name);
        Ok(())
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().small.get(name).cloned())
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.0.lock();
        if !files.is_dark() {
            files.small.insert(name.to_owned(), bytes.to_vec());
        }
        Ok(())
    }

    fn free_bytes(&self) -> Option<u64> {
        let faults = &self.0.lock().faults;
        Some(if faults.no_room || faults.room.is_some() { 0 } else { 1 << 40 })
    }
}

#[derive(Debug)]
struct Open {
    files: Arc<Mutex<Files>>,
    name: Mutex<String>,
    generation: u64,
}

impl Open {
    /// Does something with the content, unless this handle is one of before a crash.
    fn with<T>(&self, act: impl FnOnce(&mut Files, &str) -> io::Result<T>) -> io::Result<T> {
        let mut files = self.files.lock();
        if files.generation != self.generation {
            return Err(io::Error::other("a handle of before the crash"));
        }
        let name = self.name.lock();
        act(&mut files, &name)
    }

    fn content<'a>(files: &'a mut Files, name: &str) -> io::Result<&'a mut Content> {
        files.engine.get_mut(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl StorageBackend for Open {
    fn len(&self) -> io::Result<u64> {
        self.with(|files, name| Ok(Self::content(files, name)?.current.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|files, name| {
            let current = &Self::content(files, name)?.current;
            let offset = at(offset);
            let found = current.get(offset..offset + out.len());
            out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|files, name| {
            let is_on = files.count();
            let content = Self::content(files, name)?;
            content.current.resize(at(len), 0);
            if is_on {
                content.pending.push(Pending::Length(len));
            }
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|files, name| {
            if files.faults.sync {
                return Err(io::Error::other("sync fails"));
            }
            if files.is_dark() {
                return Ok(());
            }
            let content = Self::content(files, name)?;
            for pending in std::mem::take(&mut content.pending) {
                match pending {
                    Pending::Length(len) => content.durable.resize(at(len), 0),
                    Pending::Write(offset, data) => {
                        write_at(&mut content.durable, at(offset), &data);
                    }
                }
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|files, name| {
            let end = offset + data.len() as u64;
            let is_header = offset == 0;
            let has_room = files.faults.room.is_none_or(|room| end <= room);
            if !is_header && (files.faults.no_room || !has_room) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if files.faults.write {
                return Err(io::Error::other("write fails"));
            }
            let is_on = files.count();
            let poison = files.faults.poison.unwrap_or(data);
            if poison != data && data.windows(poison.len()).any(|part| part == poison) {
                files.faults.sync = true;
            }
            let content = Self::content(files, name)?;
            write_at(&mut content.current, at(offset), data);
            if is_on {
                content.pending.push(Pending::Write(offset, data.to_vec()));
            }
            Ok(())
        })
    }
}

/// What a disk writes all or nothing of.
const SECTOR: usize = 512;
