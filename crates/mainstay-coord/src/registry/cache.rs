//! The last list of each service, on disk.
//!
//! A client that starts while the registry is away begins with these, whatever their age. A file
//! is written beside and renamed, so it is whole or not there; a checksum tells one that the disk
//! has spoiled, which is then as good as none.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_core::name::ServiceName;
use mainstay_store::Revision;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::instance::Instance;
use super::view::{Listed, View};
use crate::health::Health;
use crate::keys::ServiceRef;
use crate::name::{InstanceId, Namespace};

/// Largest file that is read: 10,000 instances of 6 KiB.
const BYTES_MAX: u64 = 64 << 20;

/// The folder of the lists.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

/// A list as it was saved.
#[derive(Clone, Debug, PartialEq)]
pub struct Cached {
    /// The list; stale since it was saved.
    pub view: View,
    /// When it was saved, by the wall clock.
    pub saved_unix_ms: u64,
}

/// Why a saved list is not used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It could not be read or written.
    #[error("list of {service} could not be kept on disk")]
    Io {
        /// Of which service.
        service: ServiceRef,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is not what was written.
    #[error("saved list of {service} is damaged: {why}")]
    Damaged {
        /// Of which service.
        service: ServiceRef,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// A file: the list, and what tells whether it is whole.
#[derive(Serialize, Deserialize)]
struct Sheet {
    v: u32,
    saved_unix_ms: u64,
    /// CRC-32C of the list as compact JSON with sorted members, in hexadecimal.
    crc32c: String,
    list: Value,
}

#[derive(Serialize, Deserialize)]
struct List {
    service: String,
    revision: u64,
    instances: Vec<Item>,
}

#[derive(Serialize, Deserialize)]
struct Item {
    id: String,
    health: Health,
    revision: u64,
    record: Instance,
}

impl Cache {
    /// The cache below `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where the list of `service` is kept.
    pub fn path(&self, service: &ServiceRef) -> PathBuf {
        // Neither part can hold a separator, or begin with a dot.
        let folder = self.folder.join("registry").join(service.namespace.as_str());
        folder.join(format!("{}.json", service.name))
    }

    /// Keeps `view`. Blocks; call it at most once a second a service.
    ///
    /// # Errors
    ///
    /// [`CacheError::Io`]; what was kept before is still there.
    pub fn save(&self, view: &View, unix_ms: u64) -> Result<(), CacheError> {
        let path = self.path(&view.service);
        write_whole(&path, &sheet(view, unix_ms))
            .map_err(|source| CacheError::Io { service: view.service.clone(), source })
    }

    /// The list kept of `service`, if one is.
    ///
    /// # Errors
    ///
    /// [`CacheError`].
    pub fn load(&self, service: &ServiceRef) -> Result<Option<Cached>, CacheError> {
        let path = self.path(service);
        let read = || match fs::metadata(&path) {
            Ok(found) if found.len() <= BYTES_MAX => fs::read(&path).map(Some),
            Ok(_) => Ok(Some(Vec::new())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let bytes = read().map_err(|source| CacheError::Io { service: service.clone(), source })?;
        let damaged = |why| CacheError::Damaged { service: service.clone(), why };
        bytes.map(|bytes| cached(service, &bytes).map_err(damaged)).transpose()
    }
}

fn sheet(view: &View, unix_ms: u64) -> Vec<u8> {
    let instances = view.instances.iter().map(|listed| Item {
        id: listed.id.as_str().to_owned(),
        health: listed.health,
        revision: listed.revision.get(),
        record: (*listed.instance).clone(),
    });
    let list = List {
        service: view.service.to_string(),
        revision: view.revision.get(),
        instances: instances.collect(),
    };
    let list = serde_json::to_value(list).expect("text keys and finite numbers are JSON");
    let sheet = Sheet { v: 1, saved_unix_ms: unix_ms, crc32c: checksum(&list), list };
    serde_json::to_vec(&sheet).expect("text keys and finite numbers are JSON")
}

fn cached(service: &ServiceRef, bytes: &[u8]) -> Result<Cached, &'static str> {
    let sheet: Sheet = serde_json::from_slice(bytes).map_err(|_syntax| "it is no list")?;
    if sheet.crc32c != checksum(&sheet.list) {
        return Err("its checksum is wrong");
    }
    let list: List = serde_json::from_value(sheet.list).map_err(|_shape| "it is no list")?;
    if list.service != service.to_string() {
        return Err("it is of another service");
    }
    let listed = |item: Item| {
        let id = InstanceId::new(item.id).ok()?;
        let (instance, revision) = (Arc::new(item.record), Revision::new(item.revision));
        Some(Listed { id, instance, health: item.health, revision })
    };
    let instances: Option<Vec<Listed>> = list.instances.into_iter().map(listed).collect();
    let view = View {
        service: service.clone(),
        revision: Revision::new(list.revision),
        instances: instances.ok_or("it holds no instance id")?,
        protected: None,
        stale_since_unix_ms: Some(sheet.saved_unix_ms),
        resync: false,
        empty_because: None,
    };
    Ok(Cached { view, saved_unix_ms: sheet.saved_unix_ms })
}

fn checksum(list: &Value) -> String {
    let bytes = serde_json::to_vec(list).expect("a value is JSON");
    format!("{:08x}", crc32c::crc32c(&bytes))
}

/// Writes beside, then renames: after a crash the file is the old or the new one.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let beside = path.with_extension(format!("json.{}.new", std::process::id()));
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| fs::rename(&beside, path)) {
        // What was kept before is untouched; the half-written one is of no use.
        drop(fs::remove_file(&beside));
        return Err(error);
    }
    Ok(())
}

/// The services of which a list is kept.
///
/// # Errors
///
/// What the system said.
pub fn services(cache: &Cache) -> io::Result<Vec<ServiceRef>> {
    let mut services = Vec::new();
    let root = match fs::read_dir(cache.folder.join("registry")) {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(services),
        Err(error) => return Err(error),
    };
    for folder in root {
        let folder = folder?;
        let Ok(namespace) = Namespace::new(folder.file_name().to_string_lossy()) else { continue };
        for file in fs::read_dir(folder.path())? {
            let name = file?.file_name();
            let name = name.to_string_lossy();
            let name = name.strip_suffix(".json").and_then(|name| ServiceName::new(name).ok());
            services.extend(name.map(|name| ServiceRef { namespace: namespace.clone(), name }));
        }
    }
    services.sort();
    Ok(services)
}
