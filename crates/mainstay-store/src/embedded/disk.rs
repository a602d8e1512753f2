//! What stands between the engine and its file, and knows what came of every write.
//!
//! The engine stops working altogether after an error, reads included. A store that can no longer
//! write should still be read, so the engine is never told: from the first error on, *nothing* more
//! reaches the file, and what the engine writes goes to memory, where it finds it again. The
//! committer asks afterwards ([`Disk::halt`]) and publishes nothing. What is kept in memory is
//! bounded by the one commit under way: none follows.
//!
//! This also makes a full disk harmless. A commit has two phases: it writes its pages and, in the
//! header, a slot that does not count yet; syncs; then makes that slot the one that counts. As long
//! as the first phase has not been synced the file still holds the state before the commit, whole;
//! opened again, that is what it says.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;
use redb::StorageBackend;

/// Why nothing more is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// There is no room, and the file is as it was before the commit.
    Full(String),
    /// What is in the file is not known.
    Failed(String),
}

/// The engine's file.
#[derive(Debug)]
pub(super) struct Disk {
    file: Box<dyn StorageBackend>,
    halted: AtomicBool,
    shadow: RwLock<Option<Shadow>>,
    /// Whether the commit under way has written to the header.
    header_written: AtomicBool,
    /// Whether it has synced that: from then on it may have happened.
    sealed: AtomicBool,
    len: AtomicU64,
}

/// What is believed to be in the file, but is not.
#[derive(Debug)]
struct Shadow {
    cause: Halt,
    len: u64,
    /// In the order they came; later ones lie over earlier ones.
    writes: Vec<(u64, Vec<u8>)>,
}

impl Disk {
    pub(super) fn new(file: Box<dyn StorageBackend>) -> io::Result<Self> {
        let len = AtomicU64::new(file.len()?);
        Ok(Self {
            file,
            halted: AtomicBool::new(false),
            shadow: RwLock::new(None),
            header_written: AtomicBool::new(false),
            sealed: AtomicBool::new(false),
            len,
        })
    }

    /// A commit begins.
    pub(super) fn begin(&self) {
        self.header_written.store(false, Ordering::SeqCst);
        self.sealed.store(false, Ordering::SeqCst);
    }

    /// Why nothing more is written, if so.
    pub(super) fn halt(&self) -> Option<Halt> {
        self.shadow.read().as_ref().map(|shadow| shadow.cause.clone())
    }

    /// Bytes of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// Does `write` on the file, or, once that has failed, on its shadow.
    fn change(
        &self,
        what: Step,
        write: impl FnOnce(&dyn StorageBackend) -> io::Result<()>,
        instead: impl FnOnce(&mut Shadow),
    ) {
        if !self.halted.load(Ordering::SeqCst) {
            let Err(error) = write(&*self.file) else { return };
            self.stop(what, &error);
        }
        if let Some(shadow) = &mut *self.shadow.write() {
            instead(shadow);
        }
    }

    fn stop(&self, step: Step, error: &io::Error) {
        let why = format!("{}: {error}", step.as_str());
        let no_room =
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        // After a failed sync the kernel may have dropped what it could not write, whatever the
        // reason: that is never merely "full".
        let is_whole =
            matches!(step, Step::Write | Step::Resize) && !self.sealed.load(Ordering::SeqCst);
        let cause = if no_room && is_whole { Halt::Full(why) } else { Halt::Failed(why) };
        let mut shadow = self.shadow.write();
        if shadow.is_none() {
            *shadow = Some(Shadow { cause, len: self.bytes(), writes: Vec::new() });
        }
        self.halted.store(true, Ordering::SeqCst);
    }
}

/// What the engine asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Write,
    WriteHeader,
    Resize,
    Sync,
}

impl Step {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::WriteHeader => "write of the header",
            Self::Resize => "resize",
            Self::Sync => "sync",
        }
    }
}

/// The engine's handle of a [`Disk`].
#[derive(Debug)]
pub(super) struct Handle(pub(super) Arc<Disk>);

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        match &*self.0.shadow.read() {
            Some(shadow) => Ok(shadow.len),
            None => self.0.file.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if !self.0.halted.load(Ordering::SeqCst) {
            return self.0.file.read(offset, out);
        }
        let shadow = self.0.shadow.read();
        let there = self.0.file.len()?.saturating_sub(offset);
        let there = usize::try_from(there).unwrap_or(usize::MAX).min(out.len());
        out.fill(0);
        if let Some(part) = out.get_mut(..there) {
            self.0.file.read(offset, part)?;
        }
        for (start, bytes) in shadow.iter().flat_map(|shadow| &shadow.writes) {
            lay_over(offset, out, *start, bytes);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.change(Step::Resize, |file| file.set_len(len), |shadow| shadow.len = len);
        if !self.0.halted.load(Ordering::SeqCst) {
            self.0.len.store(len, Ordering::Relaxed);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.change(Step::Sync, StorageBackend::sync_data, |_| ());
        if self.0.header_written.load(Ordering::SeqCst) {
            self.0.sealed.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let is_header = offset < HEADER_BYTES;
        if is_header {
            self.0.header_written.store(true, Ordering::SeqCst);
        }
        self.0.change(
            if is_header { Step::WriteHeader } else { Step::Write },
            |file| file.write(offset, data),
            |shadow| shadow.writes.push((offset, data.to_vec())),
        );
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.0.file.close()
    }
}

/// Copies the part of `bytes`, which lie at `start`, that falls into `out`, which lies at `offset`.
fn lay_over(offset: u64, out: &mut [u8], start: u64, bytes: &[u8]) {
    let near = |distance: u64| usize::try_from(distance).unwrap_or(usize::MAX);
    let (skip_out, skip_bytes) =
        if offset < start { (near(start - offset), 0) } else { (0, near(offset - start)) };
    let into = out.get_mut(skip_out..).unwrap_or_default();
    let from = bytes.get(skip_bytes..).unwrap_or_default();
    for (into, from) in into.iter_mut().zip(from) {
        *into = *from;
    }
}

/// The engine's header lies in the first page of the file.
const HEADER_BYTES: u64 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_laid_over_lands_where_it_belongs() {
        let cases: [(u64, &str); 5] = [
            (8, "cd......"),
            (10, "abcd...."),
            (14, "....abcd"),
            (16, "......ab"),
            (20, "........"),
        ];
        for (start, want) in cases {
            let mut out = *b"........";
            lay_over(10, &mut out, start, b"abcd");
            assert_eq!(std::str::from_utf8(&out).unwrap(), want, "at {start}");
        }
    }
}
