//! Files in memory, where a restore is rehearsed.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use redb::StorageBackend;

use super::media::Media;

/// Files that are gone with it.
#[derive(Debug, Default)]
pub(super) struct Ram {
    files: Mutex<BTreeMap<String, Content>>,
}

#[derive(Clone, Debug, Default)]
struct Content(Arc<RwLock<Vec<u8>>>);

impl Ram {
    fn content(&self, name: &str) -> io::Result<Content> {
        self.files.lock().get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Media for Ram {
    fn open(&self, name: &str, create: bool) -> io::Result<Box<dyn StorageBackend>> {
        if create {
            self.files.lock().insert(name.to_owned(), Content::default());
        }
        Ok(Box::new(self.content(name)?))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.files.lock().contains_key(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock();
        let content = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let content = self.content(from)?;
        self.files.lock().insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().remove(name);
        Ok(())
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.files.lock().get(name).map(|content| content.0.read().clone()))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let content = Content(Arc::new(RwLock::new(bytes.to_vec())));
        self.files.lock().insert(name.to_owned(), content);
        Ok(())
    }

    fn free_bytes(&self) -> Option<u64> {
        None
    }
}

impl StorageBackend for Content {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.read().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.read();
        let found = at(offset).and_then(|from| bytes.get(from..from.checked_add(out.len())?));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.write().resize(at(len).ok_or(io::ErrorKind::OutOfMemory)?, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.write();
        let from = at(offset).ok_or(io::ErrorKind::OutOfMemory)?;
        let to = from.checked_add(data.len()).ok_or(io::ErrorKind::OutOfMemory)?;
        if bytes.len() < to {
            bytes.resize(to, 0);
        }
        bytes.get_mut(from..to).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }
}

fn at(offset: u64) -> Option<usize> {
    usize::try_from(offset).ok()
}
